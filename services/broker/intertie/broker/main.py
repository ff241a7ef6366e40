"""The broker of a site: `intertie-broker --config FILE`."""

import argparse
import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any

import uvloop

from intertie.api.broker.v1 import (
    parts_pb2,
    parts_pb2_grpc,
    site_pb2,
    site_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)
from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.broker.adapters.cluster_changes import PREFIXES, ClusterChanges
from intertie.broker.adapters.etcd_ledger import EtcdLedger
from intertie.broker.adapters.etcd_usage import EtcdUsage
from intertie.broker.adapters.fences import CommandFence, SelfFence
from intertie.broker.adapters.grants import SignedGrants
from intertie.broker.adapters.imagestore_client import GrpcBringing, GrpcImages
from intertie.broker.adapters.lines import Lines
from intertie.broker.adapters.metasched_client import GrpcMetasched, GrpcRegisters
from intertie.broker.adapters.nodeagent_client import GrpcAgents
from intertie.broker.adapters.receipts import SigningNotary
from intertie.broker.adapters.scribe import SigningScribe
from intertie.broker.convert import cluster_octets
from intertie.broker.domain.ports import Fence
from intertie.broker.loops.accounting import Accounting
from intertie.broker.loops.bring import Bring
from intertie.broker.loops.expire import Expire
from intertie.broker.loops.in_doubt import InDoubt
from intertie.broker.loops.lost_hosts import LostHosts
from intertie.broker.loops.passes import keep
from intertie.broker.loops.queue import Queue
from intertie.broker.loops.reconcile import Reconcile
from intertie.broker.loops.refunds import BREACHES_S as REFUNDS_S
from intertie.broker.loops.refunds import Refunds
from intertie.broker.loops.retention import Retention
from intertie.broker.loops.tell_gateways import TellGateways
from intertie.broker.servicers.clusters import ClustersServicer
from intertie.broker.servicers.parts import PartsServicer
from intertie.broker.servicers.site import HostsServicer, SitesServicer
from intertie.broker.servicers.usage import UsageServicer
from intertie.broker.settings import BrokerSettings, FencingSettings
from intertie.broker.usecases.act import ActOnCluster, ActOnPart
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.create_cluster import CreateCluster
from intertie.broker.usecases.delete_cluster import DeleteCluster
from intertie.broker.usecases.find_workspace import FindWorkspace
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.broker.usecases.get_parts import GetParts
from intertie.broker.usecases.hold_amend import HoldAmend
from intertie.broker.usecases.hold_part import HoldPart
from intertie.broker.usecases.hosts import Inventory
from intertie.broker.usecases.list_clusters import ListClusters
from intertie.broker.usecases.list_offers import ListOffers
from intertie.broker.usecases.list_usage import ListUsage
from intertie.broker.usecases.plan_cluster import PlanCluster
from intertie.broker.usecases.prepare_part import PreparePart
from intertie.broker.usecases.release_part import ReleasePart
from intertie.broker.usecases.resolve_part import ResolvePart
from intertie.broker.usecases.sends import Sends
from intertie.broker.usecases.update_cluster import UpdateCluster
from intertie.broker.usecases.watch_cluster import WatchCluster
from intertie.common import logs, points
from intertie.common.changes.watching import WatchAll
from intertie.common.clock import Clock, SystemClock
from intertie.common.etcd.client import Etcd
from intertie.common.etcd.election import Election
from intertie.common.etcd.feed import Feed
from intertie.common.etcd.hints import Bell
from intertie.common.etcd.room import Room
from intertie.common.process import collect_gently, run_until_signalled
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.server import ListenFailed, Server
from intertie.common.settings import SettingsInvalid, load

EXPIRE_S = 1.0
IN_DOUBT_S = 1.0
RECONCILE_S = 2.0
BRING_S = 1.0
QUEUE_S = 2.0
QUEUE_REST_S = 0.25
"""A pass over those that wait is dear where many do."""
RETENTION_S = 60.0
LOST_HOSTS_S = 2.0
ACCOUNTING_S = 10.0
ACCOUNTING_REST_S = 2.0
"""What ends within it is written down and signed together."""
REST_S = 0.02
"""Between a hint and the pass, so that what is written together is looked at together."""


class BellHints:
    """See domain.ports.Hints."""

    def __init__(
        self, bell: Bell, clock: Clock, *, rest_s: float = 0.0, deaf: bool = False
    ) -> None:
        self._bell = bell
        self._clock = clock
        self._rest_s = rest_s
        self._deaf = deaf

    def passes(self, *, period_s: float) -> AsyncIterator[frozenset[str] | None]:
        return self._bell.passes(
            self._clock, period_s=period_s, rest_s=self._rest_s, deaf=self._deaf
        )


class Broker:
    """Everything that one replica is made of."""

    def __init__(self, settings: BrokerSettings, etcd: Etcd, clock: Clock) -> None:
        site, policy = settings.site, settings.site_policy()
        credentials = Credentials(settings.tls, settings.trust, clock)
        signer = credentials.signer
        identity = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.election = Election(etcd, "broker", identity, clock)
        self.ledger = EtcdLedger(etcd, self.election, policy, clock)
        self._etcd, self._clock = etcd, clock

        lines = self._lines = Lines(credentials, clock)
        store = lines.to(settings.imagestore.address, settings.imagestore.server_name)
        metascheds = {
            each.trust_domain: lines.to_replicas(each.addresses, each.server_name)
            for each in settings.metascheds
        }
        metasched: GrpcMetasched | None = None
        if settings.metascheds:
            first = settings.metascheds[0]
            line = metascheds[first.trust_domain]
            metasched = GrpcMetasched(first.name, first.trust_domain, line, signer, clock)
        agents = GrpcAgents(lines, site)
        bell = self.ledger.bell
        ledger, images = self.ledger, GrpcImages(store, site, clock)
        notary = SigningNotary(signer, credentials.trust, clock)
        grants = SignedGrants(signer)
        sends = Sends(site, settings.store_address(), grants)
        usage = EtcdUsage(etcd)
        room = Room(etcd, len(settings.etcd.endpoints), settings.room, self.election, self, clock)
        self._room = room
        admission = Admission(ledger, clock, room)
        forwarding = Forwarding(ledger, metasched, clock, room)
        get, parts = GetCluster(ledger, forwarding, site), GetParts(ledger, clock)
        find = FindWorkspace(ledger, get, parts, forwarding)
        resolve = ResolvePart(ledger, notary, policy, clock)
        inventory = Inventory(ledger, BellHints(bell, clock, rest_s=0.2), policy, clock)
        self._feed = Feed(etcd, PREFIXES, lambda: ClusterChanges(policy, cluster_octets), clock)
        create = CreateCluster(ledger, images, admission, forwarding, policy, clock, _seed)
        clusters_servicer = ClustersServicer(
            site,
            create,
            PlanCluster(create, forwarding),
            get,
            ListClusters(ledger, forwarding, site),
            WatchCluster(get, forwarding, BellHints(bell, clock)),
            UpdateCluster(ledger, images, admission, get, forwarding, policy, clock),
            WatchAll(self._feed, f"sites/{site}"),
            ActOnCluster(ledger, admission, get, forwarding, grants, policy, clock),
            DeleteCluster(ledger, get, forwarding, clock),
            find,
            agents,
            metasched,
        )
        parts_servicer = PartsServicer(
            site,
            clock,
            ListOffers(ledger, images, policy, clock),
            HoldPart(ledger, images, admission, notary, policy, clock, _seed, sends),
            HoldAmend(ledger, images, admission, notary, policy, clock, sends),
            PreparePart(ledger, notary, policy, clock, sends),
            resolve,
            ReleasePart(ledger, clock),
            ActOnPart(ledger, admission, grants, policy),
            parts,
            find,
            agents,
        )
        self.server = Server(
            settings,
            clock,
            [
                (
                    clusters_pb2_grpc.add_ClustersServicer_to_server,
                    clusters_servicer,
                    clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
                ),
                (
                    parts_pb2_grpc.add_PartsServicer_to_server,
                    parts_servicer,
                    parts_pb2.DESCRIPTOR.services_by_name["Parts"],
                ),
                (
                    site_pb2_grpc.add_HostsServicer_to_server,
                    HostsServicer(site, inventory),
                    site_pb2.DESCRIPTOR.services_by_name["Hosts"],
                ),
                (
                    site_pb2_grpc.add_SitesServicer_to_server,
                    SitesServicer(site, inventory),
                    site_pb2.DESCRIPTOR.services_by_name["Sites"],
                ),
                (
                    usage_pb2_grpc.add_UsageServicer_to_server,
                    UsageServicer(site, ListUsage(usage)),
                    usage_pb2.DESCRIPTOR.services_by_name["Usage"],
                ),
            ],
            credentials,
        )
        self._expire = Expire(ledger, clock)
        self._in_doubt = InDoubt(ledger, GrpcRegisters(metascheds), resolve, clock)
        self._reconcile = Reconcile(ledger, policy, clock)
        self._bring = Bring(ledger, GrpcBringing(store, site), site, clock)
        self._tell_gateways = TellGateways(ledger, site, clock)
        self._queue = Queue(ledger, policy, clock, _seed, room, images)
        self._retention = Retention(ledger, forwarding, clock)
        lost_after = timedelta(seconds=settings.fencing.lost_after_s)
        fence = fence_of(settings.fencing)
        self._lost_hosts = LostHosts(ledger, policy, fence, clock, lost_after=lost_after)
        scribe = SigningScribe(site, signer)
        self._refunds = Refunds(ledger, policy, clock)
        self._accounting = Accounting(ledger, usage, scribe, site, clock)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """To be run for ever, beside the server."""
        return [
            self.election.run(),
            self.ledger.follow(),
            self._room.run(),
            self._keep("expire", self._expire.sweep, EXPIRE_S),
            self._keep("in_doubt", self._in_doubt.sweep, IN_DOUBT_S),
            self._keep("reconcile", self._reconcile.sweep, RECONCILE_S, hinted_s=REST_S),
            self._keep("bring", self._bring.sweep, BRING_S, hinted_s=REST_S),
            self._keep("tell_gateways", self._tell_gateways.sweep, BRING_S, hinted_s=REST_S),
            self._keep("queue", self._queue.sweep, QUEUE_S, hinted_s=QUEUE_REST_S),
            self._keep("retention", self._retention.sweep, RETENTION_S),
            self._keep("lost_hosts", self._lost_hosts.sweep, LOST_HOSTS_S),
            self._keep("refunds", self._refunds.sweep, REFUNDS_S, hinted_s=REST_S),
            self._keep(
                "accounting", self._accounting.sweep, ACCOUNTING_S, hinted_s=ACCOUNTING_REST_S
            ),
        ]

    async def taking(self, *, new: bool) -> None:
        """See common.etcd.room.Health."""
        await self.server.taking(new=new)

    async def end_streams(self) -> None:
        """Of those who follow all clusters: another replica goes on."""
        await self._feed.close()

    async def close(self) -> None:
        await self._feed.close()
        await self._lines.close()

    def _keep(self, name: str, sweep: Any, period_s: float, *, hinted_s: float = 0) -> Any:
        """By hints too, that rest for `hinted_s`; 0: by its periods alone."""
        hints = BellHints(self.ledger.bell, self._clock, rest_s=hinted_s, deaf=not hinted_s)
        return keep(name, sweep, self.ledger, hints, period_s=period_s)


def fence_of(settings: FencingSettings) -> Fence | None:
    """None: nothing is ever begun elsewhere."""
    match settings.method:
        case "command":
            limit = timedelta(seconds=settings.command_timeout_s)
            return CommandFence(settings.command, within=limit)
        case "self":
            return SelfFence(margin=timedelta(seconds=settings.self_margin_s))
    return None


def _seed() -> str:
    return secrets.token_hex(16)


async def run(settings: BrokerSettings) -> None:
    etcd = await Etcd.connect(settings.etcd)
    broker = Broker(settings, etcd, SystemClock())
    try:
        await run_until_signalled(broker.server, broker.loops(), ending=broker.end_streams)
    finally:
        await broker.close()
        await etcd.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="intertie-broker", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="settings, TOML")
    arguments = parser.parse_args()
    try:
        settings = load(BrokerSettings, arguments.config)
        collect_gently()
        logs.configure("broker", settings.log.level)
        points.stop_in(settings.fault_points)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except (SettingsInvalid, ListenFailed) as error:
        sys.exit(f"intertie-broker: {error}")


if __name__ == "__main__":
    main()
