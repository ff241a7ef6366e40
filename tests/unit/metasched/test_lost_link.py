"""A cluster loses a link between two of its sites: one is left, where its owner asked for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.common.spec import AvailabilityTerm, ClusterSpec, OnLinkLoss, OnSiteLoss
from intertie.common.values import replace
from intertie.common.ways import Way
from intertie.metasched.domain.cluster import ClusterState
from tests.fakes.site import FakeSite
from tests.unit.metasched.test_lost_site import (
    LOST_AFTER,
    check_agreed,
    held,
    made,
    standing,
    swept,
    three,
    wanted,
)
from tests.unit.metasched.world import Process, World

MOVE = AvailabilityTerm(on_site_loss=OnSiteLoss.REPLACE, on_link_loss=OnLinkLoss.MOVE)
STAY = AvailabilityTerm()


@pytest.fixture
def world() -> World:
    return three()


async def lost(world: World, *ends: tuple[str, str]) -> None:
    """Each of these sites says so of the way to the other."""
    for site, other in ends:
        way = Way(site=other, lost_since=world.clock.now())
        world.sites.by_name[site].ways = (way,)


async def left(process: Process) -> set[str]:
    return set((await standing(process)).left)


def larger(world: World) -> FakeSite:
    return max((world.north, world.south), key=lambda site: len(held(site)))


def mixed(head: AvailabilityTerm, worker: AvailabilityTerm) -> ClusterSpec:
    what = wanted()
    groups = tuple(
        replace(each, allocation=replace(each.allocation, availability=term))
        for each, term in zip(what.groups, (head, worker), strict=True)
    )
    return replace(what, groups=groups)


async def test_the_smaller_end_of_a_lost_link_moves(world: World) -> None:
    process = await made(world, wanted(term=MOVE))
    stays = larger(world)
    before = held(stays)
    [goes] = {"north", "south"} - {stays.name}
    await lost(world, (stays.name, goes))
    await swept(world, process, LOST_AFTER - 10, step=10)
    assert await left(process) == set()
    await swept(world, process, 30, step=10)
    record = await standing(process)
    assert record.left == (goes,)
    assert (record.state, set(record.parts)) == (ClusterState.ACTIVE, {stays.name, "west"})
    assert held(stays) == before
    why = "the link between north and south is lost: anew "
    assert record.plan.reasons[0].startswith(why)
    world.sites.by_name[goes].finish()
    await swept(world, process, 5)
    check_agreed(world, await standing(process))


@pytest.mark.parametrize("head", [MOVE, STAY])
async def test_who_stays_keeps_all_of_its_site_there(world: World, head: AvailabilityTerm) -> None:
    """The head is at one of them, and workers at both."""
    process = await made(world, mixed(head, MOVE if head is STAY else STAY))
    at = (await standing(process)).plan.site_of()
    [other] = {"north", "south"} - {at["head-0"]}
    await lost(world, (other, at["head-0"]))
    await swept(world, process, LOST_AFTER + 30, step=10)
    assert await left(process) == ({other} if head is STAY else set())


async def test_nobody_moves_unasked(world: World) -> None:
    process = await made(world, wanted(term=STAY))
    before = await standing(process)
    await lost(world, ("north", "south"), ("south", "north"))
    await swept(world, process, 2 * LOST_AFTER, step=10)
    assert await standing(process) == before


async def test_where_the_smaller_end_fits_nowhere_the_other_is_tried(world: World) -> None:
    """The head may be at north alone."""
    what = wanted(3, term=MOVE)
    allowed = {"head": ("north",), "worker": ("south", "west")}
    groups = tuple(
        replace(each, placement=replace(each.placement, allow_sites=allowed[each.name]))
        for each in what.groups
    )
    process = await made(world, replace(what, groups=groups))
    assert (len(held(world.north)), len(held(world.south))) == (1, 3)
    await lost(world, ("north", "south"))
    await swept(world, process, LOST_AFTER + 30, step=10)
    assert await left(process) == {"south"}


async def test_where_there_is_no_room_all_go_on(world: World) -> None:
    process = await made(world, wanted(term=MOVE))
    world.sites.by_name["west"].vcpus = 0
    await lost(world, ("north", "south"))
    await swept(world, process, LOST_AFTER + 60, step=10)
    record = await standing(process)
    assert (record.state, record.left, record.end_requested_time) == (ClusterState.ACTIVE, (), None)
    world.sites.by_name["west"].vcpus = 4
    await swept(world, process, 60, step=10)
    assert len(await left(process)) == 1


async def test_a_link_that_is_there_again_costs_nobody_anything(world: World) -> None:
    process = await made(world, wanted(term=MOVE))
    before = await standing(process)
    await lost(world, ("north", "south"))
    await swept(world, process, LOST_AFTER - 20, step=10)
    world.north.ways = (Way(site="south"),)
    await swept(world, process, 60, step=10)
    assert await standing(process) == before


async def test_a_link_that_carries_too_little_for_long_is_lost_too(world: World) -> None:
    process = await made(world, wanted(term=MOVE))
    world.south.measured = (
        Measured(
            kind=GuaranteeKind.LINK_BANDWIDTH,
            network="lan",
            source="south",
            target="north",
            value=3.0,
            at=world.clock.now(),
            backlogged=True,
            below_since=world.clock.now() - timedelta(seconds=LOST_AFTER),
        ),
    )
    await swept(world, process, 10, step=5)
    [reason] = (await standing(process)).plan.reasons[:1]
    assert reason.startswith("the link from south to north carries less than it was to: anew ")


async def test_of_a_site_that_is_silent_itself_no_link_is_judged(world: World) -> None:
    process = await made(world, wanted(term=MOVE))
    await lost(world, ("north", "south"))
    await swept(world, process, LOST_AFTER - 30, step=10)
    before = await standing(process)
    world.south.down = True
    await swept(world, process, LOST_AFTER - 30, step=10)
    assert await standing(process) == before
