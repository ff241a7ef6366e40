"""A request is planned as long as somebody waits for it; what has begun goes on without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import pytest

from intertie.common import errors
from intertie.common.spec import ClusterSpec
from intertie.metasched.domain.cluster import ClusterState, ClusterView
from intertie.metasched.usecases.telling import Callers, NobodyWaits, Requests
from tests.fakes.clock import turns
from tests.fakes.solvers import SolverThreads
from tests.unit.metasched.test_update import made, standing, update
from tests.unit.metasched.waiting import waiting
from tests.unit.metasched.world import NAME, Points, Process, World, order, spec

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class HeldSolvers(SolverThreads):
    """Solve nothing before they are let."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """Those whose callers were cancelled."""

    async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        self.begun.append(work.__name__)
        try:
            await self.go.wait()
            return await super().run(work, *args, **options)
        except asyncio.CancelledError:
            self.ended.append(work.__name__)
            raise

    async def at_work(self, count: int = 1) -> None:
        while len(self.begun) < count:
            await turns(1)


async def gone(*calls: asyncio.Task[object]) -> None:
    for each in calls:
        each.cancel()
    for each in calls:
        with pytest.raises(asyncio.CancelledError):
            await each
    await turns(5)


async def held(solvers: HeldSolvers) -> tuple[World, Process]:
    world = World(solvers=solvers)
    return world, await world.process()


async def test_a_plan_for_nobody_is_not_looked_for_any_more() -> None:
    solvers = HeldSolvers()
    _, process = await held(solvers)
    call = asyncio.create_task(process.create.plan_only(order()))
    await solvers.at_work()
    await gone(call)
    assert solvers.ended == ["planned"]


@pytest.mark.parametrize("what", [spec(), waiting()], ids=["at once", "in line"])
async def test_a_create_for_nobody_is_not_planned_and_leaves_nothing(what: ClusterSpec) -> None:
    solvers = HeldSolvers()
    _, process = await held(solvers)
    call = asyncio.create_task(process.create(order(what=what)))
    await solvers.at_work()
    await gone(call)
    assert solvers.ended == ["planned"]
    assert process.create.begun() == ()
    assert await process.clusters.get(str(NAME)) is None
    assert await process.clusters.request(order().request_key) is None
    solvers.go.set()
    assert (await process.create(order(what=what))).record.state in (
        ClusterState.SCHEDULED,
        ClusterState.QUEUED,
    )


async def test_a_create_is_planned_as_long_as_one_of_its_callers_waits() -> None:
    solvers = HeldSolvers()
    _, process = await held(solvers)
    first, second = (asyncio.create_task(process.create(order())) for _ in range(2))
    await solvers.at_work()
    await gone(first)
    assert solvers.ended == []
    solvers.go.set()
    assert (await second).record.state is ClusterState.SCHEDULED
    assert solvers.begun == ["planned"]


async def test_who_comes_just_as_it_is_given_up_has_it_planned_for_himself() -> None:
    solvers = HeldSolvers()
    _, process = await held(solvers)
    first = asyncio.create_task(process.create(order()))
    await solvers.at_work()
    first.cancel()
    second = asyncio.create_task(process.create(order()))
    await asyncio.gather(first, return_exceptions=True)
    await solvers.at_work(2)
    solvers.go.set()
    assert (await second).record.state is ClusterState.SCHEDULED


@pytest.mark.timeout(30)
async def test_who_comes_right_after_it_was_given_up_has_it_done_for_himself() -> None:
    """A bug to be: he found it over, and still there, and asked for it again and again; nothing
    else had its turn any more."""
    process = await World().process()
    found = await process.create(order())
    requests = Requests(process.create._tell)
    late: list[asyncio.Task[ClusterView]] = []

    async def work(_: Callers) -> ClusterView:
        if late:
            return found
        late.append(asyncio.create_task(requests.once(("r1", "b2:1"), work)))
        raise NobodyWaits

    first = await requests.once(("r1", "b2:1"), work)
    assert (first, await late[0]) == (found, found)
    assert requests.begun() == ()


async def test_a_create_that_holds_goes_on_for_nobody() -> None:
    """As ever: a retry gets the same outcome."""
    prepared, on = asyncio.Event(), asyncio.Event()

    class Stopping(Points):
        async def __call__(self, point: str) -> None:
            prepared.set()
            await on.wait()

    world = World()
    process = await world.process(points=Stopping())
    call = asyncio.create_task(process.create(order()))
    await prepared.wait()
    await gone(call)
    on.set()
    await process.create.drain()
    stored = await process.clusters.get(str(NAME))
    assert stored is not None
    assert stored.record.state is ClusterState.SCHEDULED


async def test_an_update_for_nobody_is_not_planned_and_changes_nothing() -> None:
    solvers = HeldSolvers()
    solvers.go.set()
    world = World(solvers=solvers)
    process = await made(world)
    before = await standing(process)
    solvers.go.clear()
    solvers.begun.clear()
    call = asyncio.create_task(process.update(update(spec(4))))
    await solvers.at_work()
    await gone(call)
    assert solvers.ended == ["planned"]
    assert await standing(process) == before
    solvers.go.set()
    view = await process.update(update(spec(4)))
    assert view.record.spec.groups[1].count == 4


async def test_a_refusal_for_nobody_is_not_explained() -> None:
    solvers = HeldSolvers()
    solvers.go.set()
    _, process = await held(solvers)
    call = asyncio.create_task(process.create(order(what=spec(9))))
    await solvers.at_work(2)
    solvers.go.clear()
    await solvers.at_work(3)
    await gone(call)
    assert (solvers.begun[2], solvers.ended) == ("why_not", ["why_not"])


async def test_what_cannot_be_explained_is_refused_all_the_same() -> None:
    class Failing(SolverThreads):
        async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
            if work.__name__ == "why_not":
                raise errors.SolverFailed("it takes more than there is")
            return await super().run(work, *args, **options)

    process = await World(solvers=Failing()).process()
    with pytest.raises(errors.NoCapacity) as refused:
        await process.create(order(what=spec(9)))
    assert refused.value.shortfalls
    assert not refused.value.explanation


async def test_what_cannot_be_planned_is_refused_as_that_and_leaves_nothing() -> None:
    class Failing(SolverThreads):
        async def run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
            raise errors.SolverFailed("it takes more than there is")

    process = await World(solvers=Failing()).process()
    for call in (process.create(order()), process.create.plan_only(order())):
        with pytest.raises(errors.SolverFailed):
            await call
    assert await process.clusters.get(str(NAME)) is None
