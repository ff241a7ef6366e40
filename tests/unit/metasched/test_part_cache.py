"""What is remembered of what sites say, and for how long."""

from __future__ import annotations

import pytest

from intertie.common import errors
from intertie.metasched.usecases.part_cache import KEPT_S, PartCache
from tests.unit.metasched.waiting import looked, named, queue, record_of, running, swept, waiting
from tests.unit.metasched.world import Process, World, order, spec


def remembered(process: Process) -> set[str]:
    return set(process.get._parts._answers)


async def test_nothing_is_remembered_of_what_was_aborted() -> None:
    """A bug: each refused start left what the sites had said of it, for ever."""
    world = World()
    process = await world.process()
    world.south.quota_vcpus = 0
    with pytest.raises(errors.NoCapacity):
        await process.create(order(what=spec(5)))
    await process.create.drain()
    assert "resolve" in world.north.calls
    assert remembered(process) == set()
    await queue(process, waiting())
    await swept(world, process)
    assert remembered(process) == set()


async def test_going_on_that_is_refused_leaves_what_was_known() -> None:
    world = World()
    process = await running(world)
    world.north.recall(world.clock.now())
    world.south.faults["prepare"] = [errors.NoCapacity(())] * 3
    await looked(world, process, times=3)
    record = await record_of(process)
    assert remembered(process) == set(record.parts.values())


async def test_what_nobody_asks_for_is_dropped() -> None:
    """A bug: a replica that does not lead is told of no end, and remembered all it was asked."""
    world = World()
    process = await world.process()
    for name in ("a", "b"):
        await queue(process, waiting(1), name)
    await swept(world, process)
    one, two = [await record_of(process, named(name)) for name in ("a", "b")]
    follower = PartCache(world.sites, world.clock)
    await follower.parts_of(one)
    for _ in range(2):
        await world.clock.advance(KEPT_S / 2 + 2)
        await follower.parts_of(two)
    assert set(follower._answers) == set(two.parts.values())
    # One that is asked for stays, though its site does not answer.
    world.north.down = world.south.down = True
    for _ in range(5):
        await world.clock.advance(KEPT_S - 10)
        seen = await follower.parts_of(two)
        assert [each.current for each in seen.values()] == [False]
