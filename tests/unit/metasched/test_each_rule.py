"""Without any one rule of the model it gives a plan that its check refuses, or a worse one: one
small problem a rule, solved with the rule and without it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.metasched.domain import model
from intertie.metasched.domain.budget_rules import BUDGET_RULES
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.problem import Cut, ImageFound, LatencyLimit, Problem
from intertie.metasched.domain.route_rules import ROUTE_RULES
from intertie.metasched.domain.solver import solve
from intertie.metasched.domain.staging_rules import STAGING_RULES
from tests.unit.metasched.problems import (
    NOW,
    OTHER_DIGEST,
    apart,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    room,
    together,
)
from tests.unit.metasched.staging import item, staged

RULES = (*model._RULES, *ROUTE_RULES, *STAGING_RULES, *BUDGET_RULES)
ONE_EACH = linked({"a": offer(1), "b": offer(1)}, link(10, ms=5))
OTHERS = {"guest": ImageFound(digest=OTHER_DIGEST, virtual_mib=64)}
TOO_WIDE = problem([group(fewest=2)], ONE_EACH, promises=(promise("worker", "worker", 20),))
NEAR = LatencyLimit(a="x", b="y", network="lan", most=timedelta(milliseconds=2))
ONE_OF_EACH = (group("x"), group("y"))
DEAR_TO_BRING = staged(
    {"a": 1, "b": 1},
    {("a", "b"): 100},
    [item("data", 5000, "a")],
    prices={"a": 1.0, "b": 0.9},
    starts=(2,),
)
"""At a an hour costs 1.0; at b 0.9, and 0.22 to bring it there."""
LATE = staged(
    {"a": 0, "b": 1}, [{("a", "b"): 10}] * 12, [item("data", 3500, "a")], starts=range(12)
)
"""49 minutes at 10 Mbit/s: it begins at the eleventh start."""

BREAKS: dict[str, Problem] = {
    "_start_at_one_candidate": problem([group(fewest=2)], {"a": [offer(1), offer(1)]}),
    "_place_every_workspace_once": problem([group(fewest=3)], {"a": offer(1)}),
    "_stay_where_it_can_run": problem([group(allow_sites=("z",))], {"a": offer(9)}),
    "_suit_architecture_and_hypervisor": problem(
        [group(fewest=2, hypervisor="kvm")],
        {"a": offer(room(1, hypervisors=frozenset({"kvm"})), 9)},
    ),
    "_never_overfill_a_host": problem([group(fewest=3)], {"a": offer(2)}),
    "_keep_to_bounds": problem([group(fewest=3, max_per_site=2)], {"a": offer(9)}),
    "_keep_together": problem(ONE_OF_EACH, ONE_EACH, affinities=(together("x", "y"),)),
    "_keep_apart": problem(ONE_OF_EACH, {"a": offer(9)}, affinities=(apart("x", "y"),)),
    "_run_one_image_in_a_group": problem(
        [group(fewest=2)], linked({"a": offer(1), "b": offer(1, images=OTHERS)}, link())
    ),
    "_leave_out_what_was_refused": problem(
        [group()], {"a": offer(9)}, cuts=(Cut(start=NOW, counts={("worker", "a"): 1}),)
    ),
    "_take_one_route": TOO_WIDE,
    "_reach_sites_that_share_a_network": problem([group(fewest=2)], {"a": offer(1), "b": offer(1)}),
    "_send_what_is_promised": TOO_WIDE,
    "_never_overfill_a_link": TOO_WIDE,
    "_keep_latency_bounds": problem(ONE_OF_EACH, ONE_EACH, limits=(NEAR,)),
    "_be_there_in_time": LATE,
    "_bring_what_is_needed": DEAR_TO_BRING,
    "_bring_it_from_who_has_it": DEAR_TO_BRING,
    "_keep_to_the_budget": problem([group(fewest=2)], {"a": offer(9, price=3.0)}, max_cost=5.9),
}


def test_no_rule_is_left_out() -> None:
    assert list(BREAKS) == [rule.__name__ for rule in RULES]
    assert all(rule.__doc__ for rule in RULES)


def is_right(given: Problem, plan: Plan | None, best: Plan | None) -> bool:
    if plan is None or best is None:
        return plan is best
    late, cost = plan.window.start > best.window.start, plan.cost > best.cost
    return check(given, plan) == () and not late and not cost


@pytest.mark.parametrize("name", BREAKS)
def test_without_the_rule_it_goes_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = BREAKS[name]
    best = solve(given)
    assert best is None or check(given, best) == ()
    for kind in ("_RULES", "ROUTE_RULES", "STAGING_RULES", "BUDGET_RULES"):
        rest = [rule for rule in getattr(model, kind) if rule.__name__ != name]
        monkeypatch.setattr(model, kind, rest)
    assert not is_right(given, solve(given), best)
