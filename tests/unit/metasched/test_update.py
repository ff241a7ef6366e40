"""A cluster over two sites gets other terms: at both, or at neither."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.amend_rules import DURATION, END_TIME, GROUPS
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord
from intertie.metasched.domain.commit import Outcome
from intertie.metasched.usecases.update_cluster import UpdateOrder
from tests.fakes.clock import START
from tests.fakes.crashing import Crash, CrashPlan
from tests.fakes.part import State
from tests.fakes.site import Fault
from tests.unit.metasched.world import ALICE, NAME, Process, World, order, spec

HOUR = timedelta(hours=1)


def update(
    what: ClusterSpec,
    *paths: str,
    request_id: str = "u1",
    etag: str = "",
) -> UpdateOrder:
    return UpdateOrder(
        name=str(NAME),
        spec=what,
        paths=paths or (GROUPS,),
        etag=etag,
        caller=ALICE,
        request_id=request_id,
    )


def lasting(hours: float) -> ClusterSpec:
    return replace(spec(), lease=LeaseTerms(duration=hours * HOUR))


async def made(world: World, workers: int = 3, **what: Any) -> Process:
    """A head and workers, told to both sites."""
    process = await world.process()
    await process.create(order(what=spec(workers, **what)))
    await process.create.drain()
    world.boot()
    return process


async def standing(process: Process) -> ClusterRecord:
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    return stored.record


def terms(world: World) -> set[tuple[int, int]]:
    """Of the parts at all sites: number, and workspaces in force."""
    return {
        (each.terms, len(each.spec.workspaces))
        for site in world.sites.by_name.values()
        for each in site.parts.values()
        if each.state is State.CONFIRMED
    }


def places(record: ClusterRecord) -> dict[str, tuple[str, str]]:
    nics, homes = record.layout().nics, record.plan.site_of()
    return {label: (homes[label], nics[label][0].address) for label in nics}


def check_agreed(world: World, record: ClusterRecord) -> None:
    """All sites have the terms on record, and nothing else is held."""
    parts = {
        name: each
        for site in world.sites.by_name.values()
        for name, each in site.parts.items()
        if each.state is not State.RELEASED
    }
    assert set(parts) == set(record.parts.values())
    assert {each.terms for each in parts.values()} == {record.terms}
    assert {each.amend for each in parts.values()} == {None}
    labels = [w.label for each in parts.values() for w in each.spec.workspaces]
    assert sorted(labels) == sorted(places(record))
    assert {each.spec.window for each in parts.values()} == {record.window}


async def test_growth_is_at_all_sites_and_who_stays_stays() -> None:
    world = World()
    process = await made(world, 5)
    before = places(await standing(process))
    view = await process.update(update(spec(6)))
    await process.update.drain()
    record = await standing(process)
    check_agreed(world, record)
    assert (record.terms, record.amend) == (1, None)
    assert view.record.terms == 1
    after = places(record)
    assert before.items() <= after.items()
    assert len(after) == 7
    assert await process.register.transactions() == ()


async def test_longer_is_agreed_and_shorter_is_told() -> None:
    world = World()
    process = await made(world, 5)
    calls = len(world.north.calls)
    await process.update(update(lasting(2), DURATION))
    await process.update.drain()
    assert (await standing(process)).window.end == START + 2 * HOUR
    assert "prepare" in world.north.calls[calls:]
    calls = len(world.north.calls)
    await process.update(update(lasting(0.5), DURATION, request_id="u2"))
    await process.update.drain()
    record = await standing(process)
    assert record.window.end == START + HOUR / 2
    assert "prepare" not in world.north.calls[calls:]
    check_agreed(world, record)
    assert record.terms == 2


async def test_what_shrinks_only_asks_nobody_and_is_heard_of_in_the_end() -> None:
    world = World()
    process = await made(world, 5)
    world.south.down = True
    view = await process.update(update(spec(1)))
    assert view.record.terms == 1
    await process.update.drain()
    await process.update(update(spec(1, most=2), request_id="u2"))
    world.south.down = False
    await world.settle(process)
    check_agreed(world, await standing(process))


async def test_a_refusal_leaves_all_as_it_was() -> None:
    world = World()
    process = await made(world, 5)
    before = await standing(process)
    with pytest.raises(errors.NoCapacity) as refused:
        await process.update(update(spec(8)))
    assert refused.value.shortfalls
    assert await standing(process) == before
    assert terms(world) == {
        (0, len(each.spec.workspaces))
        for site in world.sites.by_name.values()
        for each in site.parts.values()
    }
    check_agreed(world, before)


async def test_a_site_that_refuses_what_it_offered_leaves_all_as_it_was() -> None:
    """And the request may be sent again: it is a new attempt."""
    world = World()
    process = await made(world, 5)
    before = await standing(process)
    world.north.faults["prepare"] = [errors.NoCapacity(())] * 9
    world.south.faults["prepare"] = [errors.NoCapacity(())] * 9
    with pytest.raises(errors.NoCapacity):
        await process.update(update(lasting(2), DURATION))
    check_agreed(world, before)
    assert await standing(process) == before
    world.north.faults.clear()
    world.south.faults.clear()
    await process.update(update(lasting(2), DURATION))
    await process.update.drain()
    check_agreed(world, await standing(process))


async def test_a_site_that_is_away_keeps_growth_from_happening() -> None:
    world = World()
    process = await made(world)
    before = await standing(process)
    (site,) = {*before.parts}
    other = world.south if site == "north" else world.north
    other.down = True
    world.sites.by_name[site].down = True
    with pytest.raises(errors.SiteUnreachable):
        await process.update(update(lasting(2), DURATION))
    world.sites.by_name[site].down = False
    await world.settle(process)
    check_agreed(world, await standing(process))
    assert (await standing(process)).spec == before.spec


async def test_a_site_joins_with_what_has_no_room_elsewhere() -> None:
    world = World()
    process = await made(world, 2)
    before = await standing(process)
    assert len(before.parts) == 1
    await process.update(update(spec(5)))
    await process.update.drain()
    record = await standing(process)
    assert set(record.parts) == {"north", "south"}
    check_agreed(world, record)
    assert places(before).items() <= places(record).items()


async def test_a_site_that_joins_and_an_abort_leave_nothing() -> None:
    world = World()
    process = await made(world, 2)
    before = await standing(process)
    (site,) = before.parts
    world.sites.by_name[site].faults["prepare"] = [errors.NoCapacity(())] * 9
    with pytest.raises(errors.NoCapacity):
        await process.update(update(spec(5)))
    check_agreed(world, before)


async def test_who_comes_back_has_its_site_and_its_address_again() -> None:
    world = World()
    process = await made(world, 5)
    before = places(await standing(process))
    await process.update(update(spec(1), request_id="u1"))
    await process.update.drain()
    assert len(places(await standing(process))) == 2
    await process.update(update(spec(5), request_id="u2"))
    await process.update.drain()
    record = await standing(process)
    assert places(record) == before
    check_agreed(world, record)


async def test_a_range_that_was_changed_gets_as_many_as_fit() -> None:
    world = World()
    process = await made(world, 3)
    await process.update(update(spec(2, most=20)))
    await process.update.drain()
    record = await standing(process)
    assert record.counts() == {"head": 1, "worker": 7}
    check_agreed(world, record)


async def test_one_amend_at_a_time_and_the_other_is_refused() -> None:
    world = World()
    process = await made(world)
    gate, reached = asyncio.Event(), asyncio.Event()

    async def wait(point: str) -> None:
        if point == "after_prepare":
            reached.set()
            await gate.wait()

    process.update._long_way._coallocate._pause = wait
    first = asyncio.create_task(process.update(update(lasting(2), DURATION)))
    await asyncio.wait_for(reached.wait(), 30)
    with pytest.raises(errors.AmendPending):
        await process.update(update(lasting(3), DURATION, request_id="u2"))
    assert (await standing(process)).terms == 0
    gate.set()
    assert (await first).record.terms == 1


async def test_an_end_meanwhile_wins() -> None:
    world = World()
    process = await made(world)

    async def delete(point: str) -> None:
        if point == "after_prepare":
            await process.delete(str(NAME))

    process.update._long_way._coallocate._pause = delete
    with pytest.raises(errors.ClusterOver):
        await process.update(update(lasting(2), DURATION))
    assert (await standing(process)).terms == 0
    await world.settle(process)
    assert (await standing(process)).over
    assert all(part.state is State.ENDED for part in world.north.parts.values())


async def test_a_write_of_the_record_meanwhile_is_nothing_against_it() -> None:
    world = World()
    process = await made(world)

    async def becomes_active(point: str) -> None:
        if point == "after_prepare":
            await world.clock.advance(2)
            await process.refresh.sweep()

    process.update._long_way._coallocate._pause = becomes_active
    await process.update(update(lasting(2), DURATION))
    record = await standing(process)
    assert (record.terms, record.state.name) == (1, "ACTIVE")


async def test_the_same_request_again_is_the_same_and_another_body_is_refused() -> None:
    world = World()
    process = await made(world)
    await process.update(update(lasting(2), DURATION))
    again = await process.update(update(lasting(2), DURATION))
    assert again.record.terms == 1
    with pytest.raises(errors.RequestIdReuse):
        await process.update(update(lasting(3), DURATION))
    nothing = await process.update(update(lasting(2), DURATION, request_id="u2"))
    assert nothing.record.terms == 1
    await process.update(update(lasting(3), DURATION, request_id="u3"))
    late = await process.update(update(lasting(2), DURATION, request_id="u2"))
    assert late.record.terms == 2


async def test_what_may_not_be_asked_for_and_when() -> None:
    world = World()
    process = await made(world)
    with pytest.raises(errors.NotFound):
        await process.update(replace(update(spec(1)), name=str(NAME) + "x"))
    with pytest.raises(errors.EtagStale):
        await process.update(update(spec(1), etag="old"))
    with pytest.raises(errors.FieldInvalid):
        await process.update(update(spec(1), "spec.networks"))
    await world.clock.advance(59 * 60)
    with pytest.raises(errors.LeaseEnding):
        await process.update(update(lasting(2), DURATION))
    end = replace(spec(), lease=LeaseTerms(end_time=START + HOUR - timedelta(seconds=1)))
    assert (await process.update(update(end, END_TIME))).record.terms == 1
    await process.delete(str(NAME))
    with pytest.raises(errors.ClusterOver):
        await process.update(update(spec(1), request_id="u9"))


async def test_validate_only_tells_what_would_be_and_takes_nothing() -> None:
    world = World()
    process = await made(world, 2)
    before = await standing(process)
    view = await process.update.plan_only(update(spec(5)))
    assert (view.record.terms, len(view.workspaces)) == (1, 6)
    assert await standing(process) == before
    check_agreed(world, before)


STEPS = 7
"""Writes and messages of one that grows at two sites: begin, 2 prepares, commit, 2 resolves; the
seventh settles it."""


async def crashed(step: int, *, after: bool, what: UpdateOrder, lost: bool = False) -> World:
    world = World()
    await made(world, 5)
    if lost:
        world.south.faults["prepare"] = [Fault.LOSE_REPLY]
    plan = CrashPlan(at=step, after=after)
    process = await world.process(plan)
    task = asyncio.ensure_future(process.update(what))
    await asyncio.wait([task])
    await asyncio.gather(*process.update.begun(), return_exceptions=True)
    error = task.exception()
    assert error is None or (plan.happened and isinstance(error, Crash))
    return world


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("grows", [True, False])
async def test_after_a_crash_at_any_step_all_sites_have_the_same_terms(
    step: int, after: bool, grows: bool, lost: bool
) -> None:
    """The coordinator dies; another comes. What was decided is in force everywhere, else the old
    terms stand, and a retry has what was asked for."""
    what = update(spec(6) if grows else spec(2))
    world = await crashed(step, after=after, what=what, lost=lost)
    successor = await world.process()
    await world.settle(successor)
    record = await standing(successor)
    check_agreed(world, record)
    amends = [
        found.outcome
        for op in {op.key for ops in world.etcd.history for op in ops if "decision/" in op.key}
        if (found := await successor.register.decision(op.removeprefix("decision/")))
    ]
    assert amends.count(Outcome.COMMIT) == 1 + record.terms
    assert record.amend is None
    assert await successor.register.transactions() == ()
    again = await successor.update(what)
    assert again.record.terms == 1
    await successor.update.drain()
    check_agreed(world, await standing(successor))


@pytest.mark.parametrize("step", range(1, STEPS + 1))
async def test_sites_in_doubt_need_no_coordinator(step: int) -> None:
    world = await crashed(step, after=True, what=update(spec(6)))
    follower = await world.process(leads=False)
    await world.clock.advance(31)
    await world.ask_register(follower)
    assert {each.amend for s in world.sites.by_name.values() for each in s.parts.values()} == {None}
    assert len({number for number, _ in terms(world)} - {(await standing(follower)).terms}) == 0


async def test_a_second_amend_brings_a_site_the_decision_that_it_has_not_heard_of() -> None:
    world = World()
    process = await made(world, 5)
    world.south.faults["resolve"] = [Fault.LOSE_REQUEST]
    await process.update(update(lasting(2), DURATION))
    await process.update.drain()
    assert {number for number, _ in terms(world)} == {0, 1}
    second = asyncio.create_task(process.update(update(lasting(3), DURATION, request_id="u2")))
    while not second.done():
        await world.clock.advance(0.5)
    await process.update.drain()
    record = await standing(process)
    assert record.terms == 2
    check_agreed(world, record)
