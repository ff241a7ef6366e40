"""Leases over two sites that wait for room: whole or not at all, each in its turn."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from intertie.common import errors
from intertie.common.actions import Action
from intertie.common.amend_rules import GROUPS
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import BACKFILLINGS, FAIRNESS, ORDERS
from intertie.common.spec import ClusterSpec, GroupPlacement
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.commit import Outcome
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.ports import Stored
from intertie.metasched.domain.problem import Offer, problem_of
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.taken import Taken
from intertie.metasched.usecases.act_on_cluster import ActOrder
from intertie.metasched.usecases.capacity import KNOWN_FOR_S, Capacity
from intertie.metasched.usecases.create_cluster import PLANS
from intertie.metasched.usecases.update_cluster import UpdateOrder
from tests.fakes.clock import START, turns
from tests.fakes.crashing import Crash, CrashPlan
from tests.fakes.part import State
from tests.unit.metasched.waiting import HOUR, filled, named, queue, record_of, swept, waiting
from tests.unit.metasched.world import ALICE, NAME, World, order, spec


async def test_it_waits_until_all_of_its_sites_have_room_and_starts_at_all_of_them() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    calls = len(world.north.calls)
    assert await queue(process, waiting()) is ClusterState.QUEUED
    assert "prepare" not in world.north.calls[calls:]
    await swept(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.QUEUED
    assert record.waits is not None
    assert record.waits.foreseen == START + timedelta(minutes=80)
    assert record.plan.reasons == ("first in the queue",)
    assert record.plan.shortfalls
    assert record.parts == {}
    await process.delete(str(named("other")))
    await process.settle.sweep()
    world.north.finish()
    world.south.finish()
    await swept(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert set(record.parts) == {"north", "south"}
    assert record.window.duration == HOUR
    assert record.tx in world.confirmed()
    world.check_all_or_nothing()


async def test_it_is_planned_at_what_sites_ask_for_its_kind() -> None:
    world = World()
    for site in world.sites.by_name.values():
        site.kinds = {"best_effort": Rates(vcpu_hour=0.5, disk_gib_hour=1)}
    process = await world.process()
    await queue(process, waiting())
    await swept(world, process)
    assert (await record_of(process)).plan.cost == pytest.approx(6 * (0.5 + 1 / 8))


async def test_one_with_a_range_begins_with_as_many_as_there_is_room_for() -> None:
    """And has so many for as long as it runs."""
    world = World()
    process = await world.process()
    await filled(world, process, 2)  # 3 of 8
    await queue(process, replace(waiting(), groups=spec(3, most=7).groups))
    await swept(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.SCHEDULED
    assert record.counts() == {"head": 1, "worker": 4}
    await process.delete(str(named("other")))
    world.north.finish()
    world.south.finish()
    await swept(world, process, 60)
    await swept(world, process, 60)
    assert (await record_of(process)).counts() == record.counts()


async def test_a_site_that_refuses_what_it_offered_leaves_it_in_the_queue() -> None:
    world = World()
    process = await world.process()
    assert await queue(process, waiting()) is ClusterState.QUEUED
    world.south.faults["prepare"] = [errors.NoCapacity(())] * PLANS
    await swept(world, process)
    world.south.faults.clear()
    record = await record_of(process)
    assert (record.state, record.parts, record.tx) == (ClusterState.QUEUED, {}, "")
    assert record.waits is not None
    assert record.waits.since == START
    assert world.north.used() == world.south.used() == 0
    await swept(world, process)
    assert (await record_of(process)).state is ClusterState.SCHEDULED
    assert len(world.confirmed()) == 1


async def test_who_comes_first_is_not_put_off_by_who_comes_later() -> None:
    """A shorter one may pass where it is over in time; one that is not may not."""
    world = World()
    process = await world.process()
    await filled(world, process, 3)  # 4 of 8
    for name, what in (
        ("wide", waiting(6)),
        ("long", waiting(2, hours=1.1)),  # the other one ends after 1 h, and 80 min are looked at
        ("short", waiting(2, hours=0.25)),
    ):
        assert await queue(process, what, name) is ClusterState.QUEUED
        await world.clock.advance(1)
    await swept(world, process)
    states = {name: (await record_of(process, named(name))).state for name in ("wide", "long")}
    assert set(states.values()) == {ClusterState.QUEUED}
    assert (await record_of(process, named("short"))).state is ClusterState.SCHEDULED
    said = (await record_of(process, named("long"))).plan.reasons
    assert said[0] == "1 before it in the queue"


@pytest.mark.parametrize("backfilling", [*BACKFILLINGS])
async def test_the_plug_ins_of_sites_say_who_goes_first(backfilling: str) -> None:
    world = World(
        queue_policy=QueuePolicy(order=ORDERS["shortest"], backfilling=BACKFILLINGS[backfilling])
    )
    process = await world.process()
    await filled(world, process, 7)
    await queue(process, waiting(7, hours=3), "long")
    await world.clock.advance(1)
    await queue(process, waiting(7, hours=1), "short")
    await process.delete(str(named("other")))
    await process.settle.sweep()
    world.north.finish()
    world.south.finish()
    await swept(world, process)
    assert (await record_of(process, named("short"))).state is ClusterState.SCHEDULED
    assert (await record_of(process, named("long"))).state is ClusterState.QUEUED


async def test_of_tenants_that_wait_the_one_that_has_least_goes_first() -> None:
    """Two of eight run for one, and six are free for either."""
    rival = replace(named("rival"), parent=replace(NAME.parent, tenant="rival"))
    for fairness, first in (("none", NAME), ("dominant-resource", rival)):
        world = World(queue_policy=QueuePolicy(fairness=FAIRNESS[fairness]))
        process = await world.process()
        await filled(world, process, 1)
        await queue(process, waiting())
        await world.clock.advance(1)
        await process.create(order("r-rival", rival, waiting()))
        await swept(world, process)
        states = {each: (await record_of(process, each)).state for each in (NAME, rival)}
        assert states[first] is ClusterState.SCHEDULED
        assert sorted(each.value for each in states.values()) == ["QUEUED", "SCHEDULED"]
        last = rival if first is NAME else NAME
        assert (await record_of(process, last)).plan.reasons == ("first in the queue",)


def only_at(site: str, workers: int) -> ClusterSpec:
    asked = waiting(workers)
    groups = (replace(each, placement=GroupPlacement(allow_sites=(site,))) for each in asked.groups)
    return replace(asked, groups=tuple(groups))


async def test_in_one_round_each_begins_where_it_leaves_room_for_the_others() -> None:
    """Else the first takes two of the four vCPUs of a site that the second cannot do without,
    though there are four more at another."""
    world = World()
    process = await world.process()
    await queue(process, waiting(1), "alone")
    await swept(world, process)
    (first,) = (await record_of(process, named("alone"))).parts
    world = World()
    process = await world.process()
    await queue(process, waiting(1), "any")
    await world.clock.advance(1)
    await queue(process, only_at(first, 3), "only")
    await swept(world, process)
    begun = {name: await record_of(process, named(name)) for name in ("any", "only")}
    assert {each.state for each in begun.values()} == {ClusterState.SCHEDULED}
    assert set(begun["only"].parts) == {first}
    assert set(begun["any"].parts) == {"north", "south"} - {first}


async def test_one_that_cannot_leave_room_for_others_begins_all_the_same() -> None:
    world = World()
    process = await world.process()
    await queue(process, waiting(5))
    asked = problem_of(waiting(5), (Window(START, START + HOUR),), await offered(world))
    plan = best_plan(asked)
    assert plan is not None
    assert await process.begin(str(NAME), (Taken("other", plan.window, plan, asked),))
    assert (await record_of(process)).state is ClusterState.SCHEDULED


async def offered(world: World) -> dict[str, tuple[Offer, ...]]:
    window = Window(START, START + HOUR)
    images = tuple(group.environment.image for group in waiting().groups)
    return {
        site: await world.sites.offers(site, "demo", (window,), images)
        for site in world.sites.names
    }


async def test_how_much_there_is_is_asked_once_in_a_while_and_of_silent_sites_remembered() -> None:
    world = World()
    capacity = Capacity(world.sites, world.clock)
    world.south.faults["offers"] = [errors.SiteUnreachable("south", "away")]
    assert (await capacity("demo", now=START)).vcpus == 4
    await world.clock.advance(KNOWN_FOR_S)
    world.south.faults.clear()
    assert (await capacity("demo", now=START)).vcpus == 8
    world.north.calls.clear()
    assert (await capacity("demo", now=START)).vcpus == 8
    assert world.north.calls == []
    await world.clock.advance(KNOWN_FOR_S)
    world.south.faults["offers"] = [errors.SiteUnreachable("south", "away")]
    assert (await capacity("demo", now=START)).vcpus == 8
    assert world.north.calls == ["offers"]


async def test_it_does_not_wait_for_ever() -> None:
    world = World()
    process = await world.process()
    await filled(world, process, hours=9)
    await queue(process, waiting(max_wait=timedelta(minutes=3)))
    await swept(world, process, 179)
    assert (await record_of(process)).state is ClusterState.QUEUED
    await world.clock.advance(2)
    await swept(world, process)
    record = await record_of(process)
    assert record.state is ClusterState.FAILED
    assert record.failure is not None
    assert record.failure.reason == "WAITED_TOO_LONG"
    assert record.failure.shortfalls
    assert record.end_requested_time is not None


async def test_it_may_be_deleted_while_it_waits_and_while_it_begins() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    await queue(process, waiting())
    view = await process.delete(str(NAME))
    assert view.record.state is ClusterState.CANCELLED
    await swept(world, process)
    assert (await record_of(process)).state is ClusterState.CANCELLED

    world = World()
    process = await world.process()
    await queue(process, waiting())
    reached, gate = asyncio.Event(), asyncio.Event()

    async def wait(point: str) -> None:
        if point == "after_prepare":
            reached.set()
            await gate.wait()

    process.begin._coallocate._pause = wait
    begins = asyncio.create_task(process.queue.sweep())
    await reached.wait()
    await process.delete(str(NAME))
    gate.set()
    await begins
    assert (await record_of(process)).state is ClusterState.CANCELLED
    assert world.north.used() == world.south.used() == 0


async def test_a_retry_finds_it_and_another_body_is_refused() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    await queue(process, waiting())
    uid = (await record_of(process)).uid
    again = await process.create(order("r-c1", NAME, waiting()))
    assert (again.record.uid, again.record.state) == (uid, ClusterState.QUEUED)
    with pytest.raises(errors.RequestIdReuse):
        await process.create(order("r-c1", NAME, waiting(4)))
    with pytest.raises(errors.NameTaken):
        await process.create(order("another", NAME, waiting()))


async def test_what_its_sites_could_never_have_is_refused_at_once() -> None:
    world = World()
    process = await world.process()
    with pytest.raises(errors.NoCapacity) as refused:
        await queue(process, waiting(8))
    assert refused.value.shortfalls
    world.north.images = world.south.images = {}
    with pytest.raises(errors.ImageNotReady):
        await queue(process, waiting())
    assert await process.clusters.listed() == ()


async def test_what_one_that_waits_may_not_be_asked_for() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    await queue(process, waiting())
    update = UpdateOrder(
        name=str(NAME),
        spec=waiting(2),
        paths=(GROUPS,),
        etag="",
        caller=ALICE,
        request_id="u",
    )
    with pytest.raises(errors.FieldInvalid) as invalid:
        await process.update(update)
    assert invalid.value.field == "update_mask"
    act = ActOrder(
        name=str(NAME), action=Action.STOP, workspaces=(), etag="", caller=ALICE, request_id="a"
    )
    with pytest.raises(errors.ActionIllegal):
        await process.act(act)


async def test_a_plan_says_when_it_would_start_and_writes_nothing() -> None:
    world = World()
    process = await world.process()
    await filled(world, process)
    written = len(world.etcd.history)
    view = await process.create.plan_only(order("p", NAME, waiting()))
    assert view.record.state is ClusterState.PLANNED
    assert view.record.waits is not None
    assert view.record.waits.foreseen == START + timedelta(minutes=80)
    assert len(world.etcd.history) == written


async def test_what_is_short_is_told_by_what_those_before_it_leave() -> None:
    """A bug: of one whose room another gets first it said that no plan keeps all bounds at once."""
    world = World()
    process = await world.process()
    for name in ("one", "two"):
        await queue(process, waiting(), name)
        await world.clock.advance(1)
    view = await process.create.plan_only(order("p", NAME, waiting()))
    plan = view.record.plan
    assert plan.reasons == ("2 before it in the queue",)
    assert {each.resource for each in plan.shortfalls} == {"vcpus"}
    assert {each.wanted for each in plan.shortfalls} == {6}
    assert {each.available for each in plan.shortfalls} == {0, 2}


STEPS = 6
"""Of beginning: as of a Create, begin, 2 prepares, commit, 2 resolves; a seventh settles it."""


async def begun_and_crashed(step: int, *, after: bool) -> tuple[World, CrashPlan]:
    world = World()
    await queue(await world.process(), waiting())
    plan = CrashPlan(at=step, after=after)
    process = await world.process(plan)
    try:
        await process.queue._start()
        await asyncio.gather(*process.begin.tell.begun())
    except Crash:
        pass
    return world, plan


async def test_beginning_has_so_many_steps() -> None:
    _, plan = await begun_and_crashed(99, after=True)
    assert plan.steps == STEPS + 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, STEPS + 2))
async def test_after_a_crash_at_any_step_it_runs_at_all_sites_or_waits(
    step: int, after: bool
) -> None:
    world, _ = await begun_and_crashed(step, after=after)
    world.check_all_or_nothing()
    successor = await world.process()
    await world.settle(successor)
    world.check_all_or_nothing()
    committed = [
        tx
        for tx in world.states()
        if (found := await successor.register.decision(tx)) and found.outcome is Outcome.COMMIT
    ]
    record = await record_of(successor)
    assert await successor.register.transactions() == ()
    if committed:
        assert world.confirmed() == set(committed) == {record.tx}
        assert record.state is ClusterState.SCHEDULED
        return
    assert record.state is ClusterState.QUEUED
    assert world.north.used() == world.south.used() == 0
    for _ in range(3):
        await swept(world, successor)
    assert (await record_of(successor)).state is ClusterState.SCHEDULED
    states = [set(each.values()) for each in world.states().values()]
    assert states.count({State.CONFIRMED}) == 1


async def test_two_replicas_begin_it_once() -> None:
    """One that does not know that it leads no more begins it too: one of the two is refused."""
    world = World()
    first = await world.process()
    await queue(first, waiting(3))
    second = await world.process()
    await asyncio.gather(first.queue._start(), second.queue._start(), return_exceptions=True)
    world.check_all_or_nothing()
    assert len(world.confirmed()) <= 1
    await world.settle(second)
    for _ in range(3):
        await swept(world, second)
    world.check_all_or_nothing()
    assert world.confirmed() == {(await record_of(second)).tx}


async def test_a_tenant_has_no_more_leases_in_line_than_it_may() -> None:
    """A bug: whoever was let in could fill the queue, and the store with it."""
    world = World(queue_policy=QueuePolicy(queued_leases=2))
    process = await world.process()
    await filled(world, process)
    for name in ("a", "b"):
        assert await queue(process, waiting(), name) is ClusterState.QUEUED
    with pytest.raises(errors.NoCapacity) as refused:
        await queue(process, waiting(), "c")
    [short] = refused.value.shortfalls
    assert (short.resource, short.wanted, short.available, short.field) == (
        "quota_queued_leases",
        1,
        0,
        "spec.lease.kind",
    )
    assert "2 leases of tenant demo wait" in short.message
    with pytest.raises(errors.NoCapacity):
        await process.create.plan_only(order("p", named("d"), waiting()))
    assert await queue(process, waiting(), "a") is ClusterState.QUEUED, "a retry finds it"
    other = replace(named("e"), parent=replace(NAME.parent, tenant="other"))
    view = await process.create(order("r-other", other, waiting()))
    assert view.record.state is ClusterState.QUEUED, "each tenant for itself"
    await process.delete(str(named("a")))
    assert await queue(process, waiting(), "d") is ClusterState.QUEUED
    # Those that run are not counted.
    await process.delete(str(named("other")))
    await process.settle.sweep()
    world.north.finish()
    world.south.finish()
    await swept(world, process)
    assert (await record_of(process, named("b"))).state is ClusterState.SCHEDULED
    assert await queue(process, waiting(), "f") is ClusterState.QUEUED


async def test_nor_where_several_are_asked_for_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(queue_policy=QueuePolicy(queued_leases=2))
    process = await world.process()
    listed = process.clusters.listed

    async def slowly(tenant: str = "") -> tuple[Stored, ...]:
        found = await listed(tenant)
        await turns(9)
        return found

    async def passed(_: ClusterRecord) -> None:
        """What is looked at before takes any time."""

    monkeypatch.setattr(process.clusters, "listed", slowly)
    monkeypatch.setattr(process.create._enqueue, "_check", passed)
    made = await asyncio.gather(
        *(queue(process, waiting(), name) for name in ("a", "b", "c")), return_exceptions=True
    )
    assert [isinstance(each, errors.NoCapacity) for each in made] == [False, False, True]
