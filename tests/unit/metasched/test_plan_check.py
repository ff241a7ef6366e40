"""The check that a plan goes through before anything is held: every broken rule is found."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.problem import Cut, LatencyLimit, Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    OTHER_DIGEST,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    window,
)

GIVEN = problem(
    [group("head", allow_sites=("a",)), group(fewest=3, max_per_host=3)],
    linked({"a": offer(2), "b": offer(2)}, link(20)),
    promises=(promise("worker", "head", 10),),
    limits=(LatencyLimit(a="head", b="worker", network="lan", most=timedelta(milliseconds=5)),),
)


def a_plan() -> Plan:
    plan = solve(GIVEN)
    assert plan is not None
    assert check(GIVEN, plan) == ()
    return plan


def with_groups(**changes: object) -> Problem:
    return replace(GIVEN, groups=tuple(replace(each, **changes) for each in GIVEN.groups))  # type: ignore[arg-type]


Change = Callable[[Plan], tuple[Problem, Plan]]
BROKEN: dict[str, tuple[str, Change]] = {
    "another window": ("policy", lambda plan: (GIVEN, replace(plan, window=window(7)))),
    "too few": ("policy", lambda plan: (with_groups(fewest=9, most=9), plan)),
    "denied": ("policy", lambda plan: (with_groups(allow_sites=(), deny_sites=("a",)), plan)),
    "many a site": ("policy", lambda plan: (with_groups(max_per_site=1), plan)),
    "few sites": ("policy", lambda plan: (with_groups(min_sites=3), plan)),
    "many sites": ("policy", lambda plan: (replace(GIVEN, max_sites=1), plan)),
    "image": ("image", lambda plan: (GIVEN, replace(plan, images={"head": OTHER_DIGEST}))),
    "many a host": ("hosts", lambda plan: (with_groups(max_per_host=1), plan)),
    "unfit host": ("hosts", lambda plan: (with_groups(hypervisor="xen"), plan)),
    "links left out": ("link_egress", lambda plan: (GIVEN, replace(plan, links=()))),
    "refused": (
        "policy",
        lambda plan: (
            replace(GIVEN, cuts=(Cut(start=plan.window.start, counts={("worker", "b"): 1}),)),
            plan,
        ),
    ),
    "vcpus": (
        "vcpus",
        lambda plan: (
            replace(
                GIVEN,
                groups=tuple(
                    replace(each, need=replace(each.need, vcpus=2)) for each in GIVEN.groups
                ),
            ),
            plan,
        ),
    ),
    "link": (
        "link_ingress",
        lambda plan: (
            problem(
                GIVEN.groups,
                linked({"a": offer(2), "b": offer(2)}, link(20, ingress=19)),
                promises=GIVEN.promises,
            ),
            plan,
        ),
    ),
    "latency": (
        "latency",
        lambda plan: (
            replace(
                GIVEN,
                limits=tuple(
                    replace(each, most=timedelta(milliseconds=4)) for each in GIVEN.limits
                ),
            ),
            plan,
        ),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name: str) -> None:
    resource, change = BROKEN[name]
    given, plan = change(a_plan())
    assert resource in {each.resource for each in check(given, plan)}
