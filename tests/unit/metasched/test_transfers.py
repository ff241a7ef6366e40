"""What has to be brought before a cluster starts: solved by hand, and by the model and the search
likewise. 100 Mbit/s carry 3,576 MiB in five minutes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain.candidates import without_useless_sites
from intertie.metasched.domain.data import TransferPlan
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import EASY_MODEL, best_plan, first_plan, model_size
from intertie.metasched.domain.problem import Problem, with_image_brought
from intertie.metasched.domain.solver import any_plan, solve
from tests.unit.metasched.problems import IMAGES, NOW, group, link, promise
from tests.unit.metasched.staging import SPAN, Links, item, staged

Solver = Callable[[Problem], Plan | None]
SOLVERS: dict[str, Solver] = {
    "model": solve,
    "search": lambda problem: first_plan(problem, steps=2_000),
    "planner": best_plan,
}


@pytest.fixture(params=SOLVERS)
def solver(request: pytest.FixtureRequest) -> Solver:
    return SOLVERS[request.param]


def solved(solver: Solver, problem: Problem) -> Plan:
    plan = solver(problem)
    assert plan is not None
    assert check(problem, plan) == ()
    return plan


def begins(plan: Plan) -> int:
    """In which span after the first."""
    return (plan.window.start - NOW) // SPAN


def ways(plan: Plan) -> list[tuple[str, tuple[str, ...], int]]:
    return [(each.item, each.route, each.mbit_s) for each in plan.transfers]


def test_it_is_sent_at_all_that_is_free_and_there_before_the_start(solver: Solver) -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 3_500, "a")])
    plan = solved(solver, given)
    assert begins(plan) == 1
    assert plan.transfers == (
        TransferPlan(
            item="data",
            from_site="a",
            to_site="b",
            mbit_s=100,
            begin=NOW,
            end=NOW + timedelta(microseconds=3_500 * 8_388_608 // 100),
        ),
    )


def test_what_takes_longer_than_to_the_first_start_begins_later(solver: Solver) -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 3_600, "a")])
    assert begins(solved(solver, given)) == 2


def test_without_time_enough_before_the_last_start_there_is_no_plan(solver: Solver) -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 7_200, "a")])
    assert solver(given) is None


def test_the_site_that_has_it_is_taken_though_it_is_dearer_as_it_begins_sooner(
    solver: Solver,
) -> None:
    data = item("data", 3_600, "a")
    given = staged({"a": 4, "b": 4}, {("a", "b"): 100}, [data], prices={"a": 2.0, "b": 1.0})
    plan = solved(solver, given)
    assert (begins(plan), plan.site_names, plan.transfers) == (0, ("a",), ())


def test_who_needs_nothing_is_kept_from_no_site(solver: Solver) -> None:
    data = item("data", 3_600, "a", groups=("head",))
    groups = [group("head", allow_sites=("a",)), group(allow_sites=("b",))]
    given = staged({"a": 4, "b": 4}, {("a", "b"): 100}, [data], groups=groups)
    plan = solved(solver, given)
    assert (begins(plan), plan.transfers) == (0, ())


def test_two_items_over_one_link_take_their_time_together(solver: Solver) -> None:
    items = [item("one", 2_000, "a"), item("two", 2_000, "a")]
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, items)
    plan = solved(solver, given)
    assert begins(plan) == 2
    narrow = staged({"a": 0, "b": 4}, {("a", "b"): 100}, items, starts=(1,))
    assert solver(narrow) is None


def test_two_items_fit_beside_one_another_where_each_has_its_link(solver: Solver) -> None:
    items = [item("one", 3_500, "a"), item("two", 3_500, "c")]
    links = {("a", "b"): 100, ("b", "c"): 100}
    given = staged({"a": 0, "b": 4, "c": 0}, links, items, starts=(1,))
    plan = solved(solver, given)
    assert [each.begin for each in plan.transfers] == [NOW, NOW]


def test_over_a_link_that_both_need_further_on_they_take_turns(solver: Solver) -> None:
    """Each alone would be there in time, wherever it goes: only together they are not."""
    groups = [group("head"), group()]
    items = [item("one", 2_000, "a", groups=("head",)), item("two", 2_000, "a")]
    links = {("a", "m"): 100, ("m", "b"): 100, ("m", "c"): 100}
    hosts = {"a": 0, "b": 1, "c": 1, "m": 0}
    given = staged(hosts, links, items, groups=groups, forwards=("m",), starts=(1, 2))
    assert begins(solved(solver, given)) == 2


def test_it_comes_once_for_all_who_need_it(solver: Solver) -> None:
    groups = [group("head"), group(fewest=3)]
    data = item("data", 3_500, "a", groups=("head", "worker"))
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [data], groups=groups)
    plan = solved(solver, given)
    assert (begins(plan), len(plan.transfers)) == (1, 1)


def test_who_has_got_it_sends_it_on(solver: Solver) -> None:
    data = item("data", 1_700, "a")
    given = staged(
        {"a": 0, "b": 1, "c": 1},
        {("a", "b"): 100, ("b", "c"): 100},
        [data],
        groups=[group(fewest=2)],
        starts=(1,),
    )
    plan = solved(solver, given)
    first, second = plan.transfers
    assert (first.route, second.route) == (("a", "b"), ("b", "c"))
    assert second.begin == first.end


def test_it_is_sent_on_only_once_it_is_there(solver: Solver) -> None:
    data = item("data", 2_000, "a")
    links = {("a", "b"): 100, ("b", "c"): 100}
    groups = [group(fewest=2)]
    given = staged({"a": 0, "b": 1, "c": 1}, links, [data], groups=groups)
    assert begins(solved(solver, given)) == 2


def test_it_goes_over_a_site_that_forwards_and_over_no_other(solver: Solver) -> None:
    links = {("a", "m"): 100, ("m", "b"): 50}
    hosts, data = {"a": 0, "b": 4, "m": 0}, item("data", 1_700, "a")
    plan = solved(solver, staged(hosts, links, [data], forwards=("m",)))
    assert (begins(plan), ways(plan)) == (1, [("data", ("a", "m", "b"), 50)])
    assert solver(staged(hosts, links, [data])) is None


def test_the_narrower_half_of_a_direction_counts(solver: Solver) -> None:
    room = link(1_000, ingress=100)
    given = staged({"a": 0, "b": 4}, {("a", "b"): room}, [item("data", 3_500, "a")])
    plan = solved(solver, given)
    assert (begins(plan), plan.transfers[0].mbit_s) == (1, 100)


def test_the_other_direction_does_not_count(solver: Solver) -> None:
    """What b sends and what a takes is nothing to what a sends to b."""
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 3_500, "a")])
    sites = []
    for site in given.sites:
        half: dict[str, Any] = {"egress_mbit_s" if site.name == "b" else "ingress_mbit_s": 0}
        before = tuple(
            {peer: replace(room, **half) for peer, room in span.items()} for span in site.before
        )
        sites.append(replace(site, before=before))
    assert begins(solved(solver, replace(given, sites=tuple(sites)))) == 1


def test_one_rate_has_to_fit_all_spans_that_it_is_sent_in(solver: Solver) -> None:
    """10 and then 100 Mbit/s: sooner at 100 from the second span on than at 10 from the first."""
    spans = [{("a", "b"): mbit_s} for mbit_s in (10, 100, 100)]
    given = staged({"a": 0, "b": 4}, spans, [item("data", 3_500, "a")], starts=(1, 2, 3))
    plan = solved(solver, given)
    assert begins(plan) == 2
    assert (plan.transfers[0].begin, plan.transfers[0].mbit_s) == (NOW + SPAN, 100)


def test_a_link_that_is_full_meanwhile_is_not_gone_over_meanwhile(solver: Solver) -> None:
    spans = [{("a", "b"): mbit_s} for mbit_s in (100, 0, 100)]
    given = staged({"a": 0, "b": 4}, spans, [item("data", 3_600, "a")], starts=(1, 2, 3))
    assert solver(given) is None


def test_the_cheaper_way_is_taken_if_it_is_in_time_and_else_the_quicker_one(
    solver: Solver,
) -> None:
    links = {("a", "b"): 1_000, ("b", "c"): 50}
    prices = {"a": 5.0, "b": 1.0, "c": 1.0}
    hosts = {"a": 0, "b": 4, "c": 0}
    near = staged(hosts, links, [item("data", 1_700, "a", "c")], starts=(1,), prices=prices)
    assert ways(solved(solver, near)) == [("data", ("c", "b"), 50)]
    large = staged(hosts, links, [item("data", 1_800, "a", "c")], starts=(1,), prices=prices)
    assert ways(solved(solver, large)) == [("data", ("a", "b"), 1_000)]


def test_of_sites_that_begin_alike_the_one_to_which_it_is_cheapest_sent(solver: Solver) -> None:
    """b and c ask the same for a vCPU, but what c lacks comes over two links."""
    links = {("a", "b"): 1_000, ("b", "c"): 1_000}
    given = staged(
        {"a": 0, "b": 1, "c": 1},
        links,
        [item("data", 3_000, "a")],
        forwards=("b",),
        starts=(1,),
        prices={"a": 1.0, "b": 1.0, "c": 1.0},
    )
    plan = solved(solver, given)
    assert [each.site for each in plan.sites if each.counts] == ["b"]
    hours = 3_000 * 8_388_608 / 1e6 / 3600
    assert plan.transfers[0].cost == pytest.approx(hours * 0.02)
    assert plan.cost == pytest.approx(1.0 + hours * 0.02)


def test_what_needs_nothing_may_begin_before_anything_can_be_sent(solver: Solver) -> None:
    """A bug: nothing could be had in a window before the first moment of a transfer."""
    given = staged({"a": 4, "b": 4}, {("a", "b"): 1_000}, [item("data", 3_000, "a")], starts=(-1,))
    plan = solved(solver, given)
    assert [each.site for each in plan.sites if each.counts] == ["a"]
    assert plan.transfers == ()


def test_an_image_is_brought_to_sites_that_lack_it(solver: Solver) -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [])
    without = tuple(
        replace(each, images=IMAGES if site.name == "a" else {})
        for site in given.sites
        for each in site.offers[:1]
    )
    sites = tuple(
        replace(site, offers=(each,) * 3) for site, each in zip(given.sites, without, strict=True)
    )
    given = replace(given, sites=sites)
    assert solver(given) is None
    brought = with_image_brought(given, "guest", item("guest", 3_500, "a"))
    plan = solved(solver, brought)
    assert (begins(plan), ways(plan)) == (1, [("guest", ("a", "b"), 100)])


def test_a_site_that_only_has_what_others_need_is_not_left_out() -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 1, "a")])
    barred = [group(deny_sites=("a",))]
    given = replace(given, groups=tuple(barred))
    assert [site.name for site in without_useless_sites(given).sites] == ["a", "b"]


def test_where_nothing_is_said_of_the_time_before_nothing_is_brought(solver: Solver) -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 1, "a")])
    sites = tuple(replace(site, before=()) for site in given.sites)
    assert solver(replace(given, sites=sites, spans=())) is None


def test_more_are_placed_later_before_fewer_are_sooner(solver: Solver) -> None:
    """Two at a, that has it, or three with b: most workspaces come before the earliest start."""
    given = staged(
        {"a": 2, "b": 1},
        {("a", "b"): 100},
        [item("data", 3_500, "a")],
        groups=[group(fewest=1, most=3)],
    )
    plan = solved(solver, given)
    assert (plan.count("worker"), begins(plan)) == (3, 1)


def test_the_best_plan_of_a_small_model_is_called_so_and_has_its_bound() -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 3_500, "a")])
    plan = solved(best_plan, given)
    assert model_size(given) <= EASY_MODEL
    assert (plan.optimal, plan.gap) == (True, 0.0)


def test_any_plan_has_its_transfers() -> None:
    given = staged({"a": 0, "b": 4}, {("a", "b"): 100}, [item("data", 3_500, "a")], starts=(1,))
    plan, known, _ = any_plan(given, effort=1.0)
    assert plan is not None
    assert known
    assert check(given, plan) == ()


def test_a_start_at_which_it_can_be_nowhere_is_not_tried_place_by_place() -> None:
    """Of more sites than there are tries."""
    hosts = {"a": 0} | dict.fromkeys("bcdefghijkl", 1)
    links = {("a", name): 100 for name in "bcdefghijkl"}
    given = staged(hosts, links, [item("data", 3_600, "a")])
    assert begins(solved(solve, given)) == 2


def dear_from_a() -> Problem:
    """For two sites, and next to nothing between these: once it comes from a."""
    return staged(
        {"a": 0, "b": 1, "c": 1},
        {("a", "b"): 1_000, ("a", "c"): 1_000, ("b", "c"): 1_000},
        [item("data", 3_000, "a")],
        groups=[group(fewest=2)],
        starts=(1,),
        prices={"a": 9.0, "b": 0.1, "c": 0.1},
    )


def test_no_two_send_one_another_what_neither_had(solver: Solver) -> None:
    plan = solved(solver, dear_from_a())
    assert [each.route for each in plan.transfers] == [("a", "b"), ("b", "c")]


def test_a_bound_counts_that_it_comes_from_who_has_it() -> None:
    assert solved(solve, dear_from_a()).optimal


def test_of_the_ways_that_are_in_time_the_cheapest_is_taken(solver: Solver) -> None:
    """Over c it is cheapest and too slow, over d in time, and from a at once and dear."""
    links = {("a", "b"): 1_000, ("e", "c"): 10, ("c", "b"): 10, ("e", "d"): 100, ("d", "b"): 100}
    given = staged(
        {"a": 0, "b": 1, "c": 0, "d": 0, "e": 0},
        links,
        [item("data", 3_000, "a", "e")],
        starts=(1,),
        forwards=("c", "d"),
        prices={"a": 90.0, "b": 1.0, "c": 1.0, "d": 2.0, "e": 1.0},
    )
    assert ways(solved(solver, given)) == [("data", ("e", "d", "b"), 100)]


def test_of_ways_that_are_in_time_for_a_while_the_cheapest_is_taken(solver: Solver) -> None:
    """The links over d have room in the first span alone."""
    while_free: Links = {("a", "b"): 1_000, ("e", "d"): 100, ("d", "b"): 100}
    after: Links = {("a", "b"): 1_000, ("e", "d"): 1, ("d", "b"): 1}
    given = staged(
        {"a": 0, "b": 1, "d": 0, "e": 0},
        [while_free, after, after],
        [item("data", 3_000, "a", "e"), item("more", 3_000, "a", "e")],
        starts=(2,),
        forwards=("d",),
        prices={"a": 90.0, "b": 1.0, "d": 2.0, "e": 1.0},
    )
    plan = solved(solver, given)
    assert sorted(each.route for each in plan.transfers) == [("a", "b"), ("e", "d", "b")]


def test_where_the_cheapest_way_is_taken_the_next_cheapest_is_gone(solver: Solver) -> None:
    """There are three from e to b: over d, over c, and their own link, which is the widest."""
    links = {
        ("e", "d"): 100,
        ("d", "b"): 100,
        ("e", "c"): 100,
        ("c", "b"): 100,
        ("a", "b"): 1_000,
    }
    given = staged(
        {"a": 0, "b": 1, "c": 0, "d": 0, "e": 0},
        links,
        [item("data", 3_000, "a", "e"), item("more", 3_000, "a", "e")],
        starts=(1,),
        forwards=("c", "d"),
        prices={"a": 90.0, "b": 1.0, "c": 3.0, "d": 2.0, "e": 1.0},
    )
    plan = solved(solver, given)
    assert sorted(each.route for each in plan.transfers) == [("e", "c", "b"), ("e", "d", "b")]


def test_fewer_sites_come_before_less_to_pay_for_transfers(solver: Solver) -> None:
    """All at a, with what is brought there, and not half of it at b, that has it."""
    data = item("data", 3_500, "b")
    given = staged(
        {"a": 2, "b": 1},
        {("a", "b"): 100},
        [data],
        groups=[group("head"), group()],
        starts=(1,),
        prices={"a": 0.0, "b": 900.0},
    )
    free = tuple(
        replace(
            site, offers=tuple(replace(o, rates=Rates(link_mbit_s_hour=9.0)) for o in site.offers)
        )
        for site in given.sites
    )
    plan = solved(solver, replace(given, sites=free))
    assert (plan.site_names, len(plan.transfers)) == (("a",), 1)


def test_no_plan_of_fewer_than_there_may_be_is_called_the_best_for_a_bound_of_more() -> None:
    """The model counts pairs with nine of them. By that, b is the best, as if both items could be
    had from c in time; they cannot, and what one costs from a instead is more than d costs."""
    hosts = {"a": 0, "b": 1, "c": 0, "d": 1}
    links = {("a", "b"): 1_000, ("c", "b"): 100, ("a", "d"): 1_000}
    given = staged(
        hosts,
        links,
        [item("data", 3_000, "a", "c"), item("more", 3_000, "a", "c")],
        groups=[group(fewest=1, most=9)],
        starts=(1,),
    )
    link_prices = {"a": 1.0, "b": 0.5, "c": 0.0, "d": 0.0}
    sites = tuple(
        replace(
            site,
            offers=tuple(
                replace(
                    each,
                    rates=Rates(
                        vcpu_hour=2.0 if site.name == "b" else 0.0,
                        link_mbit_s_hour=link_prices[site.name],
                        pair_mbit_s_hour=100.0,
                    ),
                )
                for each in site.offers
            ),
        )
        for site in given.sites
    )
    given = replace(given, sites=sites, promises=(promise("worker", "worker", 1),))
    plan = solved(solve, given)
    barred = replace(given, groups=(replace(given.groups[0], deny_sites=plan.site_names),))
    other = solved(solve, barred)
    assert (plan.count("worker"), plan.site_names) == (1, ("b",))
    assert other.cost < plan.cost
    assert not plan.optimal
    assert plan.bound is None or plan.bound <= other.cost
