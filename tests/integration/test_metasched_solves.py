"""A meta-scheduler beside which problems are solved: it answers, and they end with who asked."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.hard_request import (
    cpu_ticks,
    hard_request,
    is_there,
    servers_of,
    solvers_of,
)
from tests.integration.test_metasched import NAME, two_groups
from tests.integration.test_metasched_process import created, running

pytestmark = pytest.mark.etcd

FOR_EVER = {"INTERTIE_PLANNING__EFFORT": "10000"}
"""Nobody solves the hard request with less."""
READS = 50


@pytest.fixture
async def here(two_sites: Federation) -> Federation:
    await two_sites.kill()
    return two_sites


@pytest.fixture
async def process(here: Federation, tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """It leads, and there is a cluster, which has nothing before tomorrow."""
    async with running(here, tmp_path, **FOR_EVER) as process:
        await created(here, tomorrow())
        yield process


def tomorrow() -> cluster_pb2.ClusterSpec:
    spec = two_groups()
    begins: datetime = CLOCK.now() + timedelta(hours=20)
    spec.lease.start_time.FromDatetime(begins)
    spec.lease.duration.FromTimedelta(timedelta(hours=1))
    return spec


def asked(here: Federation, *, validate_only: bool = False) -> asyncio.Task[cluster_pb2.Cluster]:
    request = create("hard", hard_request(), validate_only=validate_only)

    async def call() -> cluster_pb2.Cluster:
        return await here.clusters().Create(request)

    return asyncio.create_task(call())


async def solving(process: asyncio.subprocess.Process) -> int:
    """The process that is at work on the hard request, for a while."""
    async with asyncio.timeout(60):
        while True:
            for pid in solvers_of(process.pid):
                if cpu_ticks(pid) > 50:
                    return pid
            await CLOCK.sleep(0.02)


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(15):
        while any(map(is_there, pids)):
            await CLOCK.sleep(0.02)


async def test_it_answers_while_it_plans(
    here: Federation, process: asyncio.subprocess.Process
) -> None:
    """Fifty times over, before the solve that was under way all the time is through."""
    call = asked(here, validate_only=True)
    solver = await solving(process)
    health, clusters = health_pb2_grpc.HealthStub(here.dial(here.alice)), here.clusters()
    before, serving = cpu_ticks(solver), health_pb2.HealthCheckResponse.SERVING
    for _ in range(READS):
        found = await health.Check(health_pb2.HealthCheckRequest())
        assert found.status == serving
        cluster = await clusters.Get(clusters_pb2.GetClusterRequest(name=NAME))
        assert cluster.state == cluster_pb2.Cluster.SCHEDULED
    assert not call.done()
    assert cpu_ticks(solver) > before, "in another process"
    planned = await clusters.Create(create("c2", two_groups(), validate_only=True))
    assert planned.state == cluster_pb2.Cluster.PLANNED, "beside it"
    assert not call.done()
    call.cancel()


@pytest.mark.parametrize("only_planned", [True, False])
async def test_who_goes_away_takes_the_solve_along_and_the_next_is_planned(
    here: Federation, process: asyncio.subprocess.Process, only_planned: bool
) -> None:
    call = asked(here, validate_only=only_planned)
    solver = await solving(process)
    call.cancel()
    await until_gone(solver)
    request = clusters_pb2.GetClusterRequest(name=NAME.replace("c1", "hard"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await here.clusters().Get(request)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    made = await here.clusters().Create(create("c2", two_groups()))
    assert made.state == cluster_pb2.Cluster.SCHEDULED


async def test_a_deadline_ends_the_solve_too(
    here: Federation, process: asyncio.subprocess.Process
) -> None:
    clusters = here.clusters()
    request = create("hard", hard_request(), validate_only=True)
    call = asyncio.ensure_future(clusters.Create(request, timeout=10))
    solver = await solving(process)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_gone(solver)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_none_is_left_behind_however_it_ends(
    here: Federation, process: asyncio.subprocess.Process, number: signal.Signals
) -> None:
    """Calls at work are given their time; a solve that nobody gets an answer of is not waited
    for."""
    call = asked(here)
    solver = await solving(process)
    servers = servers_of(process.pid)
    assert servers
    process.send_signal(number)
    async with asyncio.timeout(20):
        ended = await process.wait()
    assert ended == (0 if number != signal.SIGKILL else -number)
    await until_gone(solver, *servers)
    with pytest.raises(grpc.aio.AioRpcError):
        await call
