"""A cluster after it was committed: what sites say of it, and its end."""

import asyncio
from datetime import timedelta

import pytest

from intertie.common import errors
from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.common.spec import LeaseTerms
from intertie.common.values import replace
from intertie.common.ways import Way
from intertie.metasched.domain.cluster import (
    UNREACHABLE,
    ClusterState,
    PartSeen,
    SeenRecord,
    WorkspaceState,
    told_view,
)
from intertie.metasched.loops.refresh import RETENTION
from tests.fakes.clock import START as NOW
from tests.fakes.part import State
from tests.unit.metasched.world import NAME, Process, World, committed, order, spec, state, swept


async def test_it_is_active_once_every_workspace_is_ready(world: World, process: Process) -> None:
    world.north.boot()
    await process.refresh.sweep()
    assert await state(process) is ClusterState.SCHEDULED
    world.south.boot()
    await world.clock.advance(1)
    view = await process.get(str(NAME))
    assert view.record.state is ClusterState.ACTIVE
    assert all(each.seen.ready and each.seen.host == "h1" for each in view.workspaces)
    await process.refresh.sweep()
    assert await state(process) is ClusterState.ACTIVE


async def test_long_before_it_starts_sites_are_left_in_peace() -> None:
    """A bug: every part of every cluster was asked for each second, days ahead: two hundred
    reservations cost the sites two hundred calls a second."""
    world = World()
    process = await world.process()
    later = LeaseTerms(start_time=NOW + timedelta(hours=2), duration=timedelta(hours=1))
    await process.create(order(what=replace(spec(5, mbit_s=10), lease=later)))

    async def asked(seconds: int) -> int:
        before = world.north.calls.count("part")
        for _ in range(seconds):
            await world.clock.advance(1)
            await process.refresh.sweep()
        return world.north.calls.count("part") - before

    assert await asked(60) <= 3
    await world.clock.advance(2 * 3600 - 60 - 30)
    assert await asked(10) == 10
    await process.delete(str(NAME))
    await process.refresh.sweep()


async def test_an_end_that_is_asked_for_early_is_followed_closely() -> None:
    world = World()
    process = await world.process()
    later = LeaseTerms(start_time=NOW + timedelta(hours=2), duration=timedelta(hours=1))
    await process.create(order(what=replace(spec(5, mbit_s=10), lease=later)))
    await process.refresh.sweep()
    await process.delete(str(NAME))
    await world.settle(process, 9)
    assert await state(process) is ClusterState.CANCELLED


async def test_sites_are_asked_once_a_second_at_most(world: World, process: Process) -> None:
    await world.clock.advance(10)
    before = world.north.calls.count("part")
    for _ in range(5):
        await process.get(str(NAME))
    assert world.north.calls.count("part") == before + 1
    await world.clock.advance(1)
    await process.get(str(NAME))
    assert world.north.calls.count("part") == before + 2


async def test_a_site_that_does_not_answer_keeps_what_it_said_last(
    world: World, process: Process
) -> None:
    world.boot()
    await world.clock.advance(1)
    before = await process.get(str(NAME))
    world.south.down = True
    await world.clock.advance(5)
    view = await process.get(str(NAME))
    assert view.record.state is ClusterState.ACTIVE
    there = [each.seen for each in view.workspaces if each.site == "south"]
    assert all(each.state is WorkspaceState.RUNNING for each in there)
    assert all(each.message == UNREACHABLE for each in there)
    assert view.etag != before.etag


async def test_after_a_restart_a_silent_sites_workspaces_are_said_to_be_unreachable(
    world: World, process: Process
) -> None:
    """They show as PLANNED, for nobody here has heard of them; the message must say why."""
    world.boot()
    await swept(world, process, 1)
    world.south.down = True
    successor = await world.process()
    for _ in range(2):
        await successor.refresh.sweep()
        view = await successor.get(str(NAME))
        assert view.record.state is ClusterState.ACTIVE
        for each in view.workspaces:
            away = each.site == "south"
            assert each.seen.message == (UNREACHABLE if away else "")
            assert each.seen.state is (WorkspaceState.PLANNED if away else WorkspaceState.RUNNING)
        await world.clock.advance(60)


async def test_the_etag_changes_with_a_workspace_and_stays_without(
    world: World, process: Process
) -> None:
    first = (await process.get(str(NAME))).etag
    await world.clock.advance(2)
    assert (await process.get(str(NAME))).etag == first
    world.north.boot()
    await world.clock.advance(2)
    assert (await process.get(str(NAME))).etag != first


async def test_delete_ends_it_at_every_site_and_then_it_is_cancelled(
    world: World, process: Process
) -> None:
    view = await process.delete(str(NAME))
    assert view.record.end_requested_time == world.clock.now()
    assert view.record.state is ClusterState.SCHEDULED
    await process.settle.sweep()
    await world.clock.advance(2)
    await process.refresh.sweep()
    assert await state(process) is ClusterState.SCHEDULED  # the agents are still at it
    await world.settle(process)
    assert await state(process) is ClusterState.CANCELLED
    assert {s for states in world.states().values() for s in states.values()} == {State.ENDED}
    again = await process.delete(str(NAME))
    assert again.record.state is ClusterState.CANCELLED


async def test_delete_waits_for_a_site_that_is_away(world: World, process: Process) -> None:
    world.south.down = True
    await process.delete(str(NAME))
    await world.settle(process, seconds=9)
    assert await state(process) is ClusterState.SCHEDULED
    world.south.down = False
    await world.settle(process, seconds=30)
    assert await state(process) is ClusterState.CANCELLED


async def test_delete_of_what_was_seen_only(world: World, process: Process) -> None:
    with pytest.raises(errors.EtagStale):
        await process.delete(str(NAME), "stale")
    view = await process.get(str(NAME))
    assert (await process.delete(str(NAME), view.etag)).record.end_requested_time


async def test_a_delete_that_is_repeated_with_its_etag_returns_the_cluster_unchanged(
    world: World, process: Process
) -> None:
    """The bug: the first call had changed the etag, so the second was refused as stale."""
    seen = await process.get(str(NAME))
    first = await process.delete(str(NAME), seen.etag)
    again = await process.delete(str(NAME), seen.etag)
    assert again.record == first.record
    await world.settle(process)
    over = await process.delete(str(NAME), seen.etag)
    assert over.record.state is ClusterState.CANCELLED


async def test_a_name_is_free_again_once_its_cluster_is_over(
    world: World, process: Process
) -> None:
    await process.delete(str(NAME))
    with pytest.raises(errors.NameTaken):
        await process.create(order("r2"))
    await world.settle(process)
    second = await process.create(order("r2"))
    assert second.record.state is ClusterState.SCHEDULED


async def test_it_is_ended_when_its_window_is_over(world: World, process: Process) -> None:
    await world.clock.advance(3600)
    await world.settle(process)
    assert await state(process) is ClusterState.ENDED


async def test_watch_tells_changes_until_it_is_over(world: World, process: Process) -> None:
    states: list[ClusterState] = []

    async def watch() -> None:
        async for view in process.watch(str(NAME)):
            states.append(view.record.state)

    watching = asyncio.create_task(watch())
    await world.clock.advance(5)
    assert states == [ClusterState.SCHEDULED]
    world.boot()
    await world.clock.advance(3)
    assert states[-1] is ClusterState.ACTIVE
    await process.delete(str(NAME))
    await world.settle(process, seconds=9)
    assert watching.done()
    assert states[-1:] == [ClusterState.CANCELLED]
    assert len(states) <= 5


async def test_watch_sends_its_callers_elsewhere_when_the_process_stops(
    world: World, process: Process
) -> None:
    views = process.watch(str(NAME))
    await anext(views)
    going_on = asyncio.ensure_future(anext(views))
    await world.clock.advance(5)
    assert not going_on.done()
    process.watch.stop()
    await world.clock.advance(1)
    assert going_on.done()
    assert isinstance(going_on.exception(), errors.NotLeading)


async def test_guarantees_are_told_term_by_term(world: World, process: Process) -> None:
    view = await process.get(str(NAME))
    kinds = [each.kind for each in view.guarantees]
    assert kinds.count(GuaranteeKind.PAIR_BANDWIDTH) == 5
    assert kinds.count(GuaranteeKind.LINK_BANDWIDTH) == 2


async def test_what_sites_measure_is_told_with_the_guarantee_that_it_is_of(
    world: World, process: Process
) -> None:
    pair, link = GuaranteeKind.PAIR_BANDWIDTH, GuaranteeKind.LINK_BANDWIDTH
    view = await process.get(str(NAME))
    site_of = {each.label: each.site for each in view.workspaces}
    across = next(
        each
        for each in view.guarantees
        if each.kind is pair and site_of[each.source] != site_of[each.target]
    )
    source, target = across.source, across.target
    now = world.clock.now()
    there = Measured(
        kind=pair, network=across.network, source=source, target=target, value=9, at=now
    )
    back = replace(there, source=target, target=source, value=0.5, backlogged=True, below_since=now)
    towards = replace(there, kind=link, source="north", target="south", value=7)
    for site in (world.north, world.south):
        site.measured = (there, back, towards, replace(towards, source="south", target="north"))
    await world.clock.advance(2)
    told = {
        (each.kind, each.source, each.target): [one.value for one in each.measured]
        for each in (await process.get(str(NAME))).guarantees
        if each.measured
    }
    assert told == {
        (pair, source, target): [9, 0.5] if site_of[source] == "north" else [0.5, 9],
        (link, "north", "south"): [7],
        (link, "south", "north"): [7],
    }


async def test_a_site_is_not_heard_on_what_begins_elsewhere(world: World, process: Process) -> None:
    link = Measured(
        kind=GuaranteeKind.LINK_BANDWIDTH,
        network="lan",
        source="south",
        target="north",
        value=7,
        at=world.clock.now(),
    )
    world.north.measured = (link,)
    view = await process.get(str(NAME))
    assert not any(each.measured for each in view.guarantees)
    world.south.measured = (link,)
    await world.clock.advance(2)
    view = await process.get(str(NAME))
    assert [each.source for each in view.guarantees if each.measured] == ["south"]


async def test_records_of_clusters_that_are_over_go_after_a_day(
    world: World, process: Process
) -> None:
    await process.delete(str(NAME))
    await world.settle(process)
    await world.clock.advance((RETENTION - timedelta(minutes=2)).total_seconds())
    await process.refresh.sweep()
    assert await state(process) is ClusterState.CANCELLED
    await world.clock.advance(600)
    await process.refresh.sweep()
    assert await process.clusters.get(str(NAME)) is None
    assert await process.clusters.requests() == {}
    assert (await world.etcd.range("decision/")).entries  # decisions stay


async def test_what_sites_say_is_written_down_when_it_has_changed() -> None:
    """For who follows changes: another replica knows it by what is written."""
    world = World()
    process = await committed(world)

    async def writes() -> int:
        before = len(world.etcd.history)
        for _ in range(5):
            await world.clock.advance(1)
            await process.refresh.sweep()
        later = world.etcd.history[before:]
        return sum(op.key.startswith("seen/") for ops in later for op in ops)

    async def ready() -> list[bool]:
        (seen,) = await process.sightings.listed()
        found = [w.ready for part in seen.parts.values() for w in part.workspaces]
        return sorted(found)

    assert await writes() == 1
    assert await writes() == 0
    world.north.boot()
    assert await writes() == 1
    assert sorted(set(await ready())) == [False, True]
    link = Measured(kind=GuaranteeKind.LINK_BANDWIDTH, network="lan", value=1.0, at=NOW)
    for value in (30.0, 29.0, 28.0):
        world.north.measured = (replace(link, source="north", target="south", value=value),)
        assert await writes() == 0, "measured values are no change"
    world.north.measured = (replace(world.north.measured[0], below_since=NOW),)
    assert await writes() == 1, "a promise that is broken is one"
    successor = await world.process()
    await world.clock.advance(1)
    before = len(world.etcd.history)
    await successor.refresh.sweep()
    later = [op.key for ops in world.etcd.history[before:] for op in ops]
    assert not [key for key in later if key.startswith("seen/")], "who takes over reads it first"


async def test_what_sites_say_goes_with_the_cluster() -> None:
    world = World()
    process = await committed(world)
    await process.refresh.sweep()
    assert len(await process.sightings.listed()) == 1
    await process.delete(str(NAME))
    await world.settle(process)
    await world.clock.advance(RETENTION.total_seconds() + 600)
    await process.refresh.sweep()
    assert await process.sightings.listed() == ()
    await process.sightings.save(str(NAME), SeenRecord(uid="gone", parts={}))
    assert await process.sightings.listed() == (), "nothing is left behind of what is cleared away"


def test_a_way_that_is_lost_is_written_down_and_a_round_trip_alone_is_not() -> None:
    def worth(*ways: Way) -> object:
        return SeenRecord(uid="a", parts={"north": PartSeen(over=False, ways=ways)}).worth

    south = Way(site="south", round_trip=timedelta(milliseconds=20))
    east = Way(site="east")
    lost = replace(south, lost_since=NOW)
    assert worth(south, east) == worth(replace(south, round_trip=None), east) == worth(east)
    assert worth(lost, east) != worth(south, east)
    assert worth(lost, east) == worth(east, replace(lost, round_trip=None))
    assert worth(lost) != worth(replace(lost, lost_since=NOW + timedelta(minutes=1)))


async def test_of_a_cluster_that_nothing_was_said_of_no_site_is_unreachable() -> None:
    process = await committed(World())
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    earlier = SeenRecord(uid="of one before", parts={"north": PartSeen(over=True)})
    for seen in (None, earlier):
        view = told_view(stored.record, seen)
        assert {each.seen.state for each in view.workspaces} == {WorkspaceState.PLANNED}
        assert {each.seen.message for each in view.workspaces} == {""}
    half = SeenRecord(uid=stored.record.uid, parts={"north": PartSeen(over=False)})
    messages = {each.site: each.seen.message for each in told_view(stored.record, half).workspaces}
    assert messages == {"north": "", "south": "site unreachable"}


async def test_a_request_id_outlives_the_day_only_with_its_cluster() -> None:
    world = World(vcpus=20)
    process = await world.process()
    long = replace(spec(3), lease=replace(spec().lease, duration=timedelta(days=3)))
    first = await process.create(order(what=long))
    await world.clock.advance(timedelta(days=2).total_seconds())
    await process.refresh.sweep()
    assert (await process.create(order(what=long))).record.uid == first.record.uid


async def test_only_participants_race_a_decision() -> None:
    world = World()
    process = await world.process()
    view = await process.create(order(what=spec(5)))
    with pytest.raises(errors.NotFound):
        await process.decisions.get("t0")
    unknown = await process.decisions.resolve("t0", caller="b", site="north", reason="")
    assert unknown.outcome.name == "ABORT"
    with pytest.raises(errors.RoleDenied):
        await process.decisions.resolve("t1", caller="b", site="west", reason="")
    stands = await process.decisions.resolve(
        view.record.tx, caller="b", site="north", reason="in doubt"
    )
    assert stands.outcome.name == "COMMIT"
