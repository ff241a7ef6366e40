"""What a lease may cost, on problems solved by hand: in the model, in the search, in the check, and
in what is said where nothing is cheap enough."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.common.amend_rules import DURATION
from intertie.common.errors import NoCapacity
from intertie.common.explanation import CounterOffer
from intertie.common.spec import ClusterSpec, LeaseTerms, Placement
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.construct import constructed
from intertie.metasched.domain.explain import shortfalls
from intertie.metasched.domain.levers import changed
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.price_agreed import sites_above_budget
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.solver import solve
from intertie.metasched.usecases.update_cluster import UpdateOrder
from tests.unit.metasched.problems import group, link, linked, offer, problem, promise
from tests.unit.metasched.test_conflicts import told as conflicts_told
from tests.unit.metasched.test_counter_offers import ground_of, offered, workers
from tests.unit.metasched.world import ALICE, NAME, World, order, spec

FIELD = "spec.placement.max_cost"


def searched(given: Problem) -> Plan | None:
    begun = constructed(given, steps=500)
    if begun is None:
        return None
    assert begun.search.best is not None
    return begun.search.board.plan(begun.search.best, optimal=False, bound=None)


def three_workers(max_cost: float | None) -> Problem:
    """c takes all three, at 5 each; a takes two at 1, b one at 2."""
    sites = {"a": offer(2, price=1.0), "b": offer(1, price=2.0), "c": offer(3, price=5.0)}
    return problem([group(fewest=3)], linked(sites, link()), max_cost=max_cost)


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_more_sites_are_used_where_the_fewest_cost_too_much(found: object) -> None:
    assert callable(found)
    assert found(three_workers(None)).cost == 15.0
    assert found(three_workers(15.0)).cost == 15.0
    plan = found(given := three_workers(14.9))
    assert plan.cost <= 14.9
    assert check(given, plan) == ()
    plan = found(given := three_workers(4.0))
    assert {each.site: dict(each.counts) for each in plan.sites} == {
        "a": {"worker": 2},
        "b": {"worker": 1},
    }
    assert check(given, plan) == ()
    assert found(three_workers(3.99)) is None


@pytest.mark.parametrize("found", [solve, best_plan])
def test_fewer_are_planned_where_all_cost_too_much(found: object) -> None:
    assert callable(found)
    given = problem([group(fewest=1, most=5)], {"a": offer(9, price=2.0)}, max_cost=7.0)
    assert found(given).count("worker") == 3


def test_it_begins_later_where_that_is_cheaper() -> None:
    tariff = {"a": [offer(1, price=2.0), offer(1, price=1.0)]}
    plan = solve(given := problem([group()], tariff, max_cost=1.5))
    assert plan is not None
    assert plan.window == given.windows[1]


def test_promised_pairs_and_links_count_as_they_are_and_no_more() -> None:
    """Two of at most four, of which each pair has 10: one pair, whose two ends cost 1 each, and
    whose link costs 0.5 each way at each end."""
    rates = Rates(pair_mbit_s_hour=0.1, link_mbit_s_hour=0.05)
    sites = linked({name: replace(offer(1), rates=rates) for name in "ab"}, link())
    asked = [group(fewest=2, most=4)]
    pair = (promise("worker", "worker", 10),)
    for most, fits in ((4.0, True), (3.99, False)):
        plan = solve(given := problem(asked, sites, promises=pair, max_cost=most))
        assert (plan is not None) is fits
        if plan is not None:
            assert plan.cost == pytest.approx(4.0)
            assert check(given, plan) == ()


def test_the_check_sees_a_plan_above_its_budget_and_one_that_says_it_costs_less() -> None:
    plan = solve(three_workers(None))
    assert plan is not None
    broken = check(three_workers(14.9), plan)
    assert [(each.resource, each.field) for each in broken] == [("budget", FIELD)]
    [lied] = check(three_workers(15.0), replace(plan, cost=12.0))
    assert "is said to cost 12" in lied.message


def test_the_shortfall_is_what_the_cheapest_costs() -> None:
    [short] = shortfalls(three_workers(3.0))
    assert (short.resource, short.field) == ("budget", FIELD)
    assert short.message == "the cheapest plan that was found costs 4, and the budget is 3"


def test_where_there_is_no_room_at_any_price_that_is_told() -> None:
    given = problem([group(fewest=9)], {"a": offer(3, price=1.0)}, max_cost=1.0)
    assert "budget" not in {each.resource for each in shortfalls(given)}


def test_a_budget_is_named_with_what_is_too_much_for_it() -> None:
    given = problem([group(fewest=3, vcpus=2)], {"a": offer(9, price=1.0)}, max_cost=3.0)
    sets, ways = conflicts_told(given)
    count, vcpus = "spec.groups[0].count", "spec.groups[0].allocation.vcpus"
    assert sets == [{FIELD, count, vcpus}]
    assert sorted(map(tuple, ways)) == sorted((each,) for each in (FIELD, count, vcpus))


def priced(count: int, max_cost: float) -> ClusterSpec:
    return replace(workers(count), placement=Placement(max_cost=max_cost))


def of_budget(offers: tuple[CounterOffer, ...]) -> list[tuple[str, str]]:
    return [(e.message, e.changes[0].value) for e in offers if e.changes[0].field == FIELD]


def test_the_smallest_budget_that_would_do_is_offered_and_is_enough() -> None:
    sites = linked({"a": offer(2, price=0.1), "b": offer(4, price=0.7)}, link())
    asked = priced(3, 0.5)
    offers = offered(asked, sites)
    assert of_budget(offers) == [("a budget of 0.9 instead of 0.5", "0.9")]
    [mine] = [each for each in offers if each.changes[0].field == FIELD]
    assert mine.cost == pytest.approx(0.9)
    ground = ground_of(changed(asked, {FIELD: 0.9}), sites)
    plan = best_plan(ground.whole)
    assert plan is not None
    assert plan.cost <= 0.9 + 1e-9
    assert "2 worker instead of 3" in {each.message for each in offers}


def bounded(most: float) -> ClusterSpec:
    return replace(spec(), placement=Placement(max_cost=most))


async def test_nothing_is_made_at_a_price_that_has_risen_above_the_budget() -> None:
    """Between the plan and the hold: what was held is given back, and the refusal is typed."""
    world = World()
    process = await world.process()
    world.north.asks = world.south.asks = 7.5
    with pytest.raises(NoCapacity) as refused:
        await process.create(order(what=bounded(7.4)))
    assert FIELD in {each.field for each in refused.value.shortfalls}
    assert world.confirmed() == set()
    assert await process.clusters.get(str(NAME)) is None
    view = await process.create(order("r2", what=bounded(7.5)))
    assert view.record.state is ClusterState.SCHEDULED


async def test_where_one_site_asks_too_much_another_is_tried() -> None:
    world = World()
    process = await world.process()
    first = (await process.create.plan_only(order(what=bounded(1.0)))).record.plan.site_names
    assert len(first) == 1
    getattr(world, first[0]).asks = 7.5
    view = await process.create(order(what=bounded(1.0)))
    assert view.record.plan.site_names != first
    assert view.record.state is ClusterState.SCHEDULED


async def test_other_terms_that_would_cost_more_than_the_budget_are_refused() -> None:
    world = World()
    process = await world.process()
    world.north.asks = world.south.asks = 4.0
    await process.create(order(what=bounded(10.0)))
    await process.create.drain()
    world.boot()
    longer = replace(bounded(10.0), lease=LeaseTerms(duration=timedelta(hours=3)))
    asked = UpdateOrder(
        name=str(NAME), spec=longer, paths=(DURATION,), etag="", caller=ALICE, request_id="u1"
    )
    with pytest.raises(NoCapacity) as refused:
        await process.update(asked)
    assert [each.field for each in refused.value.shortfalls] == [FIELD]


def test_what_sites_ask_above_the_budget_is_refused_of_those_that_ask_more() -> None:
    planned = solve(three_workers(4.0))
    assert planned is not None
    a, b = planned.sites
    dearer = replace(planned, sites=(a, replace(b, cost=2.5)), cost=4.5)
    assert sites_above_budget(priced(3, 4.5), planned, dearer) == {}
    assert sites_above_budget(priced(3, 0.0), planned, dearer) == {}
    refused = sites_above_budget(priced(3, 4.0), planned, dearer)
    assert list(refused) == ["b"]
    error = refused["b"]
    assert isinstance(error, NoCapacity)
    assert error.shortfalls[0].field == FIELD
