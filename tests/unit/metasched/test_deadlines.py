"""Leases over two sites that are done by a moment: admitted whole, with room on record, or
refused."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.intervals import Window
from intertie.common.part_spec import PROMISED
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.cluster import DEADLINE_MISSED, ClusterState
from intertie.metasched.domain.in_time import SLACK, goes_on_by
from intertie.metasched.usecases.create_cluster import PLANS
from tests.fakes.clock import START
from tests.fakes.crashing import CrashPlan
from tests.fakes.part import State
from tests.fakes.site import RESTORE
from tests.unit.metasched.waiting import (
    HOUR,
    ON_STEPS,
    check_failed,
    check_whole,
    crashing,
    filled,
    looked,
    named,
    parts,
    queue,
    record_of,
    swept,
    waiting,
)
from tests.unit.metasched.world import NAME, Process, World, order, spec


def in_time(hours: float, workers: int = 5, **lease: Any) -> ClusterSpec:
    """An hour, done within so many; 6 of 8 vCPUs need both sites."""
    terms = {"duration": HOUR, **lease}
    due = LeaseTerms(kind=Kind.DEADLINE, deadline=START + hours * HOUR, **terms)
    return replace(spec(workers), lease=due)


async def test_it_begins_now_where_there_is_room_and_is_done() -> None:
    world = World()
    process = await world.process()
    assert await queue(process, in_time(1.5)) is ClusterState.SCHEDULED
    record = await record_of(process)
    assert (record.window.start, record.window.duration) == (START, HOUR)
    await process.create.drain()
    assert {each.state for each in parts(world)} == {State.CONFIRMED}
    terms = {each.spec.recallable for each in parts(world)}
    assert {each.deadline for each in terms if each} == {START + 1.5 * HOUR}
    world.boot()
    await looked(world, process, times=2)
    assert (await record_of(process)).state is ClusterState.ACTIVE
    await looked(world, process, 3600)
    await looked(world, process, times=2)
    record = await record_of(process)
    assert (record.state, record.failure) == (ClusterState.ENDED, None)
    assert record.waits is not None
    assert record.waits.ran == HOUR


async def test_it_begins_as_late_as_it_has_to_and_may() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    # The last start that is in time is tried, though it is no multiple of anything.
    last = HOUR + timedelta(seconds=7)
    due = replace(in_time(2).lease, deadline=START + last + HOUR)
    assert await queue(process, replace(spec(5), lease=due)) is ClusterState.SCHEDULED
    record = await record_of(process)
    assert START + HOUR <= record.window.start <= START + last
    assert record.window.end <= START + last + HOUR


async def test_it_is_refused_with_what_is_short_and_leaves_nothing() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    with pytest.raises(errors.NoCapacity) as refused:
        await queue(process, in_time(1.9))
    assert {each.resource for each in refused.value.shortfalls} == {"vcpus"}
    with pytest.raises(errors.NoCapacity):
        await process.create.plan_only(order("p", NAME, in_time(1.9)))
    assert await process.clusters.get(str(NAME)) is None
    with pytest.raises(errors.FieldInvalid) as late:
        await queue(process, in_time(0.9))
    assert late.value.field == "spec.lease.deadline"
    assert await process.clusters.get(str(NAME)) is None


async def test_refused_at_a_site_it_is_not_queued() -> None:
    world = World()
    process = await world.process()
    world.south.quota_vcpus = 1
    with pytest.raises(errors.NoCapacity):
        await queue(process, in_time(5))
    await looked(world, process)
    assert await process.clusters.get(str(NAME)) is None
    assert parts(world) == []


async def test_others_give_way_where_a_site_that_is_not_needed_is_silent() -> None:
    world = World()
    process = await world.process()
    await queue(process, waiting(7, hours=2), "other")
    await swept(world, process)
    world.south.saves_in = timedelta(seconds=12)
    world.north.down = True
    assert await queue(process, in_time(1.5, workers=2)) is ClusterState.SCHEDULED
    record = await record_of(process)
    assert record.plan.site_names == ("south",)
    assert any("north is not used" in each for each in record.plan.reasons)


async def test_it_is_planned_at_the_prices_of_its_kind() -> None:
    world = World()
    process = await world.process()
    for site in (world.north, world.south):
        site.kinds = {"deadline": Rates(vcpu_hour=2.0)}
    view = await process.create.plan_only(order("p", NAME, in_time(5)))
    assert view.record.plan.cost == 12.0


async def running(hours: float = 4, world: World | None = None) -> tuple[World, Process]:
    """For ten minutes, at both sites."""
    world = world or World()
    process = await world.process()
    assert await queue(process, in_time(hours)) is ClusterState.SCHEDULED
    await process.create.drain()
    world.boot()
    await looked(world, process, times=2)
    assert (await record_of(process)).state is ClusterState.ACTIVE
    await world.clock.advance_to(START + timedelta(minutes=10))
    return world, process


async def promised_to(process: Process) -> Window:
    promised = (await record_of(process)).plan.promised
    assert promised is not None
    return promised


async def waiting_for_its_room(hours: float = 4) -> tuple[World, Process, Window]:
    """Put aside, where north has no room but that; it is in need of both sites."""
    world, process = await running(hours)
    promised = await promised_to(process)
    world.north.recall(world.clock.now())
    world.north.vcpus = 0
    await looked(world, process)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    return world, process, promised


async def looked_until(world: World, process: Process, moment: datetime) -> None:
    await looked(world, process, (moment - world.clock.now()).total_seconds())


async def test_room_to_go_on_in_is_promised_as_late_as_may_be() -> None:
    _, process = await running()
    promised = await promised_to(process)
    assert promised.end == START + 4 * HOUR
    # Two guests with 128 MiB each, or four, come back at 50 MiB/s.
    restore = timedelta(seconds=-(-4 * 128 // 50) + 1)
    assert promised.duration == HOUR + SLACK + restore


async def test_the_latest_room_that_all_sites_have_is_promised() -> None:
    world = World()
    process = await world.process()
    ahead = LeaseTerms(start_time=START + 2.5 * HOUR, duration=HOUR)
    await process.create(order("o", named("other"), replace(spec(5), lease=ahead)))
    await process.create.drain()
    _, process = await running(world=world)
    promised = await promised_to(process)
    assert promised.end <= START + 2.5 * HOUR
    assert promised.start >= START + HOUR


@pytest.mark.parametrize("hours", [1.5, 2.0])
async def test_without_room_later_nobody_puts_it_aside(hours: float) -> None:
    world, process = await running(hours)
    assert (await record_of(process)).plan.promised is None
    for site in (world.north, world.south):
        site.recall(world.clock.now())
    await looked(world, process)
    record = await record_of(process)
    assert (record.state, record.terms) == (ClusterState.ACTIVE, 0)


async def test_a_site_that_does_not_promise_still_takes_it() -> None:
    world = World()
    world.south.unpromised_vcpus = 4
    world, process = await running(world=world)
    record = await record_of(process)
    assert record.plan.promised is None
    assert record.window.start == START


@pytest.mark.parametrize("lease", [spec().lease, in_time(4).lease])
async def test_a_site_that_names_a_promise_where_there_is_none_is_heard_as_any_other(
    lease: LeaseTerms,
) -> None:
    """It was asked again and again for the same, and the call ended as a bug."""
    world = World()
    process = await world.process()
    named_it = errors.Shortfall(site="south", resource="vcpus", field=PROMISED)
    world.south.faults["prepare"] = [errors.NoCapacity((named_it,))] * PLANS
    with pytest.raises(errors.NoCapacity):
        await queue(process, replace(spec(5), lease=lease))
    assert await process.clusters.get(str(NAME)) is None


async def test_put_aside_it_goes_on_sooner_and_keeps_its_promise() -> None:
    world, process = await running()
    world.north.recall(world.clock.now())
    await looked(world, process, times=4)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert record.waits is not None
    assert record.window.duration == HOUR - record.waits.ran + RESTORE
    assert record.plan.promised is not None
    assert goes_on_by(record.plan.promised) in record.plan.reasons[-1]
    check_whole(world, record)
    # It may be put aside again, and again.
    world.boot()
    await looked(world, process, 60)
    world.south.recall(world.clock.now())
    await looked(world, process, times=4)
    record = await record_of(process)
    assert (record.state, record.terms) == (ClusterState.SCHEDULED, 4)
    check_whole(world, record)
    await done(world, process)


async def test_sooner_it_goes_on_into_what_it_was_promised_and_has_it_no_more() -> None:
    world, process, promised = await waiting_for_its_room(2.3)
    await looked(world, process, 1798)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    world.north.vcpus = 4
    await looked(world, process, times=3)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert record.window.start < promised.start < record.window.end < promised.end
    assert record.plan.promised is None
    check_whole(world, record)


async def test_at_the_latest_it_goes_on_as_it_was_promised_and_is_done_in_time() -> None:
    world, process, promised = await waiting_for_its_room()
    assert {each.keep_until for each in parts(world)} == {promised.end}
    await looked_until(world, process, promised.start - timedelta(seconds=5))
    record = await record_of(process)
    assert record.waits is not None
    assert record.waits.foreseen == promised.start
    assert record.plan.reasons[-1] == goes_on_by(promised)
    assert record.state is ClusterState.SUSPENDED
    world.north.vcpus = 4
    await looked(world, process, times=4)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert record.window.start < promised.start + timedelta(seconds=5)
    assert record.plan.promised is None, "nothing is left to promise"
    check_whole(world, record)
    world.boot()
    world.north.recall(world.clock.now())
    await done(world, process)
    assert world.clock.now() < START + 4 * HOUR + timedelta(seconds=10)


async def test_one_that_takes_its_time_makes_no_other_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They went on one after the other, each once the one before it had, and when all had that
    were in line and begun before."""
    world, process, promised = await waiting_for_its_room()
    await world.clock.advance_to(promised.start)
    world.north.vcpus = 4
    slow, over = asyncio.Event(), asyncio.Event()

    async def never(*_: object, **__: object) -> list[str]:
        slow.set()
        await over.wait()
        return []

    await queue(process, waiting(5), "slow")
    monkeypatch.setattr(process.queue._line, "starting", never)
    passing = asyncio.create_task(process.queue.sweep())
    await slow.wait()
    await process.due.sweep()
    assert (await record_of(process)).state is ClusterState.SCHEDULED
    over.set()
    await passing


async def test_refused_it_is_tried_often_only_when_it_is_due_and_before_it_is_late() -> None:
    """It was every two seconds, for as long as it was to run, and each leaves records."""
    world, process, promised = await waiting_for_its_room()
    waits = (await record_of(process)).waits
    assert waits is not None
    late = promised.start + waits.ran + SLACK
    for since, fewest, most in (
        (promised.start, 25, 30),
        (promised.start + SLACK, 0, 3),
        (late - SLACK, 25, 30),
        (late, 0, 3),
    ):
        await world.clock.advance_to(since)
        before = world.north.calls.count("prepare")
        for _ in range(29):
            await looked(world, process)
        assert fewest <= world.north.calls.count("prepare") - before <= most, since
    assert (await record_of(process)).state is ClusterState.SUSPENDED


async def test_what_could_not_go_on_in_time_has_missed_its_deadline() -> None:
    world, process, promised = await waiting_for_its_room()
    world.south.down = True
    await looked_until(world, process, promised.end)
    await looked(world, process, times=2)
    assert (await record_of(process)).end_reason == DEADLINE_MISSED
    world.south.down = False
    await world.clock.advance(5)
    await looked(world, process, times=3)
    await check_failed(process, DEADLINE_MISSED)


async def test_what_went_on_too_late_has_missed_it_too() -> None:
    world, process, promised = await waiting_for_its_room()
    world.south.down = True
    await looked_until(world, process, promised.start + timedelta(minutes=30))
    world.south.down, world.north.vcpus = False, 4
    await world.clock.advance(5)
    await looked(world, process, times=4)
    record = await record_of(process)
    assert (record.state, record.window.end) == (ClusterState.SCHEDULED, promised.end)
    world.boot()
    await looked_until(world, process, promised.end + timedelta(seconds=1))
    await looked(world, process, times=3)
    await check_failed(process, DEADLINE_MISSED)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, ON_STEPS + 2))
async def test_wherever_its_coordinator_stops_it_goes_on_whole_and_in_time(
    at: int, after: bool
) -> None:
    world, process, promised = await waiting_for_its_room()
    await looked(world, process)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    await world.clock.advance_to(promised.start)
    world.north.vcpus = 4
    await crashing(world, CrashPlan(at=at, after=after), "on")
    successor = await world.process()
    await world.clock.advance(20)
    await world.ask_register(successor)
    await looked(world, successor, times=4)
    record = await record_of(successor)
    assert await successor.register.transactions() == ()
    assert record.state is ClusterState.SCHEDULED
    check_whole(world, record)
    world.boot()
    await done(world, successor)


async def done(world: World, process: Process) -> None:
    """At the end of its window it has run for as long as it was to."""
    end = (await record_of(process)).window.end
    assert end <= START + 4 * HOUR
    await looked_until(world, process, end + timedelta(seconds=1))
    await looked(world, process, times=3)
    record = await record_of(process)
    assert (record.state, record.failure) == (ClusterState.ENDED, None)
    assert record.waits is not None
    assert record.waits.ran == HOUR
