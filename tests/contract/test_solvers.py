"""Where problems are solved, in a process or, in unit tests, in a thread: the same comes of it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator

import pytest

from intertie.common.clock import SystemClock
from intertie.common.errors import FieldInvalid, NoCapacity, Shortfall
from intertie.metasched.adapters.solver_processes import SolverProcesses
from intertie.metasched.domain.explain import shortfalls
from intertie.metasched.domain.planned import PlanUnsound, planned
from intertie.metasched.domain.ports import Solvers
from intertie.metasched.domain.problem import Problem
from tests.fakes.solvers import SolverThreads
from tests.unit.metasched.problems import group, link, linked, offer, problem, promise


@pytest.fixture(params=["threads", "processes"])
async def solvers(request: pytest.FixtureRequest) -> AsyncIterator[Solvers]:
    if request.param == "threads":
        yield SolverThreads()
        return
    processes = SolverProcesses(1024, SystemClock())
    yield processes
    await processes.close()


def asked(workers: int) -> Problem:
    groups = [group("head"), group("worker", workers)]
    sites = linked({"north": offer(3, 3, price=0.05), "south": offer(2, 4)}, link(100))
    return problem(groups, sites, promises=(promise("worker", "head", 10),))


async def test_a_plan_is_the_very_same_wherever_it_is_made(solvers: Solvers) -> None:
    for workers in (1, 4, 8):
        here = planned(asked(workers), effort=1.0)
        assert here is not None
        assert await solvers.run(planned, asked(workers), effort=1.0) == here


async def test_what_is_short_is_too(solvers: Solvers) -> None:
    here = shortfalls(asked(30), effort=1.0)
    assert here
    assert await solvers.run(shortfalls, asked(30), effort=1.0) == here
    assert await solvers.run(planned, asked(30), effort=1.0) is None


async def test_several_are_solved_at_a_time_each_for_who_asked(solvers: Solvers) -> None:
    problems = [asked(workers) for workers in (1, 2, 3, 30)]
    plans = await asyncio.gather(*(solvers.run(planned, each, effort=1.0) for each in problems))
    assert [plan and plan.count("worker") for plan in plans] == [1, 2, 3, None]


@pytest.mark.parametrize(
    "error",
    [
        PlanUnsound("north is over"),
        FieldInvalid("spec.groups", "has too many"),
        NoCapacity((Shortfall(site="north", resource="vcpus", wanted=2, unit="vCPU"),)),
    ],
)
async def test_what_is_raised_is_raised_to_the_caller(solvers: Solvers, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await solvers.run(exec, "raise error", {"error": error})
    assert raised.value.__dict__.keys() >= error.__dict__.keys()
    assert str(raised.value) == str(error)


async def test_a_bug_is_told_with_where_it_is(solvers: Solvers) -> None:
    with pytest.raises(ZeroDivisionError):
        await solvers.run(divmod, 1, 0)
    with pytest.raises(pickle.PicklingError):
        await solvers.run(eval, "lambda: 0")


async def test_who_is_cancelled_is_cancelled_and_others_go_on(solvers: Solvers) -> None:
    mine, others = (
        asyncio.create_task(solvers.run(eval, "__import__('time').sleep(0.5)", {"n": number}))
        for number in range(2)
    )
    await SystemClock().sleep(0.1)
    mine.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mine
    assert await others is None
    assert await solvers.run(max, 1, 2) == 2
