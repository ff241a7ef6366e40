"""Whatever the problem: what is found without the model keeps every rule, is never better than the
best that the model knows, and no bound is above that."""

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.values import replace
from intertie.metasched.domain.construct import Begun, constructed
from intertie.metasched.domain.improve import improve
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Cut, Problem
from intertie.metasched.domain.solver import solve
from tests.property.test_plan import problems, rank, with_more
from tests.unit.metasched.problems import window

STEPS = 400


@st.composite
def routed(draw: st.DrawFn) -> Problem:
    """Where some sites forward, some groups are to be apart, and some holds were refused."""
    found = draw(problems())
    names = [group.name for group in found.groups]
    cuts: tuple[Cut, ...] = ()
    if draw(st.booleans()):
        places = st.tuples(st.sampled_from(names), st.sampled_from("ab"))
        counts = draw(st.dictionaries(places, st.integers(1, 3), min_size=1, max_size=2))
        cuts = (Cut(start=window(0).start, counts=counts, onwards=draw(st.booleans())),)
    return replace(
        found,
        sites=tuple(replace(site, forwards=draw(st.booleans())) for site in found.sites),
        apart=(frozenset(names),) if draw(st.booleans()) else (),
        cuts=cuts,
    )


def plan_of(begun: Begun) -> Plan:
    search = begun.search
    assert search.best is not None
    return search.board.plan(search.best, optimal=False, bound=None)


@settings(max_examples=150, deadline=None)
@given(routed())
def test_a_plan_over_routes_keeps_every_rule(given_problem: Problem) -> None:
    plan = solve(given_problem)
    if plan is not None:
        assert check(given_problem, plan) == ()


@settings(max_examples=250, deadline=None)
@given(routed())
def test_what_is_put_together_and_improved_keeps_every_rule(given_problem: Problem) -> None:
    begun = constructed(given_problem, steps=STEPS)
    if begun is None:
        return
    first = plan_of(begun)
    assert check(given_problem, first) == ()
    cost = begun.search.cost
    improve(begun.search, steps=2 * STEPS, patience=20)
    assert begun.search.cost <= cost
    assert check(given_problem, plan_of(begun)) == ()


@settings(max_examples=100, deadline=None)
@given(routed())
def test_nothing_is_better_than_the_best_and_no_bound_above_it(given_problem: Problem) -> None:
    best = solve(given_problem)
    begun = constructed(given_problem, steps=STEPS)
    if best is None:
        assert begun is None
        return
    if begun is None or not best.optimal:
        return
    plan = plan_of(begun)
    assert rank(given_problem, best) <= rank(given_problem, plan)
    if begun.whole and begun.slot == 0:
        search = begun.search
        assert search.best is not None
        bound = search.board.plan(search.best, optimal=False, bound=search.bound()).bound
        assert bound is not None
        sites = search.board.site_cost
        assert search.bound() - sites <= search.cost - sites * len(search.best.packings)


@settings(max_examples=100, deadline=None)
@given(routed())
def test_more_capacity_never_makes_the_best_plan_worse(given_problem: Problem) -> None:
    plan = best_plan(given_problem)
    if plan is None:
        return
    assert check(given_problem, plan) == ()
    if plan.optimal:
        better_problem = with_more(given_problem)
        better = best_plan(better_problem)
        assert better is not None
        assert rank(better_problem, better) <= rank(given_problem, plan)


@settings(max_examples=50, deadline=None)
@given(routed())
def test_the_same_is_found_again(given_problem: Problem) -> None:
    assert best_plan(given_problem) == best_plan(given_problem)
