"""Brings decisions to sites that have not answered, and takes back what is to end."""

import asyncio
from collections.abc import Sequence

import structlog

from intertie.common.errors import DomainError, NotFound
from intertie.common.names import PartName
from intertie.common.points import reach
from intertie.common.values import replace
from intertie.metasched.domain.cluster import PART_LOST, STANDING, ClusterRecord
from intertie.metasched.domain.commit import TxRecord
from intertie.metasched.domain.ports import Clusters, Register, Sites, Stored
from intertie.metasched.usecases.apart import apart
from intertie.metasched.usecases.coallocate import Coallocate
from intertie.metasched.usecases.part_cache import PartCache
from intertie.metasched.usecases.telling import Underway

log = structlog.get_logger(__name__)


class Settle:
    def __init__(
        self,
        clusters: Clusters,
        register: Register,
        sites: Sites,
        coallocate: Coallocate,
        parts: PartCache,
        underway: Underway,
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._sites = sites
        self._coallocate = coallocate
        self._parts = parts
        self._underway = underway
        self._left_none: set[str] = set()
        """Parts of which their sites, which were lost, have said that nothing is left."""

    async def sweep(self) -> None:
        """One pass over everything that is not settled; a site that is away costs the others
        one deadline, and is asked again in the next pass."""
        txs = await self._register.transactions()
        of_cluster: dict[str, list[TxRecord]] = {}
        for tx in sorted(txs, key=lambda each: each.order):
            if tx.cluster not in self._underway:
                of_cluster.setdefault(tx.cluster, []).append(tx)
        await asyncio.gather(*(self._settle_in_order(each) for each in of_cluster.values()))
        stored = await self._clusters.listed()
        ending = [
            each.record
            for each in stored
            if each.record.state in STANDING and each.record.end_requested_time is not None
        ]
        await asyncio.gather(*(self._release(record) for record in ending))
        await self._take_leave(stored)

    async def _settle_in_order(self, txs: Sequence[TxRecord]) -> None:
        """Of one cluster: a site takes terms only in place of those that they were drawn up on."""
        with apart(txs[0].cluster):
            for tx in txs:
                await self._settle(tx.tx)

    async def _settle(self, tx_id: str) -> None:
        tx = await self._register.transaction(tx_id)
        decision = await self._register.decision(tx_id)
        if tx is None or decision is None:
            return
        if await self._coallocate.tell(tx, decision):
            log.info("settle.settled", tx=tx_id, outcome=decision.outcome.name)

    async def _release(self, record: ClusterRecord) -> None:
        """Asks every site for the end that it has not begun."""
        seen = await self._parts.parts_of(record)
        await asyncio.gather(
            *(
                self._release_at(record, site, part)
                for site, part in record.parts.items()
                if site not in seen or not (seen[site].over or seen[site].ending)
            )
        )

    async def _take_leave(self, stored: Sequence[Stored]) -> None:
        """Of sites that were lost: what they still have of a cluster that does without them ends,
        once they are there again."""
        left = {
            part: (each.record, site) for each in stored for site, part in each.record.left.items()
        }
        self._left_none &= left.keys()
        await asyncio.gather(
            *(
                self._leave(record, site, part)
                for part, (record, site) in left.items()
                if part not in self._left_none
            )
        )

    async def _leave(self, record: ClusterRecord, site: str, part: str) -> None:
        seen = await self._parts.last_of(site, part)
        if seen is None or not seen.current:
            return
        if seen.over:
            self._left_none.add(part)
            self._parts.forget_part(part)
        elif not seen.ending:
            await self._release_at(replace(record, end_reason=PART_LOST), site, part)

    async def _release_at(self, record: ClusterRecord, site: str, part: str) -> None:
        try:
            await self._sites.release(PartName.parse(part), record.end_reason)
        except NotFound:
            return
        except DomainError as error:
            log.info("settle.not_released", cluster=record.name, site=site, problem=str(error))
        else:
            log.info("settle.released", cluster=record.name, site=site)
            reach("metasched.released_one")
