"""Whether there is any plan, of many problems that differ little: the model is asked seldom."""

from intertie.common.values import replace
from intertie.metasched.domain.candidates import hindrance, without_useless_sites
from intertie.metasched.domain.packing import fits_at_all, places_for
from intertie.metasched.domain.plan import Plan, is_sound
from intertie.metasched.domain.planner import EASY_MODEL, first_plan, model_size
from intertie.metasched.domain.problem import GroupNeed, Problem
from intertie.metasched.domain.solver import any_plan

REMEMBERED = 16
"""Plans that were found, the last ones."""
STEPS = 300
"""Of a search before the model is asked."""


class Feasibility:
    """Bounded in what it asks the model in all, in such a way that it is the same on every machine.

    A plan that was found for one problem is one for the next if its check finds it sound there; one
    of a short search is one. And where there are fewer places than workspaces of a group, or less
    of anything than all take together, there is none.
    """

    def __init__(self, *, effort: float, each: float, size: int) -> None:
        """`effort` in all, `each` for one problem: CP-SAT's deterministic time. `size` is the sum
        over the problems: see size_of."""
        self._effort, self._each, self._size = effort, each, size
        self._plans: list[Plan] = []

    def of(self, problem: Problem) -> bool | None:
        """None: it could not be found out, for it is too hard, or too much was asked."""
        problem = narrowed(problem)
        if any(not has_places(problem, group) for group in problem.groups):
            return False
        if not has_room(problem):
            return False
        if any(is_sound(problem, plan) for plan in self._plans):
            return True
        size = size_of(problem)
        if self._effort <= 0 or self._size < size:
            return None
        self._size -= size
        plan, known, took = searched(problem), True, 0.0
        if plan is None:
            plan, known, took = any_plan(problem, effort=min(self._each, self._effort))
        self._effort -= took
        if plan is not None:
            self._plans = [plan, *self._plans[: REMEMBERED - 1]]
        return plan is not None if known else None


def size_of(problem: Problem) -> int:
    """About how much there is to build, which windows add to: 50 to 100 us each. How long it is in
    solving goes by planner.model_size."""
    sites = len(problem.sites)
    hosts = sum(len(each.offers[0].hosts) for each in problem.sites if each.offers)
    of_hosts = len(problem.groups) + len(problem.promises) + len(problem.windows)
    pairs = sites * (sites - 1) // 2
    return (hosts + 1) * of_hosts + pairs * (1 + len(problem.promises) + 2 * len(problem.items))


def narrowed(problem: Problem) -> Problem:
    """With no more of any group than it has to have, as who fits with more fits so too; and without
    sites that can have none and forward nothing."""
    return replace(
        without_useless_sites(problem),
        groups=tuple(
            replace(each, most=min(each.most, max(each.fewest, each.min_sites)))
            for each in problem.groups
        ),
    )


def has_places(problem: Problem, group: GroupNeed) -> bool:
    """Whether there are as many places for the group as it has to have, in some window, if it were
    alone and no links counted: without them there is no plan."""
    sites = [site for site in problem.sites if hindrance(group, site) is None]
    wanted = max(group.fewest, group.min_sites)
    for slot in range(len(problem.windows)):
        places = [places_for(group, site, slot, wanted) for site in sites]
        if sum(places) >= wanted and sum(map(bool, places)) >= group.min_sites:
            return True
    return False


def has_room(problem: Problem) -> bool:
    """Whether all hosts together have what the least of all takes, in some window: without that
    there is no plan."""
    fewest = {group.name: group.fewest for group in problem.groups}
    return any(fits_at_all(problem, slot, fewest) for slot in range(len(problem.windows)))


def searched(problem: Problem) -> Plan | None:
    """What is found without a model, where one would be long in solving."""
    return first_plan(problem, steps=STEPS) if model_size(problem) > EASY_MODEL else None
