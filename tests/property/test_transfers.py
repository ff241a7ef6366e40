"""Whatever has to be brought where: a plan keeps every rule of it, by a check that shares nothing
with what found it; and one that is called the best is."""

from datetime import timedelta
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.intervals import Window
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.construct import constructed
from intertie.metasched.domain.data import Item
from intertie.metasched.domain.plan import check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import LinkRoom, Problem, Promise, Site
from intertie.metasched.domain.solver import solve
from tests.property.test_plan import rank
from tests.property.test_search import TINY, assert_improved_by_the_rules, plan_of
from tests.unit.metasched.problems import NOW, group, offer

STEPS = 2_000
SPAN = timedelta(minutes=5)


@st.composite
def staged(draw: st.DrawFn) -> Problem:
    """Of a few sites in a line, with some more links, of which each has another width in each of
    three spans; and of one to three items, that are at one or two of them."""
    names = ("a", "b", "c", "d")[: draw(st.integers(2, 4))]
    beside = set(pairwise(names)) | draw(
        st.sets(st.sampled_from(list(combinations(names, 2))), max_size=2)
    )
    width = st.sampled_from([0, 3, 10, 40, 40])

    def rooms() -> dict[str, dict[str, LinkRoom]]:
        found: dict[str, dict[str, LinkRoom]] = {name: {} for name in names}
        for one, two in sorted(beside):
            for here, there in ((one, two), (two, one)):
                found[here][there] = LinkRoom(
                    egress_mbit_s=draw(width),
                    ingress_mbit_s=draw(st.sampled_from([3, 40, 40])),
                    latency=timedelta(milliseconds=1),
                )
        return found

    spans = draw(st.integers(1, 3))
    before, during = [rooms() for _ in range(spans)], rooms()
    prices = st.sampled_from([0.0, 0.01, 1.0])
    slots = draw(st.integers(1, spans + 1))
    sites = []
    for name in names:
        rates = Rates(vcpu_hour=draw(prices), link_mbit_s_hour=draw(prices))
        hosts = [draw(st.sampled_from([0, 1, 1, 2, 3])) for _ in range(slots)]
        sites.append(
            Site(
                name=name,
                offers=tuple(
                    replace(offer(vcpus, links=during[name]), rates=rates) for vcpus in hosts
                ),
                forwards=draw(st.sampled_from([True, False])),
                before=tuple(each[name] for each in before),
            )
        )
    groups = tuple(
        group(
            name,
            fewest=draw(st.integers(1, 2)),
            min_sites=draw(st.sampled_from([0, 0, 2])),
            networks=draw(st.sampled_from([(), ("lan",)])),
        )
        for name in ("x", "y")[: draw(st.integers(1, 2))]
    )
    known = st.sampled_from([each.name for each in groups])
    items = tuple(
        Item(
            name=f"item{number}",
            size_mib=draw(st.sampled_from([1, 30, 200, 1000])),
            at=draw(
                st.frozensets(
                    st.sampled_from(names), min_size=1, max_size=draw(st.sampled_from([1, 1, 2]))
                )
            ),
            groups=draw(st.frozensets(known, min_size=1)),
        )
        for number in range(draw(st.integers(1, 3)))
    )
    first = draw(st.integers(0, spans + 1 - slots)) or spans + 1 - slots
    promise = Promise(a=groups[0].name, b=groups[-1].name, network="lan", mbit_s=2)
    return Problem(
        groups=groups,
        sites=tuple(sites),
        windows=tuple(
            Window(NOW + SPAN * (first + slot), NOW + SPAN * (first + slot) + timedelta(hours=1))
            for slot in range(slots)
        ),
        promises=draw(st.sampled_from([(), (), (promise,)])),
        items=items,
        spans=tuple(Window(NOW + SPAN * at, NOW + SPAN * (at + 1)) for at in range(spans)),
    )


@settings(max_examples=250, deadline=None)
@given(staged())
def test_what_is_put_together_and_improved_is_there_in_time(given_problem: Problem) -> None:
    assert_improved_by_the_rules(given_problem, steps=STEPS)


@settings(max_examples=150, deadline=None)
@given(staged())
def test_what_the_model_has_is_there_in_time(given_problem: Problem) -> None:
    plan = solve(given_problem)
    if plan is not None:
        assert check(given_problem, plan) == ()


@settings(max_examples=150, deadline=None)
@given(staged())
def test_nothing_is_better_than_what_is_called_the_best(given_problem: Problem) -> None:
    best = solve(given_problem)
    begun = constructed(given_problem, steps=STEPS)
    if best is None or begun is None or not best.optimal:
        return
    plan = plan_of(begun)
    assert rank(given_problem, best) <= rank(given_problem, plan)
    if rank(given_problem, best) == rank(given_problem, plan):
        assert best.cost <= plan.cost + TINY
    if begun.whole and begun.first:
        search = begun.search
        assert search.best is not None
        least = search.bound() - search.board.site_cost
        bound = search.board.plan(search.best, optimal=False, bound=least).bound
        assert bound is not None
        assert bound <= best.cost + TINY


@settings(max_examples=100, deadline=None)
@given(staged())
def test_the_planner_has_a_plan_where_the_model_or_the_search_has_one(
    given_problem: Problem,
) -> None:
    plan = best_plan(given_problem)
    begun = constructed(given_problem, steps=STEPS)
    assert (plan is not None) >= (begun is not None)
    if plan is not None:
        assert check(given_problem, plan) == ()
        assert best_plan(given_problem) == plan
