"""The plan that costs the least, whenever and at however many sites that is."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from intertie.common.values import replace
from intertie.metasched.domain.candidates import usable_sites
from intertie.metasched.domain.costs import COST_SCALE, workspace_hour
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem, over

CHEAP_WINDOWS = 6
"""So many are planned for the least cost, those in which it may be lowest first."""

Solve = Callable[[Problem], Plan | None]


def millionths(plan: Plan) -> int:
    return round(plan.cost * COST_SCALE)


def cheaper(problem: Problem, below: int | None, solve: Solve) -> Iterator[tuple[Plan, Problem]]:
    """Plans that cost less than so many millionths, each less than the one before, with what they
    are the best plans of. None: any costs less."""
    hours = [each.duration / timedelta(hours=1) for each in problem.windows]
    least = [_least_hour(problem, slot) * hours[slot] for slot in range(len(hours))]
    tried = list[int]()
    for slot in sorted(range(len(hours)), key=lambda slot: (least[slot], slot)):
        enough = below is not None and least[slot] * COST_SCALE >= below
        if len(tried) == CHEAP_WINDOWS or enough:
            return
        if any(_alike(problem, slot, other) for other in tried):
            continue
        tried.append(slot)
        asked = replace(over(problem, [slot]), fewest_sites=False)
        plan = solve(asked)
        if plan is not None and (below is None or millionths(plan) < below):
            below = millionths(plan)
            yield plan, asked


def cheapest(problem: Problem, solve: Solve) -> Plan | None:
    """Of the fewest workspaces that are wanted."""
    groups = tuple(replace(each, most=each.fewest) for each in problem.groups)
    found = None
    for plan, _ in cheaper(replace(problem, groups=groups), None, solve):
        found = plan
    return found


def _least_hour(problem: Problem, slot: int) -> float:
    """No plan in that window costs less an hour: each group at the site that asks the least for
    it."""
    return sum(
        group.most
        * min(
            (
                workspace_hour(problem, problem.site(name), slot, group)
                for name in usable_sites(problem, group)
            ),
            default=0.0,
        )
        for group in problem.groups
    )


_OFFERED = ("hosts", "links", "rates", "free_together")


def _alike(problem: Problem, one: int, other: int) -> bool:
    """Whether the two windows last as long, and the same is offered in both, at the same rates.
    Where something has to be brought before, no two are alike: the later one leaves more time."""
    windows = problem.windows
    if problem.items or windows[one].duration != windows[other].duration:
        return False
    return all(
        all(getattr(site.offers[one], of) == getattr(site.offers[other], of) for of in _OFFERED)
        for site in problem.sites
    )
