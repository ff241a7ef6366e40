"""However parts of leases over several sites are put aside by their site, by their coordinator,
late or never, and go on or do not: no host is promised more than it has, numbers of terms are
the coordinator's, and what one with a deadline was promised it gets.

What hosts are promised is counted here, workspace by workspace, and shares nothing with the
ledger's counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from intertie.broker.domain.decision import Decision, OpenedReceipt, Outcome, ReceiptBody
from intertie.broker.domain.difference import with_terms
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.giving_way import (
    GivesWay,
    allotted_before_others,
    draft_before_others,
    writes_of,
)
from intertie.broker.domain.growing import amended_before_others, more_than
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.offers import Offer, offers_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.queueing import stretches_over
from intertie.broker.domain.recalling import allotted, keeping_of
from intertie.broker.domain.records import Change
from intertie.broker.domain.renegotiating import Asked, held, resolved, shrunk
from intertie.broker.domain.stretches import TICK
from intertie.common.errors import DecisionInvalid, FieldInvalid, NoCapacity, PartOver
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.part_spec import PartSpec, Recallable
from intertie.common.spec import LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.line import name_of, view, written
from tests.unit.broker.recalling import saved_part
from tests.unit.broker.samples import COORDINATOR, POLICY, WHOLE, facts, part_spec, workspace
from tests.unit.broker.samples import NOW as BEGIN
from tests.unit.broker.standing import group, spec

HOSTS = ("n1", "n2")
COUNTS = st.sampled_from((1, 2, 4, 6, 8, 8, 8))
"""Of which all that the site has is often asked for, so that somebody has to give way."""
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


SMALL = replace(WHOLE, disk_mib=1300)
"""Disk for five guests with their memory; all vCPUs are promised for four."""
FLEET = Fleet.of(
    [facts(each, capacity=SMALL, report_time=BEGIN + timedelta(days=9)) for each in HOSTS], POLICY
)


class Site(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self.view: LedgerView = replace(view([]), fleet=FLEET)
        self.number = 0
        self.terms: dict[str, int] = {}
        """By part, as its coordinator has counted them."""
        self.lasts: dict[str, timedelta] = {}
        """By part, what was left to run when its window began."""

    # A coordinator elsewhere.

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
        self.view = written(self.view, Change(writes=tuple(writes_of(aside, now=self.now))))
        self._put(
            Part(
                name=f"sites/north/tenants/demo/parts/{name}",
                state=PartState.CONFIRMED,
                spec=found.spec,
                owner="alice",
                create_time=self.now,
                seed="",
                placed=found.placed,
                gateway=found.gateway,
                tx=name,
                coordinator=COORDINATOR,
                keeping=keeping,
            )
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
        asked = Asked(
            tx=f"a{self._next()}",
            digest="d",
            participants=("north", "south"),
            replaces=number,
            spec=replace(
                part.spec,
                window=window,
                recallable=replace(terms, put_aside=False),
            ),
            decide_by=self.now + 20 * SECOND,
            ttl=MINUTE,
            prepare=True,
        )
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

    @rule(count=COUNTS, minutes=st.integers(1, 20), ahead_s=st.integers(0, 900))
    def hold_one_that_does_not_wait(self, count: int, minutes: int, ahead_s: int) -> None:
        name, start = f"t{self._next()}", self.now + ahead_s * SECOND
        asked = part_spec(
            *(workspace(index=each) for each in range(count)),
            window=Window(start, start + minutes * MINUTE),
        )
        with suppress(NoCapacity):
            self._hold(name, asked)

    @rule(data=st.data(), minutes=st.integers(1, 20), ahead_s=st.integers(0, 30))
    def hold_what_is_offered(self, data: st.DataObject, minutes: int, ahead_s: int) -> None:
        """On one host, at any moment or at one that the site has said: if that is decided at once,
        it is to be had. But for disk for those put aside, which others may have been promised."""
        span = minutes * MINUTE
        first = self._offered(Window(self.now, self.now + span))
        starts = (self.now + ahead_s * SECOND, *first.room_from)
        start = data.draw(st.sampled_from(starts))
        window = Window(start, start + span)
        offer = self._offered(window)
        count = max(min(host.free.vcpus, host.free.disk_mib // 128) for host in offer.hosts)
        if not count:
            return
        asked = part_spec(*(workspace(index=each) for each in range(count)), window=window)
        parts = [each.value for each in self.view.parts.values() if each.value.counted]
        try:
            self._hold(f"t{self._next()}", asked)
        except NoCapacity:
            assert any(each.window.start > self.now for each in parts)

    def _offered(self, window: Window) -> Offer:
        [offer] = offers_of(self.view, POLICY, (window,), (), now=self.now, before_others=True)
        return offer

    def _hold(self, name: str, asked: PartSpec) -> None:
        found, aside = allotted_before_others(
            asked, self.view, POLICY, tenant="demo", now=self.now, alone=True
        )
        for each in aside:
            after = each.after
            assert after.keeping is not None
            saved = after.window.end + after.keeping.save
            assert saved <= asked.window.start + TICK, "by then, as near as it may have just begun"
        self._aside(aside)
        self._put(
            Part(
                name=f"sites/north/tenants/demo/parts/{name}",
                state=PartState.PREPARED,
                spec=found.spec,
                owner="alice",
                create_time=self.now,
                seed="",
                placed=found.placed,
                tx=name,
            )
        )

    # Users of this site, and time.

    @rule(count=COUNTS, minutes=st.integers(1, 20), ahead_s=st.integers(0, 900))
    def admit(self, count: int, minutes: int, ahead_s: int) -> None:
        start = self.now + ahead_s * SECOND if ahead_s else None
        lease = LeaseTerms(start_time=start, duration=minutes * MINUTE)
        asked = normalise(spec(group(count=count), lease=lease), now=self.now)
        name = f"c{self._next()}"
        try:
            found = draft_before_others(
                ClusterName.parse(name_of(name)), name, asked, self.view, POLICY, now=self.now
            )
        except NoCapacity:
            return
        for each in found.aside:
            before = each.part.value
            assert each.after.recalled_end == each.after.window.end < before.window.end
            self._check_in_time(each.after)
            assert each.after.terms == before.terms
            assert before.amend is None, "what is asked for it is decided first"
        self._aside(found.aside)
        self._put(
            Part(
                name=f"sites/north/tenants/demo/parts/{name}",
                state=PartState.CONFIRMED,
                spec=found.draft.allotment.spec,
                owner="alice",
                create_time=self.now,
                seed="",
                placed=found.draft.allotment.placed,
            )
        )

    @rule(data=st.data(), longer=st.integers(0, 10), more=st.integers(0, 3))
    def ask_for_more(self, data: st.DataObject, longer: int, more: int) -> None:
        """Of one that does not wait: longer, larger, or both. Held and decided at once."""
        part = self._drawn_plain(data)
        if part is None:
            return
        window = Window(part.window.start, part.window.end + longer * MINUTE)
        there = part.spec.workspaces
        new = tuple(workspace(index=len(there) + each) for each in range(more))
        asked = Asked(
            tx=f"a{self._next()}",
            digest="d",
            participants=("north", "south"),
            replaces=part.terms,
            spec=replace(part.spec, window=window, workspaces=(*there, *new)),
            decide_by=self.now + 20 * SECOND,
            ttl=MINUTE,
            prepare=True,
        )
        moments = more_than(part.spec, asked.spec, now=self.now)

        def attempt(view: LedgerView) -> Part:
            return held(part, asked, view, POLICY, now=self.now)

        try:
            after, aside = amended_before_others(attempt, moments, self.view, POLICY, now=self.now)
        except NoCapacity as error:
            said = [each for each in error.shortfalls if "cluster of its own" in each.message]
            assert not said or more, "of one that is to last longer others are saved in time"
            return
        except PartOver:
            return
        since = max(self.now, part.window.start) if more else part.window.end
        for each in aside:
            keeping = each.after.keeping
            assert keeping is not None
            assert each.after.window.end + keeping.save <= since or longer
            assert each.after.window.end + keeping.save <= part.window.end
        amend = after.amend
        assert amend is not None
        self._aside(aside)
        self._put(with_terms(replace(after, amend=None), amend.spec, amend.placed))

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

    @invariant()
    def no_host_is_promised_more_than_it_has(self) -> None:
        parts = [each.value for each in self.view.parts.values() if each.value.counted]
        for at in {self.now, *(each for each in self._moments(parts) if each >= self.now)}:
            for host in HOSTS:
                promised = [self._promised(part, host, at) for part in parts]
                assert sum(vcpus for vcpus, _ in promised) <= SMALL.vcpus, (host, at)
                assert sum(disk for _, disk in promised) <= SMALL.disk_mib, (host, at)

    @invariant()
    def terms_are_counted_by_their_coordinator(self) -> None:
        for name, number in self.terms.items():
            assert self.view.parts[name].value.terms == number

    def _promised(self, part: Part, host: str, at: datetime) -> tuple[int, int]:
        """vCPUs, and MiB of disk, of which each guest has 128 and as much memory."""
        here = sum(each.host == host for each in part.placed)
        if part.keeping is None:
            return (here, here * 128) if part.window.contains(at) else (0, 0)
        kept = part.keeping.until is not None
        saved = part.window.end + (part.keeping.save if kept else timedelta())
        runs = part.window.start <= at < saved
        again = part.amend is not None and part.amend.spec.window.contains(at)
        promises = [part.spec, *((part.amend.spec,) if part.amend else ())]
        promised = [each.recallable.promised for each in promises if each.recallable]
        later = any(each is not None and each.contains(at) for each in promised)
        disk = 256 if part.keeping.save or part.ends > part.window.end else 128
        if runs or again or later:
            return here, here * disk
        last = max((part.ends, *(each.end for each in promised if each is not None)))
        return (0, here * disk) if part.window.start <= at < last else (0, 0)

    def _check_in_time(self, part: Part) -> None:
        """Of one that its site has just put aside: what is left fits into what is promised."""
        terms, keeping = part.spec.recallable, part.keeping
        assert terms is not None
        assert keeping is not None
        if terms.deadline is None:
            return
        assert terms.promised is not None
        assert part.ends == terms.promised.end <= terms.deadline
        assert terms.promised.start >= part.window.end + keeping.save
        ran = part.window.duration - keeping.restore
        left = self.lasts[part.name] - ran
        assert terms.promised.duration >= keeping.again + left

    def _moments(self, parts: list[Part]) -> Iterator[datetime]:
        for part in parts:
            yield from (part.window.start, part.window.end, part.ends)
            if part.keeping is not None:
                yield part.window.end + part.keeping.save
            for each in (part.spec, part.amend.spec if part.amend else part.spec):
                yield from (each.window.start, each.window.end)
                if each.recallable is not None and each.recallable.promised is not None:
                    yield from (each.recallable.promised.start, each.recallable.promised.end)

    def _drawn(self, data: st.DataObject, such: object) -> Part | None:
        assert callable(such)
        found = [each.value for each in self.view.recallables() if such(each.value)]
        return data.draw(st.sampled_from(found)) if found else None

    def _put(self, part: Part) -> None:
        if part.coordinator:
            self.terms.setdefault(part.name, part.terms)
            self.lasts.setdefault(part.name, part.window.duration)
        known = {part.name: Versioned(value=part, revision=1)}
        self.view = replace(self.view, parts={**self.view.parts, **known})

    def _drawn_plain(self, data: st.DataObject) -> Part | None:
        found = [
            each.value
            for each in self.view.parts.values()
            if each.value.keeping is None
            and each.value.state is PartState.CONFIRMED
            and self.now < each.value.window.end
        ]
        return data.draw(st.sampled_from(found)) if found else None

    def _aside(self, aside: tuple[GivesWay, ...]) -> None:
        self.view = written(self.view, Change(writes=tuple(writes_of(aside, now=self.now))))

    def _decision(self, outcome: Outcome, tx: str = "") -> Decision:
        return Decision(
            tx=tx or f"s{self._next()}", outcome=outcome, digest="d", decided_by=COORDINATOR
        )

    def _next(self) -> int:
        self.number += 1
        return self.number


Site.TestCase.settings = settings(max_examples=80, stateful_step_count=24, deadline=None)
TestSite = Site.TestCase


@given(
    data=st.data(),
    plain=st.integers(1, 4),
    minutes=st.integers(3, 8),
    waiting=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    seconds=st.integers(1, 60),
    ahead_s=st.sampled_from((0, 0, 90)),
    longer=st.integers(0, 10),
    more=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_other_terms_of_one_beside_others_that_may_give_way(
    data: st.DataObject,
    plain: int,
    minutes: int,
    waiting: list[int],
    seconds: int,
    ahead_s: int,
    longer: int,
    more: int,
) -> None:
    """As in the machine, where little of it comes together."""
    site = Site()
    site.admit(count=plain, minutes=minutes, ahead_s=ahead_s)
    for count in waiting:
        site.hold(count=count, minutes=20, keep=30)
    site.wait(seconds=seconds)
    for _ in range(2):
        site.ask_for_more(data=data, longer=longer, more=more)
        site.no_host_is_promised_more_than_it_has()
        site.terms_are_counted_by_their_coordinator()
