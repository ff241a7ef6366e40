"""The process: settings, connections, use cases, loops, server, in this order."""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import structlog
import uvloop

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.api.metasched.v1 import (
    decisions_pb2,
    decisions_pb2_grpc,
    sites_pb2,
    sites_pb2_grpc,
)
from intertie.common import points
from intertie.common.changes.watching import WatchAll
from intertie.common.clock import Clock, SystemClock
from intertie.common.etcd.client import Etcd
from intertie.common.etcd.election import Election
from intertie.common.etcd.feed import Feed
from intertie.common.etcd.room import Room
from intertie.common.logs import configure
from intertie.common.process import collect_gently, switch_often
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.server import ListenFailed, Registration, Server
from intertie.common.settings import SettingsInvalid, load
from intertie.metasched.adapters.broker_client import BrokerSites
from intertie.metasched.adapters.cluster_changes import PREFIXES, ClusterChanges
from intertie.metasched.adapters.etcd_clusters import EtcdClusters, EtcdSightings
from intertie.metasched.adapters.etcd_plans import EtcdPlans
from intertie.metasched.adapters.etcd_register import EtcdRegister
from intertie.metasched.adapters.receipts import SignedReceipts
from intertie.metasched.adapters.solver_processes import SolverProcesses
from intertie.metasched.convert import cluster_octets
from intertie.metasched.loops.due import Due
from intertie.metasched.loops.forget import Forget
from intertie.metasched.loops.pace import paced
from intertie.metasched.loops.queue import Queue
from intertie.metasched.loops.recover import Recover
from intertie.metasched.loops.refresh import Refresh
from intertie.metasched.loops.replacing import Replacing
from intertie.metasched.loops.settle import Settle
from intertie.metasched.servicers import (
    ClustersServicer,
    DecisionsServicer,
    KnownSitesServicer,
)
from intertie.metasched.settings import MetaschedSettings
from intertie.metasched.usecases.act_on_cluster import ActOnCluster
from intertie.metasched.usecases.attach import FindWorkspace
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
from intertie.metasched.usecases.list_clusters import ListClusters
from intertie.metasched.usecases.losses import Losses
from intertie.metasched.usecases.part_cache import PartCache
from intertie.metasched.usecases.pauses import Pauses
from intertie.metasched.usecases.plan_cluster import PlanCluster
from intertie.metasched.usecases.planning import Effort, Planning
from intertie.metasched.usecases.put_aside import PutAside
from intertie.metasched.usecases.replace_lost import ReplaceLost
from intertie.metasched.usecases.telling import Underway
from intertie.metasched.usecases.update_cluster import UpdateCluster
from intertie.metasched.usecases.watch_cluster import WatchCluster

log = structlog.get_logger(__name__)

LOOP_PERIOD_S = 1.0
FORGET_S = 300.0
QUEUE_PERIOD_S = 2.0
DRAIN_S = 10.0


class FaultPause:
    """Waits at the one point that a test of faults has named; everywhere else, not at all.

    Warns when it is made: in a deployment, a pause set by mistake delays every co-allocation.
    """

    def __init__(self, fault: tuple[str, float] | None, clock: Clock) -> None:
        self._fault = fault
        self._clock = clock
        if fault is not None:
            log.warning("fault.pause_set", point=fault[0], seconds=fault[1])

    async def __call__(self, point: str) -> None:
        if self._fault is not None and self._fault[0] == point:
            log.warning("fault.pausing", point=point, seconds=self._fault[1])
            await self._clock.sleep(self._fault[1])


class Metasched:
    """One replica, put together from its settings."""

    def __init__(self, settings: MetaschedSettings, etcd: Etcd, clock: Clock) -> None:
        self._etcd = etcd
        credentials = Credentials(settings.tls, settings.trust, clock)
        replica = settings.replica or settings.listen.addresses[0]
        self.election = Election(etcd, "metasched", replica, clock)
        self._sites = BrokerSites.connect(
            settings.sites, credentials, clock, timeout_s=settings.commit.rpc_timeout_s
        )
        clusters = EtcdClusters(etcd, self.election)
        sightings = EtcdSightings(etcd, self.election)
        register = EtcdRegister(etcd, self.election)
        parts = PartCache(self._sites, clock)
        get = GetCluster(clusters, parts, clock)
        underway = Underway()
        coallocate = Coallocate(
            self._sites,
            register,
            SignedReceipts(credentials.trust, clock),
            parts,
            clock,
            FaultPause(settings.fault, clock),
        )
        effort = Effort(
            horizon=timedelta(hours=settings.planning.horizon_h),
            slot=timedelta(minutes=settings.planning.slot_min),
            solver=settings.planning.effort,
        )
        self._solvers = SolverProcesses(settings.planning.solver_memory_mib, clock)
        planning = Planning(
            self._sites, effort, self._solvers, at_a_time=settings.planning.at_a_time
        )
        commit_terms = CommitTerms(
            coordinator=credentials.identity.spiffe,
            decide_within=timedelta(seconds=settings.commit.decide_within_s),
        )
        room = Room(etcd, len(settings.etcd.endpoints), settings.room, self.election, self, clock)
        queue_policy = settings.queue.policy()
        plans = EtcdPlans(etcd)
        explaining = Explaining(planning, self._solvers)
        capacity = Capacity(self._sites, clock)
        line = Line(planning, explaining, parts, capacity, queue_policy)
        pauses = Pauses(clock)
        fits = FitsAside(register, queue_policy, commit_terms.coordinator)
        self._begin = BeginWaiting(
            clusters=clusters,
            register=register,
            planning=planning,
            coallocate=coallocate,
            underway=underway,
            clock=clock,
            policy=queue_policy,
            terms=commit_terms,
            draw=_draw,
            fits=fits,
            pauses=pauses,
            room=room,
        )
        self._put_aside = PutAside(
            clusters=clusters,
            register=register,
            parts=parts,
            coallocate=coallocate,
            underway=underway,
            clock=clock,
            policy=queue_policy,
            terms=commit_terms,
            draw=_draw,
        )
        self._go_on = GoOn(
            clusters=clusters,
            register=register,
            parts=parts,
            coallocate=coallocate,
            underway=underway,
            clock=clock,
            policy=queue_policy,
            terms=commit_terms,
            draw=_draw,
            pauses=pauses,
            room=room,
        )
        self._create = CreateCluster(
            clusters=clusters,
            register=register,
            planning=planning,
            explaining=explaining,
            fits=fits,
            enqueue=EnqueueCluster(clusters, line, fits, get, clock),
            coallocate=coallocate,
            get_cluster=get,
            underway=underway,
            clock=clock,
            policy=queue_policy,
            terms=commit_terms,
            plans=plans,
            draw=_draw,
            room=room,
        )
        plan = PlanCluster(
            planning=planning,
            explaining=explaining,
            plans=plans,
            clock=clock,
            draw=_draw,
            room=room,
            within=timedelta(seconds=settings.planning.accept_within_s),
        )
        self._update = UpdateCluster(
            clusters=clusters,
            register=register,
            planning=planning,
            coallocate=coallocate,
            get_cluster=get,
            underway=underway,
            clock=clock,
            terms=commit_terms,
            draw=_draw,
            room=room,
        )
        self._replace_lost = ReplaceLost(
            clusters=clusters,
            register=register,
            planning=planning,
            coallocate=coallocate,
            underway=underway,
            clock=clock,
            terms=commit_terms,
            draw=_draw,
            room=room,
        )
        self._watch = WatchCluster(get, clock)
        self._feed = Feed(etcd, PREFIXES, lambda: ClusterChanges(cluster_octets), clock)
        clusters_servicer = ClustersServicer(
            authority=f"metascheds/{settings.name}",
            create=self._create,
            plan=plan,
            get=get,
            listing=ListClusters(clusters),
            watch=self._watch,
            watch_all=WatchAll(self._feed, f"metascheds/{settings.name}"),
            update=self._update,
            act=ActOnCluster(clusters, get, self._sites, parts, clock),
            delete=DeleteCluster(clusters, get, clock),
            find=FindWorkspace(clusters),
            sites=self._sites,
        )
        decisions = DecisionsServicer(Decisions(register, self._sites.names, clock))
        self._server = Server(
            settings,
            clock,
            _registrations(clusters_servicer, decisions, KnownSitesServicer(self._sites)),
            credentials,
        )
        queue = Queue(clusters, line, self._begin, self._go_on, pauses, clock)
        losses = Losses(settings.losses.policy(), clock)
        self._replacing = Replacing(losses, self._replace_lost, clock)
        sweeps = {
            "recover": Recover(clusters, register, underway, clock).sweep,
            "settle": Settle(
                clusters, register, self._sites, coallocate, parts, underway, clock
            ).sweep,
            "refresh": Refresh(clusters, sightings, parts, losses, clock).sweep,
            "replacing": self._replacing.sweep,
            "aside": self._put_aside.sweep,
        }
        forget = Forget(clusters, register, clock)
        self._background: list[Coroutine[Any, Any, None]] = [self.election.run(), room.run()]
        self._background += [
            paced(name, sweep, self.election, clock, period_s=LOOP_PERIOD_S)
            for name, sweep in sweeps.items()
        ]
        self._background.append(
            paced("forget", forget.sweep, self.election, clock, period_s=FORGET_S)
        )
        due = Due(clusters, self._go_on, pauses, clock)
        self._background += [
            paced(name, sweep, self.election, clock, period_s=QUEUE_PERIOD_S)
            for name, sweep in (("queue", queue.sweep), ("due", due.sweep))
        ]

    async def taking(self, *, new: bool) -> None:
        """See common.etcd.room.Health."""
        await self._server.taking(new=new)

    def begun(self) -> tuple[asyncio.Task[Any], ...]:
        """Creates and updates that are at work, whether or not their callers still wait, and sites
        that are told of leases that begin."""
        at_work = (self._begin, self._put_aside, self._go_on, self._replace_lost)
        told = (task for each in at_work for task in each.tell.begun())
        begun = (self._create, self._update, self._replacing)
        return (*(task for each in begun for task in each.begun()), *told)

    async def run(self, until: asyncio.Event) -> None:
        """Serves until the event; then lets what was begun be decided, and gives up the lead."""
        await self._server.start()
        tasks = [asyncio.create_task(each) for each in (*self._background, self._solvers.start())]
        try:
            await until.wait()
            log.info("metasched.stopping")
            self._watch.stop()
            await self._feed.close()
            await self._server.stop(grace_s=DRAIN_S)
            with contextlib.suppress(TimeoutError):
                draining = asyncio.gather(self._create.drain(), self._update.drain())
                await asyncio.wait_for(draining, DRAIN_S)
        finally:
            await self._server.stop(0)
            tasks += self._replacing.begun()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._solvers.close()
            await self._sites.close()
            await self._etcd.close()


def _draw() -> str:
    return secrets.token_hex(16)


def _registrations(
    clusters: ClustersServicer, decisions: DecisionsServicer, sites: KnownSitesServicer
) -> list[Registration]:
    return [
        (
            clusters_pb2_grpc.add_ClustersServicer_to_server,
            clusters,
            clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
        ),
        (
            decisions_pb2_grpc.add_DecisionsServicer_to_server,
            decisions,
            decisions_pb2.DESCRIPTOR.services_by_name["Decisions"],
        ),
        (
            sites_pb2_grpc.add_KnownSitesServicer_to_server,
            sites,
            sites_pb2.DESCRIPTOR.services_by_name["KnownSites"],
        ),
    ]


async def _serve(settings: MetaschedSettings) -> None:
    until = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, until.set)
    etcd = await Etcd.connect(settings.etcd)
    await Metasched(settings, etcd, SystemClock()).run(until)


def main() -> None:
    parser = argparse.ArgumentParser(prog="intertie-metasched", description=__doc__)
    parser.add_argument("--config", required=True, help="settings, a TOML file")
    arguments = parser.parse_args()
    try:
        settings = load(MetaschedSettings, arguments.config)
        collect_gently()
        switch_often()
        configure("metasched", settings.log.level)
        points.stop_in(settings.fault_points)
        uvloop.run(_serve(settings))
    except (SettingsInvalid, ListenFailed) as error:
        sys.exit(f"intertie-metasched: {error}")
