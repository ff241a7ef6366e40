"""Gives back a held part, or asks for the end of a confirmed one."""

import structlog

from intertie.broker.domain.cluster import CANCELLED
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller, Ledger
from intertie.broker.domain.records import Change, Write
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

    async def __call__(self, name: PartName, reason: str, caller: Caller) -> Part:
        await self._ledger.check_leading()
        return await contend(lambda: self._release(name, reason, caller))

    async def _release(self, name: PartName, reason: str, caller: Caller) -> Part:
        found = await known_part(self._ledger, name)
        if found is None:
            raise NotFound(str(name))
        part = found.value
        check_coordinator(part, caller, "Release")
        now = self._clock.now()
        match part.state:
            case PartState.PREPARED:
                raise DecisionPending(part.name)
            case PartState.HELD:
                after = part.move(PartState.RELEASED, now=now, reason=reason or "released")
            case PartState.CONFIRMED:
                after = part.ending(now=now, reason=reason or CANCELLED)
            case _:
                return part
        if after != part:
            write = Write(record=after, read_at=found.revision)
            reach("broker.before_release")
            await self._ledger.commit(Change(writes=(write,)))
            log.info("part.released", part=part.name, state=after.state.name)
            reach("broker.released")
        return after
