"""A service of its own, and a user of the `intertie` command with a folder for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from intertie.api.cluster.v1 import clusters_pb2, clusters_pb2_grpc
from intertie.api.imagestore.v1 import images_pb2, images_pb2_grpc
from intertie.api.metasched.v1 import sites_pb2, sites_pb2_grpc
from intertie.client import (
    Client,
    connect,
    load,
)
from intertie.common.clock import SystemClock
from intertie.common.rpc.server import Server
from intertie.common.settings import ListenSettings, TlsSettings, TrustSettings
from testbed.pki import Authority
from tests.fakes.user_api import FakeClusters, FakeImages, FakeKnownSites
from tests.integration import command
from tests.integration.command import Said

SPEC = """
name: demo
groups:
  - name: node
    count: 2
    environment: {image: intertie-guest}
    allocation: {vcpus: 1, memory_mib: 128, disk_mib: 256}
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]


@dataclass(kw_only=True)
class Place:
    """A service of its own, and a user's folder with a configuration for it."""

    folder: Path
    authority: Authority
    clusters: FakeClusters = field(default_factory=FakeClusters)
    images: FakeImages = field(default_factory=FakeImages)

    @property
    def config(self) -> Path:
        return self.folder / "client.toml"

    @property
    def spec(self) -> Path:
        return self.folder / "demo.yaml"

    async def start(self, *args: str, stdin: int | None = None) -> asyncio.subprocess.Process:
        return await command.start(self.config, *args, stdin=stdin)

    async def say(self, *args: str) -> Said:
        return await command.say(self.config, *args)

    async def do(self, *args: str) -> str:
        said = await self.say(*args)
        assert said.code == 0, said.err
        return said.out

    async def connect(self) -> Client:
        return await connect(load(self.config))


def write_config(path: Path, *, certificate: str = "alice", roots: str = "ca") -> None:
    path.write_text(
        f"""
[endpoints.north]
kind = "metasched"
address = "unix:{path.parent}/api.sock"
server_name = "metasched.meta.meta.intertie"
certificate = "{certificate}.pem"
key = "{certificate}.key"
roots = "{roots}.pem"
tenant = "demo"
images_address = "unix:{path.parent}/api.sock"
"""
    )


@asynccontextmanager
async def place_in(tmp_path: Path) -> AsyncIterator[Place]:
    authority = Authority(tmp_path)
    authority.create("meta")
    domain = "spiffe://meta.meta.intertie"
    authority.issue(
        "server",
        common_name="server",
        spiffe=f"{domain}/metasched",
        dns=["metasched.meta.meta.intertie"],
    )
    user = f"{domain}/tenant/demo/user/alice"
    authority.issue("alice", common_name="alice", spiffe=user)
    made = Place(folder=tmp_path, authority=authority)
    made.spec.write_text(SPEC)
    write_config(made.config)
    settings = Settings(
        listen=ListenSettings(addresses=(f"unix:{tmp_path}/api.sock",)),
        tls=TlsSettings(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"),
        trust=(TrustSettings(domain="meta.meta.intertie", roots=authority.roots),),
    )
    server = Server(
        settings,
        SystemClock(),
        [
            (
                clusters_pb2_grpc.add_ClustersServicer_to_server,
                made.clusters,
                clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
            ),
            (
                sites_pb2_grpc.add_KnownSitesServicer_to_server,
                FakeKnownSites(),
                sites_pb2.DESCRIPTOR.services_by_name["KnownSites"],
            ),
            (
                images_pb2_grpc.add_ImagesServicer_to_server,
                made.images,
                images_pb2.DESCRIPTOR.services_by_name["Images"],
            ),
        ],
    )
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0.1)
