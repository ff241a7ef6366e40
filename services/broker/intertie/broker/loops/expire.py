"""Lets go of holds whose time is over, of parts and of other terms for them: HELD to EXPIRED, and
nothing else."""

import structlog

from intertie.broker.domain.part import PartState
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.terms import AmendState
from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite

log = structlog.get_logger(__name__)


class Expire:
    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Losing to a PREPARE that came first is as it should be."""
        for found in (await self._ledger.view()).undecided():
            part, now = found.value, self._clock.now()
            if part.amend is not None and part.amend_expired(now=now):
                tx, over = part.amend.tx, part.let_go(AmendState.EXPIRED)
            elif part.expired(now=now):
                tx, over = part.tx, part.move(PartState.EXPIRED, now=now, reason="the hold ran out")
            else:
                continue
            try:
                write = Write(record=over, read_at=found.revision)
                await self._ledger.commit(Change(writes=(write,)))
            except StaleWrite:
                log.debug("expire.lost_race", part=part.name)
            else:
                log.info("expire.expired", part=part.name, tx=tx)
