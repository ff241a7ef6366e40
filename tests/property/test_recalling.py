"""However parts of leases over several sites are put aside by their site, by their coordinator,
late or never, and go on or do not: no host is promised more than it has, numbers of terms are
the coordinator's, and what one with a deadline was promised it gets."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from intertie.broker.domain.difference import with_terms
from intertie.broker.domain.giving_way import (
    allotted_before_others,
    asked_before_others,
    draft_before_others,
)
from intertie.broker.domain.growing import amended_before_others, more_than, more_than_counted
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.offers import Offer, offers_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.pricing import Flat
from intertie.broker.domain.renegotiating import held
from intertie.broker.domain.stretches import TICK
from intertie.broker.domain.tariff import Tariff
from intertie.broker.site_proto import offer_to_proto
from intertie.common.errors import NoCapacity, PartOver
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.part_spec import PartSpec
from intertie.common.spec import LeaseTerms, normalise
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.convert_parts import offer_from_proto
from intertie.metasched.domain.assemble import assembled
from intertie.metasched.domain.problem import problem_of
from intertie.metasched.domain.site_plan import SitePlan
from tests.property.coordinated_site import COUNTS, HOSTS, MINUTE, SECOND, SMALL, CoordinatedSite
from tests.property.promised import moments_of, promised_of
from tests.unit.broker.line import name_of
from tests.unit.broker.samples import HOUR, POLICY, part_spec, workspace
from tests.unit.broker.standing import group, spec

RATES = Rates(vcpu_hour=1, memory_gib_hour=8, give_way_vcpu_hour=3, give_way_memory_gib_hour=16)
PRICED = replace(POLICY, pricing=Flat(tariff=Tariff(rates=RATES)))


def _planned(asked: PartSpec, offer: Offer) -> SitePlan:
    """An hour of what a meta-scheduler plans by the offer, as it has come to it."""
    counts = {"w": len(asked.workspaces)}
    site = offer.site
    problem = problem_of(
        spec(group(count=counts["w"])),
        (Window(asked.window.start, asked.window.start + HOUR),),
        {site: [offer_from_proto(offer_to_proto(offer))]},
    )
    [planned] = assembled(problem, 0, {site: [counts]}, {}).sites
    return planned


class Site(CoordinatedSite):
    """With users of its own, and holds that others give way to."""

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
        [offer] = offers_of(self.view, PRICED, (window,), (), now=self.now, before_others=True)
        return offer

    def _hold(self, name: str, asked: PartSpec) -> None:
        planned = _planned(asked, self._offered(asked.window))
        found, aside = allotted_before_others(
            asked, self.view, POLICY, tenant="demo", now=self.now, alone=True
        )
        price = asked_before_others(found.spec, aside, self.view, PRICED, now=self.now)
        assert price.hour == pytest.approx(planned.cost)
        assert price.room == planned.room
        assert aside or price.room is None, "nobody is paid for who does not give way"
        for each in aside:
            after = each.after
            assert after.keeping is not None
            saved = after.window.end + after.keeping.save
            assert saved <= asked.window.start + TICK, "by then, as near as it may have just begun"
        self._aside(aside)
        self._put_new(name, found, state=PartState.PREPARED, tx=name)

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
            if each.after != before:  # else it is on its way out already, and is waited for
                assert each.after.recalled_end == each.after.window.end < before.window.end
                self._check_in_time(each.after)
            assert each.after.terms == before.terms
            assert before.amend is None, "what is asked for it is decided first"
        self._aside(found.aside)
        self._put_new(name, found.draft.allotment)

    @rule(data=st.data(), longer=st.integers(0, 10), more=st.integers(0, 3))
    def ask_for_more(self, data: st.DataObject, longer: int, more: int) -> None:
        """Of one that does not wait: longer, larger, or both. Held and decided at once."""
        part = self._drawn_plain(data)
        if part is None:
            return
        window = Window(part.window.start, part.window.end + longer * MINUTE)
        there = part.spec.workspaces
        new = tuple(workspace(index=len(there) + each) for each in range(more))
        spec_ = replace(part.spec, window=window, workspaces=(*there, *new))
        asked = self._asked(part.terms, spec_)
        moments = more_than(part.spec, asked.spec, now=self.now)

        def attempt(view: LedgerView) -> Part:
            return held(part, asked, view, POLICY, now=self.now)

        try:
            after, aside = amended_before_others(
                attempt,
                moments,
                self.view,
                POLICY,
                takes=lambda after: more_than_counted(part, after, POLICY, now=self.now),
                now=self.now,
            )
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

    @invariant()
    def no_host_is_promised_more_than_it_has(self) -> None:
        parts = [each.value for each in self.view.parts.values() if each.value.counted]
        for at in {self.now, *(each for each in moments_of(parts) if each >= self.now)}:
            for host in HOSTS:
                promised = [promised_of(part, host, at) for part in parts]
                assert sum(vcpus for vcpus, _ in promised) <= SMALL.vcpus, (host, at)
                assert sum(disk for _, disk in promised) <= SMALL.disk_mib, (host, at)

    @invariant()
    def terms_are_counted_by_their_coordinator(self) -> None:
        for name, number in self.terms.items():
            assert self.view.parts[name].value.terms == number

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

    def _drawn_plain(self, data: st.DataObject) -> Part | None:
        found = [
            each.value
            for each in self.view.parts.values()
            if each.value.keeping is None
            and each.value.state is PartState.CONFIRMED
            and self.now < each.value.window.end
        ]
        return data.draw(st.sampled_from(found)) if found else None


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


def test_who_is_on_its_way_out_already_is_waited_for() -> None:
    site = Site()
    site.hold(count=8, keep=1, minutes=1)
    for _ in range(2):
        site.admit(count=1, minutes=1, ahead_s=0)
    site.no_host_is_promised_more_than_it_has()
    site.terms_are_counted_by_their_coordinator()
