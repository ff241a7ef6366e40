"""Actions on a cluster over two sites."""

from __future__ import annotations

import pytest

from intertie.common import errors
from intertie.common.actions import Action
from intertie.common.values import replace
from intertie.metasched.domain.cluster import WorkspaceState
from intertie.metasched.usecases.act_on_cluster import ActOrder
from tests.fakes.site import Fault
from tests.unit.metasched.world import NAME, Process, World, order, spec

STOP = ActOrder(
    name=str(NAME), action=Action.STOP, workspaces=(), etag="", caller="alice", request_id="r1"
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def process(world: World) -> Process:
    made = await world.process()
    await made.create(order(what=spec(5)))
    world.north.boot()
    world.south.boot()
    await world.clock.advance(1)
    return made


async def test_each_site_is_asked_for_its_own(world: World, process: Process) -> None:
    view = await process.act(STOP)
    asked = {
        site.name: {label for _, _, labels in site.acts for label in labels}
        for site in (world.north, world.south)
    }
    there = {site: {each.label for each in view.workspaces if each.site == site} for site in asked}
    assert asked == there
    assert all(there.values())


async def test_of_one_workspace_its_own_site_alone(world: World, process: Process) -> None:
    at_north = next(
        each.label for each in (await process.get(str(NAME))).workspaces if each.site == "north"
    )
    await process.act(replace(STOP, workspaces=(at_north,)))
    assert [labels for _, _, labels in world.north.acts] == [(at_north,)]
    assert world.south.acts == []


async def test_a_request_is_the_same_at_a_site_each_time(world: World, process: Process) -> None:
    world.south.faults["act"] = [Fault.LOSE_REPLY]
    with pytest.raises(errors.SiteUnreachable):
        await process.act(STOP)
    await process.act(STOP)
    await process.act(replace(STOP, request_id="r2"))
    for site in (world.north, world.south):
        first, again, other = (request_id for request_id, _, _ in site.acts)
        assert first == again != other


async def test_what_is_plainly_illegal_reaches_no_site(world: World, process: Process) -> None:
    label = next(iter(world.north.seen))
    world.north.seen[label] = replace(world.north.seen[label], state=WorkspaceState.STAGING)
    await world.clock.advance(2)
    with pytest.raises(errors.ActionIllegal) as refused:
        await process.act(STOP)
    assert (refused.value.workspace, refused.value.state) == (label, "STAGING")
    assert world.north.acts == world.south.acts == []


async def test_a_refusal_of_a_site_comes_before_the_silence_of_another(
    world: World, process: Process
) -> None:
    world.north.faults["act"] = [errors.ActionIllegal("STOP", "a-0", "STOPPED", "START")]
    world.south.faults["act"] = [Fault.LOSE_REQUEST]
    with pytest.raises(errors.ActionIllegal):
        await process.act(STOP)


async def test_one_that_is_not_there_or_over_or_has_changed_is_said(process: Process) -> None:
    for asked, error in (
        (replace(STOP, workspaces=("x-0",)), errors.FieldInvalid),
        (replace(STOP, etag="old"), errors.EtagStale),
        (replace(STOP, name=str(NAME) + "x"), errors.NotFound),
    ):
        with pytest.raises(error):
            await process.act(asked)
    await process.delete(str(NAME))
    with pytest.raises(errors.ClusterOver):
        await process.act(STOP)
