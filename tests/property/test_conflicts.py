"""Whatever cannot be planned: what is said to stand in its way does, and no less of it would."""

from itertools import chain, combinations, product

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from intertie.metasched.domain.conflicts import MOST_GIVEN_UP, conflicts_of, verdict_of
from intertie.metasched.domain.feasibility import Feasibility, has_places
from intertie.metasched.domain.plan import check
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.requirements import Asked, Times, asked_of, without
from intertie.metasched.domain.solver import solve
from tests.property.test_plan import problems


class Told:
    """The explanation of a problem, and the planner's own answer without some of it."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.times = problem, Times(asked=tuple(range(len(problem.windows))))
        self.asked = asked_of(problem, self.times, ("lan", "other"))
        feasibility = Feasibility(effort=600, each=60, size=10**9)
        verdict = verdict_of(problem, self.times, self.asked, feasibility)
        self.found = conflicts_of(len(self.asked), verdict)

    def can_be_met(self, kept: frozenset[int]) -> bool:
        """By a plan that its independent check finds sound."""
        dropped: list[Asked] = [e for n, e in enumerate(self.asked) if n not in kept]
        left = without(self.problem, self.times, dropped)
        plan = solve(left)
        if plan is not None:
            assert check(left, plan) == ()
        return plan is not None


def smaller(these: frozenset[int]) -> list[frozenset[int]]:
    ordered = sorted(these)
    sizes = range(len(ordered))
    return list(map(frozenset, chain.from_iterable(combinations(ordered, n) for n in sizes)))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_a_conflict_cannot_be_met_and_every_smaller_part_of_it_can(problem: Problem) -> None:
    assume(solve(problem) is None)
    told = Told(problem)
    everything = frozenset(range(len(told.asked)))
    assert not told.can_be_met(everything), "all that is asked for is what cannot be had"
    if not told.found.sets:
        assert not told.can_be_met(frozenset()), "it is not for what is asked for"
        return
    for each in told.found.sets:
        assert not told.can_be_met(each)
        assert all(map(told.can_be_met, smaller(each)))


@settings(max_examples=100, deadline=None)
@given(problems())
def test_without_one_that_is_enough_of_each_conflict_it_can_be_had(problem: Problem) -> None:
    assume(solve(problem) is None)
    told = Told(problem)
    everything = frozenset(range(len(told.asked)))
    assume(told.found.ways)  # it takes no more than is tried to give up
    assert all(told.found.enough)
    for choice in {frozenset(each) for each in product(*told.found.enough)}:
        assert told.can_be_met(everything - choice) or not told.found.sets
    for each in told.found.ways:
        assert told.can_be_met(everything - each)
        assert not any(told.can_be_met(everything - less) for less in smaller(each))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_where_there_are_too_few_places_there_is_no_plan(problem: Problem) -> None:
    if not all(has_places(problem, group) for group in problem.groups):
        assert solve(problem) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(problems(), min_size=1, max_size=4))
def test_whatever_was_asked_before_there_is_a_plan_or_there_is_none(asked: list[Problem]) -> None:
    feasibility = Feasibility(effort=600, each=60, size=10**9)
    for problem in [*asked, *asked]:
        assert feasibility.of(problem) is (solve(problem) is not None)


@given(st.lists(st.frozensets(st.integers(0, 8), min_size=1, max_size=4), min_size=1, max_size=5))
def test_of_any_conflicts_those_are_found_that_it_takes(drawn: list[frozenset[int]]) -> None:
    """By the conflicts themselves, without a model: what is minimal, what is enough."""
    minimal = {each for each in drawn if not any(other < each for other in drawn)}

    def verdict(kept: frozenset[int]) -> bool:
        return not any(each <= kept for each in minimal)

    found = conflicts_of(9, verdict)
    assert set(found.sets) <= minimal
    least = min(
        len(way) for way in map(frozenset, product(*minimal)) if all(way & each for each in minimal)
    )
    if least > MOST_GIVEN_UP:
        assert not found.ways
        return
    assert len(found.sets) >= least
    assert all(found.enough)
    for choice in product(*found.enough):
        assert verdict(frozenset(range(9)) - frozenset(choice))
    assert found.ways
    for way in found.ways:
        assert len(way) == least
        assert verdict(frozenset(range(9)) - way)
