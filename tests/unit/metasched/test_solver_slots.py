"""Who waits for whose problems to be solved, and how often sites are asked and they are."""

import asyncio
import threading
from typing import Any

import pytest

from intertie.common.leasing.plugins import BACKFILLINGS
from intertie.common.spec import ClusterSpec
from intertie.metasched.domain import outlook
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.queue_policy import QueuePolicy
from tests.fakes.clock import turns
from tests.unit.metasched.test_deadlines import in_time
from tests.unit.metasched.waiting import filled, named, queue, record_of, waiting
from tests.unit.metasched.world import World, order, spec


@pytest.mark.parametrize("asked", [spec(), in_time(4)])
async def test_a_create_does_not_stand_behind_looks_ahead_for_leases_that_wait(
    asked: ClusterSpec,
) -> None:
    """A bug: two of them, of the queue and of who asks when one would start, kept all others from
    being planned for as long as they took."""
    process = await World().process()
    ahead, over = process.queue._line._planning.foreseen, threading.Event()
    looks = [asyncio.create_task(ahead(over.wait, 60)) for _ in range(2)]
    try:
        await turns(1)
        view = await asyncio.wait_for(process.create(order(what=asked)), 30)
        assert view.record.state is ClusterState.SCHEDULED
        assert not any(each.done() for each in looks)
    finally:
        over.set()
        await asyncio.gather(*looks)


@pytest.mark.parametrize("backfilling", sorted(BACKFILLINGS))
async def test_no_problem_is_solved_twice_in_one_look(
    monkeypatch: pytest.MonkeyPatch, backfilling: str
) -> None:
    world = World(queue_policy=QueuePolicy(backfilling=BACKFILLINGS[backfilling]))
    process = await world.process()
    await filled(world, process, hours=0.5)
    for name in ("one", "two"):
        await queue(process, waiting(), name)
    records = [await record_of(process, named(name)) for name in ("one", "two")]
    solved: list[Problem] = []

    def counted(problem: Problem, **options: Any) -> Plan | None:
        solved.append(problem)
        return best_plan(problem, **options)

    monkeypatch.setattr(outlook, "best_plan", counted)
    assert await process.queue._line.starting(records, [], now=world.clock.now()) == []
    assert solved
    assert not any(each in solved[:at] for at, each in enumerate(solved))


async def test_sites_are_asked_once_what_they_offer_to_leases_that_are_alike() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    for name, workers in (("one", 5), ("two", 5), ("three", 5), ("smaller", 4)):
        await queue(process, waiting(workers), name)
    records = [each.record for each in await process.clusters.listed() if each.record.waits]
    world.north.calls.clear()
    outlooks = await process.queue._line.outlooks(records, [], now=world.clock.now())
    assert world.north.calls.count("offers") == 2
    assert len(outlooks) == 4
