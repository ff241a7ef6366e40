"""The services, put together by their own `main`, with simulated seams to the outside.

Only what is outside of a process is replaced: sockets, certificates, the etcd client, the solver's
minutes, and where a number is drawn. `seams` does it for as long as a world runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import intertie.broker.adapters.receipts as broker_receipts
import intertie.broker.adapters.scribe as broker_scribe
import intertie.broker.domain.recalling as broker_recalling
import intertie.broker.main as broker_main
import intertie.common.rpc.delegation as delegation
import intertie.metasched.adapters.broker_client as broker_client
import intertie.metasched.adapters.receipts as metasched_receipts
import intertie.metasched.domain.aside as metasched_aside
import intertie.metasched.domain.in_time as metasched_in_time
import intertie.metasched.domain.outlook as metasched_outlook
import intertie.metasched.domain.planned as metasched_planned
import intertie.metasched.main as metasched_main
import intertie.metasched.usecases.planning as metasched_planning
from intertie.broker.domain.planning import Image
from intertie.broker.domain.ports import Fence
from intertie.broker.settings import (
    BrokerSettings,
    FencingSettings,
    LinkSettings,
    PolicySettings,
    QueueSettings,
    StoreSettings,
)
from intertie.common import points
from intertie.common.rpc.identity import Trust, parse_spiffe
from intertie.common.settings import (
    EtcdSettings,
    ListenSettings,
    NamedPeerSettings,
    TlsSettings,
    TrustSettings,
)
from intertie.metasched.settings import CommitSettings, MetaschedSettings
from intertie.metasched.usecases.explaining import Explaining
from tests.fakes.solvers import SolverThreads
from tests.sim.etcd_client import ModelClient
from tests.sim.etcd_model import EtcdModel
from tests.sim.network import Network, Reached, SimChannel, SimServer, SimSigner, reached, replicas
from tests.sim.network import verify as sim_verify
from tests.sim.planner import nothing_short, simple_plan, unexplained
from tests.sim.virtual_loop import Process, current

DIGEST = "b3:" + "ab" * 32
SITES = ("north", "south")
HOSTS = ("n1", "n2")
LINK_MBIT_S = 200
LOST_AFTER_S = 20.0
POOL_MIB_S = 100
"""At which a guest's memory goes to the pool and back."""
CAPACITY: Mapping[str, int] = {
    "vcpus": 8,
    "memory_mib": 4096,
    "disk_mib": 8192,
    "iops": 4000,
    "throughput_mib_s": 800,
    "uplink_mbit_s": 400,
}
META = "meta.meta.intertie"
COORDINATOR = f"spiffe://{META}/metasched"


def addresses(service: str) -> tuple[str, ...]:
    """Of its two replicas."""
    return tuple(f"{service}-{number}:1" for number in (1, 2))


def spiffe_of(service: str) -> str:
    return COORDINATOR if service == "meta" else f"spiffe://{service}.site.intertie/broker"


class _Credentials:
    """In the place of intertie.common.rpc.credentials.Credentials."""

    def __init__(self, tls: TlsSettings, trust: object, clock: object) -> None:
        spiffe = str(tls.certificate).replace("spiffe:/", "spiffe://")
        self.identity = parse_spiffe(spiffe)
        self.signer = SimSigner(spiffe)
        self.trust = Trust({})


class _Images:
    """In the place of a broker's image store: one image, always there."""

    def __init__(self, *_: object) -> None:
        pass

    async def find(self, tenant: str, image: str) -> Image | None:
        if image not in ("guest", DIGEST):
            return None
        return Image(digest=DIGEST, size_bytes=1 << 24, virtual_size_bytes=1 << 26)


class _Secrets:
    """In the place of `secrets`: from the process's own seed."""

    @staticmethod
    def token_hex(octets: int) -> str:
        return _Secrets.token_bytes(octets).hex()

    @staticmethod
    def token_bytes(octets: int) -> bytes:
        return current().random.randbytes(octets)


def _lines(network: Network) -> Any:
    class Lines:
        """In the place of intertie.broker.adapters.lines.Lines."""

        def __init__(self, credentials: _Credentials, clock: object) -> None:
            self._spiffe = credentials.identity.spiffe

        def to(self, address: str, server_name: str) -> SimChannel:
            return SimChannel(network, self._spiffe, address)

        def to_replicas(self, among: tuple[str, ...], server_name: str) -> Any:
            return replicas(network, self._spiffe, among, current(), patience_s=10.0)

        async def close(self) -> None:
            """Nothing is open."""

    return Lines


def _server(network: Network) -> Callable[..., SimServer]:
    def make(settings: Any, clock: Any, registrations: Any, credentials: Any) -> SimServer:
        server = SimServer(network, credentials.identity, settings.listen.addresses, clock)
        server.register(registrations)
        return server

    return make


def _replica_channel(network: Network) -> Callable[..., Any]:
    def make(
        among: tuple[str, ...], credentials: Any, name: str, clock: Any, *, patience_s: float
    ) -> Any:
        spiffe = credentials.identity.spiffe
        return replicas(network, spiffe, among, current(), patience_s=patience_s)

    return make


@contextmanager
def seams(network: Network, at_point: Reached, power: Fence) -> Iterator[None]:
    host = SimpleNamespace(gethostname=lambda: "sim")
    numbers = SimpleNamespace(getpid=lambda: current().name)
    replaced: list[tuple[Any, str, Any]] = [
        (broker_main, "Lines", _lines(network)),
        (broker_main, "GrpcImages", _Images),
        (broker_main, "fence_of", lambda settings: power),
        (broker_main, "socket", host),
        (broker_main, "os", numbers),
        (broker_receipts, "verify", sim_verify),
        (broker_scribe, "secrets", _Secrets),
        (metasched_receipts, "verify", sim_verify),
        (delegation, "verify", sim_verify),
        (broker_client, "replica_channel", _replica_channel(network)),
        (metasched_main, "SolverProcesses", lambda memory_mib, clock: SolverThreads()),
        (metasched_planning, "planned", simple_plan),
        (metasched_planned, "planned", simple_plan),
        (metasched_planned, "best_plan", simple_plan),
        (metasched_outlook, "best_plan", simple_plan),
        # A world is over in minutes, and so are its leases.
        (broker_recalling, "TOLD_WITHIN", timedelta(seconds=5)),
        (metasched_in_time, "SLACK", timedelta(seconds=40)),
        (metasched_in_time, "DECIDED_BEFORE", DECIDED_BEFORE),
        (metasched_aside, "DECIDED_BEFORE", DECIDED_BEFORE),
        (metasched_planning, "shortfalls", nothing_short),
        (metasched_outlook, "shortfalls", nothing_short),
        (Explaining, "__call__", unexplained),
        (points, "_folder", Path("/simulated")),
        (points, "_stand", reached(at_point)),
    ]
    for module in (broker_main, metasched_main):
        replaced += [
            (module, "Credentials", _Credentials),
            (module, "Server", _server(network)),
            (module, "secrets", _Secrets),
        ]
    with ExitStack() as stack:
        for module, name, made in replaced:
            stack.enter_context(mock.patch.object(module, name, made))
        yield


def _tls(spiffe: str) -> TlsSettings:
    return TlsSettings(certificate=Path(spiffe), key=Path("/none"))


DECIDED_BEFORE = timedelta(seconds=15)
"""What is kept of a lease that is to go on ends."""
_TRUST = (TrustSettings(domain=META, roots=Path("/none")),)


def broker_settings(site: str, number: int) -> BrokerSettings:
    other = SITES[1 - SITES.index(site)]
    return BrokerSettings(
        site=site,
        listen=ListenSettings(addresses=(addresses(site)[number - 1],)),
        tls=_tls(spiffe_of(site)),
        trust=_TRUST,
        etcd=EtcdSettings(endpoints=("127.0.0.1:1",), prefix=f"/intertie/{site}"),
        imagestore=StoreSettings(address="images:1", server_name=f"images.{site}.site.intertie"),
        policy=PolicySettings(hosts=HOSTS),
        fencing=FencingSettings(method="command", command=("power",), lost_after_s=LOST_AFTER_S),
        queue=QueueSettings(worth_s=5.0, pool_mib_s=POOL_MIB_S, resize_pause_s=5.0),
        links=(LinkSettings(peer=other, egress_mbit_s=LINK_MBIT_S, ingress_mbit_s=LINK_MBIT_S),),
        metascheds=(
            NamedPeerSettings(
                name="meta", addresses=addresses("meta"), server_name=f"metasched.{META}",
                trust_domain=META,
            ),
        ),
    )  # fmt: skip


def metasched_settings(number: int) -> MetaschedSettings:
    return MetaschedSettings(
        name="meta",
        replica=f"meta-{number}",
        listen=ListenSettings(addresses=(addresses("meta")[number - 1],)),
        tls=_tls(COORDINATOR),
        trust=_TRUST,
        etcd=EtcdSettings(endpoints=("127.0.0.1:1",), prefix="/intertie/meta"),
        sites=tuple(
            NamedPeerSettings(
                name=site, addresses=addresses(site), server_name=f"broker.{site}.site.intertie",
                trust_domain=f"{site}.site.intertie",
            )
            for site in SITES
        ),
        commit=CommitSettings(decide_within_s=15, rpc_timeout_s=5),
    )  # fmt: skip


async def run_broker(process: Process, store: EtcdModel, site: str, number: int) -> None:
    settings = broker_settings(site, number)
    broker = broker_main.Broker(settings, ModelClient(store, process), process.clock)
    await broker.server.start()
    await asyncio.gather(*broker.loops())


async def run_metasched(process: Process, store: EtcdModel, number: int) -> None:
    settings = metasched_settings(number)
    client = ModelClient(store, process)
    await metasched_main.Metasched(settings, client, process.clock).run(asyncio.Event())
