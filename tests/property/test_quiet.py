"""A reconciler that passes over what needed nothing leaves nothing to one that knows nothing."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.broker.domain.book import Book
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.fleet import Fleet, SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops.reconcile import Reconcile
from intertie.common.intervals import Window
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import HOUR, POLICY, facts, part, part_spec, workspace


class BookLedger(MemoryLedger):
    """As a leader's: mappings that are the same as long as nothing in them changes."""

    def __init__(self) -> None:
        super().__init__(POLICY)
        self.book = Book()
        self.fleet = Fleet.of([facts("n1"), facts("n2")], POLICY)
        self.reports: dict[str, Mapping[str, SeenPart]] = {}

    async def view(self) -> LedgerView:
        return self.book.view(self.fleet, self.reports)

    async def commit(self, change: Change) -> int:
        revision = await super().commit(change)
        self.book.reserve(change)
        self.book.apply(change, revision)
        return revision

    async def add(self, number: int, state: PartState, hours: int) -> None:
        start = START + hours * HOUR
        made = part(
            f"t{number}",
            state,
            spec=replace(
                part_spec(workspace(), window=Window(start, start + HOUR)),
                cluster=f"sites/north/tenants/demo/clusters/c{number}",
            ),
            placed=(Placed(workspace="w-0", host=f"n{1 + number % 2}"),),
        )
        record = ClusterRecord(
            name=made.spec.cluster,
            uid=f"u{number}",
            spec=ClusterSpec(groups=()),
            owner="alice",
            state=ClusterState.SCHEDULED,
            part=made.name,
            window=made.window,
            counts=(("w", 1),),
            cost=1.0,
            reasons=(),
            shortfalls=(),
            create_time=START,
        )
        writes = (Write(record=made), Write(record=record))
        await self.commit(Change(writes=writes, admitted_on=self.book.generation))

    def say(self, of: Part, state: WorkspaceState, *, gone: bool) -> None:
        for host, generation in self.book.told.get(of.uid, {}).items():
            seen = SeenWorkspace(name="w-0", state=state, ready=state is WorkspaceState.RUNNING)
            report = SeenPart(
                host=host,
                part_uid=of.uid,
                generation=generation,
                workspaces=() if gone else (seen,),
                gone=gone,
            )
            self.reports[of.uid] = {**self.reports.get(of.uid, {}), host: report}


events = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(PartState), st.integers(-1, 3)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 1800, 3600]), st.none()),
    st.tuples(
        st.just("say"),
        st.integers(0, 2),
        st.sampled_from([WorkspaceState.STAGING, WorkspaceState.RUNNING, WorkspaceState.FAILED]),
    ),
    st.tuples(st.just("gone"), st.integers(0, 2), st.none()),
    st.tuples(st.just("end"), st.integers(0, 2), st.none()),
    st.tuples(st.just("untold"), st.integers(0, 2), st.none()),
    st.tuples(st.just("move"), st.sampled_from([1400, 1500]), st.none()),
)


@given(st.lists(events, min_size=3, max_size=12))
@settings(max_examples=120, deadline=None)
async def test_what_is_passed_over_needs_nothing(drawn: list[tuple[str, object, object]]) -> None:
    ledger, clock = BookLedger(), FakeClock()
    remembers = Reconcile(ledger, POLICY, clock)
    for number, hours in ((1000, 0), (1001, 1)):
        await ledger.add(number, PartState.CONFIRMED, hours)
    for number, event in enumerate(drawn):
        match event:
            case ("add", PartState() as state, int(hours)):
                await ledger.add(number, state, hours)
            case ("wait", int(seconds), _):
                await clock.advance(seconds)
            case ("move", int(mtu), _):
                ledger.fleet = Fleet.of([facts("n1", mtu=mtu), facts("n2")], POLICY)
            case (str(kind), int(which), about) if ledger.book.parts:
                found = list(ledger.book.parts.values())[which % len(ledger.book.parts)]
                if kind == "say" and isinstance(about, WorkspaceState):
                    ledger.say(found.value, about, gone=False)
                elif kind == "gone":
                    ledger.say(found.value, WorkspaceState.ENDED, gone=True)
                elif kind == "untold":
                    lost = tuple((host, found.value.uid) for host in found.value.hosts())
                    await ledger.commit(Change(unwanted=lost))
                elif kind == "end" and found.value.state is PartState.CONFIRMED:
                    over = found.value.ending(now=clock.now(), reason="CANCELLED")
                    await ledger.commit(
                        Change(writes=(Write(record=over, read_at=found.revision),))
                    )
        for _ in range(5):
            await remembers.sweep()
        before = len(ledger.commits)
        await Reconcile(ledger, POLICY, clock).sweep()
        left = ledger.commits[before:]
        assert not left, "one that knows nothing found something to do"


async def test_a_cluster_that_takes_the_name_of_one_that_is_over_is_looked_at() -> None:
    ledger, clock = BookLedger(), FakeClock()
    remembers = Reconcile(ledger, POLICY, clock)
    await ledger.add(1, PartState.ENDED, 0)
    for _ in range(2):
        await remembers.sweep()
    name = "sites/north/tenants/demo/clusters/c1"
    old = ledger.book.clusters[name]
    assert old.value.over
    again = replace(old.value, state=ClusterState.SCHEDULED, end_time=None)
    await ledger.commit(Change(writes=(Write(record=again, read_at=old.revision),)))
    await remembers.sweep()
    assert ledger.book.clusters[name].value.over
