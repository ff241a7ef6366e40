"""Creating a cluster: what comes between its sites' promises and its decision."""

from typing import Any

import pytest

from intertie.common import errors
from intertie.metasched.domain.cluster import ClusterState
from tests.fakes.part import State
from tests.unit.metasched.world import NAME, Points, Process, World, order, spec


class Late(Points):
    """Time passes at a point."""

    def __init__(self, world: World, point: str, seconds: float) -> None:
        super().__init__()
        self._world, self._point, self._seconds = world, point, seconds

    async def __call__(self, point: str) -> None:
        await super().__call__(point)
        if point == self._point:
            await self._world.clock.advance(self._seconds)


async def test_after_decide_by_nothing_is_committed() -> None:
    world = World()
    process = await world.process(points=Late(world, "after_prepare", 20))
    with pytest.raises(errors.Aborted):
        await process.create(order(what=spec(5)))
    world.check_all_or_nothing()
    assert world.north.used() == world.south.used() == 0


class Racing(Points):
    """A site in doubt asks the register at a point."""

    def __init__(self, point: str) -> None:
        super().__init__()
        self._point = point
        self.act = None

    async def __call__(self, point: str) -> None:
        await super().__call__(point)
        if point == self._point and self.act is not None:
            await self.act()


async def test_a_retry_that_sees_its_cluster_first_is_not_told_that_the_name_is_taken() -> None:
    """A bug: the record of the request was read before both were written, the cluster after."""
    world = World()
    process = await world.process()
    made = await process.create(order(what=spec(5)))
    ask, asked = process.clusters.request, []

    async def early(key: str) -> Any:
        asked.append(key)
        return None if len(asked) == 1 else await ask(key)

    process.clusters.request = early  # type: ignore[method-assign]
    again = await process.create(order(what=spec(5)))
    assert again.record.uid == made.record.uid
    with pytest.raises(errors.NameTaken):
        await process.create(order("r2", what=spec(5)))


async def test_who_is_overtaken_by_the_same_request_gives_back_what_its_sites_have() -> None:
    """The record is written while the sites are asked: what loses there is aborted, and told."""
    world = World(vcpus=12)
    first, second = await world.process(), await world.process()
    begin = second.register.begin

    async def late(*args: Any, **named: Any) -> int:
        await first.election.win()
        await first.create(order(what=spec(5)))
        await first.create.drain()
        await second.election.win()
        return await begin(*args, **named)

    second.register.begin = late  # type: ignore[method-assign]
    view = await second.create(order(what=spec(5)))
    await second.create.drain()
    states = world.states()
    assert set(states.pop(view.record.tx).values()) == {State.CONFIRMED}
    assert [set(each.values()) for each in states.values()] == [{State.RELEASED}]
    world.check_all_or_nothing()


async def test_a_site_that_raced_to_abort_first_wins() -> None:
    world = World()
    racing = Racing("after_prepare")
    process = await world.process(points=racing)

    async def race() -> None:
        (tx,) = await process.register.transactions()
        await process.decisions.resolve(tx.tx, caller="broker", site="north", reason="in doubt")

    racing.act = race  # type: ignore[assignment]
    with pytest.raises(errors.Aborted):
        await process.create(order(what=spec(5)))
    world.check_all_or_nothing()
    assert world.north.used() == world.south.used() == 0


async def test_a_leader_that_lost_the_lead_meanwhile_sends_its_caller_to_who_has_it() -> None:
    """A bug: the caller was told ABORTED, as of a request that is over, and asked nobody else."""
    world = World()
    racing = Racing("after_prepare")
    process = await world.process(points=racing)
    successors = []

    async def depose() -> None:
        successors.append(await world.process())

    racing.act = depose  # type: ignore[assignment]
    with pytest.raises(errors.NotLeading) as caught:
        await process.create(order(what=spec(5)))
    (successor,) = successors
    assert caught.value.leader == await successor.election.leader()
    await world.settle(successor)
    assert world.north.used() == world.south.used() == 0
    made = await successor.create(order(what=spec(5)))
    assert world.confirmed() == {made.record.tx}


async def deleted_before_it_was_decided(world: World) -> Process:
    """The meta-scheduler that refuses the Create for it."""
    racing = Racing("after_prepare")
    process = await world.process(points=racing)

    async def delete() -> None:
        await process.delete(str(NAME))

    racing.act = delete  # type: ignore[assignment]
    with pytest.raises(errors.Aborted):
        await process.create(order(what=spec(5)))
    racing.act = None
    return process


async def test_a_delete_that_comes_before_the_decision_aborts_it() -> None:
    world = World()
    process = await deleted_before_it_was_decided(world)
    (left,) = await process.clusters.listed()
    assert left.record.state is ClusterState.CANCELLED
    assert world.north.used() == world.south.used() == 0


async def test_a_late_retry_of_what_was_cancelled_revives_nothing() -> None:
    """A bug: a Delete before the decision took the record of the request along, and the same
    request made the cluster anew."""
    world = World()
    process = await deleted_before_it_was_decided(world)
    again = await process.create(order(what=spec(5)))
    assert again.record.state is ClusterState.CANCELLED
    assert world.north.used() == world.south.used() == 0
    other = await process.create(order("r2", what=spec(5)))
    assert other.record.state is ClusterState.SCHEDULED


async def test_a_deposed_coordinator_commits_nothing() -> None:
    world = World()
    racing = Racing("after_prepare")
    process = await world.process(points=racing)

    async def depose() -> None:
        successor = await world.process()
        await successor.recover.sweep()

    racing.act = depose  # type: ignore[assignment]
    with pytest.raises(errors.DomainError):
        await process.create(order(what=spec(5)))
    world.check_all_or_nothing()
    assert world.confirmed() == set()


async def test_a_commit_whose_answer_was_lost_stands() -> None:
    world = World()
    racing = Racing("after_prepare")
    process = await world.process(points=racing)

    async def lose() -> None:
        world.etcd.loses_answer = True

    racing.act = lose  # type: ignore[assignment]
    view = await process.create(order(what=spec(5)))
    assert view.record.state is ClusterState.SCHEDULED
    assert world.confirmed() == {view.record.tx}
