"""The planner: a first plan at once, then the best one of the model where that is small enough,
and better ones of the first plan where it is not."""

from collections.abc import Callable

from intertie.common.errors import FieldInvalid
from intertie.metasched.domain.candidates import without_useless_sites
from intertie.metasched.domain.construct import (
    MOST_PIECES,
    MOST_SINGLES,
    Begun,
    can_be_searched,
    constructed,
    earlier,
    stands,
)
from intertie.metasched.domain.costs import COST_SCALE
from intertie.metasched.domain.improve import improve
from intertie.metasched.domain.plan import Plan, is_sound
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.solver import solve

EASY_MODEL, LARGEST_MODEL, LARGEST_UNPLANNED = 500, 3_000, 6_000
"""Terms of a model that needs no plan to begin with, of one that is solved to have the best plan,
and of one that is solved to have a plan at all."""
HINT_STEPS = 1_000
"""Of a first plan, where the model is solved after it, at the effort of 1; else:"""
FIRST_STEPS = 7_500
STEPS = 20_000
"""Of all that is done for a plan without the model, at the effort of 1."""
EARLIER_STEPS = 10_000
"""In each window before a first plan's, where items are to be brought."""
PATIENCE = 200


def best_plan(
    problem: Problem, *, effort: float = 2.0, told: Callable[[Plan], None] | None = None
) -> Plan | None:
    """The best plan found within `effort`, or None if none was; every one is checked.

    Best is as in `solver.solve`. `effort` is CP-SAT's deterministic time for each of its
    objectives, and counts steps where no model is solved: the same problem gives the same plan on
    every machine. `Plan.optimal` says that there is no better one, `Plan.bound` what none costs
    less than. `told` is given a first plan as soon as there is one that more is done about, to find
    a better one.
    """
    if not problem.sites or not problem.windows:
        return None
    pruned = without_useless_sites(problem)
    if not pruned.sites:
        return None
    size = model_size(pruned)
    exact = solve(pruned, effort=effort) if size <= EASY_MODEL else None
    if exact is not None and exact.optimal:
        return exact
    small = size <= LARGEST_MODEL or stands(problem)
    begun = constructed(pruned, steps=round((HINT_STEPS if small else FIRST_STEPS) * effort))
    first = _sound(problem, _plan_of(begun)) if begun is not None else None
    if first is not None and first.optimal:
        return first
    if size <= EASY_MODEL:
        return _better(problem, exact, first)
    if first is not None and told is not None:
        told(first)
    if small or (begun is None and size <= LARGEST_UNPLANNED):
        return _better(problem, solve(pruned, effort=effort, hint=first), first)
    if begun is None:
        return None
    begun = earlier(pruned, begun, steps=round(EARLIER_STEPS * effort))
    improve(begun.search, steps=round(STEPS * effort), patience=PATIENCE)
    return _better(problem, _sound(problem, _plan_of(begun)), first)


def first_plan(problem: Problem, *, steps: int) -> Plan | None:
    """A plan of a search of so many steps; None where it has found none."""
    begun = constructed(problem, steps=steps)
    return _sound(problem, _plan_of(begun)) if begun is not None else None


def check_size(problem: Problem) -> None:
    """FieldInvalid where there are more groups than are searched for, over more hosts than the
    model is solved for: nobody would look for a plan."""
    size = model_size(without_useless_sites(problem))
    if size > LARGEST_UNPLANNED and not stands(problem) and not can_be_searched(problem):
        raise FieldInvalid(
            "spec.groups",
            f"has {len(problem.groups)} groups, too many to be planned over as many hosts as these"
            f" sites have; up to {MOST_SINGLES - MOST_PIECES} are planned over any",
        )


def model_size(problem: Problem) -> int:
    """Roughly how many terms its model has."""
    hosts = sum(max(len(offer.hosts) for offer in site.offers) for site in problem.sites)
    pairs = len(problem.sites) * (len(problem.sites) - 1) // 2
    routes = pairs * (8 if any(site.forwards for site in problem.sites) else 1)
    groups, promises = len(problem.groups), len(problem.promises)
    sources = len(problem.items) * len(problem.sites) ** 2
    return hosts * (6 * groups + 3 * promises) + pairs * 2 * promises + routes + sources


def _plan_of(begun: Begun) -> Plan:
    search, board = begun.search, begun.search.board
    assert search.best is not None
    at_one = len(search.best.packings) == 1
    known = begun.whole and begun.first and not board.packer.narrow
    known = known and (board.site_cost == 0 or at_one)
    bound = search.bound() - board.site_cost
    # Where sites cost nothing, others may be as cheap at fewer of them.
    optimal = known and (board.spread or at_one) and search.cost - board.site_cost <= bound
    return board.plan(search.best, optimal=optimal, bound=bound if known and not optimal else None)


def _sound(problem: Problem, plan: Plan) -> Plan | None:
    """A plan of a search, unless it breaks a rule that the search does not know."""
    return plan if is_sound(problem, plan) else None


def _better(problem: Problem, one: Plan | None, other: Plan | None) -> Plan | None:
    """The first where they are alike."""

    def rank(plan: Plan) -> tuple[int, int, int, int]:
        placed = sum(plan.count(group.name) for group in problem.groups)
        cost = round(plan.cost * COST_SCALE)
        last = (plan.taken, cost) if problem.fewest_sites else (cost, plan.taken)
        return -placed, problem.windows.index(plan.window), *last

    if one is None or other is None:
        return one or other
    return one if rank(one) <= rank(other) else other
