"""A lease over two sites that one of them puts aside: it is put aside at both, and goes on at both,
wherever its coordinator stops."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from intertie.common.refund import RefundItem
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.commit import Outcome
from intertie.metasched.domain.queue_policy import QueuePolicy
from tests.fakes.clock import START
from tests.fakes.crashing import CrashPlan
from tests.fakes.part import State
from tests.unit.metasched.waiting import (
    ASIDE_STEPS,
    HOUR,
    ON_STEPS,
    check_failed,
    check_whole,
    crashing,
    looked,
    parts,
    record_of,
    running,
)
from tests.unit.metasched.world import NAME, Process, World

SECOND = timedelta(seconds=1)


async def test_what_one_site_puts_aside_is_put_aside_at_both_and_goes_on_at_both() -> None:
    world = World()
    process = await running(world)
    began = (await record_of(process)).window.start
    world.north.recall(world.clock.now())
    await looked(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.SUSPENDED
    assert record.window.end == START + timedelta(minutes=10)
    assert record.waits is not None
    ran = record.waits.ran
    assert ran == START + timedelta(minutes=10) - began
    check_whole(world, record)
    await looked(world, process, times=3)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert record.waits is not None
    assert record.window.duration == HOUR - ran + 5 * SECOND
    check_whole(world, record)
    world.boot()
    await looked(world, process)
    assert (await record_of(process)).state is ClusterState.ACTIVE
    # It has run for as long as it was to once its second window is over.
    end = record.window.end - world.clock.now()
    await looked(world, process, end.total_seconds() + 1)
    await looked(world, process, times=2)
    record = await record_of(process)
    assert record.state is ClusterState.ENDED
    assert record.waits is not None
    assert record.waits.ran == HOUR


async def test_an_end_to_come_is_agreed_on_before_it_comes() -> None:
    world = World()
    process = await running(world)
    end = world.clock.now() + 300 * SECOND
    world.south.recall(end)
    await looked(world, process)
    record = await record_of(process)
    assert (record.state, record.window.end) == (ClusterState.ACTIVE, end)
    check_whole(world, record)
    world.north.recall(end - 100 * SECOND)
    await looked(world, process)
    record = await record_of(process)
    assert (record.terms, record.window.end) == (2, end - 100 * SECOND)
    check_whole(world, record)
    await looked(world, process, 250)
    await looked(world, process)
    assert (await record_of(process)).state is ClusterState.SUSPENDED


async def test_of_two_ends_the_earlier_is_that_of_both() -> None:
    world = World()
    process = await running(world)
    world.north.recall(world.clock.now() + 300 * SECOND)
    world.south.recall(world.clock.now() + 200 * SECOND)
    end = world.clock.now() + 200 * SECOND
    await looked(world, process)
    record = await record_of(process)
    assert (record.terms, record.window.end) == (1, end)
    check_whole(world, record)


@pytest.mark.parametrize("again", ["the site that was first", "another"])
async def test_an_earlier_end_that_comes_before_the_first_is_heard_of(again: str) -> None:
    """A bug: its site could never hear of the first, nor of what followed, and it was lost."""
    world = World()
    process = await running(world)
    now = world.clock.now()
    world.north.recall(now + 300 * SECOND)
    if again == "another":
        world.south.down = True
        await looked(world, process)
        world.south.recall(now + 100 * SECOND)
        world.south.down = False
        await world.clock.advance(5)
    else:
        await process.aside.sweep()
        world.north.recall(now + 100 * SECOND)
        await asyncio.gather(*process.aside.tell.begun())
    await looked(world, process, 5, times=3)
    record = await record_of(process)
    assert (record.terms, record.window.end) == (2, now + 100 * SECOND)
    check_whole(world, record)
    assert await process.register.transactions() == ()
    world.north.vcpus = 1
    await looked(world, process, 120)
    await looked(world, process)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    world.north.vcpus = 4
    await looked(world, process, times=3)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    check_whole(world, record)


@pytest.mark.parametrize("cancellable", [False, True])
@pytest.mark.parametrize("hours", [1, 1000])
async def test_however_long_leases_may_wait_by_now_it_is_put_aside(
    hours: int, cancellable: bool
) -> None:
    """A bug: sites took what is kept for another time than was agreed for more, for ever."""
    world = World()
    await running(world, cancellable=cancellable)
    world.queue_policy = QueuePolicy(longest_wait=timedelta(hours=hours))
    process = await world.process()
    now = world.clock.now()
    world.north.recall(now)
    await looked(world, process)
    record = await record_of(process)
    assert record.window.end == now
    assert await process.register.transactions() == ()
    if cancellable:
        return
    kept = min(timedelta(hours=hours), timedelta(days=30))
    assert {each.keep_until for each in parts(world)} == {now + kept}
    # What they agree to next is what holds by then.
    await looked(world, process, times=3)
    assert (await record_of(process)).state is ClusterState.SCHEDULED
    agreed = {each.spec.recallable.keep_for for each in parts(world) if each.spec.recallable}
    assert agreed == {timedelta(hours=hours)}
    world.boot()
    world.south.recall(world.clock.now() + 60 * SECOND)
    await looked(world, process)
    record = await record_of(process)
    assert (record.terms, record.window.end) == (3, world.clock.now() + 58 * SECOND)
    check_whole(world, record)


async def test_it_goes_on_only_when_both_have_room_and_all_is_saved() -> None:
    world = World()
    process = await running(world)
    world.north.recall(world.clock.now())
    world.north.vcpus = 1
    await looked(world, process, 10, times=4)
    record = await record_of(process)
    assert (record.state, record.terms) == (ClusterState.SUSPENDED, 1)
    assert record.plan.shortfalls
    world.north.vcpus = 4
    world.south.down = True
    await looked(world, process, times=3)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    world.south.down = False
    await world.clock.advance(5)
    await looked(world, process, times=3)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    check_whole(world, record)


async def test_a_site_that_is_away_hears_of_both_in_their_order() -> None:
    world = World()
    process = await running(world)
    world.south.down = True
    world.north.recall(world.clock.now())
    await looked(world, process, times=3)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    assert len({each.terms for each in parts(world)}) == 2
    world.south.down = False
    await world.clock.advance(5)
    await looked(world, process, times=4)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    check_whole(world, record)


async def test_a_cancellable_one_ends_at_both() -> None:
    world = World()
    process = await running(world, cancellable=True)
    world.north.recall(world.clock.now() + 30 * SECOND)
    await looked(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.ACTIVE
    check_whole(world, record)
    await world.clock.advance(30)
    await looked(world, process, times=3)
    await check_failed(process, "PREEMPTED", ClusterState.CANCELLED)


async def test_put_aside_it_does_not_wait_for_ever_and_may_be_deleted() -> None:
    world = World()
    process = await running(world, max_wait=timedelta(minutes=5))
    world.north.recall(world.clock.now())
    world.north.vcpus = 0
    await looked(world, process, 290)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    await world.clock.advance(20)
    await looked(world, process, times=4)
    await check_failed(process, "WAITED_TOO_LONG")
    assert {each.state for each in parts(world)} == {State.ENDED}

    world = World()
    process = await running(world)
    world.north.recall(world.clock.now())
    await looked(world, process)
    await process.delete(str(NAME))
    await looked(world, process, times=3)
    assert (await record_of(process)).state is ClusterState.CANCELLED


async def recalled(world: World) -> None:
    await running(world)
    world.north.recall(world.clock.now())


async def suspended(world: World) -> None:
    process = await running(world)
    world.north.recall(world.clock.now())
    await process.aside.sweep()
    await asyncio.gather(*process.aside.tell.begun())
    world.north.save()
    world.south.save()
    await process.refresh.sweep()
    assert (await record_of(process)).state is ClusterState.SUSPENDED


async def test_both_have_so_many_steps() -> None:
    for ready, step, steps in (
        (recalled, "aside", ASIDE_STEPS),
        (suspended, "on", ON_STEPS),
    ):
        world, plan = World(), CrashPlan(at=99, after=True)
        await ready(world)
        await crashing(world, plan, step)
        assert plan.steps == steps + 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("step", "at"),
    [
        *(("aside", at) for at in range(1, ASIDE_STEPS + 2)),
        *(("on", at) for at in range(1, ON_STEPS + 2)),
    ],
)
async def test_after_a_crash_at_any_step_it_is_whole(step: str, at: int, after: bool) -> None:
    world = World()
    await (recalled if step == "aside" else suspended)(world)
    await crashing(world, CrashPlan(at=at, after=after), step)
    successor = await world.process()
    await world.clock.advance(25)
    await world.ask_register(successor)
    await looked(world, successor, times=3)
    record = await record_of(successor)
    assert await successor.register.transactions() == ()
    assert record.state is ClusterState.SCHEDULED, "it was put aside, and went on"
    check_whole(world, record)
    assert record.waits is not None
    assert record.waits.ran == timedelta(minutes=10)
    told = [tx for each in parts(world) for tx in [each.tx]]
    found = [await successor.register.decision(tx) for tx in told]
    assert {each.outcome for each in found if each is not None} == {Outcome.COMMIT}


async def going_on(process: Process) -> tuple[asyncio.Task[None], asyncio.Event]:
    """All sites have prepared; it is decided once the event is set."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def wait(point: str) -> None:
        if point == "after_prepare":
            reached.set()
            await gate.wait()

    process.go_on._long_way._coallocate._pause = wait
    goes = asyncio.create_task(process.queue._start())
    await reached.wait()
    return goes, gate


async def test_delete_wins_over_going_on_that_is_not_decided() -> None:
    world = World()
    await suspended(world)
    process = await world.process()
    goes, gate = await going_on(process)
    await process.delete(str(NAME))
    gate.set()
    await goes
    await looked(world, process, times=3)
    record = await record_of(process)
    assert (record.state, record.terms, record.amend) == (ClusterState.CANCELLED, 1, None)
    assert {each.state for each in parts(world)} == {State.ENDED}


async def test_what_is_given_back_while_it_is_going_on_stays_on_record() -> None:
    """A bug: the record was that of before its sites were asked."""
    world = World()
    await suspended(world)
    process = await world.process()
    goes, gate = await going_on(process)
    window = (await record_of(process)).window
    given = RefundItem(site="north", reason="GUARANTEE", window=window, amount=1.5)
    world.north.refunds = (given,)
    await world.clock.advance(2)
    await process.refresh.sweep()
    assert (await record_of(process)).refunds == (given,)
    gate.set()
    await goes
    record = await record_of(process)
    assert (record.state, record.refunds) == (ClusterState.SCHEDULED, (given,))
