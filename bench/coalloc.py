"""Requests for clusters over several sites, with the images and data sets that they need, one after
another as they come, through the meta-scheduler's planner; against sites that are filled one after
another, and against what no plan can do better than.

`python -m bench coalloc [--sites N ...] [--limit N] [--seconds S] [--seed N] [--effort E] [--json]`.
Topologies, sites and requests are drawn as `bench/coalloc_requests.py` says, at an offered load of
0.9 of what is scarcest: vCPUs, memory or links. All ways to place them have the same requests, each in
a world of its own (`bench/coalloc_world.py`), which is filled by the same first requests, placed by
(b) and not counted. They have one objective: all or nothing; the earliest start; the fewest sites; the
least cost, of workspaces, promised bandwidth and transfers.

- *planner*: `best_plan`, as it is.
- *(a)*: `first_fit` of `bench/coalloc_greedy.py`: in the first window in which they fit, workspaces go
  to the first sites with room, and transfers are made one after another.
- *(b)*: the same, with transfers beside one another, by what links have free.
- *bound*: for each request, in the world of the planner, the earliest start and the least cost of a
  problem with fewer rules, by `bench/coalloc_bound.py`. The gap of starts is (mean start - bound) /
  bound, of what the planner accepted; that of costs likewise, at the planner's start and number of
  sites.

A start is counted from when a request comes. *WAN* is what transfers carry, on each link that they
go over. Every plan of all three is checked by `plan.check`, and every world for what is overfull.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.coalloc_bound import Bound
from bench.coalloc_greedy import beside_one_another, first_fit, one_after_another
from bench.coalloc_requests import TOPOLOGIES, Request, Scenario, scenario
from bench.coalloc_world import EPOCH, World
from bench.report import percentile
from intertie.common.process import collect_gently
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem

COUNTS = {5: 120, 20: 100, 50: 60, 91: 40}
"""Requests that are counted."""
QUICK = 8
EFFORT = 2.0
"""Of the planner: a meta-scheduler's own, where nothing is said."""
SEED = 1


@dataclass(slots=True, kw_only=True)
class Answer:
    request: Request
    plan: Plan | None
    first_ms: float
    all_ms: float
    bound_s: float | None = None
    """The least delay; None where the bound has no plan."""
    bound_cost: float = 0.0

    @property
    def delay_s(self) -> float:
        assert self.plan is not None
        return _delay_s(self.request, self.plan)


@dataclass(slots=True, kw_only=True)
class Done:
    """What became of the requests, by one way to place them."""

    answers: list[Answer] = field(default_factory=list)
    unsound: int = 0

    @property
    def accepted(self) -> list[Answer]:
        return [each for each in self.answers if each.plan is not None]


Way = Callable[[Problem, "Callable[[Plan], None]"], "Plan | None"]


def ways(effort: float) -> dict[str, Way]:
    """To place requests; the first one is the planner's."""
    return {
        "planner": lambda problem, told: best_plan(problem, effort=effort, told=told),
        "a": lambda problem, _: first_fit(problem, one_after_another),
        "b": lambda problem, _: first_fit(problem, beside_one_another),
    }


def placed(
    given: Scenario, way: Way, *, bounds: bool, until_s: float | None = None
) -> tuple[Done, World]:
    """All requests, one after another; none after `until_s` by this process's clock."""
    world, done = World(given), Done()
    for number, request in enumerate(given.requests):
        problem = world.problem(request)
        if number < given.filling:
            plan = first_fit(problem, beside_one_another)
        else:
            if until_s is not None and time.perf_counter() > until_s:
                break
            answer = _answer(request, problem, way)
            plan = answer.plan
            done.answers.append(answer)
            done.unsound += plan is not None and bool(check(problem, plan))
            if bounds:
                _bound(problem, answer)
        if plan is not None:
            world.take(request, plan)
    return done, world


def _answer(request: Request, problem: Problem, way: Way) -> Answer:
    first: list[float] = []
    begun = time.perf_counter()
    plan = way(problem, lambda _: first.append(time.perf_counter()))
    ended = time.perf_counter()
    first_ms = 1000 * (min(first, default=ended) - begun)
    return Answer(request=request, plan=plan, first_ms=first_ms, all_ms=1000 * (ended - begun))


def _bound(problem: Problem, answer: Answer) -> None:
    bound = Bound(problem)
    slot = bound.first_slot()
    if slot is not None:
        start = problem.windows[slot].start
        answer.bound_s = (start - problem.windows[0].start).total_seconds()
    if answer.plan is not None:
        slot = problem.windows.index(answer.plan.window)
        sites = sum(bool(each.counts) for each in answer.plan.sites)
        answer.bound_cost = bound.cost(slot, sites)


def _delay_s(request: Request, plan: Plan) -> float:
    return (plan.window.start - EPOCH).total_seconds() - request.arrives_s


def _wan_mib(request: Request, plan: Plan) -> int:
    sizes = {item.name: item.size_mib for item in request.items}
    return sum(sizes[each.item] * (len(each.route) - 1) for each in plan.transfers)


def figures(done: Done) -> dict[str, float]:
    answers, accepted = done.answers, done.accepted
    count = max(len(accepted), 1)
    first_ms, all_ms = [each.first_ms for each in answers], [each.all_ms for each in answers]
    return {
        "requests": len(answers),
        "accepted": len(accepted),
        "start_s": round(sum(each.delay_s for each in accepted) / count, 1),
        "cost": round(sum(each.plan.cost for each in accepted if each.plan) / count, 3),
        "wan_mib": round(sum(_wan_mib(each.request, each.plan) for each in accepted if each.plan)),
        "first_ms_mean": round(sum(first_ms) / len(answers), 1),
        "first_ms_p99": round(percentile(first_ms, 0.99), 1),
        "ms_mean": round(sum(all_ms) / len(answers), 1),
        "ms_p99": round(percentile(all_ms, 0.99), 1),
        "unsound": done.unsound,
    }
