"""Routes between sites over others that forward, on instances small enough to solve by hand."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from intertie.common.leasing.lease import Lease
from intertie.common.leasing.requests import BestEffort
from intertie.common.spec import ClusterSpec, GroupPlacement, layout, normalise
from intertie.common.tariff import Rates, part_hour
from intertie.common.values import replace
from intertie.metasched.domain.amending import beside_standing
from intertie.metasched.domain.explain import explained
from intertie.metasched.domain.parts import part_specs
from intertie.metasched.domain.plan import LinkPlan, Plan, check
from intertie.metasched.domain.problem import LatencyLimit, LinkRoom, Problem, problem_of
from intertie.metasched.domain.rooms import Rooms
from intertie.metasched.domain.routes import MOST_ROUTES, hops, routes_of
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    NOW,
    apart,
    chained,
    forwarding,
    group,
    link,
    offer,
    problem,
    promise,
    window,
)
from tests.unit.metasched.world import spec

HEAD, WORKER = group("head", allow_sites=("a",)), group(fewest=3, allow_sites=("c",))
OFFERS = {"a": offer(9), "b": offer(), "c": offer(9)}
PAIRS = (promise("head", "worker", 30),)
AB, BC = (("a", "b"), ("b", "a")), (("b", "c"), ("c", "b"))


def over_b(first: LinkRoom, second: LinkRoom, **more: object) -> Problem:
    """Head at a, three workers at c, and b between them, with a link to either."""
    sites = chained({("a", "b"): first, ("b", "c"): second}, OFFERS)
    given = {"promises": PAIRS, **more}
    return forwarding(problem([HEAD, WORKER], sites, **given), "b")


def planned(given: Problem) -> Plan:
    plan = solve(given)
    assert plan is not None
    assert check(given, plan) == ()
    return plan


def ways(plan: Plan) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(each.from_site, each.to_site): each.via for each in plan.links}


def test_sites_without_a_link_reach_one_another_over_one_that_forwards() -> None:
    given = over_b(link(90, ms=2), link(90, ms=3))
    plan = planned(given)
    assert plan.links == tuple(
        LinkPlan(
            from_site=one,
            to_site=two,
            network="lan",
            mbit_s=90,
            latency=timedelta(milliseconds=5),
            via=("b",),
        )
        for one, two in (("a", "c"), ("c", "a"))
    )
    assert [(each.site, dict(each.counts)) for each in plan.sites] == [
        ("a", {"head": 1}),
        ("b", {}),
        ("c", {"worker": 3}),
    ]
    assert plan.optimal


def test_a_site_that_does_not_forward_leads_nowhere() -> None:
    assert solve(forwarding(over_b(link(90), link(90)))) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (link(89), link(90)),
        (link(90), link(89)),
        (link(90, ingress=89), link(90)),
        (link(90), link(90, ingress=89)),
    ],
)
def test_every_half_of_every_link_on_the_way_has_to_have_room(
    first: LinkRoom, second: LinkRoom
) -> None:
    assert solve(over_b(first, second)) is None


def test_latency_is_the_sum_over_the_way() -> None:
    for most_ms, fits in ((5, True), (4, False)):
        most = timedelta(milliseconds=most_ms)
        limit = LatencyLimit(a="head", b="worker", network="lan", most=most)
        given = over_b(link(90, ms=2), link(90, ms=3), limits=(limit,))
        assert (solve(given) is not None) is fits


def test_a_way_is_planned_where_nothing_is_promised() -> None:
    plan = planned(over_b(link(0), link(0), promises=()))
    assert [(each.from_site, each.via, each.mbit_s) for each in plan.links] == [
        ("a", ("b",), 0),
        ("c", ("b",), 0),
    ]


def test_all_that_two_sites_send_takes_one_way() -> None:
    """50 over their link and 50 over b would do for 90, but not for one way."""
    links = {("a", "c"): link(50), ("a", "b"): link(50), ("b", "c"): link(50)}
    given = problem([HEAD, WORKER], chained(links, OFFERS), promises=PAIRS)
    assert solve(forwarding(given, "b")) is None


def test_a_wide_detour_is_taken_where_the_link_is_too_narrow() -> None:
    links = {("a", "c"): link(89), ("a", "b"): link(90), ("b", "c"): link(90)}
    given = forwarding(problem([HEAD, WORKER], chained(links, OFFERS), promises=PAIRS), "b")
    assert ways(planned(given)) == {("a", "c"): ("b",), ("c", "a"): ("b",)}


def test_the_shortest_of_like_ways_is_taken() -> None:
    links = {("a", "c"): link(90), ("a", "b"): link(90), ("b", "c"): link(90)}
    given = forwarding(problem([HEAD, WORKER], chained(links, OFFERS), promises=PAIRS), "b")
    assert ways(planned(given)) == {("a", "c"): (), ("c", "a"): ()}


def test_of_places_that_cost_the_same_those_nearer_one_another_are_taken() -> None:
    """In a chain there is one way from each site to each, and some are shorter."""
    chain = chained({("a", "b"): link(), ("b", "c"): link()}, {name: offer(1) for name in "abc"})
    near = problem([group("x"), group("y")], chain, promises=(promise("x", "y", 1),))
    plan = planned(forwarding(near, "a", "b", "c"))
    assert set(ways(plan)) in ({*AB}, {*BC})
    assert not any(ways(plan).values())


def test_the_cheaper_way_is_taken_and_whoever_forwards_is_paid() -> None:
    """Over b at 1 each for both halves of two links, or over d at 2."""
    links = {pair: link(90) for pair in (("a", "b"), ("b", "c"), ("a", "d"), ("c", "d"))}
    offers = {**OFFERS, "d": offer()}
    offers["b"] = replace(offers["b"], rates=Rates(link_mbit_s_hour=2.0))
    offers["d"] = replace(offers["d"], rates=Rates(link_mbit_s_hour=1.0))
    given = problem([HEAD, WORKER], chained(links, offers), promises=PAIRS)
    plan = planned(forwarding(given, "b", "d"))
    assert ways(plan) == {("a", "c"): ("d",), ("c", "a"): ("d",)}
    assert {each.site: each.cost for each in plan.sites} == {"a": 0, "c": 0, "d": 4 * 90}
    assert (plan.cost, plan.bound, plan.gap) == (360, 360, 0)


def test_what_two_pairs_of_sites_send_adds_up_where_they_meet() -> None:
    """a sends 10 to c and d sends 10 to c, both over b."""
    offers = {**OFFERS, "d": offer(9)}
    groups = [
        group("x", allow_sites=("a",)),
        group("y", allow_sites=("d",)),
        group("z", allow_sites=("c",)),
    ]
    pairs = (promise("x", "z", 10), promise("y", "z", 10))
    for mbit_s, fits in ((20, True), (19, False)):
        links = {("a", "b"): link(10), ("b", "d"): link(10), ("b", "c"): link(mbit_s)}
        given = problem(groups, chained(links, offers), promises=pairs)
        assert (solve(forwarding(given, "b")) is not None) is fits


def test_who_forwards_counts_neither_as_a_site_nor_as_one_of_the_most() -> None:
    plan = planned(over_b(link(90), link(90), max_sites=2))
    assert plan.site_names == ("a", "b", "c")


def test_who_forwards_is_told_of_among_the_reasons() -> None:
    given = over_b(link(90), link(90))
    reasons = explained(given, planned(given)).reasons
    assert "a and c reach one another by b" in reasons
    assert not any(each.startswith("b takes") or "b is not used" in each for each in reasons)


def test_groups_that_are_to_be_apart_are_at_different_sites() -> None:
    sites = chained({("a", "b"): link()}, {"a": offer(9), "b": offer(9)})
    both = [group("x"), group("y")]
    assert len(planned(problem(both, sites)).sites) == 1
    plan = planned(problem(both, sites, affinities=(apart("x", "y"),)))
    assert [dict(each.counts) for each in plan.sites] in (
        [{"x": 1}, {"y": 1}],
        [{"y": 1}, {"x": 1}],
    )
    three = [*both, group("z")]
    assert solve(problem(three, sites, affinities=(apart("x", "y", "z"),))) is None


def test_ways_that_are_left_out_leave_it_open_whether_a_plan_is_the_best() -> None:
    """From a to z over any one of so many sites, and over any two."""
    between = [f"m{at}" for at in range(MOST_ROUTES)]
    offers = {"a": offer(9), "z": offer(9), **{name: offer() for name in between}}
    links = {(one, name): link(90) for name in between for one in ("a", "z")}
    groups = [group("head", allow_sites=("a",)), group(fewest=3, allow_sites=("z",))]
    given = forwarding(problem(groups, chained(links, offers), promises=PAIRS), *between)
    assert len(routes_of(given).of["a", "z"]) == MOST_ROUTES
    assert routes_of(given).complete
    assert planned(given).optimal
    links["m0", "m1"] = link(90)
    more = forwarding(problem(groups, chained(links, offers), promises=PAIRS), *between)
    assert not routes_of(more).complete
    assert not planned(more).optimal


def test_the_links_of_a_route_are_named_the_same_both_ways() -> None:
    assert list(hops(("c", "a", "b"))) == [("a", "c"), ("a", "b")]
    assert sorted(hops(("b", "a", "c"))) == sorted(hops(("c", "a", "b")))


def over_b_of_a_cluster() -> tuple[ClusterSpec, Problem, Plan]:
    """The same of a specification."""
    wanted = spec(3, mbit_s=30)
    wanted = replace(
        wanted,
        groups=tuple(
            replace(each, placement=GroupPlacement(allow_sites=(site,)))
            for each, site in zip(wanted.groups, "ac", strict=True)
        ),
    )
    wanted = normalise(wanted, now=window().start)
    sites = chained({("a", "b"): link(90), ("b", "c"): link(90)}, OFFERS)
    asked = Rates(link_mbit_s_hour=1.0)
    offers = {name: (replace(each, rates=asked),) for name, each in sites.items()}
    given = forwarding(problem_of(wanted, (window(),), offers), "b")
    return wanted, given, planned(given)


def test_whoever_forwards_holds_its_halves_of_both_links_and_asks_for_them() -> None:
    wanted, given, plan = over_b_of_a_cluster()
    totals = {group.name: plan.count(group.name) for group in wanted.groups}
    where = layout("uid", wanted, totals, plan.site_of(), "one")
    parts = part_specs("metascheds/m/tenants/t/clusters/one", "uid", wanted, plan, where)
    held = {
        site: [(each.peer, each.egress_mbit_s, each.ingress_mbit_s) for each in part.links]
        for site, part in parts.items()
    }
    assert held == {"a": [("b", 90, 90)], "b": [("a", 90, 90), ("c", 90, 90)], "c": [("b", 90, 90)]}
    assert parts["b"].workspaces == ()
    assert {each.site: each.cost for each in plan.sites} == {
        site: part_hour(given.site(site).offers[0].rates, part) for site, part in parts.items()
    }


def test_an_amend_has_what_it_had_of_every_link_on_the_way() -> None:
    _, given, plan = over_b_of_a_cluster()
    record: Any = SimpleNamespace(plan=plan)
    growth: Any = SimpleNamespace(standing={}, least={})
    had = beside_standing(given, record, growth, now=NOW).reserved
    assert had == {frozenset("ab"): 90, frozenset("bc"): 90}


def test_what_another_is_to_get_first_is_taken_off_every_link_on_the_way() -> None:
    _, given, _ = over_b_of_a_cluster()
    one, two = (
        Lease(request=BestEffort(name=name, nodes=1, duration_s=3600), submit_s=0)
        for name in ("one", "two")
    )
    rooms = Rooms({"one": given, "two": given}, [window().start], solve)
    start_s = rooms.now_s
    assert rooms.fits(two, start_s, start_s + 3600)
    rooms.take(one, start_s, start_s + 3600)
    assert not rooms.fits(two, start_s, start_s + 3600)
