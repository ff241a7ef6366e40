"""However leases come, and whatever becomes of the migrations by which others give way to them,
and of the workspaces that others get or are left without: no host is promised more than it has at
any moment, nor has more guests than it has room for, and whoever was admitted begins when it was
told to.

What hosts have is counted here from windows, placements and where guests are, and shares nothing
with the ledger's counting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from intertie.broker.domain.cluster import ClusterRecord, ClusterState, settled
from intertie.broker.domain.fleet import (
    Fleet,
    MigrationOutcome,
    SeenMigration,
    SeenPart,
    SeenWorkspace,
    WorkspaceState,
)
from intertie.broker.domain.giving_way import draft_before_others, writes_of
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.migrating import next_of
from intertie.broker.domain.moving import Moving, MovingState
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.planning import draft
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.queueing import (
    given_more,
    room_made,
    started,
    starting,
    stretches_over,
)
from intertie.broker.domain.records import Change
from intertie.common.errors import NoCapacity
from intertie.common.leasing.plugins import MIGRATIONS
from intertie.common.names import ClusterName
from intertie.common.spec import Kind, LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.line import confirmed, name_of, view, waits, with_records, written
from tests.unit.broker.samples import NOW, POLICY, facts
from tests.unit.broker.standing import ALLOCATION, group, spec

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
HOSTS = ("n1", "n2", "n3")
VCPUS, DISK_MIB = 4, 8192
STEP = 4 * SECOND
"""So often hosts and the leader look, and hosts answer within one."""
GIVES_WAY_WITHIN = 30 * SECOND
"""At the longest: what is on its way is broken off, and saved."""
ENOUGH = 4000
POLICY_OF_THREE = replace(POLICY, hosts=HOSTS)

Label = tuple[str, str]
FATES = st.sampled_from(["arrives", "fails", "breaks", "hangs", "gives"])
"""Of migrations: it is there, the other host cannot take it, the way breaks, it takes for ever, or
it is given just when it is broken off."""


class Site(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        hosts = [facts(each, report_time=NOW + timedelta(days=9)) for each in HOSTS]
        self.view: LedgerView = replace(view([]), fleet=Fleet.of(hosts, POLICY_OF_THREE))
        self.policy = POLICY_OF_THREE
        self.number = 0
        self.there: dict[Label, str] = {}
        """Where each workspace is, as its hosts know it."""
        self.next_fate = "arrives", 8
        self.fate: dict[tuple[str, str, int], tuple[str, int]] = {}
        self.late_until = NOW
        """A leader was away: what gives way may be late until then."""
        self.moved = 0
        self.known: set[str] = set()

    @initialize(sizes=st.lists(st.integers(1, 2), min_size=3, max_size=3))
    def scattered(self, sizes: list[int]) -> None:
        """One lease that would give way runs on each host, and has some of it."""
        for host, vcpus in zip(HOSTS, sizes, strict=True):
            self.submit(1, vcpus, 60, False)
            [part] = [each for each in self._counted() if each.path.part_id not in self.known]
            self.known.add(part.path.part_id)
            placed = tuple(replace(each, host=host) for each in part.placed)
            self._know(replace(part, placed=placed, generation=1))
        self._step()

    @rule(name=st.sampled_from(["first", "first", "in-advance", "never"]))
    def choose(self, name: str) -> None:
        self.policy = replace(POLICY_OF_THREE, queue=QueuePolicy(migration=MIGRATIONS[name]))

    @rule(
        count=st.integers(1, 2),
        vcpus=st.integers(1, 2),
        minutes=st.integers(3, 60),
        cancellable=st.booleans(),
        spare=st.integers(0, 3),
    )
    def submit(
        self, count: int, vcpus: int, minutes: int, cancellable: bool, spare: int = 0
    ) -> None:
        """`spare`: workspaces that it may have beyond those that it wants."""
        lease = LeaseTerms(
            kind=Kind.BEST_EFFORT, duration=minutes * MINUTE, cancellable=cancellable
        )
        allocation = replace(ALLOCATION, vcpus=vcpus)
        wants = group(count=count, allocation=allocation)
        if spare:
            wants = replace(wants, count=0, min_count=count, max_count=count + spare)
        asked = spec(wants, lease=lease)
        try:
            record = waits(self._name(), asked, now=self.now, policy=self.policy)
        except NoCapacity:
            return
        known = Versioned(value=record, revision=1)
        self.view = replace(self.view, clusters={**self.view.clusters, record.name: known})
        self._pass()

    @rule(
        count=st.integers(1, 2),
        vcpus=st.integers(2, 4),
        minutes=st.integers(1, 5),
        fate=FATES,
        after_s=st.integers(0, 60),
    )
    def at_once(self, count: int, vcpus: int, minutes: int, fate: str, after_s: int) -> None:
        self.next_fate = fate, after_s
        self._admit(count, vcpus, None, minutes * MINUTE)

    @rule(
        count=st.integers(1, 2),
        vcpus=st.integers(2, 4),
        ahead_s=st.integers(1, 600),
        minutes=st.integers(1, 5),
        fate=FATES,
        after_s=st.integers(0, 60),
    )
    def in_advance(
        self, count: int, vcpus: int, ahead_s: int, minutes: int, fate: str, after_s: int
    ) -> None:
        self.next_fate = fate, after_s
        self._admit(count, vcpus, self.now + ahead_s * SECOND, minutes * MINUTE)

    @rule(steps=st.integers(1, 40))
    def wait(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    @rule(steps=st.integers(1, 40))
    def nobody_leads(self, steps: int) -> None:
        """Hosts go on with what they were told; the next leader finds what has become of it."""
        for _ in range(steps):
            self.now += STEP
            self._hosts_go_on()
        if any(each.value.vacating or each.value.shed for each in self.view.parts.values()):
            self.late_until = self.now + MINUTE
        self._pass()

    @invariant()
    def no_host_is_promised_more_than_it_has(self) -> None:
        if self.now < self.late_until:
            return
        for moment in {self.now, *(each for each in self._moments() if each > self.now)}:
            vcpus: dict[str, int] = defaultdict(int)
            disk: dict[str, int] = defaultdict(int)
            for part in self._counted():
                self._promised(part, moment, vcpus, disk)
            assert max(vcpus.values(), default=0) <= VCPUS, (dict(vcpus), moment)
            assert max(disk.values(), default=0) <= DISK_MIB, (dict(disk), moment)

    @invariant()
    def no_host_has_more_guests_than_it_has_room_for(self) -> None:
        """Who is on its way stands at both."""
        if self.now < self.late_until:
            return
        vcpus: dict[str, int] = defaultdict(int)
        for part in self._counted():
            if not self._in_use(part):
                continue
            for each in (*part.placed, *self._given_up(part)):
                vcpus[self.there.get((part.name, each.workspace), each.host)] += self._size(part)
            for moving in part.moving:
                if moving.state is not MovingState.PREPARING:
                    at = self.there.get((part.name, moving.workspace), "")
                    vcpus[moving.host] += self._size(part) if at != moving.host else 0
        assert max(vcpus.values(), default=0) <= VCPUS, dict(vcpus)

    @invariant()
    def whoever_runs_has_what_it_wants_and_no_more_than_it_may(self) -> None:
        for each in self.view.clusters.values():
            part = self.view.parts.get(each.value.part)
            if part is None:
                continue
            [wants] = each.value.spec.groups
            assert wants.fewest <= len(part.value.placed) <= wants.most
            assert dict(each.value.counts) == {"w": len(part.value.placed)}

    def teardown(self) -> None:
        """When nothing more comes, all that waits is done with what it was to do."""
        for _ in range(ENOUGH):
            if not self.view.in_line():
                break
            if any(each.moving or each.left for each in self._counted()):
                self._step()
            else:
                self.now = min(each for each in self._moments() if each > self.now)
                self._hosts_go_on()
                self._pass()
            self.no_host_is_promised_more_than_it_has()
            self.no_host_has_more_guests_than_it_has_room_for()
        for each in self.view.clusters.values():
            record = each.value
            assert record.waits is not None
            if record.state is ClusterState.CANCELLED:
                assert record.spec.lease.cancellable
                continue
            assert record.state is ClusterState.ENDED, (record.name, record.state)
            assert record.waits.ran == record.spec.lease.duration

    def _counted(self) -> list[Part]:
        return [each.value for each in self.view.parts.values() if each.value.counted]

    def _given_up(self, part: Part) -> list[Placed]:
        """What its hosts have not ended yet."""
        there = {each.workspace for each in part.placed}
        shed = {each.workspace: each for terms in part.shed for each in terms.placed}
        return [each for label, each in shed.items() if label not in there]

    def _size(self, part: Part) -> int:
        return part.spec.workspaces[0].allocation.vcpus

    def _saved_at(self, part: Part) -> datetime:
        kept = part.keeping is not None and part.keeping.until is not None
        return part.window.end + (part.keeping.save if part.keeping and kept else timedelta())

    def _in_use(self, part: Part) -> bool:
        return part.window.start <= self.now < self._saved_at(part)

    def _moments(self) -> Iterator[datetime]:
        for part in self._counted():
            yield from (part.window.start, part.window.end, self._saved_at(part), part.ends)
            yield from (each.ends for each in part.shed)
            if part.vacating is not None:
                yield from (part.vacating.by, part.vacating.free_from)

    def _promised(
        self, part: Part, moment: datetime, vcpus: dict[str, int], disk: dict[str, int]
    ) -> None:
        if moment < part.window.start:
            return
        has_room = part.keeping is not None and part.keeping.has_room
        octets = 256 if has_room else 128
        for each in self._given_up(part):
            if any(moment < of.ends and each in of.placed for of in part.shed):
                vcpus[each.host] += self._size(part)
                disk[each.host] += octets
        for each in part.placed:
            moving = part.moving_of(each.workspace)
            goes = moving is not None and part.vacating is not None
            if part.vacating is not None and (part.vacating.called_off or self._in_vain(part)):
                runs = moment < part.vacating.free_from
                places = {each.host} | ({moving.host} if moving else set())
            elif goes:
                assert moving is not None
                assert part.vacating is not None
                runs = moment < part.window.end
                places = {moving.host}
                if moment < part.vacating.free_from:
                    places.add(each.host)
            else:
                runs, places = moment < self._saved_at(part), {each.host}
            for host in places if runs else ():
                vcpus[host] += self._size(part)
            if moment < part.ends:
                for host in {each.host} | ({moving.host} if moving else set()):
                    disk[host] += octets

    def _in_vain(self, part: Part) -> bool:
        """One stays where it was, so all of them are put aside."""
        assert part.vacating is not None
        goes = {each.workspace for each in part.moving}
        was = {(each.workspace, each.host) for each in part.vacating.leaves}
        return any(
            (each.workspace, each.host) in was and each.workspace not in goes
            for each in part.placed
        )

    def _admit(self, count: int, vcpus: int, start: datetime | None, lasts: timedelta) -> None:
        lease = LeaseTerms(start_time=start, duration=lasts)
        allocation = replace(ALLOCATION, vcpus=vcpus)
        asked = normalise(
            spec(group(count=count, allocation=allocation), lease=lease), now=self.now
        )
        name = self._name()
        cluster = ClusterName.parse(name_of(name))
        try:
            found = draft_before_others(cluster, name, asked, self.view, self.policy, now=self.now)
        except NoCapacity:
            assert not self._has_room_but_for_others(cluster, asked, start, lasts)
            return
        window = found.draft.allotment.spec.window
        assert window.duration == lasts
        assert window.start >= (start or self.now)
        if start is not None and start >= self.now + GIVES_WAY_WITHIN:
            assert window.start == start
        if start is None:
            waited = MIGRATIONS["first"].longest_delay + GIVES_WAY_WITHIN
            assert window.start <= self.now + waited
        for each in found.aside:
            if each.after.moving and each.after.vacating and not each.after.vacating.called_off:
                self.moved += 1
                assert self.policy.queue.migration.moves
                assert each.after.window == each.part.value.window
                assert each.after.price == each.part.value.price
        part = confirmed(name, found.draft.allotment, now=self.now)
        self.view = written(self.view, Change(writes=tuple(writes_of(found.aside, now=self.now))))
        self.view = with_records(self.view, part)
        self._pass()

    def _has_room_but_for_others(
        self, cluster: ClusterName, asked: Any, start: datetime | None, lasts: timedelta
    ) -> bool:
        """Of leases that wait none is promised anything."""
        if self.now < self.late_until or (start and start < self.now + GIVES_WAY_WITHIN):
            return False
        parts = {key: each for key, each in self.view.parts.items() if each.value.keeping is None}
        alone = replace(self.view, parts=parts, clusters={})
        begins = start or self.now + GIVES_WAY_WITHIN
        over = LeaseTerms(start_time=start or self.now, end_time=begins + lasts)
        try:
            draft(cluster, "x", replace(asked, lease=over), alone, self.policy, now=self.now)
        except NoCapacity:
            return False
        return True

    def _step(self) -> None:
        self.now += STEP
        self._hosts_go_on()
        self._pass()

    def _hosts_go_on(self) -> None:
        """What was to be sent, and is not broken off, may have been given."""
        for part in self._counted():
            for moving in part.moving:
                fate, s = self._fate_of(part, moving)
                waited = self.now - moving.since
                gives = (moving.state is MovingState.SENDING and fate == "arrives") or (
                    moving.state is MovingState.ANSWERING and fate == "gives"
                )
                runs = part.window.start <= self.now < part.window.end
                if gives and runs and (waited >= s * SECOND or fate == "gives"):
                    self.there[part.name, moving.workspace] = moving.host

    def _fate_of(self, part: Part, moving: Moving) -> tuple[str, int]:
        key = part.name, moving.workspace, moving.number
        return self.fate.setdefault(key, self.next_fate)

    def _seen(self, part: Part) -> dict[str, SeenPart]:
        """What its hosts say, who have obeyed."""
        runs = part.window.start <= self.now < part.window.end
        told: dict[str, list[SeenWorkspace]] = {host: [] for host in part.hosts()}
        for each in part.placed:
            moving = part.moving_of(each.workspace)
            state = WorkspaceState.RUNNING if runs else WorkspaceState.SUSPENDED
            said = self._says(part, moving, at_source=True) if moving else None
            told[each.host].append(SeenWorkspace(name=each.workspace, state=state, migration=said))
            if moving is not None and (said := self._says(part, moving, at_source=False)):
                told[moving.host].append(
                    SeenWorkspace(name=each.workspace, state=WorkspaceState.STAGING, migration=said)
                )
        return {
            host: SeenPart(
                host=host,
                part_uid=part.uid,
                generation=part.generation,
                obeyed_generation=part.generation,
                workspaces=tuple(workspaces),
            )
            for host, workspaces in told.items()
        }

    def _says(self, part: Part, moving: Moving, *, at_source: bool) -> SeenMigration | None:
        kinds = MigrationOutcome
        fate, s = self._fate_of(part, moving)
        is_there = self.there.get((part.name, moving.workspace)) == moving.host
        outcome = None
        if at_source and is_there:
            outcome = kinds.GIVEN
        elif at_source and moving.state is MovingState.ANSWERING and fate != "gives":
            outcome = kinds.KEPT
        elif at_source and moving.state is MovingState.SENDING and fate == "breaks":
            outcome = kinds.FAILED if self.now >= moving.since + s * SECOND else None
        elif not at_source and moving.state is MovingState.PREPARING:
            outcome = kinds.FAILED if fate == "fails" else kinds.READY
        if outcome is None:
            return None
        return SeenMigration(number=moving.number, outcome=outcome, message="the way broke")

    def _pass(self) -> None:
        """As the leader does."""
        for part in self._counted():
            after: Part | None = part
            while after is not None:
                self._know(after)
                after = next_of(after, self._seen(after), self.view.fleet, now=self.now)
            part = self.view.parts[part.name].value
            if part.left or (part.shed and part.generation >= part.shed[-1].generation):
                part = replace(part, left=(), shed=())
            if part is not self.view.parts[part.name].value or part.shed:
                self._know(replace(part, generation=part.generation + 1))
        for part in self._counted():
            is_due = part.keeping is None or part.window.end > self.now
            if is_due or self._saved_at(part) <= self.now:
                self.view = replace(self.view, seen={**self.view.seen, part.uid: self._seen(part)})
        for change in list(stretches_over(self.view, now=self.now)):
            self.view = written(self.view, change)
        self._end_what_is_over()
        for name in starting(self.view, self.policy, now=self.now):
            try:
                change = started(self.view, name, self.policy, "seed", now=self.now)
            except NoCapacity:
                continue
            self.view = written(self.view, change)
        self._all_there()
        made = room_made(self.view, self.policy, now=self.now)
        self.view = written(self.view, made) if made is not None else self.view
        while (found := given_more(self.view, self.policy, (), now=self.now)) is not None:
            self.view = written(self.view, found[1])

    def _all_there(self) -> None:
        for each in self.view.clusters.values():
            part = self.view.parts.get(each.value.part)
            begun = part is not None and part.value.window.contains(self.now)
            if begun and each.value.state is ClusterState.SCHEDULED:
                record = each.value.move(ClusterState.ACTIVE, now=self.now)
                known = {record.name: Versioned(value=record, revision=1)}
                self.view = replace(self.view, clusters={**self.view.clusters, **known})

    def _know(self, part: Part) -> None:
        known = {part.name: Versioned(value=part, revision=1)}
        self.view = replace(self.view, parts={**self.view.parts, **known})

    def _end_what_is_over(self) -> None:
        for part in self._counted():
            if self.now < part.ends:
                continue
            over = part.move(PartState.ENDED, now=self.now, reason=part.end_reason or "WINDOW_OVER")
            self._know(over)
            cluster = self.view.clusters.get(part.spec.cluster)
            if cluster is not None:
                after: ClusterRecord = settled(cluster.value, over, (), now=self.now)
                known = {after.name: Versioned(value=after, revision=1)}
                self.view = replace(self.view, clusters={**self.view.clusters, **known})

    def _name(self) -> str:
        self.number += 1
        return f"c{self.number}"


Site.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestSite = Site.TestCase
