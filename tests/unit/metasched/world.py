"""A meta-scheduler's use cases over sites, register and clock in memory."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from intertie.common.etcd.client import Compare, Op, TxnResult
from intertie.common.intervals import Window
from intertie.common.names import ClusterName, Parent, PartName
from intertie.common.spec import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    Environment,
    Group,
    LeaseTerms,
    Network,
    PairTerm,
)
from intertie.metasched.adapters.etcd_clusters import EtcdClusters, EtcdSightings
from intertie.metasched.adapters.etcd_plans import EtcdPlans
from intertie.metasched.adapters.etcd_register import EtcdRegister
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.lost_sites import LossPolicy
from intertie.metasched.domain.ports import Solvers
from intertie.metasched.domain.problem import ImageFound
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.loops.due import Due
from intertie.metasched.loops.forget import Forget
from intertie.metasched.loops.queue import Queue
from intertie.metasched.loops.recover import Recover
from intertie.metasched.loops.refresh import Refresh
from intertie.metasched.loops.replacing import Replacing
from intertie.metasched.loops.settle import Settle
from intertie.metasched.usecases.act_on_cluster import ActOnCluster
from intertie.metasched.usecases.begin_waiting import BeginWaiting
from intertie.metasched.usecases.capacity import Capacity
from intertie.metasched.usecases.coallocate import Coallocate
from intertie.metasched.usecases.create_cluster import CommitTerms, CreateCluster
from intertie.metasched.usecases.decisions import Decisions
from intertie.metasched.usecases.delete_cluster import DeleteCluster
from intertie.metasched.usecases.enqueue_cluster import EnqueueCluster
from intertie.metasched.usecases.explaining import Explaining
from intertie.metasched.usecases.fits_aside import FitsAside
from intertie.metasched.usecases.get_cluster import GetCluster
from intertie.metasched.usecases.go_on import GoOn
from intertie.metasched.usecases.line import Line
from intertie.metasched.usecases.losses import Losses
from intertie.metasched.usecases.order import Order
from intertie.metasched.usecases.part_cache import PartCache
from intertie.metasched.usecases.pauses import Pauses
from intertie.metasched.usecases.plan_cluster import PlanCluster
from intertie.metasched.usecases.planning import Effort, Planning
from intertie.metasched.usecases.put_aside import PutAside
from intertie.metasched.usecases.replace_lost import ReplaceLost
from intertie.metasched.usecases.telling import Underway
from intertie.metasched.usecases.update_cluster import UpdateCluster
from intertie.metasched.usecases.watch_cluster import WatchCluster
from tests.fakes.clock import FakeClock
from tests.fakes.crashing import CrashingSites, CrashPlan
from tests.fakes.etcd import MemoryElection, MemoryEtcd
from tests.fakes.part import GONE, State
from tests.fakes.plain_receipts import PlainReceipts
from tests.fakes.room import FakeRoom
from tests.fakes.sites import MemorySites, two_sites
from tests.fakes.solvers import SolverThreads

IMAGE = ImageFound(digest="b3:" + "1" * 64, virtual_mib=64)
COORDINATOR = "spiffe://meta.meta.intertie/metasched"
ALICE = "spiffe://meta.meta.intertie/tenant/demo/user/alice"
INSTANT = timedelta(microseconds=1)
NAME = ClusterName(Parent("metascheds/meta", "demo"), "c1")


def spec(workers: int = 3, *, mbit_s: int = 0, most: int = 0) -> ClusterSpec:
    """A head and workers of one vCPU each, all on one network."""
    pairs = (PairTerm(group="head", bandwidth=BandwidthTerm(guarantee_mbit_s=mbit_s)),)
    environment = Environment(image="guest")
    allocation = Allocation(vcpus=1, memory_mib=128, disk_mib=128)
    return ClusterSpec(
        groups=(
            Group(name="head", count=1, environment=environment, allocation=allocation),
            Group(
                name="worker",
                count=0 if most else workers,
                min_count=workers if most else 0,
                max_count=most,
                environment=environment,
                allocation=Allocation(
                    vcpus=1, memory_mib=128, disk_mib=128, pairs=pairs if mbit_s else ()
                ),
            ),
        ),
        networks=(Network(name="lan", subnet="10.1.0.0/24"),),
        lease=LeaseTerms(duration=timedelta(hours=1)),
    )


def order(
    request_id: str = "r1", name: ClusterName = NAME, what: ClusterSpec | None = None
) -> Order:
    return Order(name=name, spec=what or spec(), caller=ALICE, request_id=request_id)


class CrashingEtcd(MemoryEtcd):
    """One process's way to a store that outlives it: writes are steps of its crash plan."""

    def __init__(self, store: MemoryEtcd, crash: CrashPlan) -> None:
        self.__dict__ = store.__dict__
        self.crash = crash

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        crash = self.crash
        return await crash.step(lambda: MemoryEtcd.txn(self, compare, then))


class Points:
    """Remembers the points it came by; `acts` are done there."""

    def __init__(self) -> None:
        self.passed: list[str] = []

    async def __call__(self, point: str) -> None:
        self.passed.append(point)


@dataclass
class Process:
    """One replica of the meta-scheduler."""

    clusters: EtcdClusters
    sightings: EtcdSightings
    register: EtcdRegister
    create: CreateCluster
    plan: PlanCluster
    plans: EtcdPlans
    get: GetCluster
    act: ActOnCluster
    update: UpdateCluster
    delete: DeleteCluster
    watch: WatchCluster
    decisions: Decisions
    recover: Recover
    settle: Settle
    refresh: Refresh
    replacing: Replacing
    losses: Losses
    replace_lost: ReplaceLost
    forget: Forget
    queue: Queue
    due: Due
    begin: BeginWaiting
    aside: PutAside
    go_on: GoOn
    points: Points
    election: MemoryElection


@dataclass
class World:
    clock: FakeClock = field(default_factory=FakeClock)
    etcd: MemoryEtcd = field(default_factory=MemoryEtcd)
    vcpus: int = 4
    room: FakeRoom = field(default_factory=FakeRoom)
    queue_policy: QueuePolicy = field(default_factory=QueuePolicy)
    solvers: Solvers = field(default_factory=SolverThreads)

    def __post_init__(self) -> None:
        self.north, self.south = two_sites(self.clock, IMAGE, vcpus=self.vcpus)
        self.sites = MemorySites(self.north, self.south)
        self._numbers = itertools.count(1)

    async def process(
        self, crash: CrashPlan | None = None, *, points: Points | None = None, leads: bool = True
    ) -> Process:
        sites = CrashingSites(self.sites, crash) if crash else self.sites
        election = MemoryElection(self.etcd, f"replica-{next(self._numbers)}")
        if leads:
            await election.win()
        etcd: MemoryEtcd = CrashingEtcd(self.etcd, crash) if crash else self.etcd
        clusters, register = EtcdClusters(etcd, election), EtcdRegister(etcd, election)
        sightings = EtcdSightings(etcd, election)
        parts = PartCache(sites, self.clock)
        get = GetCluster(clusters, parts, self.clock)
        underway, points = Underway(), points or Points()
        coallocate = Coallocate(sites, register, PlainReceipts(), parts, self.clock, points)
        effort = Effort(horizon=timedelta(hours=24), slot=timedelta(minutes=5), solver=1.0)
        planning = Planning(sites, effort, self.solvers)
        terms = CommitTerms(coordinator=COORDINATOR, decide_within=timedelta(seconds=20))

        def draw() -> str:
            return f"{next(self._numbers):032x}"[::-1]

        update = UpdateCluster(
            clusters=clusters,
            register=register,
            planning=planning,
            coallocate=coallocate,
            get_cluster=get,
            underway=underway,
            clock=self.clock,
            terms=terms,
            draw=draw,
            room=self.room,
        )
        replace_lost = ReplaceLost(
            clusters=clusters,
            register=register,
            planning=planning,
            coallocate=coallocate,
            underway=underway,
            clock=self.clock,
            terms=terms,
            draw=draw,
            room=self.room,
        )
        losses = Losses(LossPolicy(), self.clock)
        explaining = Explaining(planning, self.solvers)
        capacity = Capacity(sites, self.clock)
        line = Line(planning, explaining, parts, capacity, self.queue_policy)
        pauses = Pauses(self.clock)
        fits = FitsAside(register, self.queue_policy, COORDINATOR)
        begin = BeginWaiting(
            clusters=clusters,
            register=register,
            planning=planning,
            coallocate=coallocate,
            underway=underway,
            clock=self.clock,
            policy=self.queue_policy,
            terms=terms,
            draw=draw,
            fits=fits,
            pauses=pauses,
            room=self.room,
        )
        aside = PutAside(
            clusters=clusters,
            register=register,
            parts=parts,
            coallocate=coallocate,
            underway=underway,
            clock=self.clock,
            policy=self.queue_policy,
            terms=terms,
            draw=draw,
        )
        go_on = GoOn(
            clusters=clusters,
            register=register,
            parts=parts,
            coallocate=coallocate,
            underway=underway,
            clock=self.clock,
            policy=self.queue_policy,
            terms=terms,
            draw=draw,
            pauses=pauses,
            room=self.room,
        )
        create = CreateCluster(
            clusters=clusters,
            register=register,
            planning=planning,
            explaining=explaining,
            fits=fits,
            enqueue=EnqueueCluster(clusters, line, fits, get, self.clock),
            coallocate=coallocate,
            get_cluster=get,
            underway=underway,
            clock=self.clock,
            policy=self.queue_policy,
            terms=terms,
            plans=(plans := EtcdPlans(etcd)),
            draw=draw,
            room=self.room,
        )
        plan = PlanCluster(
            planning=planning,
            explaining=explaining,
            plans=plans,
            clock=self.clock,
            draw=draw,
            room=self.room,
            within=timedelta(minutes=5),
        )
        return Process(
            clusters=clusters,
            sightings=sightings,
            register=register,
            create=create,
            plan=plan,
            plans=plans,
            get=get,
            act=ActOnCluster(clusters, get, sites, parts, self.clock),
            update=update,
            delete=DeleteCluster(clusters, get, self.clock),
            watch=WatchCluster(get, self.clock),
            decisions=Decisions(register, self.sites.names, self.clock),
            recover=Recover(clusters, register, underway, self.clock),
            settle=Settle(clusters, register, sites, coallocate, parts, underway, self.clock),
            refresh=Refresh(clusters, sightings, parts, losses, self.clock),
            replacing=Replacing(losses, replace_lost, self.clock),
            losses=losses,
            replace_lost=replace_lost,
            forget=Forget(clusters, register, self.clock),
            queue=Queue(clusters, line, begin, go_on, pauses, self.clock),
            due=Due(clusters, go_on, pauses, self.clock),
            begin=begin,
            aside=aside,
            go_on=go_on,
            points=points,
            election=election,
        )

    def boot(self) -> None:
        """Every guest is ready, at each site."""
        self.north.boot()
        self.south.boot()

    async def settle(self, process: Process, seconds: float = 60) -> None:
        """Loops of the leader and sites in doubt, for a while, all messages arriving."""
        for _ in range(3):
            await process.recover.sweep()
            await process.settle.sweep()
            await self.ask_register(process)
            for site in self.sites.by_name.values():
                site.finish()
            await process.refresh.sweep()
            await self.clock.advance(seconds / 3)

    async def ask_register(self, process: Process) -> None:
        """All sites that are in doubt do."""
        for site in self.sites.by_name.values():
            for tx in site.in_doubt():
                stands = await process.decisions.resolve(
                    tx, caller=f"broker of {site.name}", site=site.name, reason="in doubt"
                )
                for name, part in site.parts.items():
                    if tx in (part.tx, part.amend.tx if part.amend else ""):
                        site.resolve(PartName.parse(name), stands.outcome, tx)

    def states(self) -> dict[str, dict[str, State]]:
        """Of every transaction: the state of its part at each site that has one."""
        found: dict[str, dict[str, State]] = {}
        for site in self.sites.by_name.values():
            for part in site.parts.values():
                found.setdefault(part.tx, {})[site.name] = part.state
        return found

    def check_all_or_nothing(self) -> None:
        """Never CONFIRMED at one site and let go at another; never above capacity."""
        for tx, states in self.states().items():
            gone = {site for site, state in states.items() if state in GONE}
            confirmed = {site for site, state in states.items() if state is State.CONFIRMED}
            assert not (gone and confirmed), (tx, states)
        for site in self.sites.by_name.values():
            for part in site.parts.values():
                start = part.spec.window.start
                assert site.used(Window(start, start + INSTANT)) <= site.vcpus

    def confirmed(self) -> set[str]:
        """Transactions that hold at all of their sites."""
        return {
            tx for tx, states in self.states().items() if set(states.values()) == {State.CONFIRMED}
        }


async def committed(world: World) -> Process:
    """It has committed a cluster over both sites."""
    process = await world.process()
    await process.create(order(what=spec(5, mbit_s=10)))
    return process


async def state(process: Process) -> ClusterState:
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    return stored.record.state


async def swept(world: World, process: Process, seconds: int) -> None:
    for _ in range(seconds):
        await world.clock.advance(1)
        await process.refresh.sweep()
