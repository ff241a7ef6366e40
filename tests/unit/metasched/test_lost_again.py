"""A lost site that is back, is used again, or falls silent beside another one: mistakes that were
made there once, each by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.actions import Action
from intertie.common.errors import NoCapacity, SiteUnreachable
from intertie.common.intervals import Window
from intertie.common.refund import RefundItem
from intertie.common.spec import AvailabilityTerm, OnLinkLoss, OnSiteLoss
from intertie.common.values import replace
from intertie.common.ways import Way
from intertie.metasched.usecases.act_on_cluster import ActOrder
from intertie.metasched.usecases.update_cluster import UpdateOrder
from tests.fakes.part import State
from tests.fakes.solvers import P, SolverThreads, T
from tests.unit.metasched.test_bringing import GUEST
from tests.unit.metasched.test_lost_site import (
    FAIL,
    LOST_AFTER,
    booted,
    gives_up,
    held,
    made,
    standing,
    swept,
    three,
    wanted,
)
from tests.unit.metasched.world import ALICE, NAME, Points, Process, World, order

EITHER = AvailabilityTerm(on_site_loss=OnSiteLoss.REPLACE, on_link_loss=OnLinkLoss.MOVE)


@pytest.fixture
def world() -> World:
    return three()


def update(workers: int, term: AvailabilityTerm, request_id: str = "u1") -> UpdateOrder:
    return UpdateOrder(
        name=str(NAME),
        spec=wanted(workers, term=term),
        paths=("spec.groups",),
        etag="",
        caller=ALICE,
        request_id=request_id,
    )


async def lost_for_long(world: World, process: Process) -> None:
    world.south.down = True
    await swept(world, process, LOST_AFTER + 20, step=5)
    assert set((await standing(process)).left) == {"south"}


async def back(world: World, process: Process) -> None:
    """South is, and this is seen while something else goes on."""
    world.south.down = False
    for _ in range(10):
        await world.clock.advance(1)
        await process.refresh.sweep()


async def over_all(world: World) -> Process:
    """At all three sites."""
    process = await world.process()
    await process.create(order(what=wanted(9, term=EITHER, duration=timedelta(hours=12))))
    await process.create.drain()
    await booted(world, process)
    assert len((await standing(process)).parts) == 3
    return process


async def emptied(world: World, process: Process) -> tuple[str, list[str]]:
    """One site keeps its part without workspaces; it, and the others."""
    await process.update(update(5, EITHER))
    await process.update.drain()
    await swept(world, process, 3)
    record = await standing(process)
    [empty] = [site for site in record.parts if not record.plan.has_workspaces(site)]
    return empty, sorted(record.parts.keys() - {empty})


async def test_an_update_takes_no_site_that_was_left(world: World) -> None:
    """It did, and then the record grew by a term of price each second."""
    process = await made(world)
    await lost_for_long(world, process)
    world.south.down, world.south.vcpus = False, 20
    await swept(world, process, 4)
    with pytest.raises(NoCapacity):
        await process.update(update(9, EITHER))
    assert "south" not in (await standing(process)).parts


async def test_a_site_that_is_back_while_it_is_planned_is_not_left(world: World) -> None:
    process = await made(world)
    before = await standing(process)

    class Slow(SolverThreads):
        async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
            found = await super().run(work, *args, **options)
            await back(world, process)
            return found

    world.solvers = Slow()
    process = await world.process()
    world.south.down = True
    await swept(world, process, LOST_AFTER + 30, step=5)
    assert (await standing(process)).parts == before.parts
    assert process.points.passed == []


async def test_a_site_that_is_back_between_hold_and_commit_is_not_left(world: World) -> None:
    before = await standing(await made(world))

    class Back(Points):
        async def __call__(self, point: str) -> None:
            await super().__call__(point)
            if point == "after_prepare":
                await back(world, process)

    process = await world.process(points=Back())
    world.south.down = True
    await swept(world, process, LOST_AFTER + 30, step=5)
    record = await standing(process)
    assert (record.parts, record.amend) == (before.parts, None)
    assert process.points.passed == ["after_prepare"]
    await swept(world, process, 5)
    west = world.sites.by_name["west"]
    assert {each.state for each in west.parts.values()} == {State.RELEASED}


async def test_a_cluster_that_begins_later_is_looked_at_while_it_lacks_a_site(world: World) -> None:
    """It was looked at each 30 s, and tried each 10 s: a site that was back was left."""
    start = world.clock.now() + timedelta(hours=2)
    process = await made(world, wanted(start_time=start))
    before = await standing(process)
    west = world.sites.by_name["west"]
    west.vcpus = 0
    world.south.down = True
    await swept(world, process, LOST_AFTER + 61)
    looked = process.refresh._looked[before.uid]
    while process.refresh._looked[before.uid] == looked:
        await swept(world, process, 1)
    world.south.down, west.vcpus = False, 4
    await swept(world, process, 28)
    assert (await standing(process)).parts == before.parts


async def test_silent_before_it_begins_it_is_left_only_where_that_is_asked_for(
    world: World,
) -> None:
    """Its site may begin it all the same, as it was told."""
    start = world.clock.now() + timedelta(hours=2)
    process = await made(world, wanted(term=FAIL, start_time=start))
    world.south.down = True
    await swept(world, process, 2 * LOST_AFTER, step=5)
    assert "south" in (await standing(process)).parts


async def test_what_is_silent_without_machines_is_left_with_the_others(world: World) -> None:
    """It kept what another one had lost from being had elsewhere, as it could not be asked."""
    process = await over_all(world)
    empty, (first, _) = await emptied(world, process)
    for site in world.sites.by_name.values():
        site.vcpus = 12
    world.sites.by_name[empty].down = True
    await swept(world, process, LOST_AFTER + 30, step=5)
    gives_up(world.sites.by_name[first])
    await swept(world, process, 80)
    record = await standing(process)
    assert (record.failure, set(record.left)) == (None, {empty, first})


async def test_attempts_do_not_pile_up_transactions_at_a_silent_site(world: World) -> None:
    """Six a minute, for as long as it was silent."""
    process = await over_all(world)
    empty, (one, two) = await emptied(world, process)
    world.sites.by_name[empty].down = True
    way = Way(site=two, lost_since=world.clock.now() - timedelta(seconds=LOST_AFTER))
    world.sites.by_name[one].ways = (way,)
    await swept(world, process, 1800, step=5)
    assert len(await process.register.transactions()) < 5


async def test_one_that_is_silent_is_waited_for_while_another_has_given_up(world: World) -> None:
    """The cluster ended after a minute, though both could be had elsewhere a little later."""
    process = await over_all(world)
    world.sites.by_name["west"].down = True
    await swept(world, process, 10, step=5)
    world.north.vcpus = 20
    gives_up(world.south)
    await swept(world, process, LOST_AFTER + 20, step=5)
    record = await standing(process)
    assert (record.failure, set(record.left)) == (None, {"south", "west"})


async def test_the_end_comes_though_others_are_at_work_on_it_all_the_time(world: World) -> None:
    """An owner who tried an Update again and again kept it half dead for ever."""
    process = await made(world)
    world.sites.by_name["west"].vcpus = 0
    gives_up(world.south)
    for _ in range(12):
        await swept(world, process, 9)
        process.replace_lost._underway.add(str(NAME))
        await swept(world, process, 3)
        process.replace_lost._underway.remove(str(NAME))
    assert (await standing(process)).end_requested_time is not None


async def test_a_bug_in_an_attempt_keeps_no_cluster_half_dead(world: World) -> None:
    await made(world)

    class Broken(SolverThreads):
        async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
            raise KeyError("solver")

    world.solvers = Broken()
    process = await world.process()
    gives_up(world.south)
    await swept(world, process, 100)
    assert (await standing(process)).end_requested_time is not None


async def test_one_slow_attempt_keeps_no_other_cluster_from_its_own(world: World) -> None:
    process = await made(world)
    tried: list[str] = []
    gate = asyncio.Event()

    async def slow(name: str, lost: Mapping[str, str], **_: Any) -> bool:
        tried.append(name)
        if name == "slow":
            await gate.wait()
        raise NoCapacity(())

    gives_up(world.south)
    await world.clock.advance(2)
    await process.refresh.sweep()
    [loss] = process.losses._losses.values()
    other = type(loss)("slow", loss.options, loss.since_s, loss.ends, loss.again_s)
    process.replacing._replace_lost = slow  # type: ignore[assignment]
    for _ in range(30):
        process.losses._losses["another"] = other
        await process.replacing.sweep()
        await world.clock.advance(1)
        await process.refresh.sweep()
    assert tried.count("slow") == 1
    assert tried.count(str(NAME)) >= 2
    gate.set()
    await asyncio.gather(*process.replacing.begun())


async def test_what_was_left_ends_after_the_record_is_gone(world: World) -> None:
    process = await made(world, wanted(duration=timedelta(days=5)))
    await lost_for_long(world, process)
    await process.delete(str(NAME))
    await swept(world, process, 5)
    for name in ("north", "west"):
        world.sites.by_name[name].finish()
    await swept(world, process, 5)
    await world.clock.advance(25 * 3600)
    await swept(world, process, 3)
    assert await process.clusters.get(str(NAME)) is None
    world.south.down = False
    await swept(world, process, 10)
    assert [part.ending for part in world.south.parts.values()] == [True]
    world.south.finish()
    await swept(world, process, 10)
    assert await process.register.left() == ()


async def test_what_was_left_ends_though_its_clusters_name_is_taken_again(world: World) -> None:
    process = await made(world)
    old = (await standing(process)).parts["south"]
    await lost_for_long(world, process)
    await process.delete(str(NAME))
    await swept(world, process, 5)
    for name in ("north", "west"):
        world.sites.by_name[name].finish()
    await swept(world, process, 5)
    await process.create(order("r2", what=wanted(2)))
    await process.create.drain()
    world.south.down = False
    await swept(world, process, 10)
    assert world.south.parts[old].ending


async def test_what_a_lost_site_gives_back_is_of_the_price_that_it_had(world: World) -> None:
    """Its price was cut to what was used, and all of the rest given back beside that."""
    for site in world.sites.by_name.values():
        site.asks = 4.0
    process = await made(world)
    await swept(world, process, 15 * 60, step=15)
    end = (await standing(process)).window.end
    gives_up(world.south)
    rest = Window(world.clock.now(), end)
    item = RefundItem(site="south", reason="HOST_LOST", window=rest, amount=3.0)
    world.south.refunds = (item,)
    await swept(world, process, 12)
    record = await standing(process)
    assert set(record.left) == {"south"}
    price = sum(each.amount for each in record.price if each.site == "south")
    back = sum(each.amount for each in record.refunds if each.site == "south")
    assert price - back == pytest.approx(1.0)


async def test_what_a_silent_site_says_in_the_end_is_on_the_bill(world: World) -> None:
    for site in world.sites.by_name.values():
        site.asks = 4.0
    process = await made(world)
    await lost_for_long(world, process)
    world.south.asks = 0.5
    world.south.down = False
    await swept(world, process, 5)
    world.south.finish()
    await swept(world, process, 5)
    record = await standing(process)
    assert [each.amount for each in record.price if each.site == "south"] == [0.5]
    assert record.plan.cost == pytest.approx(sum(each.amount for each in record.price))
    again = replace(record)
    await swept(world, process, 10)
    assert await standing(process) == again


async def test_an_action_on_what_is_to_begin_anew_is_not_told_that_all_is_over(
    world: World,
) -> None:
    process = await made(world)
    [label, *_] = held(world.south)
    world.sites.by_name["west"].vcpus = 0
    world.south.parts.clear()
    asked = ActOrder(
        name=str(NAME),
        action=Action.STOP,
        workspaces=(label,),
        etag="",
        caller=ALICE,
        request_id="a1",
    )
    with pytest.raises(SiteUnreachable, match="begin anew elsewhere"):
        await process.act(asked)


async def test_a_lost_site_is_not_asked_to_send_either(world: World) -> None:
    """It joined anew, and the part that it had was forgotten, with its price."""
    process = await made(world)
    for site in world.sites.by_name.values():
        site.images = {}
    world.south.images = {GUEST.digest: GUEST, "guest": GUEST}
    before = await standing(process)
    gives_up(world.south)
    await swept(world, process, 30)
    record = await standing(process)
    assert (record.parts, record.plan.transfers) == (before.parts, ())
