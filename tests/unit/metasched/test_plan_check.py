"""The check that a plan goes through before anything is held: every broken rule is found."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan, check, is_sound
from intertie.metasched.domain.problem import Cut, LatencyLimit, Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import (
    OTHER_DIGEST,
    apart,
    chained,
    forwarding,
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
    assert is_sound(GIVEN, plan)
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
    "many a host for the plan": (
        "hosts",
        lambda plan: (GIVEN, replace(plan, max_per_host={"worker": 1})),
    ),
    "many a host": ("hosts", lambda plan: (with_groups(max_per_host=1), plan)),
    "unfit host": ("hosts", lambda plan: (with_groups(hypervisor="xen"), plan)),
    "a host twice": (
        "policy",
        lambda plan: (
            problem(GIVEN.groups, linked({"a": offer(2), "b": offer(1)}, link(20))),
            replace(
                plan,
                sites=(
                    plan.sites[0],
                    *[
                        replace(plan.sites[1], counts={"worker": 1}, packing=({"worker": 1},))
                        for _ in range(2)
                    ],
                ),
                links=(),
            ),
        ),
    ),
    "a link twice": (
        "link_egress",
        lambda plan: (GIVEN, replace(plan, links=(*plan.links, plan.links[0]))),
    ),
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


ROUTED = forwarding(
    problem(
        [group("head", allow_sites=("a",)), group(fewest=2, allow_sites=("c",))],
        chained(
            {("a", "b"): link(20), ("b", "c"): link(20), ("b", "d"): link(20)},
            {"a": offer(2), "b": offer(), "c": offer(2), "d": offer()},
        ),
        promises=(promise("worker", "head", 10),),
        limits=(
            LatencyLimit(a="head", b="worker", network="lan", most=timedelta(milliseconds=10)),
        ),
    ),
    "b",
)

NARROW = dict.fromkeys("acd", link(20, ingress=19))


def with_links(plan: Plan, **changes: object) -> Plan:
    links = tuple(replace(each, **changes) for each in plan.links)  # type: ignore[arg-type]
    return replace(plan, links=links)


BROKEN_ROUTES: dict[str, tuple[str, Change]] = {
    "no way": ("link_egress", lambda plan: (ROUTED, with_links(plan, via=()))),
    "no link": ("link_egress", lambda plan: (ROUTED, with_links(plan, via=("d",)))),
    "a circle": ("link_egress", lambda plan: (ROUTED, with_links(plan, via=("b", "d", "b")))),
    "unknown": ("policy", lambda plan: (ROUTED, with_links(plan, via=("z",)))),
    "does not forward": ("policy", lambda plan: (forwarding(ROUTED), plan)),
    "not asked": (
        "policy",
        lambda plan: (
            ROUTED,
            replace(plan, sites=tuple(each for each in plan.sites if each.site != "b")),
        ),
    ),
    "another way back": (
        "link_egress",
        lambda plan: (
            ROUTED,
            replace(plan, links=(plan.links[0], *with_links(plan, via=()).links[1:])),
        ),
    ),
    "another latency": (
        "latency",
        lambda plan: (ROUTED, with_links(plan, latency=timedelta(milliseconds=9))),
    ),
    "too far": (
        "latency",
        lambda plan: (
            replace(
                ROUTED,
                limits=tuple(
                    replace(each, most=timedelta(milliseconds=9)) for each in ROUTED.limits
                ),
            ),
            plan,
        ),
    ),
    "a narrow link on the way": (
        "link_ingress",
        lambda plan: (
            replace(
                ROUTED,
                sites=tuple(
                    replace(
                        each,
                        offers=(
                            replace(
                                each.offers[0], links=dict.fromkeys("acd", link(20, ingress=19))
                            ),
                        ),
                    )
                    if each.name == "b"
                    else each
                    for each in ROUTED.sites
                ),
            ),
            plan,
        ),
    ),
    "less than promised": ("link_egress", lambda plan: (ROUTED, with_links(plan, mbit_s=0))),
    "together": (
        "policy",
        lambda plan: (
            replace(ROUTED, affinities=(apart("head", "worker"),)),
            replace(
                plan,
                sites=(replace(plan.sites[0], counts={"head": 1, "worker": 2}), *plan.sites[1:2]),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", BROKEN_ROUTES)
def test_a_broken_route_is_found(name: str) -> None:
    plan = solve(ROUTED)
    assert plan is not None
    assert check(ROUTED, plan) == ()
    resource, change = BROKEN_ROUTES[name]
    given, broken = change(plan)
    assert resource in {each.resource for each in check(given, broken)}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name: str) -> None:
    resource, change = BROKEN[name]
    given, plan = change(a_plan())
    assert resource in {each.resource for each in check(given, plan)}
    assert not is_sound(given, plan)
