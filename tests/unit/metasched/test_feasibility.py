"""Whether there is any plan: what is said without the model, and what with it."""

import pytest

from intertie.common.values import replace
from intertie.metasched.domain import feasibility
from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.planner import EASY_MODEL, best_plan, model_size
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.routes import MOST_ROUTES, routes_of
from tests.unit.metasched.problems import (
    chained,
    forwarding,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
)

HEAD, WORKER = group("head", allow_sites=("a",)), group(fewest=3, allow_sites=("z",))
PAIRS = (promise("head", "worker", 30),)


def found(given: Problem) -> bool | None:
    return Feasibility(effort=60, each=5, size=10**9).of(given)


def test_a_site_that_only_forwards_is_part_of_what_is_possible() -> None:
    offers = {"a": offer(9), "b": offer(), "z": offer(9)}
    sites = chained({("a", "b"): link(90), ("b", "z"): link(90)}, offers)
    given = problem([HEAD, WORKER], sites, promises=PAIRS)
    assert found(forwarding(given, "b")) is True
    assert found(given) is False
    narrow = chained({("a", "b"): link(90), ("b", "z"): link(89)}, offers)
    assert found(forwarding(problem([HEAD, WORKER], narrow, promises=PAIRS), "b")) is False


def test_less_than_all_take_together_is_seen_without_the_model() -> None:
    """Nine of 2 vCPU on eight hosts of two: each group alone has its places."""
    sites = linked({"a": offer(*[2] * 4), "b": offer(*[2] * 4)}, link())
    given = problem([group(f"g{at}", vcpus=2) for at in range(9)], sites)
    asks_nobody = Feasibility(effort=0, each=5, size=10**9)
    assert asks_nobody.of(given) is False
    less = replace(given, groups=tuple(replace(g, at_most={"vcpus": 1}) for g in given.groups))
    assert asks_nobody.of(less) is None
    assert found(less) is True


def test_where_the_model_would_be_long_in_solving_a_search_is_tried_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sites = linked({"a": offer(*[2] * 40), "b": offer(*[2] * 40)}, link())
    given = problem([group(f"g{at}", vcpus=2) for at in range(9)], sites)
    assert model_size(given) > EASY_MODEL
    monkeypatch.setattr(feasibility, "any_plan", None)
    assert found(given) is True


def test_what_no_known_route_carries_may_go_by_one_that_is_left_out() -> None:
    """By eight of two links none does, by one of three it does."""
    between = [f"m{at}" for at in range(MOST_ROUTES)]
    links = {(one, name): link(10) for name in between for one in ("a", "z")}
    links |= {("a", "n0"): link(90), ("n0", "n1"): link(90), ("n1", "z"): link(90)}
    empty = {name: offer() for name in (*between, "n0", "n1")}
    sites = chained(links, {"a": offer(9), "z": offer(9), **empty})
    given = forwarding(problem([HEAD, WORKER], sites, promises=PAIRS), *empty)
    assert not routes_of(given).complete
    assert best_plan(given) is not None
    assert found(given) is not False
