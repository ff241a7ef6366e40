"""A site with parts of leases over several sites that may be put aside, and their coordinator
elsewhere, of which it hears late or never."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from intertie.broker.domain.decision import Decision, OpenedReceipt, Outcome, ReceiptBody
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.giving_way import allotted_before_others, writes_of
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import Allotment
from intertie.broker.domain.queueing import stretches_over
from intertie.broker.domain.recalling import allotted, keeping_of
from intertie.broker.domain.records import Change
from intertie.broker.domain.renegotiating import Asked, held, resolved, shrunk
from intertie.common.errors import DecisionInvalid, FieldInvalid, NoCapacity, PartOver
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec, Recallable
from intertie.common.values import replace
from tests.unit.broker.line import saved_part, view, with_records, written
from tests.unit.broker.samples import COORDINATOR, POLICY, WHOLE, facts, part_spec, workspace
from tests.unit.broker.samples import NOW as BEGIN

HOSTS = ("n1", "n2")
COUNTS = st.sampled_from((1, 2, 4, 6, 8, 8, 8))
"""Of which all that the site has is often asked for, so that somebody has to give way."""
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)

SMALL = replace(WHOLE, disk_mib=1300)
"""Disk for five guests with their memory; all vCPUs are promised for four."""
FLEET = Fleet.of(
    [facts(each, capacity=SMALL, report_time=BEGIN + timedelta(days=9)) for each in HOSTS], POLICY
)


class CoordinatedSite(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self.view: LedgerView = replace(view([]), fleet=FLEET)
        self.number = 0
        self.terms: dict[str, int] = {}
        """By part, as its coordinator has counted them."""
        self.lasts: dict[str, timedelta] = {}
        """By part, what was left to run when its window began."""

    @rule(count=COUNTS, minutes=st.integers(1, 20), keep=st.integers(1, 60))
    def hold(self, count: int, minutes: int, keep: int) -> None:
        self._hold_recallable(count, minutes, Recallable(keep_for=keep * MINUTE))

    @rule(
        count=COUNTS,
        minutes=st.integers(1, 20),
        later=st.none() | st.integers(0, 40),
        longer=st.integers(1, 4),
    )
    def hold_with_a_deadline(
        self, count: int, minutes: int, later: int | None, longer: int
    ) -> None:
        """With or without room to go on in."""
        promised = None
        end = self.now + minutes * MINUTE
        if later is not None:
            start = end + later * MINUTE
            end = start + (minutes + longer) * MINUTE
            promised = Window(start, end)
        self._hold_recallable(
            count, minutes, Recallable(keep_for=timedelta(), deadline=end, promised=promised)
        )

    def _hold_recallable(self, count: int, minutes: int, terms: Recallable) -> None:
        name = f"t{self._next()}"
        asked = part_spec(
            *(workspace(index=each) for each in range(count)),
            window=Window(self.now, self.now + minutes * MINUTE),
        )
        asked = replace(
            asked, cluster=f"metascheds/meta/tenants/demo/clusters/{name}", recallable=terms
        )
        aside: tuple[GivesWay, ...] = ()
        try:
            if terms.deadline is None:
                found = allotted(asked, self.view, POLICY, tenant="demo", now=self.now)
            else:
                found, aside = allotted_before_others(
                    asked, self.view, POLICY, tenant="demo", now=self.now, alone=True
                )
        except NoCapacity:
            return
        keeping = keeping_of(found, self.view, POLICY)
        self._aside(aside)
        self._put_new(
            name,
            found,
            gateway=found.gateway,
            tx=name,
            coordinator=COORDINATOR,
            keeping=keeping,
        )

    @rule(data=st.data(), earlier_s=st.integers(-300, 30))
    def agree_on_an_end(self, data: st.DataObject, earlier_s: int) -> None:
        """That of this site, an earlier one of another, of which this one hears late, or one from
        before this site recalled it once more."""
        part = self._drawn(data, lambda each: each.amend is None)
        if part is None:
            return
        end = (part.recalled_end or min(part.window.end, self.now)) - earlier_s * SECOND
        if not part.window.start < end:
            return
        at, recalled = min(end, part.window.end), part.recalled_end
        terms = part.spec.recallable
        assert terms is not None
        if not terms.may_be_put_aside:
            assert recalled is None
            return
        asked = replace(
            part.spec,
            window=Window(part.window.start, end),
            recallable=replace(terms, put_aside=True),
        )
        decision = self._decision(Outcome.COMMIT)
        number = self.terms[part.name]
        try:
            after = shrunk(part, decision, number, asked, None, self.view, POLICY, now=self.now)
        except PartOver:
            return
        except DecisionInvalid:
            assert recalled is None, "it would run for longer"
            assert end > part.window.end
            return
        assert after.terms == number + 1
        assert after.window.end == at
        assert after.recalled_end == (recalled if at < end else None), "it is to be agreed on yet"
        assert after.ends >= min(part.ends, at + terms.keep_for), "what is counted is kept"
        assert terms.promised is None or after.ends == terms.promised.end
        self._put(after)
        again = shrunk(after, decision, number, asked, None, self.view, POLICY, now=self.now)
        assert again is after, "as a message may come twice"
        self.terms[part.name] += 1

    @rule(data=st.data(), minutes=st.integers(1, 20))
    def ask_to_go_on(self, data: st.DataObject, minutes: int) -> None:
        part = self._drawn(data, lambda each: each.amend is None)
        if part is None:
            return
        terms = part.spec.recallable
        assert terms is not None
        window = Window(self.now, self.now + minutes * MINUTE)
        if terms.promised is not None and window.end > terms.promised.start:
            terms = replace(terms, promised=None)
            if window.end > part.ends:
                return
        self._ask_to_go_on(part, window, terms)

    @rule(data=st.data())
    def go_on_as_promised(self, data: st.DataObject) -> None:
        """All that was put aside for it, it gets."""

        def is_due(part: Part) -> bool:
            terms = part.spec.recallable
            return (
                terms is not None
                and terms.promised is not None
                and terms.put_aside
                and part.recalled_end is None
                and part.amend is None
                and part.state is PartState.CONFIRMED
            )

        part = self._drawn(data, is_due)
        terms = part.spec.recallable if part is not None else None
        if part is None or terms is None or terms.promised is None:
            return
        promised = terms.promised
        self.wait(max(1, -(-(promised.start - self.now) // SECOND)))
        part = self.view.parts[part.name].value
        if not promised.contains(self.now):
            return
        went_on = replace(terms, promised=None)
        self._ask_to_go_on(part, Window(self.now, promised.end), went_on)
        assert self.view.parts[part.name].value.bound, "there is room for it"

    def _ask_to_go_on(self, part: Part, window: Window, terms: Recallable) -> None:
        number = self.terms[part.name]
        recallable = replace(terms, put_aside=False)
        asked = self._asked(number, replace(part.spec, window=window, recallable=recallable))
        try:
            self._put(held(part, asked, self.view, POLICY, now=self.now))
        except FieldInvalid:
            assert not terms.put_aside or part.window.end > self.now
        except (NoCapacity, PartOver):
            return

    @rule(data=st.data(), commits=st.booleans())
    def decide(self, data: st.DataObject, commits: bool) -> None:
        """However late."""
        part = self._drawn(data, lambda each: each.amend is not None)
        if part is None or part.amend is None:
            return
        amend = part.amend
        receipts = tuple(
            OpenedReceipt(
                signer=site,
                body=ReceiptBody(
                    tx=amend.tx,
                    digest="d",
                    site=site,
                    part=part.name.replace("north", site),
                    state=PartState.PREPARED,
                    sign_time=self.now,
                    terms=amend.replaces + 1,
                ),
            )
            for site in amend.participants
        )
        decision = self._decision(Outcome.COMMIT if commits else Outcome.ABORT, amend.tx)
        told = receipts if commits else ()
        after = resolved(part, amend, decision, told, None, now=self.now)
        self._put(after)
        if commits:
            self.terms[part.name] += 1
            self.lasts[part.name] = after.window.duration - (
                after.keeping.restore if after.keeping else timedelta()
            )
            assert after.keeping is not None
            assert after.keeping.until is None

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND
        for each in [one.value for one in self.view.recallables()]:
            if each.window.end <= self.now:
                self.view = saved_part(self.view, each)
        for change in list(stretches_over(self.view, now=self.now)):
            self.view = written(self.view, change)
        for found in [*self.view.parts.values()]:
            part = found.value
            if part.counted and self.now >= part.ends and not part.bound:
                over = PartState.ENDED
                if part.state is PartState.PREPARED:
                    over = PartState.RELEASED
                self._put(part.move(over, now=self.now))

    def _asked(self, replaces: int, spec: PartSpec) -> Asked:
        return Asked(
            tx=f"a{self._next()}",
            digest="d",
            participants=("north", "south"),
            replaces=replaces,
            spec=spec,
            decide_by=self.now + 20 * SECOND,
            ttl=MINUTE,
            prepare=True,
        )

    def _put_new(self, name: str, found: Allotment, **changes: Any) -> None:
        values = {"state": PartState.CONFIRMED, "seed": "", "owner": "alice", **changes}
        self._put(
            Part(
                name=f"sites/north/tenants/demo/parts/{name}",
                spec=found.spec,
                create_time=self.now,
                placed=found.placed,
                **values,
            )
        )

    def _put(self, part: Part) -> None:
        if part.coordinator:
            self.terms.setdefault(part.name, part.terms)
            self.lasts.setdefault(part.name, part.window.duration)
        self.view = with_records(self.view, part)

    def _aside(self, aside: tuple[GivesWay, ...]) -> None:
        self.view = written(self.view, Change(writes=tuple(writes_of(aside, now=self.now))))

    def _decision(self, outcome: Outcome, tx: str = "") -> Decision:
        return Decision(
            tx=tx or f"s{self._next()}", outcome=outcome, digest="d", decided_by=COORDINATOR
        )

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _drawn(self, data: st.DataObject, such: Callable[[Part], bool]) -> Part | None:
        found = [each.value for each in self.view.recallables() if such(each.value)]
        return data.draw(st.sampled_from(found)) if found else None
