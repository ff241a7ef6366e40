"""Groups at one site and at different sites, on problems solved by hand: in the model, in the
search, in what is said of a plan, and in what is said where there is none."""

from __future__ import annotations

import pytest

from intertie.common import spec
from intertie.common.explanation import CounterOffer
from intertie.common.spec import AffinityKind, ClusterSpec, Placement
from intertie.common.values import replace
from intertie.metasched.domain.construct import constructed
from intertie.metasched.domain.explain import explained
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import LARGEST_MODEL, best_plan, model_size
from intertie.metasched.domain.problem import Affinity, Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    apart,
    forwarding,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    together,
)
from tests.unit.metasched.test_conflicts import alone
from tests.unit.metasched.test_counter_offers import TWO, offered, workers

AFFINITY = "spec.placement.affinities[0]"


def counts(plan: Plan | None) -> dict[str, dict[str, int]]:
    assert plan is not None
    return {each.site: dict(each.counts) for each in plan.sites if each.counts}


def searched(given: Problem) -> Plan | None:
    begun = constructed(given, steps=500)
    if begun is None:
        return None
    assert begun.search.best is not None
    return begun.search.board.plan(begun.search.best, optimal=False, bound=None)


def of_two(*affinities: Affinity) -> Problem:
    """Two x and two y; a has room for three, b for two, and c, which is dear, for all."""
    sites = {"a": offer(3, price=1.0), "b": offer(2, price=1.0), "c": offer(4, price=9.0)}
    groups = [group("x", fewest=2), group("y", fewest=2)]
    given = problem(groups, linked(sites, link()), affinities=affinities)
    return replace(given, fewest_sites=False)


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_together_is_at_one_site_though_two_are_cheaper(found: object) -> None:
    assert callable(found)
    cheap = found(of_two())
    assert cheap.cost == 4.0
    whole = found(given := of_two(together("x", "y")))
    assert counts(whole) == {"c": {"x": 2, "y": 2}}
    assert check(given, whole) == ()


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_one_group_together_is_not_divided(found: object) -> None:
    assert callable(found)
    plan = found(given := of_two(together("x"), together("y")))
    assert sorted(counts(plan).items()) in (
        [("a", {"x": 2}), ("b", {"y": 2})],
        [("a", {"y": 2}), ("b", {"x": 2})],
    )
    assert check(given, plan) == ()


@pytest.mark.parametrize("found", [solve, searched, best_plan])
def test_apart_has_no_site_in_common_though_one_would_do(found: object) -> None:
    assert callable(found)
    sites = linked({"a": offer(9), "b": offer(9)}, link())
    groups = [group("x", fewest=2), group("y", fewest=2)]
    assert len(counts(found(problem(groups, sites)))) == 1
    plan = found(given := problem(groups, sites, affinities=(apart("x", "y"),)))
    assert sorted(map(tuple, counts(plan).values())) == [("x",), ("y",)]
    assert check(given, plan) == ()


@pytest.mark.parametrize("found", [solve, searched])
def test_together_and_apart_at_once(found: object) -> None:
    """x with y, and both apart from z: two sites, of which only b has room for two groups."""
    assert callable(found)
    sites = linked({"a": offer(2), "b": offer(4)}, link())
    groups = [group(name, fewest=2) for name in "xyz"]
    said = (together("x", "y"), apart("x", "z"))
    plan = found(given := problem(groups, sites, affinities=said))
    assert counts(plan) == {"a": {"z": 2}, "b": {"x": 2, "y": 2}}
    assert check(given, plan) == ()
    assert found(problem(groups, sites, affinities=(*said, apart("x", "y")))) is None


def test_what_nothing_is_promised_to_is_kept_together_by_the_search_too() -> None:
    """On 40 sites, more than the model is solved for; each has room for three of the four, but one:
    what stands together goes there, and what it has nothing to do with does not go before it."""
    sites = {f"s{at:02}": offer(3, price=1.0) for at in range(40)} | {"s23": offer(4, price=5.0)}
    groups = [group("u", networks=()), group("v", networks=())]
    groups += [group(name, fewest=2, networks=()) for name in "xy"]
    given = problem(
        groups,
        linked(sites, link()),
        promises=(promise("u", "v", 10),),
        affinities=(together("y", "x"),),
    )
    assert model_size(given) > LARGEST_MODEL // 2
    plan = searched(given)
    assert counts(plan)["s23"] == {"x": 2, "y": 2}
    assert plan is not None
    assert check(given, plan) == ()


def test_a_plan_says_what_was_asked_of_its_sites() -> None:
    given = of_two(together("x", "y"))
    plan = best_plan(given)
    assert plan is not None
    reasons = explained(given, plan).reasons
    assert any("x and y at one site, as asked" in each for each in reasons)


def test_what_cannot_be_together_is_named_with_what_divides_it() -> None:
    sites = linked({"a": offer(3), "b": offer(3)}, link())
    both = [group("x", fewest=2), group("y", fewest=2)]
    said = (together("x", "y", field=AFFINITY),)
    counts_of = ("spec.groups[0].count", "spec.groups[1].count")
    alone(problem(both, sites, affinities=said), AFFINITY, *counts_of)


def test_what_cannot_be_apart_is_named_with_what_keeps_it_at_one_site() -> None:
    sites = linked({"a": offer(9), "b": offer(9)}, link())
    both = [group("x", deny_sites=("b",)), group("y", deny_sites=("b",))]
    said = (apart("x", "y", field=AFFINITY),)
    denied = [f"spec.groups[{at}].placement.deny_sites" for at in (0, 1)]
    alone(problem(both, sites, affinities=said), AFFINITY, *denied)
    third = forwarding(problem(both, sites, affinities=said, max_sites=1), "a")
    assert solve(third) is None


def related(kind: AffinityKind, *names: str) -> ClusterSpec:
    """Of each group two workers of 3 vCPUs."""
    one = workers(2, vcpus=3).groups[0]
    groups = tuple(replace(one, name=name) for name in names)
    affinity = spec.Affinity(groups=names, kind=kind)
    return replace(workers(), groups=groups, placement=Placement(affinities=(affinity,)))


def told(offers: tuple[CounterOffer, ...]) -> dict[str, list[str]]:
    found = {each.message: each.changes for each in offers}
    return {
        message: [each.value for each in changes]
        for message, changes in found.items()
        if changes[0].field == "spec.placement.affinities"
    }


def test_a_counter_offer_leaves_as_few_groups_out_as_is_enough() -> None:
    """Three x two of 3 vCPUs, at a, which has 4 + 4, and b, which has 4."""
    sites = linked({"a": offer(4, 4), "b": offer(4)}, link())
    asked = related(AffinityKind.TOGETHER, "x", "y")
    pair = replace(asked.groups[1], count=1)
    asked = replace(asked, groups=(asked.groups[0], pair))
    assert told(offered(asked, sites)) == {
        "y at one site instead of x and y": ['[{"groups": ["y"], "kind": "TOGETHER"}]']
    }
    three = related(AffinityKind.APART, "x", "y", "z")
    three = replace(three, groups=tuple(replace(each, count=1) for each in three.groups))
    assert told(offered(three, TWO)) == {
        "y and z at different sites instead of x and y and z": [
            '[{"groups": ["y", "z"], "kind": "APART"}]'
        ]
    }


def test_where_no_fewer_groups_would_do_all_of_it_is_to_be_given_up() -> None:
    one = {"a": offer(4, 4)}
    asked = related(AffinityKind.APART, "x", "y")
    asked = replace(asked, groups=tuple(replace(each, count=1) for each in asked.groups))
    message = "x and y at any sites instead of at different sites"
    assert told(offered(asked, one)) == {message: ["[]"]}
