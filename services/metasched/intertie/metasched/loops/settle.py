"""Brings decisions to sites that have not answered, and takes back what is to end."""

import asyncio
from collections.abc import Sequence

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, NotFound, StaleWrite
from intertie.common.names import PartName
from intertie.common.points import reach
from intertie.metasched.domain.cluster import (
    PART_LOST,
    STANDING,
    ClusterRecord,
    PartSeen,
    priced_in_the_end,
)
from intertie.metasched.domain.commit import LeftPart, TxRecord
from intertie.metasched.domain.ports import Clusters, Register, Sites
from intertie.metasched.loops.refresh import RETENTION
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
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._sites = sites
        self._coallocate = coallocate
        self._parts = parts
        self._underway = underway
        self._clock = clock

    async def sweep(self) -> None:
        """One pass over everything that is not settled; a site that is away costs the others
        one deadline, and is asked again in the next pass."""
        txs = await self._register.transactions()
        of_cluster: dict[str, list[TxRecord]] = {}
        for tx in sorted(txs, key=lambda each: each.order):
            if tx.cluster not in self._underway:
                of_cluster.setdefault(tx.cluster, []).append(tx)
        await asyncio.gather(*(self._settle_in_order(each) for each in of_cluster.values()))
        ending = [
            each.record
            for each in await self._clusters.listed()
            if each.record.state in STANDING and each.record.end_requested_time is not None
        ]
        await asyncio.gather(*(self._release(record) for record in ending))
        await asyncio.gather(*(self._leave(each) for each in await self._register.left()))

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
                self._release_at(record.name, site, part, record.end_reason)
                for site, part in record.parts.items()
                if site not in seen or not (seen[site].over or seen[site].ending)
            )
        )

    async def _leave(self, left: LeftPart) -> None:
        """Of a site that was lost: what it still has of a cluster that does without it ends, once
        it is there again; also when that cluster is over, or another has its name by now."""
        with apart(left.cluster):
            seen = await self._parts.part_at(left.site, left.part)
            if seen is not None and seen.over and await self._billed(left, seen):
                await self._register.forget_left(left.part)
                self._parts.forget_part(left.part)
            elif seen is not None and seen.current and not (seen.over or seen.ending):
                await self._release_at(left.cluster, left.site, left.part, PART_LOST)
            elif self._clock.now() >= left.until + RETENTION:
                await self._register.forget_left(left.part)

    async def _billed(self, left: LeftPart, seen: PartSeen) -> bool:
        """Whether the cluster's record has what the site charges and gives back in the end, or
        there is none of it any more."""
        stored = await self._clusters.get(left.cluster)
        if stored is None or stored.record.uid != left.cluster_uid:
            return True
        after = priced_in_the_end(stored.record, left.site, seen)
        if after == stored.record:
            return True
        try:
            await self._clusters.save(after, read_at=stored.read_at)
        except StaleWrite:
            return False
        return True

    async def _release_at(self, cluster: str, site: str, part: str, reason: str) -> None:
        try:
            await self._sites.release(PartName.parse(part), reason)
        except NotFound:
            return
        except DomainError as error:
            log.info("settle.not_released", cluster=cluster, site=site, problem=str(error))
        else:
            log.info("settle.released", cluster=cluster, site=site)
            reach("metasched.released_one")
