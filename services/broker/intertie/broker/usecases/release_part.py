"""Gives back a held part, or asks for the end of a confirmed one."""

from datetime import datetime

import structlog

from intertie.broker.domain.cluster import CANCELLED
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller, Ledger
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.terms import AmendState
from intertie.broker.usecases.admission import contend, known_part
from intertie.broker.usecases.prepare_part import check_coordinator
from intertie.common.clock import Clock
from intertie.common.errors import DecisionPending, NotFound
from intertie.common.names import PartName
from intertie.common.points import reach

log = structlog.get_logger(__name__)


class ReleasePart:
    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def __call__(self, name: PartName, reason: str, caller: Caller, tx: str = "") -> Part:
        """`tx`: only the other terms that are held for it."""
        await self._ledger.check_leading()
        return await contend(lambda: self._release(name, reason, caller, tx))

    async def _release(self, name: PartName, reason: str, caller: Caller, tx: str) -> Part:
        found = await known_part(self._ledger, name)
        if found is None:
            raise NotFound(str(name))
        part = found.value
        check_coordinator(part, caller, "Release")
        now = self._clock.now()
        if part.bound and (not tx or (part.amend is not None and part.amend.tx == tx)):
            raise DecisionPending(part.name)
        after = _without(part, tx) if tx else _released(part, reason, now)
        if after != part:
            write = Write(record=after, read_at=found.revision)
            reach("broker.before_release")
            await self._ledger.commit(Change(writes=(write,)))
            log.info("part.released", part=part.name, state=after.state.name, tx=tx)
            reach("broker.released")
        return after


def _without(part: Part, tx: str) -> Part:
    held = part.amend is not None and part.amend.tx == tx
    return part.let_go(AmendState.RELEASED) if held else part


def _released(part: Part, reason: str, now: datetime) -> Part:
    match part.state:
        case PartState.PREPARED:
            raise DecisionPending(part.name)
        case PartState.HELD:
            return part.move(PartState.RELEASED, now=now, reason=reason or "released")
        case PartState.CONFIRMED:
            return part.ending(now=now, reason=reason or CANCELLED)
        case _:
            return part
