"""A broker of a site in this process: real etcd, real gRPC; agents, images and register faked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc, site_pb2_grpc
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.imagestore.v1 import images_pb2, images_pb2_grpc
from intertie.api.types.v1 import resources_pb2
from intertie.broker.main import Broker
from intertie.broker.settings import (
    BrokerSettings,
    FencingSettings,
    LinkSettings,
    PolicySettings,
    QueueSettings,
    QuotaSettings,
    StoreSettings,
    TariffSettings,
)
from intertie.common.clock import Clock, SystemClock
from intertie.common.errors import NotFound
from intertie.common.etcd.client import Etcd
from intertie.common.rpc.client import channel
from intertie.common.rpc.server import Registration, Server
from intertie.common.rpc.spec_proto import timestamp_to_proto
from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    NamedPeerSettings,
    RoomSettings,
    TlsSettings,
    TrustSettings,
)
from tests.integration.fake_agents import MIB, FakeAgents
from tests.integration.pki import TestDomain, trust_in

DIGEST = "b3:" + "ab" * 32


@dataclass(frozen=True)
class ServerOnly:
    """What a fake server needs of settings."""

    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]


class FakeImages(images_pb2_grpc.ImagesServicer):
    """Has one image, `guest`, of 64 MiB."""

    async def Stat(self, request: images_pb2.StatImageRequest, context: Any) -> images_pb2.Image:
        if request.name.rpartition("/")[2] not in ("guest", DIGEST):
            raise NotFound(request.name)
        return images_pb2.Image(
            name=request.name,
            digest=DIGEST,
            size_bytes=20 * MIB,
            virtual_size_bytes=64 * MIB,
            state=images_pb2.Image.READY,
        )


async def serve(
    folder: Path,
    name: str,
    tls: TlsSettings,
    trust: Sequence[TestDomain],
    servicers: list[Registration],
) -> tuple[Server, str]:
    """A server on a unix socket of its own."""
    address = f"unix:{folder / name}"
    settings = ServerOnly(
        ListenSettings(addresses=(address,)), tls, tuple(each.trust for each in trust)
    )
    server = Server(settings, SystemClock(), servicers)
    await server.start()
    return server, address


HOST = {
    "vcpus": 4,
    "memory_mib": 2048,
    "disk_mib": 8192,
    "iops": 2000,
    "throughput_mib_s": 400,
    "uplink_mbit_s": 400,
}
LARGE_HOST = {
    "vcpus": 16,
    "memory_mib": 8192,
    "disk_mib": 8192,
    "iops": 8000,
    "throughput_mib_s": 1600,
    "uplink_mbit_s": 400,
}


@dataclass
class Site:
    """A site's broker with all it talks to."""

    domain: TestDomain
    address: str
    etcd: Etcd
    agents: FakeAgents
    broker: Broker
    settings: BrokerSettings
    trusted: tuple[TestDomain, ...]
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def dial(self, tls: TlsSettings) -> grpc.aio.Channel:
        line = channel(
            self.address, tls, trust_in(*self.trusted), self.domain.server_name("broker")
        )
        self.channels.append(line)
        return line

    def clusters(self, tls: TlsSettings | None = None) -> clusters_pb2_grpc.ClustersAsyncStub:
        return clusters_pb2_grpc.ClustersStub(self.dial(tls or self.domain.user("demo", "alice")))

    def parts(self, tls: TlsSettings) -> parts_pb2_grpc.PartsAsyncStub:
        return parts_pb2_grpc.PartsStub(self.dial(tls))

    def hosts(self, tls: TlsSettings) -> site_pb2_grpc.HostsAsyncStub:
        return site_pb2_grpc.HostsStub(self.dial(tls))

    def sites(self, tls: TlsSettings) -> site_pb2_grpc.SitesAsyncStub:
        return site_pb2_grpc.SitesStub(self.dial(tls))

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        return self.broker.server.ports[1]

    async def until_leading(self) -> None:
        async with asyncio.timeout(15):
            await self.broker.election.wait_until_leading()


async def serve_images(
    folder: Path, name: str, domain: TestDomain, trusted: Sequence[TestDomain]
) -> tuple[Server, StoreSettings]:
    """The image store of a site whose broker is called so."""
    registration = (
        images_pb2_grpc.add_ImagesServicer_to_server,
        FakeImages(),  # type: ignore[abstract]  # only what a broker asks
        images_pb2.DESCRIPTOR.services_by_name["Images"],
    )
    server, address = await serve(
        folder, f"{name}-images", domain.service("imagestore"), trusted, [registration]
    )
    return server, StoreSettings(
        address=address,
        server_name=domain.server_name("imagestore"),
        peer_addresses=("127.0.0.1:1",),
    )


@contextlib.asynccontextmanager
async def site(
    folder: Path,
    etcd_settings: EtcdSettings,
    domain: TestDomain,
    trusted: Sequence[TestDomain],
    *,
    metascheds: Sequence[NamedPeerSettings] = (),
    hosts: Mapping[str, Mapping[str, int]] | None = None,
    clock: Clock | None = None,
    name: str = "broker",
    lead: bool = True,
    by: EtcdSettings | None = None,
    quotas: Sequence[QuotaSettings] = (),
    fencing: FencingSettings | None = None,
    queue: QueueSettings | None = None,
    room: RoomSettings | None = None,
) -> AsyncIterator[Site]:
    """Up, leading, and with its hosts known. `by`: how the broker alone reaches its etcd."""
    clock = clock or SystemClock()
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    domains = (domain, *trusted)
    images, imagestore = await serve_images(folder, name, domain, domains)
    site_name = domain.name.partition(".")[0]
    hosts = {"n1": HOST, "n2": HOST} if hosts is None else hosts
    settings = BrokerSettings(
        site=site_name,
        listen=ListenSettings(addresses=(f"unix:{folder / name}", "127.0.0.1:0")),
        tls=domain.service("broker"),
        trust=tuple(each.trust for each in domains),
        etcd=etcd_settings,
        imagestore=imagestore,
        policy=PolicySettings(hosts=tuple(hosts)),
        tariff=TariffSettings(vcpu_hour=0.04, memory_gib_hour=0.01),
        links=(LinkSettings(peer="south", egress_mbit_s=200, ingress_mbit_s=200, latency_ms=5.0),),
        metascheds=tuple(metascheds),
        quotas=tuple(quotas),
        queue=queue or QueueSettings(),
        room=room or RoomSettings(),
    )
    if fencing is not None:
        settings = settings.model_copy(update={"fencing": fencing})
    etcd = await Etcd.connect(etcd_settings)
    agents = FakeAgents(etcd, hosts, gateway=next(iter(hosts), ""))
    await agents.report(clock)
    own_etcd = await Etcd.connect(by) if by else etcd
    broker = Broker(settings, own_etcd, clock)
    await broker.server.start()
    tasks = [asyncio.create_task(loop) for loop in broker.loops()]
    tasks.append(asyncio.create_task(agents.run(SystemClock())))
    up = Site(domain, f"unix:{folder / name}", etcd, agents, broker, settings, domains)
    try:
        if lead:
            await up.until_leading()
        yield up
    finally:
        for line in up.channels:
            await line.close()
        await broker.server.stop(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await broker.close()
        await images.stop(0)
        await own_etcd.close()
        await etcd.close()


def cluster_spec(
    *,
    count: int = 2,
    vcpus: int = 1,
    memory_mib: int = 128,
    pair_mbit_s: int = 10,
    **group: Any,
) -> cluster_pb2.ClusterSpec:
    return cluster_pb2.ClusterSpec(
        groups=[
            cluster_pb2.Group(
                name="worker",
                count=count,
                environment=resources_pb2.Environment(image="guest"),
                allocation=resources_pb2.Allocation(
                    vcpus=vcpus,
                    memory_mib=memory_mib,
                    disk_mib=128,
                    disk=resources_pb2.DiskTerm(guarantee_iops=100),
                    pairs=[
                        resources_pb2.PairTerm(
                            group="worker",
                            bandwidth=resources_pb2.BandwidthTerm(guarantee_mbit_s=pair_mbit_s),
                        )
                    ]
                    if pair_mbit_s
                    else [],
                ),
                **group,
            )
        ],
        networks=[cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")],
    )


def create(
    cluster_id: str, spec: cluster_pb2.ClusterSpec, request_id: str, **more: Any
) -> clusters_pb2.CreateClusterRequest:
    return clusters_pb2.CreateClusterRequest(
        parent="-/tenants/demo", cluster_id=cluster_id, spec=spec, request_id=request_id, **more
    )


def hold(
    tx: str,
    clock: Clock,
    coordinator: str,
    *,
    participants: Sequence[str] = ("north", "south"),
    vcpus: int = 1,
    ttl_s: float = 30,
    decide_within_s: float = 20,
    start_in_s: float = 0,
    hours: float = 1,
    request_id: str = "",
    link_mbit_s: int = 10,
) -> parts_pb2.HoldPartRequest:
    """One workspace here, `a-0`, and one at south, `b-0`."""
    now = clock.now()
    member = part_pb2.PartNetwork.Member
    start = now + timedelta(seconds=start_in_s)
    request = parts_pb2.HoldPartRequest(
        parent="sites/north/tenants/demo",
        part_id=tx,
        tx=tx,
        digest="b3:" + "cd" * 32,
        coordinator=coordinator,
        participants=participants,
        request_id=request_id or f"hold-{tx}",
        owner="spiffe://meta.meta.intertie/tenant/demo/user/alice",
        spec=part_pb2.PartSpec(
            cluster=f"metascheds/meta/tenants/demo/clusters/{tx}",
            cluster_uid=tx[:12],
            window=resources_pb2.Window(
                start_time=timestamp_to_proto(start),
                end_time=timestamp_to_proto(start + timedelta(hours=hours)),
            ),
            workspaces=[
                part_pb2.PartWorkspace(
                    group="a",
                    environment=resources_pb2.Environment(image=DIGEST),
                    allocation=resources_pb2.Allocation(vcpus=vcpus, memory_mib=128, disk_mib=128),
                    nics=[
                        part_pb2.PartNic(
                            network="lan", mac="02:00:00:00:00:01", address="10.1.0.10/24"
                        )
                    ],
                )
            ],
            networks=[
                part_pb2.PartNetwork(
                    name="lan",
                    subnet="10.1.0.0/24",
                    members=[
                        member(
                            workspace="a-0",
                            site="north",
                            mac="02:00:00:00:00:01",
                            address="10.1.0.10/24",
                        ),
                        member(
                            workspace="b-0",
                            site="south",
                            mac="02:00:00:00:00:02",
                            address="10.1.0.11/24",
                        ),
                    ],
                )
            ],
            links=[
                part_pb2.LinkReservation(
                    peer="south",
                    network="lan",
                    egress_mbit_s=link_mbit_s,
                    ingress_mbit_s=link_mbit_s,
                )
            ],
        ),
    )
    request.ttl.FromTimedelta(timedelta(seconds=ttl_s))
    request.decide_by.CopyFrom(timestamp_to_proto(now + timedelta(seconds=decide_within_s)))
    request.coordinator_time.CopyFrom(timestamp_to_proto(now))
    return request
