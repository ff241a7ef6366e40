"""What room that others make costs, on problems solved by hand: in the model, in the search, in the
check, in what is chosen from, and in what is said where it is too dear."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from intertie.common.etcd.records import decode, encode
from intertie.common.intervals import Window
from intertie.common.price import PriceTerm
from intertie.common.quantities import Vector
from intertie.common.spec import LeaseTerms, Placement
from intertie.common.tariff import Rates, RoomMade
from intertie.common.values import replace
from intertie.metasched.domain.alternatives import Merit, alternatives_of
from intertie.metasched.domain.amending import beside_standing, growth_of, target_of
from intertie.metasched.domain.cheapest import cheapest
from intertie.metasched.domain.construct import constructed
from intertie.metasched.domain.costs import COST_SCALE
from intertie.metasched.domain.explain import shortfalls
from intertie.metasched.domain.graph import FINE
from intertie.metasched.domain.improve import improve
from intertie.metasched.domain.levers import changed
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.price_agreed import sites_above_budget
from intertie.metasched.domain.problem import Offer, Problem
from intertie.metasched.domain.refusal import why_not
from intertie.metasched.domain.site_plan import SitePlan
from intertie.metasched.domain.solver import solve
from intertie.metasched.domain.told_plan import as_accepted, told
from tests.unit.metasched.problems import NOW, group, link, linked, offer, problem
from tests.unit.metasched.test_budget import FIELD, of_budget, priced, searched
from tests.unit.metasched.test_counter_offers import ground_of, offered, workers
from tests.unit.metasched.world import World, order, spec


def beyond(
    *hosts: int, free: int, price: float = 0.0, room: float = 0.0, gib: float = 0.0
) -> Offer:
    """`free`: vCPUs, and as many GiB, while nobody gives way."""
    return replace(
        offer(*hosts),
        rates=Rates(vcpu_hour=price, give_way_vcpu_hour=room, give_way_memory_gib_hour=gib),
        free_together=Vector(vcpus=free, memory_mib=free * 1024),
    )


ALL = Vector(vcpus=4, memory_mib=4096)


def two_sites(max_cost: float | None = None) -> Problem:
    """Four workers of 1 vCPU at 1 an hour; at a two of them have to have others give way, at 1.50
    each. b has room for all, and asks 1.50 for each."""
    sites = {"a": beyond(4, free=2, price=1.0, room=1.5), "b": offer(4, price=1.5)}
    return problem([group(fewest=4)], linked(sites, link()), max_cost=max_cost)


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_of_like_plans_the_one_is_taken_for_which_nobody_is_paid_to_give_way(
    found: object,
) -> None:
    assert callable(found)
    plan = found(given := two_sites())
    assert plan.site_names == ("b",)
    assert plan.cost == 6.0
    assert check(given, plan) == ()
    assert plan.sites[0].room is None


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_what_others_make_room_for_is_in_the_cost_and_said_beside_it(found: object) -> None:
    assert callable(found)
    alone = {"a": beyond(4, free=2, price=1.0, room=1.5, gib=0.5)}
    memory = Vector(vcpus=1, memory_mib=1024, disk_mib=512)
    given = problem([group(fewest=4, need=memory)], alone)
    plan = found(given)
    [there] = plan.sites
    assert there.room == RoomMade(vcpus=2, memory_mib=2048, amount=2 * 1.5 + 2 * 0.5)
    assert plan.cost == there.cost == 4 + there.room.amount
    assert check(given, plan) == ()
    assert plan.expected() == (
        PriceTerm(
            site="a",
            window=plan.window,
            amount=plan.cost,
            room=there.room,
        ),
    )


def test_nothing_is_asked_where_the_site_asks_nothing_or_says_nothing_of_what_is_free() -> None:
    free = beyond(4, free=0, price=1.0)
    silent = replace(beyond(4, free=0, price=1.0, room=9.0), free_together=None)
    for each in (free, silent):
        plan = solve(problem([group(fewest=4)], {"a": each}))
        assert plan is not None
        assert plan.cost == 4.0
        assert plan.sites[0].room is None


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_a_budget_holds_with_it(found: object) -> None:
    """At a alone it is 7, at b 6; and two at each are 5, at two sites."""
    assert callable(found)
    assert found(two_sites(6.0)).site_names == ("b",)
    plan = found(given := two_sites(5.5))
    assert {each.site: dict(each.counts) for each in plan.sites} == {
        "a": {"worker": 2},
        "b": {"worker": 2},
    }
    assert plan.cost == 5.0
    assert check(given, plan) == ()
    assert found(two_sites(4.9)) is None


def test_as_many_are_planned_as_the_budget_has_room_for() -> None:
    sites = {"a": beyond(9, free=2, price=1.0, room=1.5)}
    plan = solve(problem([group(fewest=1, most=9)], sites, max_cost=7.0))
    assert plan is not None
    assert plan.count("worker") == 4


def test_a_share_of_a_gib_costs_its_share_and_no_more() -> None:
    """A bug that was: each MiB was rounded up to a millionth, and a budget that was enough was
    found to be too small."""
    need = Vector(vcpus=1, memory_mib=1000, disk_mib=512)
    sites = {"a": beyond(4, free=0, gib=0.0005)}
    cost = 4 * 1000 / 1024 * 0.0005
    plan = solve(problem([group(fewest=4, need=need)], sites, max_cost=cost + 2e-6))
    assert plan is not None
    assert plan.cost == pytest.approx(cost)


def test_the_check_sees_a_plan_that_leaves_it_out() -> None:
    given = problem([group(fewest=4)], {"a": beyond(4, free=2, price=1.0, room=1.5)}, max_cost=9.0)
    plan = solve(given)
    assert plan is not None
    [lied] = check(given, replace(plan, cost=4.0))
    assert "costs 7, and is said to cost 4" in lied.message


@pytest.mark.parametrize("max_sites", [0, 2])
def test_the_search_counts_what_pieces_cost_together(max_sites: int) -> None:
    """All that are at a site share what is free there. Alone, each would be as cheap anywhere."""
    sites = {f"s{free}": beyond(8, free=free, price=1.0, room=2.0) for free in range(1, 7)}
    groups = [group(f"g{number}", fewest=2) for number in range(6)]
    given = problem(
        groups, linked(sites, link()), max_sites=max_sites, fewest_sites=bool(max_sites)
    )
    begun = constructed(given, steps=2_000)
    assert begun is not None
    improve(begun.search, steps=10_000, patience=50)
    search, board = begun.search, begun.search.board
    assert search.best is not None
    plan = board.plan(search.best, optimal=False, bound=None)
    assert check(given, plan) == ()
    counted = search.cost - board.site_cost * plan.taken
    assert counted * board.unit / FINE / COST_SCALE == pytest.approx(plan.cost)
    if not max_sites:
        assert plan.cost == 12.0, "nobody gives way, though each site has hosts for eight"


def test_a_window_in_which_nobody_gives_way_is_another_one() -> None:
    """Hosts and rates are the same: what is free without is not."""
    sites = {"a": [beyond(4, free=0, price=1.0, room=1.5), beyond(4, free=4, price=1.0, room=1.5)]}
    given = problem([group(fewest=4)], sites)
    plan = cheapest(given, best_plan)
    assert plan is not None
    assert (plan.window, plan.cost) == (given.windows[1], 4.0)
    first = best_plan(given)
    assert first is not None
    told_ = {merit: each.plan for each in alternatives_of(given, first) for merit in each.merits}
    assert told_[Merit.EARLIEST].cost == 10.0
    assert told_[Merit.CHEAPEST] == replace(
        plan, optimal=False, bound=None, reasons=told_[Merit.CHEAPEST].reasons
    )


def test_the_shortfall_says_what_of_the_cheapest_is_for_others() -> None:
    sites = {"a": beyond(4, free=2, price=1.0, room=1.6)}
    [short] = shortfalls(problem([group(fewest=4)], sites, max_cost=5.0))
    assert short.message == (
        "the cheapest plan that was found costs 7.2, and the budget is 5;"
        " 2 vCPUs of best-effort leases at a give way: +3.20"
    )


def test_a_budget_is_offered_with_who_is_put_aside_for_it() -> None:
    """A later start is offered beside it, at which nobody gives way."""
    sites = {"a": [beyond(4, free=1, price=1.0, room=1.6), beyond(4, free=4, price=1.0, room=1.6)]}
    asked = priced(3, 3.0)
    offers = offered(asked, sites)
    assert of_budget(offers) == [
        (
            "a budget of 6.2 instead of 3, if best-effort leases at a are put aside: +3.20",
            "6.2",
        )
    ]
    [later] = [each for each in offers if each.changes[0].field == "spec.lease.start_time"]
    assert "put aside" not in later.message
    assert later.cost == 3.0
    ground = ground_of(changed(asked, {FIELD: 6.2}), sites)
    plan = best_plan(ground.problem(ground.spec, [0]))
    assert plan is not None
    assert plan.cost == pytest.approx(6.2)


def test_a_budget_is_offered_though_each_of_many_is_rounded_up() -> None:
    """A bug that was: none was large enough for what each vCPU is rounded up by in the model."""
    asked = workers(12, vcpus=16)
    asked = replace(asked, placement=Placement(max_cost=1.0))
    [(said, budget)] = of_budget(offered(asked, {"a": beyond(192, free=0, room=0.1000004)}))
    assert float(budget) == pytest.approx(192 * 0.1000004, abs=1e-3)
    assert said.endswith("+19.20")


def test_a_refusal_looks_at_later_windows_in_which_only_that_differs() -> None:
    same = beyond(4, free=1, price=1.0, room=1.6)
    ground = ground_of(priced(3, 3.0), {"a": [same, same, replace(same, free_together=ALL)]})
    assert why_not(ground, effort=1.0).times.later == (2,)


def test_a_smaller_one_says_so_too_where_it_still_takes_others_room() -> None:
    offers = offered(priced(3, 4.0), {"a": beyond(4, free=1, price=1.0, room=1.5)})
    [fewer] = [each for each in offers if each.changes[0].field == "spec.groups[0].count"]
    assert fewer.message == (
        "2 worker instead of 3, if best-effort leases at a are put aside: +1.50"
    )
    assert fewer.cost == 3.5


def test_sites_that_ask_more_than_they_offered_are_told_what_for() -> None:
    window = Window(NOW, NOW + timedelta(hours=1))
    planned = Plan(window=window, sites=(SitePlan(site="a", counts={"w": 2}, cost=2.0),), images={})
    room = RoomMade(vcpus=1, memory_mib=0, amount=1.0)
    asked = PriceTerm(site="a", window=window, kind="immediate", amount=3.0, room=room)
    agreed = planned.at_prices({"a": [asked]})
    assert agreed.cost == 3.0
    assert agreed.sites[0].room == room
    [(site, refusal)] = sites_above_budget(priced(2, 2.5), planned, agreed).items()
    assert site == "a"
    assert "1 vCPU of best-effort leases at a gives way: +1.00" in str(refusal)


def test_what_is_accepted_is_told_in_proportion_to_its_time() -> None:
    plan = solve(problem([group(fewest=4)], {"a": beyond(4, free=2, price=1.0, room=1.5)}))
    assert plan is not None
    lease = LeaseTerms(end_time=plan.window.end)
    kept = told(plan, lease, request="", made=(), now=NOW, within=timedelta(minutes=5))
    half = as_accepted(kept, lease, now=plan.window.start + timedelta(minutes=30))
    [there] = half.sites
    assert (half.cost, there.cost) == (3.5, 3.5)
    assert there.room == RoomMade(vcpus=2, memory_mib=0, amount=1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SitePlanBefore:
    """As a release wrote it that knew nothing of it."""

    site: str
    counts: dict[str, int]
    packing: tuple[dict[str, int], ...] = ()
    cost: float = 0.0


def test_where_nothing_is_asked_nothing_of_it_is_on_record() -> None:
    plain = SitePlan(site="a", counts={"w": 2}, packing=({"w": 2},), cost=2.0)
    assert b"room" not in encode(plain)
    before = _SitePlanBefore(site="a", counts={"w": 2}, packing=({"w": 2},), cost=2.0)
    assert decode(SitePlan, encode(before)) == plain
    assert decode(_SitePlanBefore, encode(plain)) == before
    term = PriceTerm(site="a", window=Window(NOW, NOW + timedelta(hours=1)), amount=1.0)
    assert b"room" not in encode(term)


async def test_other_terms_cost_what_is_asked_on_for_room_that_was_made_before() -> None:
    """It is in no offer for them: others are out of the way already."""
    world = World()
    process = await world.process()
    world.north.asks = world.south.asks = 8.0
    world.north.asks_for_room = world.south.asks_for_room = RoomMade(
        vcpus=1, memory_mib=0, amount=6.0
    )
    record = (await process.create(order(what=spec()))).record
    [there] = record.plan.sites
    assert there.room == RoomMade(vcpus=1, memory_mib=0, amount=6.0)
    growth = growth_of(record, record.spec)
    quarter = record.window.duration / 4
    now, windows = record.window.start + quarter, (record.window,)
    asked = Problem(groups=(), sites=(), windows=windows, max_cost=10.0)
    left = beside_standing(asked, record, growth, now=now)
    assert left.max_cost == pytest.approx(10.0 - 2.0 - 4.5)
    grown = replace(record.plan, cost=1.0)
    found = target_of(record, record.spec, growth, grown, "t", now=now)
    assert found.plan.cost == pytest.approx(2.0 + 1.0 + 4.5)
    half = replace(asked, windows=(Window(now, now + quarter),))
    assert beside_standing(half, record, growth, now=now).max_cost == pytest.approx(10 - 2 - 1.5)
