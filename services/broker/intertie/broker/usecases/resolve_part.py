"""APPLY: a decision moves a part, and nothing else moves a prepared one."""

import structlog

from intertie.broker.domain.decision import Decision, Outcome, applied, check
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Caller, Ledger, Notary
from intertie.broker.domain.records import Change, Write
from intertie.broker.usecases.admission import contend, known_part
from intertie.broker.usecases.prepare_part import check_coordinator
from intertie.common.clock import Clock
from intertie.common.errors import NotFound
from intertie.common.names import PartName
from intertie.common.points import reach

log = structlog.get_logger(__name__)


class ResolvePart:
    def __init__(self, ledger: Ledger, notary: Notary, clock: Clock) -> None:
        self._ledger = ledger
        self._notary = notary
        self._clock = clock

    async def __call__(self, name: PartName, decision: Decision, caller: Caller) -> Part:
        """Of the coordinator itself, known by its certificate."""
        await self._ledger.check_leading()
        return await contend(lambda: self._apply(name, decision, caller))

    async def read_from_register(self, name: PartName, decision: Decision) -> Part:
        """A decision that this site has read from the coordinator's register itself."""
        return await contend(lambda: self._apply(name, decision, None))

    async def _apply(self, name: PartName, decision: Decision, caller: Caller | None) -> Part:
        found = await known_part(self._ledger, name)
        if found is None:
            raise NotFound(str(name))
        part = found.value
        if caller is not None:
            check_coordinator(part, caller, "Resolve")
        commits = decision.outcome is Outcome.COMMIT
        receipts = tuple(self._notary.open(each) for each in decision.receipts) if commits else ()
        check(part, decision, receipts)
        now = self._clock.now()
        after = applied(part, decision, receipts, site=name.site, now=now)
        if after != part:
            write = Write(record=after, read_at=found.revision)
            reach("broker.before_resolve")
            await self._ledger.commit(Change(writes=(write,)))
            log.info("part.resolved", part=part.name, tx=part.tx, state=after.state.name)
            reach("broker.resolved")
        return after
