"""Use cases and background passes on a ledger in memory, in virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.decision import Decision, OpenedReceipt, Outcome, Receipt, ReceiptBody
from intertie.broker.domain.fleet import SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.guarantees import MeasuredDirection, MeasuredPart
from intertie.broker.domain.networks import NetworkId
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.planning import Image
from intertie.broker.domain.ports import Caller
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.loops.expire import Expire
from intertie.broker.loops.in_doubt import InDoubt
from intertie.broker.loops.passes import keep
from intertie.broker.loops.reconcile import PATIENCE, Reconcile
from intertie.broker.loops.refunds import Refunds
from intertie.broker.loops.retention import Retention
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.create_cluster import CreateCluster, Order
from intertie.broker.usecases.delete_cluster import DeleteCluster
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.broker.usecases.resolve_part import ResolvePart
from intertie.common.errors import (
    EtcdUnavailable,
    NotFound,
    NotLeading,
    RequestIdReuse,
    SiteUnreachable,
    StaleWrite,
)
from intertie.common.etcd.client import MAX_OPERATIONS
from intertie.common.guarantees import GuaranteeKind
from intertie.common.intervals import Window
from intertie.common.names import ClusterName, PartName
from intertie.common.part_rules import MAX_PART_NETWORKS
from intertie.common.spec import Allocation, ClusterSpec, Environment, Group, LeaseTerms, Network
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock, turns
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import (
    COORDINATOR,
    DIGEST,
    POLICY,
    facts,
    part,
    part_spec,
    workspace,
)

ALICE = Caller(spiffe="alice", tenant="demo")
NAME = ClusterName.parse("sites/north/tenants/demo/clusters/one")
SPEC = ClusterSpec(
    groups=(
        Group(
            name="w",
            count=2,
            environment=Environment(image="guest"),
            allocation=Allocation(vcpus=1, memory_mib=128, disk_mib=128),
        ),
    ),
    networks=(Network(name="lan", subnet="10.1.0.0/24"),),
    lease=LeaseTerms(duration=timedelta(hours=1)),
)


class OneImage:
    async def find(self, tenant: str, image: str) -> Image | None:
        return Image(digest=DIGEST, size_bytes=1, virtual_size_bytes=1)


class NoReceipts:
    def sign(self, body: ReceiptBody) -> Receipt:
        raise AssertionError

    def open(self, receipt: Receipt) -> OpenedReceipt:
        raise AssertionError


class Register:
    """Answers as told: with a decision, or not at all."""

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self.asked = 0

    async def resolve(self, coordinator: str, tx: str, reason: str) -> Decision:
        self.asked += 1
        if self.decision is None:
            raise SiteUnreachable("meta", "for a test")
        return self.decision


class Beats:
    """Hints that come with the clock alone."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def passes(self, *, period_s: float) -> AsyncIterator[frozenset[str] | None]:
        while True:
            yield None
            await self.clock.sleep(period_s)


class World:
    """One broker without its edges."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = MemoryLedger(POLICY)
        self.alive()
        ledger, clock = self.ledger, self.clock
        forwarding = Forwarding(ledger, None, clock, FakeRoom())
        self.get = GetCluster(ledger, forwarding, "north")
        self.create = CreateCluster(
            ledger,
            OneImage(),
            Admission(ledger, clock, FakeRoom()),
            forwarding,
            POLICY,
            clock,
            lambda: "seed",
        )
        self.delete = DeleteCluster(ledger, self.get, forwarding, clock)
        self.reconcile = Reconcile(ledger, POLICY, clock)
        self.refunds = Refunds(ledger, POLICY, clock)
        self.retention = Retention(ledger, forwarding, clock)
        self.register = Register()
        resolve = ResolvePart(ledger, NoReceipts(), POLICY, clock)
        self.in_doubt = InDoubt(ledger, self.register, resolve, clock)
        self.expire = Expire(ledger, clock)

    def alive(self) -> None:
        for host in ("n1", "n2"):
            self.ledger.report(facts(host, report_time=self.clock.now()))

    async def make(self, request_id: str = "r1") -> ClusterRecord:
        key = RequestKey(caller="alice", request_id=request_id, digest="d")
        order = Order(name=NAME, spec=SPEC, request=key, validate_only=False)
        await self.create(order, ALICE)
        return await self.cluster()

    async def cluster(self) -> ClusterRecord:
        found = await self.ledger.cluster("demo", "one")
        assert found is not None
        return found.value

    async def part(self) -> Part:
        found = await self.ledger.part(PartName.parse((await self.cluster()).part))
        assert found is not None
        return found.value

    async def say(self, state: WorkspaceState, *, gone: bool = False) -> None:
        """Every host answers what it was told last."""
        for (host, uid), wanted in self.ledger.wanted.items():
            seen = tuple(
                SeenWorkspace(name=each.name, state=state, ready=state is WorkspaceState.RUNNING)
                for each in wanted.workspaces
            )
            self.ledger.see(
                SeenPart(
                    host=host,
                    part_uid=uid,
                    generation=wanted.generation,
                    workspaces=() if gone else seen,
                    gone=gone,
                )
            )
        await self.reconcile.sweep()


@pytest.mark.parametrize("after", range(3))
async def test_a_pass_that_is_broken_off_has_made_no_step_that_nobody_awaits(
    after: int, recwarn: pytest.WarningsRecorder
) -> None:
    """Wherever that is; after one turn its steps are known, and none has begun."""
    world = World()
    await world.make()
    sweep = asyncio.create_task(world.reconcile.sweep())
    await turns(after)
    sweep.cancel()
    await asyncio.wait([sweep])
    del sweep  # what it was broken off with keeps its steps
    gc.collect()
    assert [str(each.message) for each in recwarn] == []
    # The next one takes them.
    await world.reconcile.sweep()
    assert (await world.part()).generation == 1


async def test_a_view_is_made_anew_when_something_else_is_measured_and_only_then(
    world: World,
) -> None:
    record = await world.make()
    uid = PartName.parse(record.part).uid
    name = ClusterName.parse(record.name)
    first = await world.get.here(name)
    assert await world.get.here(name) is first
    host = (await world.part()).placed[0].host
    iops = MeasuredDirection(kind=GuaranteeKind.DISK_IOPS, source="w-0", value=1)
    world.ledger.measure(host, {uid: MeasuredPart(at=START, directions=(iops,))})
    second = await world.get.here(name)
    assert second is not first
    assert await world.get.here(name) is second
    assert first is not None
    assert second is not None
    assert second.etag == first.etag


@pytest.fixture
def world() -> World:
    return World()


async def test_a_cluster_from_admission_to_the_end_of_its_window(world: World) -> None:
    made = await world.make()
    assert made.state is ClusterState.SCHEDULED
    await world.reconcile.sweep()
    assert {host for host, _ in world.ledger.wanted} == {"n1", "n2"}
    await world.say(WorkspaceState.STAGING)
    assert (await world.cluster()).state is ClusterState.SCHEDULED
    await world.say(WorkspaceState.RUNNING)
    assert (await world.cluster()).state is ClusterState.ACTIVE
    await world.clock.advance(3600)
    await world.reconcile.sweep()
    assert all(each.gone for each in world.ledger.wanted.values())
    await world.say(WorkspaceState.ENDED, gone=True)
    await world.reconcile.sweep()
    assert world.ledger.wanted == {}
    assert (await world.cluster()).state is ClusterState.ENDED


async def test_a_cluster_that_is_deleted_before_its_hosts_were_told(world: World) -> None:
    await world.make()
    await world.delete(NAME, "", ALICE)
    await world.reconcile.sweep()
    await world.reconcile.sweep()
    assert (await world.cluster()).state is ClusterState.CANCELLED
    assert (await world.ledger.view()).vnis == {}
    again = await world.make("r2")
    assert again.state is ClusterState.SCHEDULED


async def test_hosts_are_told_of_a_new_part_after_those_that_gave_way_for_it(world: World) -> None:
    """A bug: the guests of both ran at one time, where hosts were told of the new one first and
    the leader stopped then, or had lost a race for the other."""
    ledger, sweep = world.ledger, world.reconcile.sweep
    await ledger.commit(Change(writes=(Write(record=part("old"), read_at=0),)))
    await sweep()
    [old] = await ledger.parts()
    shorter = replace(old.value.spec, window=Window(START, START + timedelta(minutes=10)))
    less = Write(record=replace(old.value, spec=shorter), read_at=old.revision)
    await ledger.commit(Change(writes=(Write(record=part("new"), read_at=0), less)))
    before, whole = len(ledger.commits), ledger.commit

    async def beaten(change: Change) -> int:
        if any(each.part == old.value.name for each in change.wanted.values()):
            raise StaleWrite("old")
        return await whole(change)

    ledger.commit = beaten  # type: ignore[method-assign]
    await sweep()
    assert len(ledger.commits) == before, "of neither"
    ledger.commit = whole  # type: ignore[method-assign]
    await sweep(frozenset({old.value.name}))
    told = [wanted.part for each in ledger.commits[before:] for wanted in each.wanted.values()]
    assert told == [old.value.name, part("new").name]


async def test_a_part_on_very_many_hosts_ends_in_transactions_that_a_store_takes(
    world: World,
) -> None:
    """Broken off between them, the next pass goes on; the part has its VXLAN ids until then."""
    hosts = [f"n{number}" for number in range(1, 201)]
    wide = part(
        spec=part_spec(*(workspace("w", number) for number in range(200))),
        placed=tuple(Placed(workspace=f"w-{at}", host=host) for at, host in enumerate(hosts)),
        network_ids=(NetworkId(network="lan", vni=4096),),
    )
    own = Change(writes=(Write(record=wide),), vnis=((4096, wide.uid),))
    await world.ledger.commit(own)
    await world.reconcile.sweep()
    await world.clock.advance(3600)
    await world.reconcile.sweep()
    for host in hosts:
        world.ledger.see(SeenPart(host=host, part_uid=wide.uid, generation=2, gone=True))
    before = len(world.ledger.commits)
    world.ledger.loses_answer = True
    with pytest.raises(EtcdUnavailable):
        await world.reconcile.sweep()
    assert 0 < len(world.ledger.wanted) < 200
    assert (await world.ledger.view()).vnis.keys() == {4096}
    await world.reconcile.sweep()
    assert world.ledger.wanted == {}
    assert (await world.ledger.view()).vnis == {}
    assert (await states(world))["t1"] is PartState.ENDED
    assert all(
        len(each.writes) + len(each.unwanted) + MAX_PART_NETWORKS <= MAX_OPERATIONS
        for each in world.ledger.commits[before:]
    )


async def test_a_failure_is_believed_after_a_while_and_ends_all(world: World) -> None:
    await world.make()
    await world.reconcile.sweep()
    await world.say(WorkspaceState.RUNNING)
    await world.say(WorkspaceState.FAILED)
    await world.clock.advance(PATIENCE.total_seconds() - 1)
    await world.say(WorkspaceState.RUNNING)
    await world.say(WorkspaceState.FAILED)
    await world.clock.advance(PATIENCE.total_seconds() - 1)
    await world.reconcile.sweep()
    assert (await world.cluster()).state is ClusterState.ACTIVE
    await world.clock.advance(1)
    await world.reconcile.sweep()
    lost = await world.cluster()
    assert lost.state is ClusterState.FAILED
    assert lost.failure is not None
    assert lost.failure.reason == "WORKSPACE_FAILED"
    await world.reconcile.sweep()
    assert all(each.gone for each in world.ledger.wanted.values())
    await world.say(WorkspaceState.ENDED, gone=True)
    assert (await world.part()).state is PartState.ENDED


async def test_an_answer_that_was_lost_is_found_by_the_same_call(world: World) -> None:
    world.ledger.loses_answer = True
    made = await world.make()
    assert made.state is ClusterState.SCHEDULED
    assert len(await world.ledger.parts()) == 1


async def test_a_store_that_is_away_is_said_and_nothing_is_taken(world: World) -> None:
    world.ledger.broken = True
    with pytest.raises(EtcdUnavailable):
        await world.make()
    world.ledger.broken = False
    assert await world.ledger.parts() == ()


async def test_a_request_id_is_free_again_after_a_day(world: World) -> None:
    await world.make()
    other = Order(
        name=ClusterName.parse("sites/north/tenants/demo/clusters/two"),
        spec=SPEC,
        request=RequestKey(caller="alice", request_id="r1", digest="another"),
        validate_only=False,
    )
    with pytest.raises(RequestIdReuse):
        await world.create(other, ALICE)
    await world.clock.advance(24 * 3600)
    world.alive()
    await world.create(other, ALICE)


async def test_many_at_once_are_admitted_one_by_one(world: World) -> None:
    results = await asyncio.gather(*(world.make("r1") for _ in range(5)))
    assert len({each.uid for each in results}) == 1
    assert len(await world.ledger.parts()) == 1


async def test_who_does_not_lead_refuses_before_it_reads(world: World) -> None:
    world.ledger.leading = False
    with pytest.raises(NotLeading):
        await world.make()


async def test_tombstones_go_a_day_after_the_window(world: World) -> None:
    await world.make()
    await world.delete(NAME, "", ALICE)
    for _ in range(2):
        await world.reconcile.sweep()
    await world.refunds.sweep()
    await world.clock.advance(25 * 3600 - 1)
    await world.retention.sweep()
    assert len(await world.ledger.parts()) == 1
    assert await world.ledger.requests() == ()
    await world.clock.advance(1)
    await world.retention.sweep()
    assert await world.ledger.parts() == ()
    with pytest.raises(NotFound):
        await world.get(NAME, ALICE)


async def test_a_hold_expires_and_a_prepared_part_does_not(world: World) -> None:
    held = part("t1", PartState.HELD, expire_time=START + timedelta(seconds=30))
    prepared = replace(part("t2", PartState.PREPARED), expire_time=None)
    for each in (held, prepared):
        await world.ledger.commit(Change(writes=(Write(record=each),)))
    sweeping = asyncio.create_task(
        keep("expire", world.expire.sweep, world.ledger, Beats(world.clock), period_s=1)
    )
    await world.clock.advance(29)
    assert await states(world) == {"t1": PartState.HELD, "t2": PartState.PREPARED}
    await world.clock.advance(3600)
    assert await states(world) == {"t1": PartState.EXPIRED, "t2": PartState.PREPARED}
    sweeping.cancel()


async def test_a_part_in_doubt_waits_for_its_register_however_long(world: World) -> None:
    doubtful = part("t1", PartState.PREPARED, decide_by=START + timedelta(seconds=20))
    await world.ledger.commit(Change(writes=(Write(record=doubtful),)))
    await world.in_doubt.sweep()
    assert world.register.asked == 0
    await world.clock.advance(20)
    await world.in_doubt.sweep()
    await world.clock.advance(10 * 24 * 3600)
    await world.in_doubt.sweep()
    assert world.register.asked == 2
    assert await states(world) == {"t1": PartState.PREPARED}
    world.register.decision = Decision(tx="t1", outcome=Outcome.OPEN)
    await world.in_doubt.sweep()
    assert await states(world) == {"t1": PartState.PREPARED}
    world.register.decision = Decision(tx="t1", outcome=Outcome.ABORT, decided_by=COORDINATOR)
    await world.in_doubt.sweep()
    assert await states(world) == {"t1": PartState.RELEASED}


async def test_a_silent_register_keeps_no_other_coordinators_parts_waiting(world: World) -> None:
    """A bug: parts were asked about one after another, for up to 10 s each."""

    class Registers:
        async def resolve(self, coordinator: str, tx: str, reason: str) -> Decision:
            if coordinator == COORDINATOR:
                await world.clock.sleep(10)
                raise SiteUnreachable("meta", "for a test")
            return Decision(tx=tx, outcome=Outcome.ABORT, decided_by=coordinator)

    for number in range(20):
        silent = part(f"t{number}", PartState.PREPARED, decide_by=START)
        await world.ledger.commit(Change(writes=(Write(record=silent),)))
    other = part("u1", PartState.PREPARED, decide_by=START, coordinator="spiffe://other/metasched")
    await world.ledger.commit(Change(writes=(Write(record=other),)))
    resolve = ResolvePart(world.ledger, NoReceipts(), POLICY, world.clock)
    in_doubt = InDoubt(world.ledger, Registers(), resolve, world.clock)
    sweeping = asyncio.create_task(in_doubt.sweep())
    await world.clock.settle()
    assert (await states(world))["u1"] is PartState.RELEASED
    assert not sweeping.done()
    await world.clock.advance(20)
    assert sweeping.done()


async def test_a_store_that_is_away_ends_the_pass_over_parts_in_doubt(world: World) -> None:
    doubtful = part("t1", PartState.PREPARED, decide_by=START)
    await world.ledger.commit(Change(writes=(Write(record=doubtful),)))

    class Registers:
        async def resolve(self, coordinator: str, tx: str, reason: str) -> Decision:
            world.ledger.broken = True
            return Decision(tx=tx, outcome=Outcome.ABORT, decided_by=coordinator)

    resolve = ResolvePart(world.ledger, NoReceipts(), POLICY, world.clock)
    with pytest.raises(EtcdUnavailable):
        await InDoubt(world.ledger, Registers(), resolve, world.clock).sweep()


async def test_a_pass_that_fails_is_followed_by_the_next(world: World) -> None:
    turns: list[int] = []

    async def sweep(touched: frozenset[str] | None) -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            raise EtcdUnavailable("for a test")
        if len(turns) == 2:
            raise ValueError("a bug")

    task = asyncio.create_task(keep("x", sweep, world.ledger, Beats(world.clock), period_s=1))
    await world.clock.advance(1)
    world.ledger.leading = False
    await world.clock.advance(5)
    world.ledger.leading = True
    await world.clock.advance(1)
    assert turns == [0, 1, 2]
    task.cancel()


async def states(world: World) -> dict[str, PartState]:
    return {each.value.path.part_id: each.value.state for each in await world.ledger.parts()}
