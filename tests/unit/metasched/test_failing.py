"""Workspaces and parts that fail once their cluster was committed."""

from intertie.metasched.domain.cluster import (
    ClusterState,
    WorkspaceSeen,
    WorkspaceState,
)
from tests.fakes.part import State
from tests.unit.metasched.world import NAME, Process, World, state, swept


def say(world: World, state: WorkspaceState) -> None:
    """The first workspace at north, as its site tells of it from now on."""
    part = next(iter(world.north.parts.values()))
    label = part.spec.workspaces[0].label
    world.north.seen[label] = WorkspaceSeen(label=label, state=state, message="disk is broken")


async def is_ending(process: Process) -> bool:
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    return stored.record.end_requested_time is not None


async def test_a_workspace_that_stays_failed_ends_the_cluster_with_the_reason(
    world: World, process: Process
) -> None:
    say(world, WorkspaceState.FAILED)
    await swept(world, process, 20)
    assert not await is_ending(process)
    await swept(world, process, 1)
    assert await is_ending(process)
    await world.settle(process)
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    assert stored.record.state is ClusterState.FAILED
    assert stored.record.failure is not None
    assert "disk is broken" in stored.record.failure.message
    assert world.south.used() == 0


async def test_a_workspace_that_failed_and_runs_again_within_20_s_ends_nothing(
    world: World, process: Process
) -> None:
    """The bug: the first FAILED ended the whole cluster, while its agent tried again."""
    for _ in range(3):  # each failure has its own 20 s
        say(world, WorkspaceState.FAILED)
        await swept(world, process, 15)
        say(world, WorkspaceState.RUNNING)
        await swept(world, process, 2)
    world.boot()
    await swept(world, process, 30)
    assert await state(process) is ClusterState.ACTIVE
    assert not await is_ending(process)


async def test_looking_at_a_cluster_does_not_use_up_the_patience(
    world: World, process: Process
) -> None:
    say(world, WorkspaceState.FAILED)
    await world.clock.advance(60)
    view = await process.get(str(NAME))
    assert WorkspaceState.FAILED in {each.seen.state for each in view.workspaces}
    assert view.record.end_requested_time is None
    await process.delete(str(NAME))
    await world.settle(process)
    assert await state(process) is ClusterState.CANCELLED


async def test_what_a_silent_site_said_of_a_failure_ends_nothing_until_it_says_so_again(
    world: World, process: Process
) -> None:
    say(world, WorkspaceState.FAILED)
    await swept(world, process, 2)
    world.north.down = True
    await swept(world, process, 60)
    assert not await is_ending(process)
    world.north.down = False
    say(world, WorkspaceState.RUNNING)
    await swept(world, process, 5)
    assert not await is_ending(process)


async def test_a_replica_that_leads_again_waits_anew(world: World, process: Process) -> None:
    say(world, WorkspaceState.FAILED)
    await swept(world, process, 5)
    await world.clock.advance(600)  # another leads
    await swept(world, process, 15)
    assert not await is_ending(process)


async def test_a_part_that_a_site_gave_up_takes_the_rest_with_it(
    world: World, process: Process
) -> None:
    part = next(iter(world.north.parts.values()))
    part.state, part.end_reason = State.ENDED, "OPERATOR"
    await world.clock.advance(2)
    await world.settle(process)
    assert await state(process) is ClusterState.FAILED
    assert world.south.used() == 0
