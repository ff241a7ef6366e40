"""Whatever cannot be planned: what is said to stand in its way does, and no less of it would."""

from itertools import chain, combinations, product

from hypothesis import assume, given, settings

from intertie.metasched.domain.conflicts import Budget, conflicts_of, verdict_of
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
        budget = Budget(effort=600, each=60, size=10**9)
        verdict = verdict_of(problem, self.times, self.asked, budget)
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
