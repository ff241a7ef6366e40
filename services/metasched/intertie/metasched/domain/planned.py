"""Plans as they are answered: each is checked by what shares nothing with the planner, and says why
it is as it is."""

from collections.abc import Sequence

from intertie.common.intervals import Window
from intertie.metasched.domain.explain import explained
from intertie.metasched.domain.in_time import with_promise
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem, over
from intertie.metasched.domain.room_made import joined, with_room_made


class PlanUnsound(Exception):
    """The model gave a plan that its independent check refuses: a bug."""


def planned(problem: Problem, *, effort: float) -> Plan | None:
    plan = best_plan(problem, effort=effort)
    if plan is None:
        return None
    unsound = check(problem, plan)
    if unsound:
        raise PlanUnsound("; ".join(str(each) for each in unsound))
    return plan if problem.standing else explained(problem, plan)


def planned_with_room_made(
    problem: Problem, plan: Plan | None, more: Problem, *, effort: float
) -> Plan | None:
    """The better plan of the two problems, of which the first has that plan, or none."""
    tried = more
    if plan is not None:
        tried = joined(over(problem, [problem.windows.index(plan.window)]), more)
    better = planned(tried, effort=effort)
    if better is None or better.window not in more.windows:
        return None
    return with_room_made(problem, better)


def with_room_to_go_on(
    plan: Plan, problem: Problem, rooms: Sequence[Window], *, effort: float
) -> Plan:
    """The plan with the latest of these rooms in which the problem, which has them for its windows,
    has a plan; as it is where it has none in any."""
    for slot in reversed(range(len(rooms))):
        if best_plan(over(problem, (slot,)), effort=effort) is not None:
            return with_promise(plan, rooms[slot])
    return plan
