"""However leases come that wait and that do not: at no moment is a host promised more than it has,
no running is lost or counted twice, whoever does not wait is refused only for others that do not,
and nobody waits for ever.

What hosts have is counted here from windows and placements, and shares nothing with the ledger's
counting, nor with what places leases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from intertie.broker.domain.cluster import ClusterRecord, ClusterState, settled
from intertie.broker.domain.deadlines import sooner
from intertie.broker.domain.giving_way import draft_before_others, writes_of
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.queueing import started, starting, stretches_over
from intertie.broker.domain.records import Change
from intertie.broker.domain.stretches import TICK
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import BACKFILLINGS, FAIRNESS, ORDERS, PREEMPTIONS
from intertie.common.names import ClusterName
from intertie.common.spec import Kind, LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.line import (
    best_effort,
    confirmed,
    in_time,
    name_of,
    part_of,
    saved,
    view,
    waits,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, NOW, POLICY
from tests.unit.broker.standing import group, spec

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
VCPUS, MEMORY_MIB, DISK_MIB = 4, 2048, 8192
HOSTS = ("n1", "n2")
SAVE = 12 * SECOND + TICK
"""The longest that any takes, of at most four guests on a host, one that has just begun too."""
STEP = 20 * SECOND
ENOUGH = 500
"""Moments at which something happens, until all that was ever asked for has run."""


def until_saved(part: Part) -> datetime:
    """Until when its memory and its processors may be in use."""
    kept = part.keeping is not None and part.keeping.until is not None
    assert part.keeping is not None or not kept
    return part.window.end + (part.keeping.save if part.keeping and kept else timedelta())


class Site(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.view: LedgerView = view([])
        self.policy = POLICY
        self.number = 0
        self.ran: dict[str, list[Window]] = defaultdict(list)
        """By cluster, each stretch that it has run, without what restoring took."""

    @rule(
        order=st.sampled_from(sorted(ORDERS)),
        fairness=st.sampled_from(sorted(FAIRNESS)),
        backfilling=st.sampled_from(sorted(BACKFILLINGS)),
        preemption=st.sampled_from(sorted(PREEMPTIONS)),
    )
    def choose(self, order: str, fairness: str, backfilling: str, preemption: str) -> None:
        queue = QueuePolicy(
            order=ORDERS[order],
            fairness=FAIRNESS[fairness],
            backfilling=BACKFILLINGS[backfilling],
            preemption=PREEMPTIONS[preemption],
        )
        self.policy = replace(POLICY, queue=queue)

    @rule(count=st.integers(1, 8), minutes=st.integers(1, 20))
    def submit(self, count: int, minutes: int) -> None:
        record = waits(self._name(), best_effort(count, minutes * MINUTE), now=self.now)
        known = Versioned(value=record, revision=1)
        self.view = replace(self.view, clusters={**self.view.clusters, record.name: known})
        self._pass()

    @rule(count=st.integers(1, 8), minutes=st.integers(1, 20))
    def at_once(self, count: int, minutes: int) -> None:
        self._admit(count, None, minutes * MINUTE)

    @rule(count=st.integers(1, 8), ahead_s=st.integers(1, 900), minutes=st.integers(1, 20))
    def in_advance(self, count: int, ahead_s: int, minutes: int) -> None:
        self._admit(count, self.now + ahead_s * SECOND, minutes * MINUTE)

    @rule(count=st.integers(1, 8), minutes=st.integers(1, 20), spare_s=st.integers(0, 3600))
    def by_a_deadline(self, count: int, minutes: int, spare_s: int) -> None:
        lasts = minutes * MINUTE
        deadline = self.now + lasts + spare_s * SECOND
        lease = LeaseTerms(kind=Kind.DEADLINE, duration=lasts, deadline=deadline)
        asked = normalise(spec(group(count=count), lease=lease), now=self.now)
        name = self._name()
        whole = Window(self.now, deadline)
        had_to = spare_s * SECOND > SAVE and count <= self._room_beside_those_that_have_it(whole)
        try:
            after, aside = in_time(name, asked, self.view, self.policy, now=self.now)
        except NoCapacity:
            assert not had_to, "it was refused for what may be put aside"
            return
        assert part_of(after, name).window.end <= deadline
        self._write(Change(writes=tuple(writes_of(aside, now=self.now))))
        self.view = replace(
            self.view,
            clusters={**self.view.clusters, name_of(name): after.clusters[name_of(name)]},
            parts={
                **self.view.parts,
                part_of(after, name).name: after.parts[part_of(after, name).name],
            },
        )
        self._pass()

    @invariant()
    def who_has_a_deadline_has_room_to_be_done_in_time(self) -> None:
        for each in self.view.in_line():
            record, lease = each.value, each.value.spec.lease
            if lease.deadline is None:
                continue
            part = self.view.parts[record.part].value
            assert record.waits is not None
            assert part.keeping is not None
            ran, ends = record.waits.ran, part.window.end
            if record.state is not ClusterState.SUSPENDED:
                ran += part.window.duration - part.keeping.restore
            if (room := part.keeping.promised) is not None:
                ran += room.duration - part.keeping.restore
                ends = room.end
            assert ran >= (lease.duration or HOUR), record.name
            assert ends <= lease.deadline

    @rule(steps=st.integers(1, 10))
    def wait(self, steps: int) -> None:
        for _ in range(steps):
            self.now += STEP
            self._pass()

    @rule(seconds=st.integers(1, 19))
    def wait_a_little(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self._pass()

    @invariant()
    def no_host_is_promised_more_than_it_has(self) -> None:
        parts = [each.value for each in self.view.parts.values() if each.value.counted]
        for moment in {self.now, *self._moments()}:
            if moment >= self.now:
                self._check(parts, moment)

    def _moments(self) -> Iterator[datetime]:
        """At which something may become otherwise."""
        for each in self.view.parts.values():
            if (part := each.value).counted:
                yield from (part.window.start, part.window.end, until_saved(part), part.ends)
                if part.keeping is not None and part.keeping.promised is not None:
                    yield part.keeping.promised.start

    def teardown(self) -> None:
        """When nothing more comes, all that waits is done with what it was to do."""
        for _ in range(ENOUGH):
            if not self.view.in_line():
                break
            self.now = min(each for each in self._moments() if each > self.now)
            self._pass()
            self.no_host_is_promised_more_than_it_has()
        for each in self.view.clusters.values():
            record = each.value
            assert record.state is ClusterState.ENDED, (record.name, record.state)
            assert record.waits is not None
            assert record.waits.ran == record.spec.lease.duration == self._ran(record)
            if (deadline := record.spec.lease.deadline) is not None:
                assert max(one.end for one in self.ran[record.name]) <= deadline

    def _check(self, parts: list[Part], moment: datetime) -> None:
        for host in HOSTS:
            vcpus = memory = disk = 0
            for part in parts:
                here = sum(each.host == host for each in part.placed)
                promised = part.keeping.promised if part.keeping is not None else None
                goes_on = promised is not None and promised.contains(moment)
                if part.window.start <= moment < until_saved(part) or goes_on:
                    vcpus, memory, disk = vcpus + here, memory + 128 * here, disk + 128 * here
                    disk += 128 * here if part.keeping is not None else 0
                elif part.window.start <= moment < part.ends:
                    disk += (128 + 128) * here
            assert vcpus <= VCPUS, (host, moment)
            assert memory <= MEMORY_MIB, (host, moment)
            assert disk <= DISK_MIB, (host, moment)

    def _admit(self, count: int, start: datetime | None, lasts: timedelta) -> None:
        lease = LeaseTerms(start_time=start, duration=lasts)
        asked = normalise(spec(group(count=count), lease=lease), now=self.now)
        name = self._name()
        begin = max(start or self.now, self.now + SAVE)
        over = Window(start or self.now, begin + lasts)
        had_to = count <= self._room_beside_those_that_have_it(over)
        before = self.view
        try:
            found = draft_before_others(
                ClusterName.parse(name_of(name)), name, asked, before, self.policy, now=self.now
            )
        except NoCapacity:
            assert not had_to, "it was refused for what may be put aside"
            return
        window = found.draft.allotment.spec.window
        assert window.duration == lasts
        assert (start or self.now) <= window.start <= begin
        part = confirmed(name, found.draft.allotment, now=self.now)
        self._write(Change(writes=tuple(writes_of(found.aside, now=self.now))))
        self.view = with_records(self.view, part)
        self._pass()

    def _room_beside_those_that_have_it(self, window: Window) -> int:
        """Workspaces of one vCPU, memory and disk aside, of which there is more; beside those that
        do not wait, and those that are to be done in time, whenever they run."""
        room = 0
        parts = [each.value for each in self.view.parts.values() if each.value.counted]
        for host in HOSTS:
            most = 0
            moments = {window.start, *(part.window.start for part in parts)}
            in_time = [part for part in parts if self._has_deadline(part)]
            for moment in (each for each in moments if window.contains(each)):
                taken = sum(
                    sum(each.host == host for each in part.placed)
                    for part in parts
                    if (part.keeping is None and part.window.contains(moment)) or part in in_time
                )
                most = max(most, taken)
            room += VCPUS - most
        return room

    def _has_deadline(self, part: Part) -> bool:
        cluster = self.view.clusters.get(part.spec.cluster)
        return cluster is not None and cluster.value.spec.lease.deadline is not None

    def _pass(self) -> None:
        """As the leader does, with hosts that do at once what they are told."""
        for each in self.view.in_line():
            found = self.view.parts.get(each.value.part)
            if found is not None and until_saved(found.value) <= self.now < found.value.ends:
                self.view = saved(self.view, each.value.name.rpartition("/")[2])
        for change in list(stretches_over(self.view, now=self.now)):
            self._write(change)
        self._end_what_is_over()
        for name in starting(self.view, self.policy, now=self.now):
            try:
                change = started(self.view, name, self.policy, "seed", now=self.now)
            except NoCapacity:
                continue
            self._write(change)
        if (change_ := sooner(self.view, self.policy, now=self.now)) is not None:
            self._write(change_)

    def _end_what_is_over(self) -> None:
        for name, found in list(self.view.parts.items()):
            part = found.value
            if not part.counted or self.now < part.ends:
                continue
            reason = "WINDOW_OVER"
            over = part.move(PartState.ENDED, now=self.now, reason=reason)
            parts = {**self.view.parts, name: Versioned(value=over, revision=1)}
            self.view = replace(self.view, parts=parts)
            cluster = self.view.clusters.get(part.spec.cluster)
            if cluster is not None:
                self._note_stretch(part)
                after = settled(cluster.value, over, (), now=self.now)
                known = {after.name: Versioned(value=after, revision=1)}
                self.view = replace(self.view, clusters={**self.view.clusters, **known})

    def _write(self, change: Change) -> None:
        """Of those that go on, and of those that end, the stretch before is noted."""
        for each in change.writes:
            record: Any = each.record
            if not isinstance(record, ClusterRecord):
                continue
            before = self.view.clusters[record.name].value.state
            if before is not record.state is ClusterState.SUSPENDED:
                parts = [one.record for one in change.writes if isinstance(one.record, Part)]
                mine = [one for one in parts if one.name == record.part]
                self._note_stretch((mine or [self.view.parts[record.part].value])[0])
        self.view = written(self.view, change)

    def _note_stretch(self, part: Part) -> None:
        restored = part.window.start + (part.keeping.restore if part.keeping else timedelta())
        if restored < part.window.end:
            self.ran[part.spec.cluster].append(Window(restored, part.window.end))

    def _ran(self, record: ClusterRecord) -> timedelta:
        stretches = sorted(self.ran[record.name], key=lambda each: each.start)
        for before, later in pairwise(stretches):
            assert before.end <= later.start, f"{record.name} ran twice at once"
        return sum((each.duration for each in stretches), timedelta())

    def _name(self) -> str:
        self.number += 1
        return f"c{self.number}"


Site.TestCase.settings = settings(max_examples=40, stateful_step_count=16, deadline=None)
TestSite = Site.TestCase
