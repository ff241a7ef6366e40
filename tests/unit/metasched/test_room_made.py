"""A lease over two sites that is to begin at once begins when both can have put others aside."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.problem import Cut, over
from intertie.metasched.domain.room_made import joined, windows_with_room_made
from intertie.metasched.domain.solver import solve
from intertie.metasched.usecases.brief import HOLD_WITHIN
from intertie.metasched.usecases.create_cluster import PLANS
from tests.fakes.clock import START
from tests.fakes.crashing import Crash, CrashPlan
from tests.fakes.part import State
from tests.fakes.site import FakeSite
from tests.unit.metasched.problems import NOW, group, offer, problem, window
from tests.unit.metasched.waiting import named, queue, swept, waiting
from tests.unit.metasched.world import Process, World, order, spec

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
QUICK, SLOW = 12 * SECOND, 40 * SECOND
URGENT = named("urgent")


def at_once(workers: int = 5, **lease: Any) -> ClusterSpec:
    return replace(spec(workers), lease=LeaseTerms(**{"duration": HOUR, **lease}))


async def taken(world: World, workers: int = 7) -> Process:
    """Both sites run one that would give way, and are full unless it is smaller."""
    process = await world.process()
    await queue(process, waiting(workers, hours=2))
    await swept(world, process)
    world.north.saves_in, world.south.saves_in = QUICK, SLOW
    return process


async def ask(process: Process, what: ClusterSpec) -> Any:
    view = await process.create(order("r-urgent", URGENT, what))
    await process.create.drain()
    return view.record


def recalled(site: FakeSite) -> list[Any]:
    return [each.recalled_end for each in site.parts.values() if each.spec.recallable]


async def test_it_begins_at_both_when_the_slower_can_have_saved_what_gives_way() -> None:
    world = World()
    process = await taken(world)
    now = world.clock.now()
    record = await ask(process, at_once())
    begins = now + SLOW + HOLD_WITHIN
    assert record.state is ClusterState.SCHEDULED
    assert record.plan.window.start == begins
    assert record.plan.window.duration == HOUR, "it loses nothing of its time"
    assert (
        "leases give way that may have to at north and south, and it begins when they are saved"
        in record.plan.reasons
    )
    windows = {
        each.spec.window
        for site in (world.north, world.south)
        for each in site.parts.values()
        if each.spec.recallable is None
    }
    assert windows == {record.plan.window}
    assert recalled(world.north) == [begins - QUICK]
    assert recalled(world.south) == [begins - SLOW]
    world.check_all_or_nothing()


async def test_the_answer_names_the_sites_alone_where_others_give_way() -> None:
    world = World()
    process = await taken(world, workers=5)
    record = await ask(process, at_once())
    assert record.plan.site_names == ("north", "south")
    [said] = [each for each in record.plan.reasons if "give way" in each]
    assert said.startswith("leases give way that may have to at south, and")
    assert recalled(world.north) == [None]


async def test_a_plan_says_so_and_puts_nobody_aside() -> None:
    world = World()
    process = await taken(world)
    view = await process.create.plan_only(order("", URGENT, at_once()))
    assert view.record.plan.window.start == START + SLOW + HOLD_WITHIN + (world.clock.now() - START)
    assert recalled(world.north) == recalled(world.south) == [None]


async def test_it_begins_when_the_one_site_can_that_is_enough() -> None:
    """It needs three of four vCPUs, and may be where it is sooner."""
    world = World()
    process = await taken(world)
    now = world.clock.now()
    record = await ask(process, at_once(workers=2))
    assert record.plan.window.start == now + QUICK + HOLD_WITHIN
    assert record.plan.site_names == ("north",)
    assert recalled(world.south) == [None], "nobody is put aside for nothing"


async def test_where_there_is_room_as_things_are_it_begins_at_once() -> None:
    world = World()
    process = await taken(world, workers=5)
    now = world.clock.now()
    record = await ask(process, at_once(workers=1))
    assert record.plan.window.start == now
    assert recalled(world.north) == recalled(world.south) == [None]
    assert not any("give way" in each for each in record.plan.reasons)


async def test_a_delay_that_its_owner_allows_is_longer_than_what_saving_takes() -> None:
    """There would be room after five minutes: a slot of the planner's."""
    world = World()
    process = await taken(world)
    now = world.clock.now()
    record = await ask(process, at_once(max_delay=10 * MINUTE))
    assert record.plan.window.start == now + SLOW + HOLD_WITHIN


async def test_one_that_names_its_start_is_not_moved() -> None:
    world = World()
    process = await taken(world)
    start = world.clock.now() + QUICK
    with pytest.raises(errors.NoCapacity):
        await ask(process, at_once(start_time=start))
    assert recalled(world.north) == [None]


async def test_nothing_gives_way_for_what_would_not_fit_even_so() -> None:
    world = World()
    process = await taken(world)
    with pytest.raises(errors.NoCapacity) as refused:
        await ask(process, at_once(workers=8))
    short = [each for each in refused.value.shortfalls if each.resource == "vcpus"]
    assert {each.available for each in short} >= {4}, "what could be had with room made"
    assert recalled(world.north) == recalled(world.south) == [None]


async def test_nothing_begins_beyond_the_horizon() -> None:
    world = World()
    process = await taken(world)
    world.south.saves_in = 25 * HOUR
    with pytest.raises(errors.NoCapacity):
        await ask(process, at_once())


async def test_a_site_that_held_it_too_late_is_given_longer_the_next_time() -> None:
    """What the other has put aside for the first attempt is not kept from it."""
    world = World()
    process = await taken(world)
    now = world.clock.now()
    short = errors.Shortfall(site="south", resource="vcpus", wanted=4, available=2)
    world.south.faults["prepare"] = [errors.NoCapacity((short,))]
    record = await ask(process, at_once())
    assert record.plan.window.start == now + SLOW + 2 * HOLD_WITHIN
    assert recalled(world.north) == [now + SLOW + HOLD_WITHIN - QUICK]
    world.check_all_or_nothing()


async def test_a_refusal_of_what_was_offered_ends_it_and_says_what_is_short() -> None:
    world = World()
    process = await taken(world)
    world.south.quota_vcpus = 0
    calls = len(world.south.calls)
    with pytest.raises(errors.NoCapacity) as refused:
        await ask(process, at_once())
    assert world.south.calls[calls:].count("prepare") <= PLANS
    assert "quota_vcpus" in {each.resource for each in refused.value.shortfalls}
    world.check_all_or_nothing()


@pytest.mark.parametrize("after", [False, True])
async def test_wherever_its_coordinator_stops_it_is_whole_or_not_at_all(after: bool) -> None:
    for step in range(1, 99):
        world = World()
        await taken(world)
        crash = CrashPlan(at=step, after=after)
        process = await world.process(crash)
        with suppress(Crash):
            await ask(process, at_once())
        if crash.steps < step:
            break
        await world.settle(await world.process())
        world.check_all_or_nothing()
        states = {state for each in world.states().values() for state in each.values()}
        assert State.PREPARED not in states
    assert step > 5


# The rule, without services.


def test_starts_are_what_sites_say_and_a_commit_later() -> None:
    early, late = NOW + 10 * SECOND, NOW + 30 * SECOND
    sites = {
        "a": replace(offer(1), room_from=(early, late)),
        "b": replace(offer(1), room_from=(late,)),
    }
    given, lease = problem([group()], sites), LeaseTerms(duration=HOUR)

    def starts(lease: LeaseTerms, before: timedelta = HOUR) -> list[timedelta]:
        found = windows_with_room_made(given, lease, before=NOW + before, hold_within=5 * SECOND)
        return [each.start - NOW for each in found]

    assert starts(lease) == [15 * SECOND, 35 * SECOND]
    assert starts(lease, before=35 * SECOND) == [15 * SECOND]
    assert starts(replace(lease, start_time=NOW)) == []
    assert starts(LeaseTerms(end_time=NOW + 20 * SECOND)) == [15 * SECOND], "none that is empty"


def test_the_earliest_common_start_is_found_among_both_problems_windows() -> None:
    first = problem([group(fewest=2)], {"a": [offer(0), offer(2)], "b": [offer(1), offer(1)]})
    between = replace(window(0), start=window(0).start + MINUTE)
    more = replace(problem([group(fewest=2)], {"b": offer(2), "a": offer(0)}), windows=(between,))
    both = joined(first, more)
    assert both.windows == (window(0), between, window(1))
    assert [each.name for each in both.sites] == ["a", "b"]
    plan = solve(both)
    assert plan is not None
    assert plan.window == between
    assert plan.site_names == ("b",)
    assert solve(over(both, [0, 2])) == solve(over(first, [0, 1]))
    without = joined(first, replace(more, sites=more.sites[:1]))
    assert len(without.sites) == 1, "a site that is silent now offers nothing"


def test_what_is_refused_for_good_is_refused_at_starts_that_come_up_later() -> None:
    cut = Cut(start=window(0).start, counts={("worker", "a"): 1}, onwards=True)
    given = problem([group()], {"a": offer(2)}, cuts=(cut,))
    later = replace(given, windows=(window(3),))
    assert solve(given) is None
    assert solve(later) is None
    assert solve(replace(later, cuts=(replace(cut, onwards=False),))) is not None
