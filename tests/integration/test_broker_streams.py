"""Streams through the broker to a host's agent, and what becomes of a leader that is deposed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.nodeagent.v1 import nodeagent_pb2, nodeagent_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.errors import ConnectionRefused
from intertie.common.etcd.client import DeleteKey, Put
from intertie.common.rpc.client import to_domain_error
from tests.integration.broker_site import HOST, Site, cluster_spec, create, serve, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain

pytestmark = pytest.mark.etcd

Open = attach_pb2.AttachRequest.Open


class Echo(nodeagent_pb2_grpc.NodeAgentServicer):
    """Opens every console and sends back what it is sent; refuses every port."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    async def Attach(
        self, request_iterator: AsyncIterator[attach_pb2.AttachRequest], context: Any
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        async for request in request_iterator:
            if request.WhichOneof("frame") == "open":
                self.opened.append(request.open.workspace)
                if request.open.channel == Open.TCP:
                    raise ConnectionRefused(request.open.workspace, request.open.port)
                yield attach_pb2.AttachResponse(opened=True)
            else:
                yield attach_pb2.AttachResponse(data=request.data)


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
) -> AsyncIterator[Site]:
    async with site(
        tmp_path, etcd_server.settings(etcd_prefix), north, (south,), hosts={"n1": HOST}
    ) as up:
        yield up


async def opening(workspace: str, **more: Any) -> AsyncIterator[attach_pb2.AttachRequest]:
    """Sends nothing more: a caller that still writes when it is refused may see that instead."""
    yield attach_pb2.AttachRequest(open=Open(workspace=workspace, **more))
    await asyncio.Event().wait()


async def active(here: Site, name: str) -> None:
    stream = here.clusters().Watch(clusters_pb2.WatchClusterRequest(name=name))
    async with asyncio.timeout(20):
        async for each in stream:
            if each.state == cluster_pb2.Cluster.ACTIVE:
                return
    raise AssertionError(f"{name} is over and never was ACTIVE")


async def requests(workspace: str, **more: Any) -> AsyncIterator[attach_pb2.AttachRequest]:
    opened = Open(workspace=workspace, **more)
    yield attach_pb2.AttachRequest(open=opened)
    yield attach_pb2.AttachRequest(data=b"hello")


async def test_a_console_is_relayed_to_the_workspaces_own_host(
    here: Site, tmp_path: Path, north: TestDomain
) -> None:
    echo = Echo()  # type: ignore[abstract]  # only what a broker asks
    agent, address = await serve(
        tmp_path,
        "agent",
        north.service("agent/n1"),
        (north,),
        [
            (
                nodeagent_pb2_grpc.add_NodeAgentServicer_to_server,
                echo,
                nodeagent_pb2.DESCRIPTOR.services_by_name["NodeAgent"],
            )
        ],
    )
    try:
        here.agents.agent_address = address
        await here.agents.report(SystemClock())
        made = await here.clusters().Create(create("one", cluster_spec(count=1), "r1"))
        await active(here, made.name)
        workspace = f"{made.name}/workspaces/worker-0"
        answers = [
            each async for each in here.clusters().Attach(requests(workspace, channel=Open.CONSOLE))
        ]
        assert [each.WhichOneof("frame") for each in answers] == ["opened", "data"]
        assert answers[1].data == b"hello"
        assert echo.opened == [f"sites/north/tenants/demo/parts/c{made.uid}/workspaces/worker-0"]
        refused = here.clusters().Attach(opening(workspace, channel=Open.TCP, port=22))
        assert isinstance(await refusal(refused), errors.ConnectionRefused)
        absent = here.clusters().Attach(opening(f"{made.name}/workspaces/worker-7"))
        assert isinstance(await refusal(absent), errors.NotFound)
    finally:
        await agent.stop(0)


async def test_a_workspace_that_does_not_run_says_what_it_does(here: Site) -> None:
    here.agents.state, here.agents.ready = 2, False
    made = await here.clusters().Create(create("one", cluster_spec(count=1), "r1"))
    stream = here.clusters().Attach(opening(f"{made.name}/workspaces/worker-0"))
    assert isinstance(await refusal(stream), errors.WorkspaceNotRunning)


async def refusal(stream: Any) -> errors.DomainError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stream:
            pass
    meant = to_domain_error(caught.value)
    assert meant is not None, caught.value
    return meant


async def test_a_leader_that_was_deposed_and_does_not_know_writes_nothing(
    here: Site, tmp_path: Path, north: TestDomain, south: TestDomain
) -> None:
    """Its lease could be gone for as long as it was stopped: only the compare in every
    transaction keeps it from writing."""
    await here.etcd.txn([], [DeleteKey("election/broker")])
    await here.etcd.txn([], [Put("election/broker", b"another")])
    assert here.broker.election.is_leader
    call = here.clusters().Create(create("one", cluster_spec(count=1), "r1"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert isinstance(to_domain_error(caught.value), errors.NotLeading)
    assert not (await here.etcd.range("parts/")).entries

    await here.etcd.txn([], [DeleteKey("election/broker")])
    async with site(
        tmp_path / "second", here.settings.etcd, north, (south,), hosts={"n1": HOST}, lead=False
    ) as second:
        made = await by_whoever_leads(here, second)
        again = await second.clusters().Get(clusters_pb2.GetClusterRequest(name=made.name))
        assert again.uid == made.uid


async def by_whoever_leads(*replicas: Site) -> cluster_pb2.Cluster:
    """As a client does that is told NOT_LEADING: tries the others with the same request id."""
    async with asyncio.timeout(20):
        for turn in range(1000):
            stub = replicas[turn % len(replicas)].clusters()
            try:
                return await stub.Create(create("one", cluster_spec(count=1), "r1"))
            except grpc.aio.AioRpcError as error:
                if not isinstance(to_domain_error(error), errors.NotLeading):
                    raise
                await asyncio.sleep(0.1)
    raise AssertionError("nobody leads")
