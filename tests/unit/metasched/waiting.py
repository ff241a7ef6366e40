"""Leases over two sites that wait for room, run when there is some, and are put aside."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from intertie.common.names import ClusterName
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from tests.fakes.clock import START
from tests.fakes.crashing import Crash, CrashPlan
from tests.fakes.part import FakePart, State
from tests.unit.metasched.world import NAME, Process, World, order, spec

HOUR = timedelta(hours=1)


def waiting(workers: int = 5, *, hours: float = 1, **lease: Any) -> ClusterSpec:
    """With its head, one workspace more than workers: 6 of 8 vCPUs need both sites."""
    terms = LeaseTerms(kind=Kind.BEST_EFFORT, duration=hours * HOUR, **lease)
    return replace(spec(workers), lease=terms)


def named(name: str) -> ClusterName:
    return replace(NAME, cluster_id=name)


async def record_of(process: Process, name: ClusterName = NAME) -> ClusterRecord:
    stored = await process.clusters.get(str(name))
    assert stored is not None
    return stored.record


async def swept(world: World, process: Process, seconds: float = 2) -> None:
    await process.recover.sweep()
    await process.settle.sweep()
    await process.refresh.sweep()
    await process.due.sweep()
    await process.queue.sweep()
    await asyncio.gather(*process.begin.tell.begun())
    await world.clock.advance(seconds)


async def filled(world: World, process: Process, workers: int = 5, *, hours: float = 1) -> None:
    """Others have both sites."""
    lease = LeaseTerms(duration=hours * HOUR)
    await process.create(order("other", named("other"), replace(spec(workers), lease=lease)))
    await process.create.drain()


async def queue(process: Process, what: ClusterSpec, name: str = "c1") -> ClusterState:
    view = await process.create(order(f"r-{name}", named(name), what))
    return view.record.state


async def running(world: World, **lease: Any) -> Process:
    """For ten minutes, at both sites."""
    process = await world.process()
    await queue(process, waiting(**lease))
    await swept(world, process)
    world.boot()
    await swept(world, process)
    assert (await record_of(process)).state is ClusterState.ACTIVE
    await world.clock.advance_to(START + timedelta(minutes=10))
    return process


async def looked(world: World, process: Process, seconds: float = 2, *, times: int = 1) -> None:
    """All loops so often, and hosts have done what they are to."""
    for _ in range(times):
        await process.aside.sweep()
        await asyncio.gather(*process.aside.tell.begun())
        for site in world.sites.by_name.values():
            site.save()
            site.finish()
        await swept(world, process, seconds)
        await asyncio.gather(*process.go_on.tell.begun())


async def check_failed(
    process: Process, reason: str, state: ClusterState = ClusterState.FAILED
) -> None:
    record = await record_of(process)
    assert record.state is state
    assert record.failure is not None
    assert record.failure.reason == reason


def parts(world: World) -> list[FakePart]:
    return [
        each
        for site in world.sites.by_name.values()
        for each in site.parts.values()
        if each.state is not State.RELEASED
    ]


def check_whole(world: World, record: ClusterRecord) -> None:
    """All sites have the terms on record, and nothing else."""
    assert {each.terms for each in parts(world)} == {record.terms}
    assert {each.spec.window for each in parts(world)} == {record.window}
    assert {each.amend for each in parts(world)} == {None}
    assert {each.recalled_end for each in parts(world)} == {None}


ASIDE_STEPS = 3
"""Begun and decided in one write, and two sites told; a fourth settles it."""
ON_STEPS = 6
"""Begun, 2 prepares, commit, 2 told; a seventh settles it."""


async def crashing(world: World, plan: CrashPlan, step: str) -> None:
    process = await world.process(plan)
    try:
        if step == "aside":
            await process.aside.sweep()
            await asyncio.gather(*process.aside.tell.begun())
        else:
            await process.due.sweep()
            await process.queue._start()
            await asyncio.gather(*process.go_on.tell.begun())
    except Crash:
        pass
