"""A service over real TLS whose answers a test sets, and callers of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc import attach
from intertie.common.rpc.client import channel
from intertie.common.rpc.identity import Identity, current_identity
from intertie.common.rpc.server import Server
from intertie.common.settings import ListenSettings, TlsSettings, TrustSettings
from tests.integration.pki import TestDomain, trust_in


@dataclass(frozen=True)
class Settings:
    listen: ListenSettings
    tls: TlsSettings
    trust: tuple[TrustSettings, ...]


class Clusters(clusters_pb2_grpc.ClustersServicer):
    """Answers with what the test put into `get` and so on; remembers who called."""

    def __init__(self) -> None:
        self.callers: list[Identity] = []
        self.get: Callable[[], Any] = lambda: None
        self.cancelled = asyncio.Event()
        self.called = asyncio.Event()

    async def Create(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        self.callers.append(current_identity())
        return cluster_pb2.Cluster(name=request.cluster_id)

    async def Plan(self, request: Any, context: Any) -> clusters_pb2.PlanClusterResponse:
        return clusters_pb2.PlanClusterResponse()

    async def Get(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        self.callers.append(current_identity())
        self.called.set()
        result = self.get()
        if asyncio.iscoroutine(result):
            await result
        return cluster_pb2.Cluster(name=request.name)

    async def Act(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        self.callers.append(current_identity())
        return cluster_pb2.Cluster(name=request.name)

    async def Update(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        self.callers.append(current_identity())
        return cluster_pb2.Cluster(name=request.cluster.name)

    async def List(self, request: Any, context: Any) -> clusters_pb2.ListClustersResponse:
        return clusters_pb2.ListClustersResponse(next_page_token="x" * 2_000_000)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[cluster_pb2.Cluster]:
        yield cluster_pb2.Cluster(name=request.name)
        try:
            self.get()
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def WatchAll(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield clusters_pb2.WatchClustersResponse(resume_token=request.resume_token)

    async def Delete(self, request: Any, context: Any) -> cluster_pb2.Cluster:
        return cluster_pb2.Cluster(name=request.name)

    async def Attach(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Echoes; the caller's end is answered by an end."""
        try:
            opened = await attach.opening(requests)
            if opened.port == 1:
                raise errors.ConnectionRefused(opened.workspace, 1)
            yield attach_pb2.AttachResponse(opened=True)
            async for request in requests:
                yield attach_pb2.AttachResponse(data=request.data)
            yield attach_pb2.AttachResponse(end=True)
        finally:
            self.cancelled.set()


def server_of(
    tls: TlsSettings, trusted: list[TestDomain], servicer: Any, address: str = "127.0.0.1:0"
) -> Server:
    """Not started."""
    settings = Settings(
        ListenSettings(addresses=(address,)), tls, tuple(domain.trust for domain in trusted)
    )
    registration: Any = (
        clusters_pb2_grpc.add_ClustersServicer_to_server,
        servicer,
        clusters_pb2.DESCRIPTOR.services_by_name["Clusters"],
    )
    return Server(settings, SystemClock(), [registration])


@asynccontextmanager
async def serving(
    tls: TlsSettings, trusted: list[TestDomain], servicer: Any, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    server = server_of(tls, trusted, servicer, address)
    await server.start()
    try:
        yield address if address.startswith("unix:") else f"127.0.0.1:{server.ports[0]}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def calling(
    address: str, tls: TlsSettings, domain: TestDomain, service: str = "broker"
) -> AsyncIterator[Any]:
    link = channel(address, tls, trust_in(domain), domain.server_name(service))
    async with link:
        yield clusters_pb2_grpc.ClustersStub(link)


NAME = "sites/north/tenants/demo/clusters/a"
GET = clusters_pb2.GetClusterRequest(name=NAME)


def opening_of(workspace: str, port: int = 0) -> attach_pb2.AttachRequest:
    opened = attach_pb2.AttachRequest.Open(workspace=workspace, port=port)
    return attach_pb2.AttachRequest(open=opened)


async def attach_requests(
    workspace: str, blocks: list[bytes] | None = None, port: int = 0
) -> AsyncIterator[attach_pb2.AttachRequest]:
    yield opening_of(workspace, port)
    for block in blocks or ():
        yield attach_pb2.AttachRequest(data=block)
