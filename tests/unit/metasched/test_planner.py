"""The planner beyond the model: what is too large for it, and what it begins with."""

from collections.abc import Sequence

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.values import replace
from intertie.metasched.domain import construct
from intertie.metasched.domain.board import Board, Piece
from intertie.metasched.domain.candidates import without_useless_sites
from intertie.metasched.domain.construct import MOST_PIECES, MOST_SINGLES, constructed
from intertie.metasched.domain.plan import check
from intertie.metasched.domain.planner import (
    EASY_MODEL,
    LARGEST_MODEL,
    LARGEST_UNPLANNED,
    best_plan,
    check_size,
    model_size,
)
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    apart,
    chained,
    forwarding,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    room,
)


def ring(sites: int, *, vcpus: int = 2, mbit_s: int = 20) -> Problem:
    """Six pairs of which each promises 10, at sites of a ring that all forward, all apart."""
    names = [f"s{at:02}" for at in range(sites)]
    links = {(names[at], names[(at + 1) % sites]): link(mbit_s) for at in range(sites)}
    groups = [group(name, vcpus=2) for name in "uvwxyz"]
    pairs = tuple(promise(one, two, 10) for one, two in ("uv", "vw", "wx", "xy", "yz", "uz"))
    offers = chained(links, {name: offer(vcpus) for name in names})
    affinities = (apart(*"uvwxyz"),)
    return forwarding(problem(groups, offers, promises=pairs, affinities=affinities), *names)


def test_what_is_too_large_for_the_model_has_a_plan_all_the_same() -> None:
    """u to z beside one another, and 10 from u to z all the way back: 5 + 5 links."""
    given = ring(40)
    assert model_size(given) > LARGEST_UNPLANNED
    plan = best_plan(given, effort=0.5)
    assert plan is not None
    assert check(given, plan) == ()
    sent = [each for each in plan.links if each.mbit_s and each.from_site < each.to_site]
    assert sum(len(each.route) - 1 for each in sent) == 10
    assert best_plan(given, effort=0.5) == plan


def test_what_never_fits_has_no_plan_however_large() -> None:
    assert best_plan(ring(40, vcpus=1), effort=0.5) is None
    assert best_plan(ring(40, mbit_s=9), effort=0.1) is None


def test_a_hint_changes_nothing_of_how_good_a_plan_is() -> None:
    given = ring(7)
    assert model_size(given) <= LARGEST_MODEL
    begun = constructed(given, steps=400)
    assert begun is not None
    assert begun.search.best is not None
    hint = begun.search.board.plan(begun.search.best, optimal=False, bound=None)
    with_it, without = solve(given, hint=hint), solve(given)
    assert with_it is not None
    assert without is not None
    assert with_it.optimal
    assert (with_it.cost, len(with_it.links)) == (without.cost, len(without.links))


def test_sites_that_can_have_nothing_are_left_out_unless_they_forward() -> None:
    offers = chained({("a", "b"): link(), ("b", "c"): link()}, {n: offer(4) for n in "abc"})
    only_a = problem([group(allow_sites=("a",))], offers)
    assert [site.name for site in without_useless_sites(only_a).sites] == ["a"]
    assert [s.name for s in without_useless_sites(forwarding(only_a, "b")).sites] == ["a", "b"]
    standing = replace(only_a, standing={("worker", "c"): 1})
    assert [site.name for site in without_useless_sites(standing).sites] == ["a", "c"]


def test_more_groups_than_can_be_searched_are_left_to_the_model() -> None:
    many = [group(f"g{at}", networks=()) for at in range(MOST_SINGLES + 1)]
    large = room(MOST_SINGLES + 1, memory_mib=1 << 20, disk_mib=1 << 20)
    given = problem(many, {"a": offer(large)})
    assert constructed(given, steps=100) is None
    assert best_plan(given) is not None


def test_too_many_groups_to_be_planned_are_told_as_that_and_not_as_short_of_room() -> None:
    """What nobody looks for is not known to have no room."""
    large = room(999, memory_mib=1 << 20, disk_mib=1 << 20)
    sites = {"a": offer(large, large), "b": offer(large, large)}
    searched = [group(f"g{at}", fewest=2) for at in range(MOST_SINGLES - MOST_PIECES)]
    check_size(problem(searched, sites))
    many = [group(f"g{at}") for at in range(MOST_SINGLES + 1)]
    check_size(problem(many, {"a": offer(large)}))
    with pytest.raises(FieldInvalid, match=r"spec\.groups.*has 257 groups.*up to 192"):
        check_size(problem(many, sites))


def test_effort_is_spent_where_nothing_can_be_tried_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No host has room for one of them: each window that is looked at costs 80 steps, and is looked
    at once, as no two of them are in one piece."""
    begun: list[int] = []

    class Counted(Board):
        def __init__(self, problem: Problem, slot: int, pieces: Sequence[Piece]) -> None:
            begun.append(slot)
            super().__init__(problem, slot, pieces)

    monkeypatch.setattr(construct, "Board", Counted)
    many = [group(f"g{at}", vcpus=3) for at in range(80)]
    given = problem(many, {"a": [offer(*[2] * 200)] * 20})
    assert constructed(given, steps=400) is None
    assert begun == [0, 1, 2, 3, 4]


def test_two_that_need_one_host_are_seen_to_be_cheaper_there() -> None:
    """No uplink at a has room for what the two promise one another, which takes none of one host:
    one after another they do not fit there."""
    narrow, wide = [room(2, uplink_mbit_s=9)] * 60, [room(2, uplink_mbit_s=10)] * 60
    sites = {"a": offer(*narrow, price=1), "b": offer(*wide, price=2)}
    given = problem([group("u"), group("v")], sites, promises=(promise("u", "v", 10),))
    assert EASY_MODEL < model_size(given) <= LARGEST_MODEL
    plan = best_plan(given)
    assert plan is not None
    assert plan.optimal
    assert plan.site_names == ("a",)


def test_what_stands_is_left_to_the_model() -> None:
    given = problem([group(fewest=2)], {"a": offer(4)})
    assert constructed(given, steps=100) is not None
    standing = replace(given, standing={("worker", "a"): 1})
    assert constructed(standing, steps=100) is None
    plan = best_plan(standing)
    assert plan is not None
    assert sum(host["worker"] for host in plan.sites[0].packing) == 1


def test_less_cost_comes_before_fewer_sites_where_the_problem_says_so() -> None:
    """Of a search as of a model: two cheap sites instead of one that holds both."""
    for count in (3, 120):
        names = [f"s{at:03}" for at in range(count)]
        offers = {name: offer(2, price=9.0) for name in names}
        offers |= {names[0]: offer(1, price=1.0), names[1]: offer(1, price=1.0)}
        given = problem([group(fewest=2)], linked(offers, link()))
        assert (model_size(given) > LARGEST_UNPLANNED) == (count == 120)
        fewest, cheapest = (
            best_plan(replace(given, fewest_sites=first), effort=0.5) for first in (True, False)
        )
        assert fewest is not None
        assert cheapest is not None
        assert (len(fewest.site_names), fewest.cost) == (1, 18.0)
        assert (cheapest.site_names, cheapest.cost) == (("s000", "s001"), 2.0)


def test_of_plans_that_cost_the_same_the_one_at_fewer_sites_is_the_best() -> None:
    """Where less cost comes first too. A search finds one at a and five at b, which is less than
    six at b by what floats are rounded."""
    one, two = [room(1)] + [room(0)] * 59, [room(1)] * 6 + [room(0)] * 54
    sites = {"a": offer(*one, price=0.1), "b": offer(*two, price=0.1)}
    given = problem([group("u", 6)], linked(sites, link()), fewest_sites=False)
    assert EASY_MODEL < model_size(given) <= LARGEST_MODEL
    plan = best_plan(given)
    assert plan is not None
    assert (plan.site_names, plan.optimal) == (("b",), True)
