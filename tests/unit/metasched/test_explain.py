"""Why a plan is as it is, and what was short where there is none."""

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.values import replace
from intertie.metasched.domain import explain
from intertie.metasched.domain.explain import explained, shortfalls
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.planner import LARGEST_UNPLANNED, model_size
from intertie.metasched.domain.problem import LatencyLimit, Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    IMAGES,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    room,
)


def plan_of(given: Problem) -> Plan:
    plan = solve(given)
    assert plan is not None
    return explained(given, plan)


def told(given: Problem) -> dict[tuple[str, str], tuple[int, int]]:
    """Wanted and available, by site and resource."""
    assert solve(given) is None
    return {(each.site, each.resource): (each.wanted, each.available) for each in shortfalls(given)}


def test_a_division_says_what_the_first_site_had_left() -> None:
    given = problem([group(fewest=3, vcpus=2)], linked({"a": offer(3), "b": offer(4)}, link()))
    reasons = plan_of(given).reasons
    assert any(
        "b takes 2 worker: a has 1 vCPU left, one worker needs 2" in each for each in reasons
    )


def test_a_site_that_is_not_used_has_a_reason() -> None:
    given = problem([group()], {"a": offer(1), "b": offer(1, images={}), "c": offer(0)})
    reasons = " / ".join(plan_of(given).reasons)
    assert "b is not used: b has no image guest" in reasons
    assert "c is not used: alone it has 0 of 1 vCPU" in reasons


def test_the_dearer_site_is_not_used_because_it_is_dearer() -> None:
    given = problem([group()], {"a": offer(1, price=1), "b": offer(1, price=2)})
    assert any("b is not used: it would cost 2, not 1" in each for each in plan_of(given).reasons)


def test_no_model_is_solved_to_say_why_each_of_many_sites_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: with 100 sites, that took thirteen times as long as to plan."""
    sites = {f"s{at:02}": offer(3, price=at + 1) for at in range(9)}
    given = problem([group(fewest=3)], sites)
    plan = plan_of(given)
    monkeypatch.setattr(explain, "solve", None)
    reasons = explained(given, plan).reasons
    assert "s08 is not used: it would cost 27, not 3" in reasons


def test_fewer_than_the_most_are_explained() -> None:
    plan = plan_of(problem([group(fewest=1, most=9)], {"a": offer(2)}))
    assert [(each.resource, each.wanted, each.available) for each in plan.shortfalls] == [
        ("vcpus", 1, 0)
    ]
    assert plan.reasons[0] == "2 worker instead of 9, as 1 or more will do"
    whole = plan_of(problem([group(fewest=1, most=9)], {"a": offer(9)}))
    assert not any("instead of" in each for each in whole.reasons)


def test_fewer_than_the_most_for_want_of_a_link_are_explained() -> None:
    sites = linked({"a": offer(1), "b": offer(9)}, link(25))
    given = problem(
        [group("head", allow_sites=("a",)), group(fewest=1, most=9, allow_sites=("b",))],
        sites,
        promises=(promise("worker", "head", 10),),
    )
    plan = plan_of(given)
    assert plan.count("worker") == 2
    assert ("link_egress", 30, 25) in {
        (each.resource, each.wanted, each.available) for each in plan.shortfalls
    }


def test_each_site_alone_and_all_together_say_how_much_is_short() -> None:
    given = problem([group(fewest=9)], linked({"a": offer(3, 3), "b": offer(2)}, link()))
    assert told(given) == {
        ("a", "vcpus"): (9, 6),
        ("b", "vcpus"): (9, 2),
        ("", "vcpus"): (9, 8),
    }


def test_room_that_does_not_pack_is_told_as_hosts() -> None:
    given = problem([group(fewest=2, vcpus=2)], {"a": offer(3, 1)})
    assert told(given) == {("a", "hosts"): (2, 1)}


def test_uplinks_that_are_too_narrow_are_told_as_that() -> None:
    host = room(1, uplink_mbit_s=10)
    given = problem(
        [group(fewest=2)], {"a": offer(host, host)}, promises=(promise("worker", "worker", 11),)
    )
    assert told(given)["a", "uplink"][1] == 10


def test_a_link_is_short_by_the_least_that_would_do() -> None:
    sites = linked({"a": offer(2), "b": offer(2)}, link(15))
    given = problem([group(fewest=3)], sites, promises=(promise("worker", "worker", 10),))
    short = told(given)
    assert short["a", "link_egress"] == short["b", "link_ingress"] == (20, 15)


def test_latency_is_told_with_both_spans() -> None:
    limit = LatencyLimit(a="head", b="worker", network="lan", most=timedelta(milliseconds=2))
    groups = [group("head", allow_sites=("a",)), group(allow_sites=("b",))]
    given = problem(groups, linked({"a": offer(1), "b": offer(1)}, link(ms=5)), limits=(limit,))
    assert told(given) == {("a", "latency"): (2000, 5000)}


def test_a_site_that_is_not_known_is_told() -> None:
    assert ("z", "policy") in told(problem([group(allow_sites=("z",))], {"a": offer(1)}))


def test_where_the_model_is_too_large_it_is_not_solved_to_say_what_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no search has found may be there all the same."""
    sites = linked({f"s{at}": offer(*[room(1)] * 200) for at in range(5)}, link(9))
    given = problem([group(fewest=100)], sites)
    assert model_size(given) > LARGEST_UNPLANNED
    sizes: list[int] = []

    def watched(asked: Problem, **options: Any) -> Plan | None:
        sizes.append(model_size(asked))
        return solve(asked, **options)

    monkeypatch.setattr(explain, "solve", watched)
    [short] = shortfalls(given)
    assert "too many hosts to try them all" in short.message
    assert sizes
    assert max(sizes) <= LARGEST_UNPLANNED


def test_links_are_told_of_where_the_sites_that_count_are_few() -> None:
    """A bug: the model of sites that can have nothing was counted as well, and found too large."""
    names = ["a", "b", *(f"s{at:02}" for at in range(60))]
    sites = {name: offer(2, images=IMAGES if name in "ab" else {}) for name in names}
    groups = [group("head", allow_sites=("a",)), group(allow_sites=("b",))]
    promises = (promise("worker", "head", 10),)
    given = problem(groups, linked(sites, link(9)), promises=promises)
    assert model_size(given) > LARGEST_UNPLANNED
    short = [each for each in shortfalls(given) if each.site in ("a", "b")]
    assert {(each.resource, each.wanted, each.available) for each in short} == {
        ("link_egress", 10, 9),
        ("link_ingress", 10, 9),
    }
    roomy = replace(problem(groups, linked(sites, link()), promises=promises), max_sites=1)
    assert model_size(roomy) > LARGEST_UNPLANNED
    assert not any("too many hosts" in str(each) for each in shortfalls(roomy))
