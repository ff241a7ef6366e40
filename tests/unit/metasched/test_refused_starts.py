"""Leases over several sites whose start a site refuses, though by what it offers there is room:
they are not tried again and again, and nobody behind them waits for that."""

from __future__ import annotations

import asyncio

import pytest

from intertie.common import errors
from intertie.common.values import replace
from intertie.metasched.domain.aside import where_it_was
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.problem import problem_of
from intertie.metasched.usecases.create_cluster import PLANS
from tests.fakes.site import FakeSite
from tests.unit.metasched.waiting import looked, named, queue, record_of, running, swept, waiting
from tests.unit.metasched.world import World, spec


def tries(site: FakeSite) -> int:
    return site.calls.count("prepare")


async def test_what_a_quota_refuses_is_planned_again_at_once() -> None:
    """A bug: it was asked for again as before, every 2 s. Offers do not tell of quotas."""
    world = World()
    process = await world.process()
    world.south.quota_vcpus = 2
    assert await queue(process, waiting()) is ClusterState.QUEUED
    await swept(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert (world.north.used(), world.south.used()) == (4, 2)


async def test_a_start_that_is_always_refused_is_tried_ever_more_seldom() -> None:
    """A bug: 300 times in 10 minutes, with records of each at its sites and in the register."""
    world = World()
    process = await world.process()
    world.south.quota_vcpus = 0
    await queue(process, waiting())
    for _ in range(300):
        await swept(world, process)
    assert 5 <= tries(world.south) <= 10 * PLANS
    assert len(await process.register.settled()) <= 10 * PLANS
    record = await record_of(process)
    assert record.state is ClusterState.QUEUED
    assert record.waits is not None
    assert record.waits.foreseen is None
    assert record.plan.reasons[0] == "sites had less room than they had offered"
    assert "quota_vcpus" in {each.resource for each in record.plan.shortfalls}
    # Once the reason is gone it begins, in 5 minutes at most, and nothing is held against it.
    world.south.quota_vcpus = 8
    for _ in range(151):
        await swept(world, process)
    assert (await record_of(process)).state is ClusterState.SCHEDULED
    assert process.queue._pauses.of(record.uid) is None


async def test_nobody_behind_one_that_is_refused_waits_for_it() -> None:
    """A bug: what sites offered was kept for the first, which never got it."""
    world = World()
    process = await world.process()
    world.south.quota_vcpus = 1
    await queue(process, waiting())
    await world.clock.advance(1)
    await queue(process, waiting(3), "behind")
    for _ in range(3):
        await swept(world, process)
    assert (await record_of(process)).state is ClusterState.QUEUED
    assert (await record_of(process, named("behind"))).state is ClusterState.SCHEDULED


async def test_going_on_that_is_refused_pauses_too() -> None:
    world = World()
    process = await running(world)
    world.north.recall(world.clock.now())
    await looked(world, process)
    before = tries(world.north)
    world.north.faults["prepare"] = [errors.NoCapacity(())] * 1000
    await looked(world, process, times=300)
    assert 5 <= tries(world.north) - before <= 10
    record = await record_of(process)
    assert (record.state, record.terms) == (ClusterState.SUSPENDED, 1)
    world.north.faults.clear()
    await looked(world, process, times=151)
    assert (await record_of(process)).state is ClusterState.SCHEDULED


@pytest.mark.parametrize("step", ["begins", "goes on"])
async def test_while_the_store_is_short_of_room_none_starts(step: str) -> None:
    """A bug: what makes a store grow was refused to callers, and done for those that wait."""
    world = World()
    if step == "begins":
        process = await world.process()
        await queue(process, waiting())
    else:
        process = await running(world)
        world.north.recall(world.clock.now())
        await process.aside.sweep()
        await asyncio.gather(*process.aside.tell.begun())
        world.north.save()
        world.south.save()
        await process.refresh.sweep()
    before = await record_of(process)
    asked = tries(world.north)
    world.room.short = True
    for _ in range(10):
        await swept(world, process)
    record = await record_of(process)
    assert (record.state, record.terms) == (before.state, before.terms)
    assert tries(world.north) == asked
    world.room.short = False
    for _ in range(20):
        await swept(world, process)
    assert (await record_of(process)).state is ClusterState.SCHEDULED


async def test_disk_for_its_memory_is_planned_with_unless_it_is_cancellable() -> None:
    """A bug: sites count that disk from the start, so they refused what was planned without it."""
    world = World()
    process = await world.process()
    large = waiting(1)
    groups = tuple(
        replace(each, allocation=replace(each.allocation, memory_mib=9000, disk_mib=60000))
        for each in large.groups
    )
    with pytest.raises(errors.NoCapacity) as refused:
        await queue(process, replace(large, groups=groups))
    assert {each.resource for each in refused.value.shortfalls} == {"disk"}
    lease = replace(large.lease, cancellable=True)
    assert await queue(process, replace(large, groups=groups, lease=lease)) is ClusterState.QUEUED


async def test_that_disk_is_neither_charged_for_nor_wanted_once_more_to_go_on() -> None:
    world = World()
    process = await running(world)
    record = await record_of(process)
    offers = {site.name: (site.offer(record.window),) for site in world.sites.by_name.values()}
    problem = problem_of(record.spec, (record.window,), offers)
    site, worker = problem.site("north"), problem.group("worker")
    assert site.takes(worker).disk_mib == 2 * 128
    assert site.charges(worker).disk_mib == 128
    again = where_it_was(problem, record.plan)
    assert {site.takes(each).disk_mib for each in again.groups} == {0}
    plain = problem_of(spec(3), (record.window,), offers)
    assert site.takes(plain.group("worker")).disk_mib == 128
