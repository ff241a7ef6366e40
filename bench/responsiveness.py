"""Whether a meta-scheduler answers while it plans: health and reads when nothing is planned, and
beside requests that keep all of its solvers at work.

`python -m bench responsiveness [--seconds S]`. One meta-scheduler as it runs, two sites' brokers, a
real etcd, on loopback. What is called goes by itself, one call after another, each `EVERY_S`; the
hard requests have no plan, which takes the planner all the effort that it may spend to find out,
and are explained.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import logging
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.report import Row, percentile, show
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from tests.fakes.site_brokers import CLOCK, Federation, create, federation
from tests.integration.etcd_server import EtcdServer
from tests.integration.hard_request import cpu_ticks, hard_request, solvers_of
from tests.integration.pki import TestDomain
from tests.integration.test_metasched import NAME, two_groups
from tests.integration.test_metasched_process import created, running

SECONDS = 60.0
EVERY_S = 0.01
CALLERS = 3
"""Of hard requests: one more than solvers for them, so that there is always one."""
TICKS_PER_S = 100.0
WATCH_S = 0.25
ENDS = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""Of a hard request: refused with an explanation, or its caller has waited for as long as it
does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What calls took, in ms."""

    health: list[float]
    get: list[float]

    @property
    def both(self) -> list[float]:
        return [*self.health, *self.get]


def run(quick: bool) -> None:
    _measure(10.0 if quick else SECONDS)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench responsiveness")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each of the two halves")
    _measure(parser.parse_args(arguments).seconds)


def _measure(seconds: float) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        server = EtcdServer(Path(folder))
        server.start()
        try:
            asyncio.run(_run(Path(folder), server, seconds))
        finally:
            server.kill()


@contextlib.asynccontextmanager
async def _standing(
    folder: Path, server: EtcdServer
) -> AsyncIterator[tuple[Federation, asyncio.subprocess.Process]]:
    domains = [
        TestDomain.create(folder, name)
        for name in ("north.site.intertie", "south.site.intertie", "meta.meta.intertie")
    ]
    async with federation(folder, server, "/bench", *domains) as here:
        await here.kill()
        async with running(here, folder) as process:
            yield here, process


async def _run(folder: Path, server: EtcdServer, seconds: float) -> None:
    async with _standing(folder, server) as (here, process):
        await created(here, _tomorrow())
        await _probed(here, 1.0)
        idle = await _probed(here, seconds)
        ended, ticks = Counter[grpc.StatusCode](), dict[int, int]()
        callers = [asyncio.create_task(_ask(here, number, ended)) for number in range(CALLERS)]
        watching = asyncio.create_task(_watch(process.pid, ticks))
        began = time.perf_counter()
        solving = await _probed(here, seconds)
        busy = sum(ticks.values()) / TICKS_PER_S / (time.perf_counter() - began)
        for each in (watching, *callers):
            if each.done():
                each.result()  # what ended it
            each.cancel()
        await asyncio.gather(watching, *callers, return_exceptions=True)
    if not busy:
        raise RuntimeError("nothing was solved beside the calls, so nothing was measured")
    _report(idle, solving, busy, ended)


def _tomorrow() -> cluster_pb2.ClusterSpec:
    """Takes nothing of what the hard requests ask for."""
    spec = two_groups()
    spec.lease.start_time.FromDatetime(CLOCK.now() + timedelta(hours=20))
    spec.lease.duration.FromTimedelta(timedelta(hours=1))
    return spec


async def _ask(here: Federation, number: int, ended: Counter[grpc.StatusCode]) -> None:
    clusters = here.clusters()
    for seed in itertools.count(number, CALLERS):
        request = create("hard", hard_request(seed), validate_only=True)
        try:
            await clusters.Create(request)
        except grpc.aio.AioRpcError as error:
            if error.code() not in ENDS:
                raise
            ended[error.code()] += 1


async def _probed(here: Federation, seconds: float) -> Probed:
    health, clusters = health_pb2_grpc.HealthStub(here.dial(here.alice)), here.clusters()
    asked, request = clusters_pb2.GetClusterRequest(name=NAME), health_pb2.HealthCheckRequest()
    took = Probed(health=[], get=[])
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        took.health.append(await _ms(lambda: health.Check(request)))
        took.get.append(await _ms(lambda: clusters.Get(asked)))
        await asyncio.sleep(EVERY_S)
    return took


async def _ms(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return 1000 * (time.perf_counter() - began)


async def _watch(service: int, ticks: dict[int, int]) -> None:
    """What all solvers have had since then, those that have ended too."""
    before = {solver: cpu_ticks(solver) for solver in solvers_of(service)}
    while True:
        for solver in solvers_of(service):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                ticks[solver] = cpu_ticks(solver) - before.get(solver, 0)
        await asyncio.sleep(WATCH_S)


def _report(idle: Probed, solving: Probed, busy: float, ended: Counter[grpc.StatusCode]) -> None:
    idle_p99, solving_p99 = percentile(idle.both, 0.99), percentile(solving.both, 0.99)
    rows = [
        Row(
            what=f"{name}, {of}",
            value=percentile(beside, share),
            unit="ms",
            against=f"{percentile(alone, share):.1f} with nothing to plan",
            ratio=percentile(beside, share) / percentile(alone, share),
        )
        for name, beside, alone in (
            ("health", solving.health, idle.health),
            ("Get", solving.get, idle.get),
        )
        for of, share in (("median", 0.5), ("99th percentile", 0.99), ("longest", 1.0))
    ]
    rows.append(Row(what="solvers", value=busy, unit="processors at work"))
    refused, given_up = (ended[each] for each in ENDS)
    rows.append(Row(what="hard requests", value=refused, unit="refused"))
    rows.append(Row(what="hard requests", value=given_up, unit="given up by their callers"))
    show(
        "responsiveness",
        rows,
        {
            "idle_p99_ms": round(idle_p99, 2),
            "solving_p99_ms": round(solving_p99, 2),
            "max_ms": round(max(solving.both), 2),
            "ratio": round(solving_p99 / idle_p99, 3),
            "calls": len(solving.both),
            "solvers_at_work": round(busy, 2),
            "refused": refused,
            "given_up": given_up,
        },
    )
