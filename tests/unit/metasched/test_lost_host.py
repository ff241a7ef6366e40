"""A site has lost a host, as its clusters over several sites tell of it."""

from intertie.api.broker.v1 import part_pb2
from intertie.metasched.convert import cluster_to_proto
from intertie.metasched.convert_parts import part_from_proto
from intertie.metasched.domain.cluster import ClusterState, view_of
from tests.fakes.part import State
from tests.unit.metasched.world import NAME, Process, World, state


async def test_a_workspace_that_was_begun_anew_says_so(world: World, process: Process) -> None:
    """It showed 0 restarts, whatever its site said of it."""
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    part = next(iter(world.north.parts.values()))
    label = part.spec.workspaces[0].label
    said = part_pb2.Part(
        state=part_pb2.Part.CONFIRMED,
        workspaces=[part_pb2.PlacedWorkspace(name=f"p/workspaces/{label}", host="n2", restarts=2)],
    )
    shown = cluster_to_proto(view_of(stored.record, {"north": part_from_proto(said)}))
    restarts = {each.name.rpartition("/")[2]: each.restarts for each in shown.workspaces}
    assert restarts.pop(label) == 2
    assert set(restarts.values()) == {0}


def test_a_part_that_ended_says_more_than_its_reason() -> None:
    said = part_pb2.Part(
        state=part_pb2.Part.ENDED, end_reason="HOST_LOST", end_message="host n3 was lost"
    )
    assert part_from_proto(said).end_message == "host n3 was lost"


async def test_a_cluster_that_fails_for_a_lost_host_names_it(
    world: World, process: Process
) -> None:
    """It said "north ended its part: HOST_LOST", and neither which host nor what was short."""
    part = next(iter(world.north.parts.values()))
    part.state, part.end_reason = State.ENDED, "HOST_LOST"
    part.end_message = "host n3 was lost, and with it w-0"
    await world.clock.advance(2)
    await world.settle(process)
    assert await state(process) is ClusterState.FAILED
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    assert stored.record.failure is not None
    assert stored.record.failure.reason == "PART_LOST"
    assert stored.record.failure.message == (
        "north ended its part: HOST_LOST: host n3 was lost, and with it w-0"
    )
