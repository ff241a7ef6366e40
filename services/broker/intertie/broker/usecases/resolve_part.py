"""APPLY: a decision moves a part, and nothing else moves a prepared one."""

import structlog

from intertie.broker.domain.decision import Decision, Outcome, applied, check
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Caller, Ledger, Notary
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.renegotiating import resolved, shrunk, was_applied
from intertie.broker.usecases.admission import contend, known_part
from intertie.broker.usecases.prepare_part import check_coordinator
from intertie.common.clock import Clock
from intertie.common.errors import NotFound
from intertie.common.names import PartName
from intertie.common.part_spec import PartSpec
from intertie.common.points import reach
from intertie.common.values import Struct

log = structlog.get_logger(__name__)


class Terms(Struct, frozen=True, kw_only=True):
    """That a COMMIT for which no site was asked puts in force."""

    replaces: int
    spec: PartSpec


class ResolvePart:
    def __init__(self, ledger: Ledger, notary: Notary, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._notary = notary
        self._policy = policy
        self._clock = clock

    async def __call__(
        self, name: PartName, decision: Decision, caller: Caller, terms: Terms | None = None
    ) -> Part:
        """Of the coordinator itself, known by its certificate."""
        await self._ledger.check_leading()
        return await contend(lambda: self._apply(name, decision, caller, terms))

    async def read_from_register(self, name: PartName, decision: Decision) -> Part:
        """A decision that this site has read from the coordinator's register itself."""
        return await contend(lambda: self._apply(name, decision, None, None))

    async def _apply(
        self, name: PartName, decision: Decision, caller: Caller | None, terms: Terms | None
    ) -> Part:
        found = await known_part(self._ledger, name)
        if found is None:
            raise NotFound(str(name))
        part = found.value
        if caller is not None:
            check_coordinator(part, caller, "Resolve")
        view = await self._ledger.view()
        after = self._after(part, decision, terms, view)
        if after == part:
            return part
        write = Write(record=after, read_at=found.revision)
        amends = part.tx != decision.tx
        if amends:
            reach("broker.before_amend_resolved")
        else:
            reach("broker.before_resolve")
        # What is kept after a window for longer than was counted is admitted as all else is.
        longer = terms is not None and after.ends > part.ends
        admitted_on = view.generation if longer else None
        await self._ledger.commit(Change(writes=(write,), admitted_on=admitted_on))
        log.info(
            "part.resolved",
            part=part.name,
            tx=decision.tx,
            outcome=decision.outcome.name,
            state=after.state.name,
            terms=after.terms,
        )
        if amends:
            reach("broker.amend_resolved")
        else:
            reach("broker.resolved")
        return after

    def _after(self, part: Part, decision: Decision, terms: Terms | None, view: LedgerView) -> Part:
        """The part once the decision is applied, whatever agreement of it that is on."""
        now = self._clock.now()
        found = view.accounts.get(part.name)
        account = found.value if found else None
        if terms is not None:
            return shrunk(
                part, decision, terms.replaces, terms.spec, account, view, self._policy, now=now
            )
        commits = decision.outcome is Outcome.COMMIT
        receipts = tuple(self._notary.open(each) for each in decision.receipts) if commits else ()
        amend = part.amend
        if amend is not None and amend.tx == decision.tx:
            return resolved(part, amend, decision, receipts, account, now=now)
        another = part.tx and decision.tx != part.tx
        aborts = decision.outcome is Outcome.ABORT
        if another and (aborts or (commits and was_applied(part, decision, receipts))):
            return part
        check(part, decision, receipts)
        return applied(part, decision, receipts, site=part.path.site, now=now)
