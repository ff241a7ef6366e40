"""A coordinator may die at any step, and come back as another: all or nothing holds."""

import asyncio
from typing import Any

import pytest

from intertie.common import errors
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.commit import Outcome
from tests.fakes.crashing import Crash, CrashPlan
from tests.fakes.part import State
from tests.unit.metasched.world import World, order, spec

STEPS = 6
"""Writes and messages of a co-allocation of two sites: begin, 2 prepares, commit, 2 resolves; a
seventh settles it."""


async def crashed_at(step: int, *, after: bool, world: World) -> CrashPlan:
    plan = CrashPlan(at=step, after=after)
    process = await world.process(plan)
    task = asyncio.ensure_future(process.create(order(what=spec(5))))
    await asyncio.wait([task])
    error = task.exception()
    assert error is None or (plan.happened and isinstance(error, Crash))
    return plan


async def test_a_whole_co_allocation_has_so_many_steps() -> None:
    world = World()
    plan = await crashed_at(99, after=True, world=world)
    assert plan.steps == STEPS + 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, STEPS + 2))
async def test_after_a_crash_at_any_step_all_sites_agree(step: int, after: bool) -> None:
    world = World()
    await crashed_at(step, after=after, world=world)
    world.check_all_or_nothing()
    successor = await world.process()
    await world.settle(successor)
    world.check_all_or_nothing()
    stored = await successor.clusters.listed()
    committed = [
        tx
        for tx in world.states()
        if (found := await successor.register.decision(tx)) and found.outcome is Outcome.COMMIT
    ]
    if committed:
        assert world.confirmed() == set(committed)
        assert [each.record.state for each in stored] == [ClusterState.SCHEDULED]
    else:
        assert world.north.used() == world.south.used() == 0
        assert stored == ()
        assert await successor.clusters.requests() == {}
    assert await successor.register.transactions() == ()
    again = await successor.create(order(what=spec(5)))
    assert again.record.state is ClusterState.SCHEDULED
    assert len(world.confirmed()) == 1


@pytest.mark.parametrize("step", range(1, STEPS + 2))
async def test_sites_in_doubt_need_no_coordinator(step: int) -> None:
    """Nobody recovers: prepared sites ask any replica's register."""
    world = World()
    await crashed_at(step, after=True, world=world)
    follower = await world.process(leads=False)
    await world.clock.advance(31)
    await world.ask_register(follower)
    world.check_all_or_nothing()
    for site in world.sites.by_name.values():
        assert all(part.state is not State.PREPARED for part in site.parts.values())


async def test_sites_that_prepared_what_was_never_recorded_let_go_in_time() -> None:
    """The coordinator dies after the sites have prepared, and before its record is written."""
    world = World()
    process = await world.process()

    async def dies(*_: Any, **__: Any) -> int:
        raise Crash

    process.register.begin = dies  # type: ignore[method-assign]
    with pytest.raises(Crash):
        await process.create(order(what=spec(5)))
    assert [set(each.values()) for each in world.states().values()] == [{State.PREPARED}]
    successor = await world.process()
    await world.settle(successor)
    assert [set(each.values()) for each in world.states().values()] == [{State.RELEASED}]
    again = await successor.create(order(what=spec(5)))
    assert again.record.state is ClusterState.SCHEDULED


async def test_a_zombie_that_comes_back_finds_the_abort() -> None:
    """It stops after both prepares; a successor aborts; then it wants to commit."""
    world = World()
    zombie = await world.process()
    gate = asyncio.Event()
    reached = asyncio.Event()

    async def wait(point: str) -> None:
        if point == "after_prepare":
            reached.set()
            await gate.wait()

    zombie.create._coallocate._pause = wait
    task = asyncio.create_task(zombie.create(order(what=spec(5))))
    await reached.wait()
    successor = await world.process()
    await successor.recover.sweep()
    await successor.settle.sweep()
    gate.set()
    with pytest.raises(errors.DomainError):
        await task
    world.check_all_or_nothing()
    assert world.confirmed() == set()
    decisions = (await world.etcd.range("decision/")).entries
    assert len(decisions) == 1
    assert decisions[0].mod_revision == decisions[0].create_revision


async def test_decisions_are_written_once_in_everything_that_was_tried() -> None:
    for step in range(1, STEPS + 2):
        world = World()
        await crashed_at(step, after=True, world=world)
        await world.settle(await world.process())
        written = [op.key for ops in world.etcd.history for op in ops if "decision/" in op.key]
        assert len(written) == len(set(written)) <= 1
