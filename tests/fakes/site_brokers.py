"""Two sites with real brokers and a meta-scheduler, or several, in this process: real etcd, real
gRPC.

Agents and image stores are fakes: what is wanted of a host is done at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.metasched.v1 import decisions_pb2_grpc, sites_pb2_grpc
from intertie.broker.main import Broker
from intertie.broker.settings import BrokerSettings, LinkSettings, PolicySettings, TariffSettings
from intertie.common.clock import SystemClock
from intertie.common.etcd.client import Etcd
from intertie.common.rpc.client import channel
from intertie.common.settings import (
    ListenSettings,
    NamedPeerSettings,
    TlsSettings,
)
from intertie.metasched.main import Metasched
from intertie.metasched.settings import CommitSettings, MetaschedSettings
from tests.integration.broker_site import HOST, serve_images
from tests.integration.etcd_server import EtcdServer
from tests.integration.fake_agents import FakeAgents
from tests.integration.pki import TestDomain, trust_in

CLOCK = SystemClock()


@dataclass
class FederationSite:
    """A site's broker, which can be stopped and started again on the same store."""

    name: str
    folder: Path
    settings: BrokerSettings
    agents: FakeAgents
    broker: Broker | None = None
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.settings.listen.addresses[0]

    def another(self) -> FederationSite:
        """A second replica of the broker, not started."""
        listen = ListenSettings(addresses=(f"{self.address}-2",))
        settings = self.settings.model_copy(update={"listen": listen})
        return FederationSite(self.name, self.folder, settings, self.agents)

    async def start(self, *, lead: bool = True) -> None:
        self.broker = Broker(self.settings, await Etcd.connect(self.settings.etcd), CLOCK)
        await self.broker.server.start()
        self.tasks = [asyncio.create_task(loop) for loop in self.broker.loops()]
        if lead:
            async with asyncio.timeout(15):
                await self.broker.election.wait_until_leading()

    async def stop(self) -> None:
        if self.broker is None:
            return
        await self.broker.server.stop(0)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.broker.close()
        self.broker = None


@dataclass
class Federation:
    meta: TestDomain
    sites: Mapping[str, FederationSite]
    settings: MetaschedSettings
    domains: tuple[TestDomain, ...]
    metasched: Metasched | None = None
    task: asyncio.Task[None] | None = None
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    rivals: list[Federation] = field(default_factory=list)
    """Other meta-schedulers over the same sites."""

    async def start(self, *, lead: bool = True, **changes: Any) -> None:
        """A replica of the meta-scheduler; `changes` to its settings."""
        settings = self.settings.model_copy(update=changes)
        self.metasched = Metasched(settings, await Etcd.connect(settings.etcd), CLOCK)
        self.task = asyncio.create_task(self.metasched.run(asyncio.Event()))
        if lead:
            async with asyncio.timeout(15):
                await self.metasched.election.wait_until_leading()

    @property
    def address(self) -> str:
        return self.settings.listen.addresses[0]

    def another(self) -> Federation:
        """A second replica of the meta-scheduler over the same sites, not started."""
        listen = ListenSettings(addresses=(f"{self.address}-2",))
        settings = self.settings.model_copy(update={"listen": listen})
        return Federation(self.meta, self.sites, settings, self.domains)

    async def kill(self) -> None:
        """Nothing is finished; the lead is given up, so that no test waits for a lease."""
        if self.task is None or self.metasched is None:
            return
        for each in self.metasched.begun():
            each.cancel()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.task = self.metasched = None

    def dial(self, tls: TlsSettings) -> grpc.aio.Channel:
        line = channel(
            self.address,
            tls,
            trust_in(*self.domains),
            self.meta.server_name("metasched"),
        )
        self.channels.append(line)
        return line

    @property
    def alice(self) -> TlsSettings:
        return self.meta.user("demo", "alice")

    def clusters(self, tls: TlsSettings | None = None) -> clusters_pb2_grpc.ClustersAsyncStub:
        return clusters_pb2_grpc.ClustersStub(self.dial(tls or self.alice))

    def decisions(self, tls: TlsSettings) -> decisions_pb2_grpc.DecisionsAsyncStub:
        return decisions_pb2_grpc.DecisionsStub(self.dial(tls))

    def known_sites(self) -> sites_pb2_grpc.KnownSitesAsyncStub:
        return sites_pb2_grpc.KnownSitesStub(self.dial(self.alice))

    async def parts(self, site: str) -> list[part_pb2.Part]:
        """What the site says, to its operator, of all its parts."""
        async with self.operating(site) as line:
            stub = parts_pb2_grpc.PartsStub(line)
            request = parts_pb2.ListPartsRequest(parent=f"sites/{site}/tenants/demo")
            found: list[part_pb2.Part] = []
            while True:
                page = await stub.List(request)
                found += page.parts
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token

    def operating(self, site: str) -> grpc.aio.Channel:
        """To the site's broker, by its operator."""
        return self._dial_site(site, self._domain(site).operator("olga"))

    def clusters_at(self, site: str, tenant: str, user: str) -> clusters_pb2_grpc.ClustersAsyncStub:
        """As a user of the site itself, who asks its broker."""
        line = self._dial_site(site, self._domain(site).user(tenant, user))
        self.channels.append(line)
        return clusters_pb2_grpc.ClustersStub(line)

    def _domain(self, site: str) -> TestDomain:
        return next(each for each in self.domains if each.name.startswith(site))

    def _dial_site(self, site: str, tls: TlsSettings) -> grpc.aio.Channel:
        name = self._domain(site).server_name("broker")
        return channel(self.sites[site].address, tls, trust_in(*self.domains), name)

    async def until_settled(self, seconds: float = 20) -> dict[str, set[str]]:
        """Until no part is HELD or PREPARED anywhere; then the states by transaction."""
        async with asyncio.timeout(seconds):
            while True:
                states: dict[str, set[str]] = {}
                for site in self.sites:
                    for part in await self.parts(site):
                        state = part_pb2.Part.State.Name(part.state)
                        states.setdefault(part.tx, set()).add(state)
                if not {"HELD", "PREPARED"} & set().union(*states.values(), set()):
                    return states
                await CLOCK.sleep(0.2)


@contextlib.asynccontextmanager
async def federation(
    folder: Path,
    etcd: EtcdServer,
    prefix: str,
    north: TestDomain,
    south: TestDomain,
    meta: TestDomain,
    *,
    rivals: Sequence[TestDomain] = (),
    more: Mapping[str, TestDomain] | None = None,
    **changes: Any,
) -> AsyncIterator[Federation]:
    """Up, and led. Where a service is named, so is a second replica, which a test may start; before
    the one that is up, so that every call that needs it passes over the other.

    `more`: sites beside these two, by name. `changes`: to settings of meta-schedulers."""
    metas = (meta, *rivals)
    of_sites = {"north": north, "south": south, **(more or {})}
    domains = (*of_sites.values(), *metas)
    peers = [
        NamedPeerSettings(
            name=_name_of(each),
            addresses=(f"{_at(folder, each)}-2", _at(folder, each)),
            server_name=each.server_name("metasched"),
            trust_domain=each.name,
        )
        for each in metas
    ]
    async with contextlib.AsyncExitStack() as stack:
        sites = {
            name: await stack.enter_async_context(
                _site(
                    folder,
                    etcd,
                    f"{prefix}/{name}",
                    name,
                    [other for other in of_sites if other != name],
                    domain,
                    domains,
                    peers,
                )
            )
            for name, domain in of_sites.items()
        }
        known = tuple(
            NamedPeerSettings(
                name=name,
                addresses=(f"{site.address}-2", site.address),
                server_name=domain.server_name("broker"),
                trust_domain=domain.name,
            )
            for (name, site), domain in zip(sites.items(), of_sites.values(), strict=True)
        )

        def over_them(domain: TestDomain) -> Federation:
            settings = MetaschedSettings(
                name=_name_of(domain),
                listen=ListenSettings(addresses=(_at(folder, domain),)),
                tls=domain.service("metasched"),
                trust=tuple(each.trust for each in domains),
                etcd=etcd.settings(f"{prefix}/{_name_of(domain)}"),
                sites=known,
                commit=CommitSettings(decide_within_s=15, rpc_timeout_s=5),
                **changes,
            )
            return Federation(domain, sites, settings, domains)

        up, *others = (over_them(each) for each in metas)
        up.rivals += others
        try:
            for each in (up, *others):
                await each.start()
            yield up
        finally:
            for each in (up, *others):
                for line in each.channels:
                    await line.close()
                await each.kill()


def _name_of(meta: TestDomain) -> str:
    return meta.name.partition(".")[0]


def _at(folder: Path, meta: TestDomain) -> str:
    return f"unix:{folder / _name_of(meta)}"


@contextlib.asynccontextmanager
async def _site(
    folder: Path,
    etcd: EtcdServer,
    prefix: str,
    name: str,
    others: Sequence[str],
    domain: TestDomain,
    domains: tuple[TestDomain, ...],
    peers: Sequence[NamedPeerSettings],
) -> AsyncIterator[FederationSite]:
    images, imagestore = await serve_images(folder, name, domain, domains)
    hosts = {"n1": HOST, "n2": HOST}
    settings = BrokerSettings(
        site=name,
        listen=ListenSettings(addresses=(f"unix:{folder / name}",)),
        tls=domain.service("broker"),
        trust=tuple(each.trust for each in domains),
        etcd=etcd.settings(prefix),
        imagestore=imagestore,
        policy=PolicySettings(hosts=tuple(hosts), cpu_overcommit=1.0, memory_reserve_mib=0),
        tariff=TariffSettings(
            vcpu_hour=0.04 if name == "north" else 0.05,
            iops_hour=0.001,
            link_mbit_s_hour=0.002,
            pair_mbit_s_hour=0.003,
        ),
        links=tuple(
            LinkSettings(peer=other, egress_mbit_s=200, ingress_mbit_s=200, latency_ms=5.0)
            for other in others
        ),
        metascheds=tuple(peers),
    )
    store = await Etcd.connect(settings.etcd)
    agents = FakeAgents(store, hosts, gateway="n1")
    await agents.report(CLOCK)
    obeying = asyncio.create_task(agents.run(CLOCK))
    site = FederationSite(name, folder, settings, agents)
    try:
        await site.start()
        yield site
    finally:
        await site.stop()
        obeying.cancel()
        await asyncio.gather(obeying, return_exceptions=True)
        await images.stop(0)
        await store.close()


def create(
    cluster_id: str, spec: cluster_pb2.ClusterSpec, request_id: str = "", **more: Any
) -> clusters_pb2.CreateClusterRequest:
    return clusters_pb2.CreateClusterRequest(
        parent="-/tenants/demo",
        cluster_id=cluster_id,
        spec=spec,
        request_id=request_id or f"r-{cluster_id}",
        **more,
    )
