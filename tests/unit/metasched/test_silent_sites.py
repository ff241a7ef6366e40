"""What a site that does not answer costs the leases that wait, or may be put aside: one deadline,
not one for each lease."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.names import PartName
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState, PartSeen
from tests.unit.metasched.waiting import looked, named, queue, record_of, swept, waiting
from tests.unit.metasched.world import Process, World

NAMES = ("one", "two", "three")
DEADLINE_S = 3


async def three_running() -> tuple[World, Process]:
    """The first at both sites."""
    world = World(vcpus=12)
    process = await world.process()
    for name in NAMES:
        await queue(process, waiting(13 if name == "one" else 3), name)
    for _ in range(2):
        await swept(world, process)
        world.boot()
    states = [(await record_of(process, named(name))).state for name in NAMES]
    assert states == [ClusterState.ACTIVE] * len(NAMES)
    return world, process


async def put_aside(world: World, process: Process) -> list[ClusterRecord]:
    world.north.recall(world.clock.now())
    world.south.recall(world.clock.now())
    await looked(world, process)
    records = [(await record_of(process, named(name))) for name in NAMES]
    assert {each.state for each in records} == {ClusterState.SUSPENDED}
    return records


def silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def part(name: PartName) -> PartSeen:
        await world.clock.sleep(DEADLINE_S)
        raise errors.SiteUnreachable(name.site, "no answer in time")

    monkeypatch.setattr(world.sites, "part", part)


async def takes_one_deadline(world: World, looks: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(looks)
    await world.clock.advance(0)
    assert world.clock.sleepers
    await world.clock.advance(DEADLINE_S)
    left = world.clock.sleepers
    await world.clock.advance(10 * DEADLINE_S)
    await task
    assert left == 0


async def test_looking_who_is_put_aside_takes_one_deadline_where_a_site_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: one for each lease, and so long the others that were put aside ran at the other sites,
    for nothing."""
    world, process = await three_running()
    silent(world, monkeypatch)
    await takes_one_deadline(world, process.aside.sweep())


async def test_looking_who_may_go_on_takes_one_deadline_where_a_site_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: one for each lease that was put aside, and so long none of the others began."""
    world, process = await three_running()
    records = await put_aside(world, process)
    silent(world, monkeypatch)
    await takes_one_deadline(
        world, process.queue._line.starting(records, [], now=world.clock.now())
    )


async def test_no_site_is_asked_who_is_put_aside_of_what_is_put_aside_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, process = await three_running()
    await put_aside(world, process)
    await world.clock.advance(2)
    before = [*world.north.calls, *world.south.calls]
    await process.aside.sweep()
    assert [*world.north.calls, *world.south.calls] == before
