"""The lease scheduler against a world that counts second by second and shares no code with it.

The world knows who holds which node and how long each lease has run. It hears of the scheduler's
decisions by its events only, and asks it only when it said that it wants to be asked.
"""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.leasing.backfilling import Aggressive, Backfilling, Conservative
from intertie.common.leasing.events import Event, Kind
from intertie.common.leasing.order import FirstCome, MostHeldUp, Order, ShortestFirst
from intertie.common.leasing.policy import Policy
from intertie.common.leasing.preemption import (
    FarInOrder,
    LastInOrder,
    LeastDone,
    Preemption,
)
from intertie.common.leasing.requests import BestEffort, Reservation
from intertie.common.leasing.scheduler import Scheduler
from intertie.common.leasing.suspension import Suspension

NODES = 5
LONG_ENOUGH_S = 30_000
"""For all to run one after another, each suspended and resumed after every second."""


@dataclass
class Work:
    """A best-effort lease as its holder sees it."""

    name: str
    submit_s: int
    nodes: int
    run_s: int
    duration_s: int
    phase: str = "queued"
    since_s: int = 0
    ran_s: int = 0
    """Kept, of running."""


@dataclass
class Booked:
    name: str
    submit_s: int
    nodes: int
    start_s: int
    duration_s: int
    accepted: bool = False

    def covers(self, at_s: int) -> bool:
        return self.accepted and self.start_s <= at_s < self.start_s + self.duration_s


@dataclass
class World:
    policy: Policy
    works: list[Work]
    booked: list[Booked]
    owners: dict[int, str] = field(default_factory=dict)
    """Of nodes."""

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(nodes=NODES, policy=self.policy)
        self.by_name = {work.name: work for work in self.works}
        suspension = self.policy.suspension
        self.suspend_s = -(-suspension.memory_mib // suspension.mib_s) if suspension else 0

    def run(self) -> None:
        due: int | None = 0
        for now in range(LONG_ENOUGH_S):
            happened = self.holders_end(now) + self.come(now)
            if happened or (due is not None and due <= now):
                for event in self.scheduler.step(now):
                    assert event.at_s == now
                    self.apply(event, now)
                due = self.scheduler.next_s(now)
            self.look(now)
            if due is None and all(work.phase == "ended" for work in self.works):
                break
        assert all(work.phase == "ended" for work in self.works), "somebody starves"
        assert not self.owners

    def holders_end(self, now: int) -> int:
        over = [w for w in self.works if w.phase == "running" and w.ran_s == w.run_s < w.duration_s]
        for work in over:
            self.scheduler.ended(work.name, now)
        return len(over)

    def come(self, now: int) -> int:
        coming = [booked for booked in self.booked if booked.submit_s == now]
        for booked in coming:
            lacks = self.scheduler.reserve(
                Reservation(
                    name=booked.name,
                    nodes=booked.nodes,
                    start_s=booked.start_s,
                    duration_s=booked.duration_s,
                ),
                now,
            )
            assert lacks == max(0, booked.nodes - self.may_be_had(booked, now))
            booked.accepted = lacks == 0
        submitted = [work for work in self.works if work.submit_s == now]
        for work in submitted:
            self.scheduler.submit(
                BestEffort(name=work.name, nodes=work.nodes, duration_s=work.duration_s), now
            )
        return len(coming) + len(submitted)

    def may_be_had(self, wanted: Booked, now: int) -> int:
        """Nodes that neither reservations have nor leases that cannot give way so soon, in the
        worst second of the window."""
        return min(
            NODES
            - sum(booked.nodes for booked in self.booked if booked.covers(at))
            - sum(work.nodes for work in self.works if at < self.stays_until(work, now))
            for at in range(wanted.start_s, wanted.start_s + wanted.duration_s)
        )

    def stays_until(self, work: Work, now: int) -> int:
        left_s = min(self.suspend_s, work.duration_s - work.ran_s)
        match work.phase:
            case "running":
                return now + left_s if work.ran_s < work.run_s else now
            case "suspending":
                return work.since_s + self.suspend_s
            case "resuming":
                return work.since_s + self.suspend_s + left_s
            case _:
                return 0

    def apply(self, event: Event, now: int) -> None:
        work = self.by_name.get(event.lease)
        if work is None:
            (booked,) = (booked for booked in self.booked if booked.name == event.lease)
            assert booked.accepted
            if event.kind is Kind.START:
                assert now == booked.start_s
                self.take(event, booked.nodes)
            else:
                assert event.kind is Kind.END
                assert now == booked.start_s + booked.duration_s
                self.give(event)
            return
        lasted = now - work.since_s
        match event.kind:
            case Kind.START:
                assert work.phase == "queued"
                assert now >= work.submit_s
                assert work.ran_s == 0
                self.take(event, work.nodes)
                work.phase = "running"
            case Kind.SUSPEND:
                assert work.phase == "running"
                assert set(event.nodes) == self.of(work.name)
                work.phase = "suspending"
            case Kind.SUSPENDED:
                assert work.phase == "suspending"
                assert lasted == self.suspend_s
                self.give(event)
                work.phase = "suspended"
            case Kind.RESUME:
                assert work.phase == "suspended"
                self.take(event, work.nodes)
                work.phase = "resuming"
            case Kind.RESUMED:
                assert work.phase == "resuming"
                assert lasted == self.suspend_s
                assert set(event.nodes) == self.of(work.name)
                work.phase = "running"
            case Kind.CANCEL:
                assert self.policy.suspension is None
                assert work.phase == "running"
                self.give(event)
                work.phase, work.ran_s = "queued", 0
            case Kind.END:
                assert work.phase == "running"
                assert work.ran_s == min(work.run_s, work.duration_s)
                self.give(event)
                work.phase = "ended"
        work.since_s = now

    def of(self, name: str) -> set[int]:
        return {node for node, owner in self.owners.items() if owner == name}

    def take(self, event: Event, count: int) -> None:
        assert len(set(event.nodes)) == len(event.nodes) == count
        for node in event.nodes:
            assert 0 <= node < NODES
            assert node not in self.owners, f"node {node} is {self.owners[node]}'s"
            self.owners[node] = event.lease

    def give(self, event: Event) -> None:
        assert set(event.nodes) == self.of(event.lease)
        for node in event.nodes:
            del self.owners[node]

    def look(self, now: int) -> None:
        """Then a second goes by."""
        for booked in self.booked:
            assert len(self.of(booked.name)) == (booked.nodes if booked.covers(now) else 0)
        for work in self.works:
            holds = work.phase in ("running", "suspending", "resuming")
            assert len(self.of(work.name)) == (work.nodes if holds else 0)
            if work.phase == "running":
                work.ran_s += 1
                assert work.ran_s <= min(work.run_s, work.duration_s), "runs on after its end"


orders: st.SearchStrategy[Order] = st.one_of(
    st.just(FirstCome()),
    st.builds(ShortestFirst, patience_s=st.integers(0, 60)),
    st.builds(MostHeldUp, least_left_s=st.integers(1, 10), patience_s=st.integers(1, 60)),
)
backfillings: st.SearchStrategy[Backfilling] = st.one_of(
    st.builds(Aggressive, protected=st.integers(0, 2)), st.just(Conservative())
)
preemptions: st.SearchStrategy[Preemption] = st.one_of(
    st.just(LastInOrder()),
    st.just(LeastDone()),
    st.builds(FarInOrder, factor=st.floats(1, 3), least_run_s=st.integers(1, 6)),
)
suspensions = st.one_of(
    st.none(),
    st.builds(Suspension, memory_mib=st.integers(1, 6), mib_s=st.just(2)),
    st.builds(Suspension, memory_mib=st.integers(10, 30), mib_s=st.just(2)),
)
policies = st.builds(
    Policy,
    order=orders,
    backfilling=backfillings,
    preemption=preemptions,
    suspension=suspensions,
    worth_s=st.integers(1, 8),
    review_s=st.none() | st.integers(1, 9),
)


@st.composite
def works(draw: st.DrawFn) -> list[Work]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 60), st.integers(1, NODES), st.integers(1, 60), st.integers(0, 60)
            ),
            min_size=1,
            max_size=9,
        )
    )
    return [
        Work(f"w{number}", submit_s, nodes, run_s, run_s + more_s)
        for number, (submit_s, nodes, run_s, more_s) in enumerate(drawn)
    ]


@st.composite
def bookings(draw: st.DrawFn) -> list[Booked]:
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 120),
                st.integers(1, NODES),
                # Often so soon that not all leases can give way in time.
                st.integers(0, 20) | st.integers(0, 60),
                st.integers(1, 20),
            ),
            max_size=9,
        )
    )
    return [
        Booked(f"r{number}", submit_s, nodes, submit_s + lead_s, duration_s)
        for number, (submit_s, nodes, lead_s, duration_s) in enumerate(drawn)
    ]


@settings(max_examples=400, deadline=None)
@given(policies, works(), bookings())
def test_every_lease_has_its_nodes_and_none_has_anothers(
    policy: Policy, wanted: list[Work], booked: list[Booked]
) -> None:
    """No node twice, no run before its submit, no work lost or done twice, every accepted
    reservation whole, every refusal needed, suspend and resume as long as reserved and never
    while running, everybody done in the end."""
    World(policy, wanted, booked).run()
