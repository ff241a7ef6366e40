"""However clusters are amended, told and obeyed, late or never: no host is promised more than it
has, and what is counted is the larger of old and new until hosts have obeyed.

What hosts may run is counted here from what they were told, workspace by workspace, and shares
nothing with the ledger's counting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from intertie.broker.domain.amending import amend, check_open
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Fleet, SeenPart
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.reconcile import End, GivenUp, Tell, step_of
from intertie.common.amend_rules import DURATION, GROUPS
from intertie.common.errors import ClusterOver, FieldInvalid, LeaseEnding, NoCapacity
from intertie.common.intervals import Window
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, POLICY, WHOLE, facts
from tests.unit.broker.standing import ALLOCATION, admitted, group, spec, view_of

QUARTER = timedelta(minutes=15)
HOSTS = ("n1", "n2")

Has = dict[str, dict[str, int]]
"""Host to workspace to vCPUs."""


@dataclass
class Terms:
    """What was once in force; `goes`: the generation in which it is no more; None: it is now."""

    has: Has
    end: datetime
    goes: int | None = None


@dataclass
class Standing:
    record: ClusterRecord
    part: Part
    told: dict[str, int] = field(default_factory=dict)
    seen: dict[str, SeenPart] = field(default_factory=dict)
    counted: list[Terms] = field(default_factory=list)
    may_run: dict[str, list[Terms]] = field(default_factory=dict)
    """By host: of all that it was told since what it has obeyed."""


def has(part: Part) -> Has:
    found: Has = {}
    amounts = {each.label: each.allocation.vcpus for each in part.spec.workspaces}
    for each in part.placed:
        found.setdefault(each.host, {})[each.workspace] = amounts[each.workspace]
    return found


def most(all_of: list[Terms], host: str, at: datetime) -> int:
    """The sum of the most of each workspace."""
    labels: dict[str, int] = {}
    for terms in all_of:
        if at < terms.end:
            for label, vcpus in terms.has.get(host, {}).items():
                labels[label] = max(labels.get(label, 0), vcpus)
    return sum(labels.values())


def wanted(count: int, vcpus: int, quarters: int) -> ClusterSpec:
    lease = LeaseTerms(duration=quarters * QUARTER)
    return spec(group("w", count, allocation=replace(ALLOCATION, vcpus=vcpus)), lease=lease)


COUNTS, VCPUS, QUARTERS = st.integers(1, 5), st.integers(1, 3), st.integers(1, 8)


class Amending(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.silent: set[str] = set()
        self.clusters: dict[str, Standing] = {}
        self.number = 0

    def view(self) -> LedgerView:
        parts = [each.part for each in self.clusters.values() if each.part.counted]
        return view_of(self.fleet(), parts)

    def fleet(self) -> Fleet:
        long_ago = self.now - timedelta(hours=1)
        return Fleet.of(
            [
                facts(host, report_time=long_ago if host in self.silent else self.now)
                for host in HOSTS
            ],
            POLICY,
        )

    def drawn(self, data: Any) -> Standing | None:
        names = sorted(self.clusters)
        return self.clusters[data.draw(st.sampled_from(names))] if names else None

    @rule(count=COUNTS, vcpus=VCPUS, quarters=QUARTERS)
    def create(self, count: int, vcpus: int, quarters: int) -> None:
        self.number += 1
        name = f"c{self.number}"
        try:
            record, part = admitted(name, wanted(count, vcpus, quarters), self.view(), now=self.now)
        except NoCapacity:
            return
        self.clusters[name] = Standing(
            record, part, counted=[Terms(has=has(part), end=part.window.end)]
        )

    @rule(data=st.data(), count=COUNTS, vcpus=VCPUS, quarters=QUARTERS)
    def amend(self, data: Any, count: int, vcpus: int, quarters: int) -> None:
        of = self.drawn(data)
        if of is None:
            return
        before = has(of.part)
        asked = wanted(count, vcpus, quarters)
        try:
            check_open(of.record, now=self.now)
            found = amend(
                of.record, of.part, asked, [GROUPS, DURATION], self.view(), POLICY, now=self.now
            )
        except (NoCapacity, FieldInvalid, LeaseEnding, ClusterOver):
            return
        if found is None:
            return
        for terms in of.counted:
            if terms.goes is None:
                terms.goes = of.part.generation + 1
        of.record, of.part = found.record, found.part
        of.counted.append(Terms(has=has(of.part), end=of.part.window.end))
        after = has(of.part)
        for host in after:
            for label in after[host].keys() & {each for of in before.values() for each in of}:
                assert label in before.get(host, {}), "who stays keeps its host"
        assert sum(map(len, after.values())) == count

    @rule(data=st.data())
    def step(self, data: Any) -> None:
        """The reconciler's next, whatever it is."""
        of = self.drawn(data)
        if of is None:
            return
        step = step_of(of.part, of.told, of.seen, self.fleet(), POLICY, now=self.now)
        match step:
            case Tell(part=part, wanted=wanted):
                of.part = part
                for host, each in wanted.items():
                    of.told[host] = part.generation
                    says = {w.name: w.allocation.vcpus for w in each.workspaces}
                    news = Terms(has={} if each.gone else {host: says}, end=each.window.end)
                    of.may_run.setdefault(host, []).append(news)
            case GivenUp(part=part, hosts=hosts):
                of.counted = [each for each in of.counted if not self.given_up(of, each)]
                of.part = part
                for host in hosts:
                    assert most(of.may_run.pop(host), host, self.now) == 0
                    del of.told[host]
                    of.seen.pop(host)
            case End(part=part):
                del self.clusters[of.record.name.rpartition("/")[2]]

    def given_up(self, of: Standing, terms: Terms) -> bool:
        if terms.goes is None:
            return False
        reports = [of.seen.get(host) for host in terms.has]
        return not of.part.generation or all(
            each is not None and each.obeyed_generation >= terms.goes for each in reports
        )

    @rule(data=st.data(), host=st.sampled_from(HOSTS))
    def obey(self, data: Any, host: str) -> None:
        """All of what it was told last."""
        of = self.drawn(data)
        if of is None or host not in of.told:
            return
        newest = of.may_run[host][-1]
        of.may_run[host] = [newest]
        of.seen[host] = SeenPart(
            host=host,
            part_uid=of.part.uid,
            generation=of.told[host],
            obeyed_generation=of.told[host],
            gone=not newest.has,
        )

    @rule(data=st.data())
    def end(self, data: Any) -> None:
        of = self.drawn(data)
        if of is not None:
            of.part = of.part.ending(now=self.now, reason="CANCELLED")
            of.record = replace(of.record, end_requested_time=self.now)

    @rule(minutes=st.sampled_from([1, 14, 15]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(host=st.sampled_from(HOSTS))
    def fall_silent_or_speak(self, host: str) -> None:
        self.silent ^= {host}

    @invariant()
    def no_host_may_run_more_than_it_has(self) -> None:
        for at in self.moments():
            for host in HOSTS:
                running = sum(
                    most([*of.may_run.get(host, []), of.counted[-1]], host, at)
                    for of in self.clusters.values()
                )
                assert running <= WHOLE.vcpus, f"{host} at {at}"

    @invariant()
    def what_counts_is_the_larger_of_old_and_new_until_hosts_have_obeyed(self) -> None:
        calendar = calendar_of(self.view(), POLICY)
        for at in self.moments():
            for host in HOSTS:
                expected = sum(most(of.counted, host, at) for of in self.clusters.values())
                window = Window(at, at + timedelta(microseconds=1))
                found = calendar.peak(f"host/{host}/vcpus", window)
                assert found == expected, f"{host} at {at}"

    def moments(self) -> set[datetime]:
        """At which anything may begin to be otherwise, from now on."""
        ends = {terms.end for of in self.clusters.values() for terms in of.counted}
        return {self.now, *(each for each in ends if each > self.now)}


TestAmending = Amending.TestCase
TestAmending.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
