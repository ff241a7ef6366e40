"""A cluster loses a site: what was there begins anew at others, or it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.spec import AvailabilityTerm, ClusterSpec, LeaseTerms, OnSiteLoss
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.lost_sites import growth_without
from intertie.metasched.domain.problem import LinkRoom
from intertie.metasched.usecases.update_cluster import UpdateOrder
from tests.fakes.crashing import Crash, CrashPlan
from tests.fakes.part import State
from tests.fakes.site import FakeSite
from tests.unit.metasched.test_bringing import GUEST
from tests.unit.metasched.world import ALICE, NAME, Process, World, order, spec

REPLACE = AvailabilityTerm(on_site_loss=OnSiteLoss.REPLACE)
FAIL = AvailabilityTerm()
LOST_AFTER = 300


def wanted(
    workers: int = 5, term: AvailabilityTerm = REPLACE, most: int = 0, **lease: Any
) -> ClusterSpec:
    """A head and workers, more than fit one site."""
    what = spec(workers, most=most, mbit_s=0 if most else 10)
    groups = tuple(
        replace(each, allocation=replace(each.allocation, availability=term))
        for each in what.groups
    )
    terms = LeaseTerms(**({"duration": timedelta(hours=1)} | lease))
    return replace(what, groups=groups, lease=terms)


def three() -> World:
    """North, south, and west, which has as much."""
    world = World()
    room = next(iter(world.north.links.values()))
    names = ("north", "south", "west")

    def links(name: str) -> dict[str, LinkRoom]:
        return {other: room for other in names if other != name}

    west = replace(
        world.north,
        name="west",
        parts={},
        calls=[],
        faults=defaultdict(list),
        acts=[],
        seen={},
    )
    for site in (world.north, world.south, west):
        site.links = links(site.name)
        world.sites.by_name[site.name] = site
    return world


async def made(world: World, what: ClusterSpec | None = None) -> Process:
    """At north and south, and ready where its time has come."""
    world.sites.by_name["west"].down = True
    process = await world.process()
    await process.create(order(what=what or wanted()))
    await process.create.drain()
    world.sites.by_name["west"].down = False
    if (await standing(process)).window.start <= world.clock.now():
        await booted(world, process)
    return process


async def booted(world: World, process: Process) -> None:
    for site in world.sites.by_name.values():
        site.boot()
    await swept(world, process, 3)


async def swept(world: World, process: Process, seconds: float, *, step: float = 1) -> None:
    """The leader's loops, as time goes by."""
    for _ in range(int(seconds / step)):
        await world.clock.advance(step)
        await process.recover.sweep()
        await process.refresh.sweep()
        await done(world, process)
        await process.settle.sweep()


async def done(world: World, process: Process) -> None:
    """What is lost is tried, as time goes by where that waits for it."""
    await process.replacing.sweep()
    tasks = process.replacing.begun()
    while tasks and (await asyncio.wait(tasks, timeout=0.05))[1]:
        if world.clock.sleepers:
            await world.clock.advance(0.5)
    await asyncio.gather(*tasks)


async def standing(process: Process) -> ClusterRecord:
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    return stored.record


def gives_up(site: FakeSite, why: str = "HOST_LOST") -> None:
    for part in site.parts.values():
        part.state, part.end_reason = State.ENDED, why
        part.end_message = "host s1 was lost"


def places(record: ClusterRecord) -> dict[str, tuple[str, str]]:
    nics, homes = record.layout().nics, record.plan.site_of()
    return {label: (homes[label], nics[label][0].address) for label in nics}


def held(site: FakeSite) -> set[str]:
    return {
        each.label
        for part in site.parts.values()
        if part.state is State.CONFIRMED
        for each in part.spec.workspaces
    }


def check_agreed(world: World, record: ClusterRecord) -> None:
    """Sites have what is on record, of its terms, and nothing more."""
    at: dict[str, set[str]] = {}
    for label, (home, _) in places(record).items():
        at.setdefault(home, set()).add(label)
    for name, site in world.sites.by_name.items():
        assert held(site) == at.get(name, set()), name
        for full, part in site.parts.items():
            if part.state is State.CONFIRMED:
                assert full == record.parts[name]
                assert (part.terms, part.amend) == (record.terms, None)


@pytest.fixture
def world() -> World:
    return three()


async def test_what_a_site_gives_up_begins_anew_elsewhere(world: World) -> None:
    process = await made(world)
    before = await standing(process)
    assert (before.state, set(before.parts)) == (ClusterState.ACTIVE, {"north", "south"})
    stayed = held(world.north)
    gives_up(world.south)
    await swept(world, process, 5)
    record = await standing(process)
    assert record.state is ClusterState.ACTIVE
    assert set(record.parts) == {"north", "west"}
    assert record.left == ("south",)
    assert (record.terms, record.amend, record.window) == (1, None, before.window)
    was, now = places(before), places(record)
    assert was.keys() == now.keys()
    for label, (site, address) in was.items():
        assert now[label] == ("north" if label in stayed else "west", address), site
    check_agreed(world, record)
    assert record.plan.reasons[0].startswith("south is lost: anew ")
    assert await process.register.transactions() == ()


@pytest.mark.parametrize("most", [0, 7])
async def test_those_that_stay_may_have_the_highest_indices(world: World, most: int) -> None:
    """Who begins anew has the lowest, also of a group that may have fewer."""
    process = await made(world, wanted(2 if most else 5, most=most))
    before = places(await standing(process))
    lowest = before["worker-0"][0]
    stayed = {label: place for label, place in before.items() if place[0] != lowest}
    assert max(stayed) > min(before.keys() - stayed.keys() - {"head-0"})
    gives_up(world.sites.by_name[lowest])
    await swept(world, process, 5)
    record = await standing(process)
    after = places(record)
    assert after.keys() == before.keys()
    assert stayed.items() <= after.items()
    assert record.left == (lowest,)
    check_agreed(world, record)


async def test_nobody_who_stays_is_left_out_for_those_who_are_gone(world: World) -> None:
    """Names are not given to others: with the lowest indices lost, and room for some of them only,
    the highest would have to go."""
    process = await made(world, wanted(2, most=7))
    lowest = places(await standing(process))["worker-0"][0]
    [stays] = {"north", "south"} - {lowest}
    before = held(world.sites.by_name[stays])
    growth = growth_without(await standing(process), frozenset({lowest}))
    assert growth.bounds["worker"] == (7, 7)
    world.sites.by_name["west"].vcpus = 2
    gives_up(world.sites.by_name[lowest])
    await swept(world, process, 50)
    assert held(world.sites.by_name[stays]) == before
    assert (await standing(process)).left == ()
    await swept(world, process, 30)
    assert (await standing(process)).end_reason == "PART_LOST"


async def test_without_being_asked_for_it_ends_the_cluster(world: World) -> None:
    process = await made(world, wanted(term=FAIL))
    gives_up(world.south)
    await swept(world, process, 2)
    record = await standing(process)
    assert record.failure is not None
    assert record.failure.message == "south ended its part: HOST_LOST: host s1 was lost"
    assert "west" not in record.parts


async def test_one_group_that_does_not_ends_the_cluster(world: World) -> None:
    what = wanted()
    head, worker = what.groups
    worker = replace(worker, allocation=replace(worker.allocation, availability=FAIL))
    process = await made(world, replace(what, groups=(head, worker)))
    gives_up(world.south)
    await swept(world, process, 2)
    assert (await standing(process)).end_reason == "PART_LOST"


async def test_what_has_not_begun_is_placed_elsewhere_whatever_is_asked_for(world: World) -> None:
    start = world.clock.now() + timedelta(hours=2)
    process = await made(world, wanted(term=FAIL, start_time=start))
    gives_up(world.south)
    await swept(world, process, 40)
    record = await standing(process)
    assert (record.state, set(record.parts)) == (ClusterState.SCHEDULED, {"north", "west"})
    assert record.window.start == start
    check_agreed(world, record)


async def test_a_silent_site_is_lost_after_so_long_and_no_sooner(world: World) -> None:
    process = await made(world)
    world.south.down = True
    await swept(world, process, LOST_AFTER - 10, step=5)
    assert set((await standing(process)).parts) == {"north", "south"}
    await swept(world, process, 30, step=5)
    record = await standing(process)
    assert set(record.parts) == {"north", "west"}
    assert record.state is ClusterState.ACTIVE
    before = next(iter(world.south.parts.values()))
    assert before.state is State.CONFIRMED
    # It is there again, and hears that it has nothing of it any more.
    world.south.down = False
    await swept(world, process, 10)
    assert (before.ending, before.end_reason) == (True, "PART_LOST")
    world.south.finish()
    await swept(world, process, 10)
    check_agreed(world, await standing(process))
    calls = len(world.south.calls)
    await swept(world, process, 10)
    assert len(world.south.calls) == calls


async def test_a_site_that_comes_back_in_time_has_lost_nothing(world: World) -> None:
    process = await made(world)
    before = await standing(process)
    for _ in range(3):
        world.south.down = True
        await swept(world, process, LOST_AFTER - 20, step=5)
        world.south.down = False
        await swept(world, process, 10, step=5)
    assert await standing(process) == before


async def test_of_a_silent_site_nothing_is_begun_elsewhere_unasked(world: World) -> None:
    process = await made(world, wanted(term=FAIL))
    before = await standing(process)
    world.south.down = True
    await swept(world, process, 2 * LOST_AFTER, step=5)
    assert await standing(process) == before


async def test_while_most_sites_are_silent_none_is_lost(world: World) -> None:
    """It is rather this one that is cut off: once half are back, the others have their time yet.
    Whoever was reconnected second was taken for lost at once."""
    process = await made(world)
    before = await standing(process)
    world.sites.by_name["west"].vcpus = 12
    world.south.down = world.north.down = True
    await swept(world, process, 2 * LOST_AFTER, step=5)
    assert await standing(process) == before
    world.north.down = False
    await swept(world, process, LOST_AFTER - 20, step=5)
    assert await standing(process) == before
    await swept(world, process, 40, step=5)
    assert set((await standing(process)).parts) == {"north", "west"}


async def test_a_leader_that_could_not_look_counts_anew(world: World) -> None:
    process = await made(world)
    world.south.down = True
    await swept(world, process, LOST_AFTER - 20, step=5)
    await world.clock.advance(60)
    await swept(world, process, 60, step=5)
    assert set((await standing(process)).parts) == {"north", "south"}


async def test_where_there_is_no_room_it_is_tried_for_a_while_and_then_ends(world: World) -> None:
    process = await made(world)
    world.sites.by_name["west"].vcpus = 0
    gives_up(world.south)
    await swept(world, process, 50)
    record = await standing(process)
    assert (record.state, record.end_requested_time) == (ClusterState.ACTIVE, None)
    await swept(world, process, 30)
    record = await standing(process)
    assert record.failure is not None
    assert record.failure.reason == "PART_LOST"
    first = "south ended its part: HOST_LOST: host s1 was lost; and what it had cannot be had"
    assert record.failure.message.startswith(first)
    assert "west" in record.failure.message


async def test_room_that_comes_in_time_is_taken(world: World) -> None:
    process = await made(world)
    world.sites.by_name["west"].vcpus = 0
    gives_up(world.south)
    await swept(world, process, 20)
    world.sites.by_name["west"].vcpus = 4
    await swept(world, process, 20)
    assert set((await standing(process)).parts) == {"north", "west"}


async def test_readers_are_not_told_of_an_end_meanwhile(world: World) -> None:
    process = await made(world)
    world.sites.by_name["west"].vcpus = 0
    gives_up(world.south)
    await world.clock.advance(2)
    follower = await world.process(leads=False)
    view = await follower.get(str(NAME))
    assert (view.record.state, view.record.failure) == (ClusterState.ACTIVE, None)
    del process


async def test_of_a_range_those_that_are_gone_are_left_out_before_it_ends(world: World) -> None:
    """Seven fit north and south, five are enough; west has room for less than south had."""
    process = await made(world, wanted(2, most=7))
    before = await standing(process)
    assert before.plan.count("worker") == 7
    world.sites.by_name["west"].vcpus = 2
    gives_up(world.south)
    await swept(world, process, 5)
    record = await standing(process)
    assert record.plan.count("worker") in (5, 6)
    for label in held(world.north):
        assert places(record)[label] == places(before)[label]
    check_agreed(world, record)
    assert any("which it can do without" in each for each in record.plan.reasons)


async def test_a_site_that_refuses_is_not_asked_again_for_the_same(world: World) -> None:
    """West offers more than it has, and is told so by no one but itself."""
    process = await made(world)
    world.sites.by_name["west"].hidden_vcpus = 4
    world.sites.by_name["west"].vcpus = 0
    gives_up(world.south)
    await swept(world, process, 8)
    assert (await standing(process)).terms == 0
    assert world.north.used() == len(held(world.north))
    assert all(part.amend is None for part in world.north.parts.values())


async def test_it_may_be_changed_and_lost_again_afterwards(world: World) -> None:
    process = await made(world)
    gives_up(world.south)
    await swept(world, process, 5)
    for site in world.sites.by_name.values():
        site.vcpus = 12
    await process.update(
        UpdateOrder(
            name=str(NAME),
            spec=wanted(7),
            paths=("spec.groups",),
            etag="",
            caller=ALICE,
            request_id="u1",
        )
    )
    await process.update.drain()
    record = await standing(process)
    assert set(record.parts) == {"north", "west"}
    gives_up(world.sites.by_name["west"])
    await swept(world, process, 5)
    record = await standing(process)
    assert (set(record.parts), set(record.left)) == ({"north"}, {"south", "west"})
    assert len(places(record)) == 8
    check_agreed(world, record)


async def test_an_end_that_is_asked_for_meanwhile_wins(world: World) -> None:
    process = await made(world)
    gives_up(world.south)
    await world.clock.advance(2)
    await process.refresh.sweep()
    await process.delete(str(NAME))
    await swept(world, process, 5)
    for site in world.sites.by_name.values():
        site.finish()
    await swept(world, process, 5)
    record = await standing(process)
    assert (record.state, record.left) == (ClusterState.CANCELLED, ())


async def test_what_a_lost_site_still_has_ends_though_the_cluster_is_over(world: World) -> None:
    process = await made(world)
    world.south.down = True
    await swept(world, process, LOST_AFTER + 20, step=5)
    await process.delete(str(NAME))
    await swept(world, process, 5)
    for site in world.sites.by_name.values():
        site.finish()
    await swept(world, process, 5)
    assert (await standing(process)).state is ClusterState.CANCELLED
    world.south.down = False
    await swept(world, process, 10)
    assert all(part.ending for part in world.south.parts.values())


async def test_what_the_other_site_lacks_is_brought_to_it(world: World) -> None:
    """By a transfer that both ends hold with the new terms, at once."""
    for site in world.sites.by_name.values():
        site.images = {GUEST.digest: GUEST, "guest": GUEST}
    west = world.sites.by_name["west"]
    west.images = {}
    process = await made(world)
    gives_up(world.south)
    await swept(world, process, 5)
    record = await standing(process)
    assert set(record.parts) == {"north", "west"}
    [planned] = record.plan.transfers
    assert (planned.item, planned.from_site, planned.to_site) == (GUEST.digest, "north", "west")
    assert world.clock.now() < planned.end < record.window.end
    [part] = west.parts.values()
    assert [each.from_site for each in part.spec.transfers] == ["north"]
    check_agreed(world, record)


async def test_what_was_paid_at_a_lost_site_stays_in_the_price(world: World) -> None:
    for site in world.sites.by_name.values():
        site.asks = 4.0
    process = await made(world)
    await swept(world, process, 15 * 60, step=15)
    assert sum(each.amount for each in (await standing(process)).price) == pytest.approx(8.0)
    gives_up(world.south)
    await swept(world, process, 5)
    record = await standing(process)
    paid = {each.site: each.amount for each in record.price}
    assert paid.keys() == {"north", "south", "west"}
    assert paid["south"] == pytest.approx(4.0)  # what it gives back of that, it says itself
    assert record.plan.cost == pytest.approx(sum(paid.values()))


@pytest.mark.parametrize("lose", [gives_up, lambda site: setattr(site, "down", True)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 12))
async def test_whoever_dies_at_any_step_leaves_all_or_nothing(
    world: World, step: int, after: bool, lose: Callable[[FakeSite], None]
) -> None:
    """A leader is killed at its first, second, … write or call; another one takes over."""
    first = await made(world)
    await swept(world, first, 1)
    lose(world.south)
    doomed = await world.process(CrashPlan(at=step, after=after))
    with contextlib.suppress(Crash):
        await swept(world, doomed, LOST_AFTER + 20, step=10)
    heir = await world.process()
    await swept(world, heir, LOST_AFTER + 40, step=10)
    await world.ask_register(heir)
    await swept(world, heir, 40, step=10)
    record = await standing(heir)
    assert (record.state, record.amend) == (ClusterState.ACTIVE, None)
    assert set(record.parts) == {"north", "west"}
    world.south.down = False
    await swept(world, heir, 20, step=5)
    world.south.finish()
    check_agreed(world, record)
    assert await heir.register.transactions() == ()
