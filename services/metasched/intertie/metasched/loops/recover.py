"""Finds transactions that nobody is at work on, and has them decided."""

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.metasched.domain.cluster import PENDING
from intertie.metasched.domain.commit import Outcome, TxRecord, abort_of
from intertie.metasched.domain.ports import Clusters, Register
from intertie.metasched.usecases.create_cluster import discard
from intertie.metasched.usecases.telling import Underway

log = structlog.get_logger(__name__)


class Recover:
    """A coordinator that comes back has no receipts, so it may only race to ABORT; a COMMIT
    that stands wrote its cluster in the same transaction."""

    def __init__(
        self, clusters: Clusters, register: Register, underway: Underway, clock: Clock
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._underway = underway
        self._clock = clock

    async def sweep(self) -> None:
        """One pass: read, decide, write."""
        for tx in await self._register.transactions():
            if tx.cluster not in self._underway:
                await self._recover(tx)
        for stored in await self._clusters.listed():
            name = stored.record.name
            if stored.record.amend is not None and name not in self._underway:
                await self._clear_amend(name, stored.record.amend.tx)
            if stored.record.state in PENDING and name not in self._underway:
                await self._clear(name, stored.record.tx)

    async def _recover(self, tx: TxRecord) -> None:
        if await self._register.decision(tx.tx) is not None:
            return
        stands = await self._register.abort(
            abort_of(
                tx.tx,
                by=tx.coordinator,
                reason="its coordinator stopped before it had decided",
                now=self._clock.now(),
                digest=tx.digest,
            )
        )
        log.info("recover.decided", tx=tx.tx, outcome=stands.outcome.name)

    async def _clear_amend(self, name: str, tx: str) -> None:
        """Of an amend that was aborted nothing stays: the old terms stand, as they did."""
        decision = await self._register.decision(tx)
        if decision is None or decision.outcome is not Outcome.ABORT:
            return
        stored = await self._clusters.get(name)
        if stored is None or stored.record.amend is None or stored.record.amend.tx != tx:
            return
        try:
            await self._clusters.clear(stored)
            log.info("recover.cleared", cluster=name, tx=tx)
        except StaleWrite:
            log.debug("recover.lost_race", cluster=name)

    async def _clear(self, name: str, tx: str) -> None:
        """A cluster whose co-allocation was aborted is not kept, unless it was cancelled."""
        decision = await self._register.decision(tx)
        if decision is None or decision.outcome is Outcome.COMMIT:
            return
        stored = await self._clusters.get(name)
        if stored is None or stored.record.tx != tx or name in self._underway:
            return
        try:
            await discard(self._clusters, stored, now=self._clock.now())
            log.info("recover.discarded", cluster=name, tx=tx)
        except StaleWrite:
            log.debug("recover.lost_race", cluster=name)
