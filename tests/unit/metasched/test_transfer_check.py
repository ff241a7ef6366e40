"""The check of transfers finds each broken rule, in a plan that is sound but for that."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan, check, is_sound
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.solver import solve
from tests.unit.metasched.problems import group
from tests.unit.metasched.staging import SPAN, item, staged

GIVEN = staged(
    {"a": 0, "b": 1, "c": 1},
    {("a", "b"): 100, ("b", "c"): 100},
    [item("data", 1_700, "a")],
    groups=[group(fewest=2)],
    starts=(1,),
    forwards=("b",),
)
SECOND = timedelta(seconds=1)


def a_plan() -> Plan:
    """From a to b, and then from there to c, with a second to spare."""
    plan = solve(GIVEN)
    assert plan is not None
    assert [each.route for each in plan.transfers] == [("a", "b"), ("b", "c")]
    assert check(GIVEN, plan) == ()
    return plan


def with_first(plan: Plan, **changes: object) -> Plan:
    first, second = plan.transfers
    return replace(plan, transfers=(replace(first, **changes), second))  # type: ignore[arg-type]


def with_second(plan: Plan, **changes: object) -> Plan:
    first, second = plan.transfers
    return replace(plan, transfers=(first, replace(second, **changes)))  # type: ignore[arg-type]


def late(plan: Plan) -> Plan:
    second = plan.transfers[1]
    begin, end = second.begin + 20 * SECOND, second.end + 20 * SECOND
    return with_second(plan, begin=begin, end=end)


def twice(plan: Plan) -> Plan:
    """To c once more, when there is nothing else on the link."""
    first, second = plan.transfers
    again = replace(second, begin=second.end, end=second.end + SECOND)
    return replace(plan, transfers=(first, second, again))


def both_at_once(plan: Plan) -> Plan:
    """To c from a too, over b, while b gets it: each fits alone."""
    first, _ = plan.transfers
    to_c = replace(first, to_site="c", via=("b",))
    return replace(plan, transfers=(first, to_c))


def unsaid(plan: Plan) -> tuple[Problem, Plan]:
    """Nobody said what is free in the span in which they are sent."""
    spans = tuple(
        replace(each, start=each.start + SPAN, end=each.end + SPAN) for each in GIVEN.spans
    )
    return replace(GIVEN, spans=spans), plan


def narrower(peer: str, half: str, plan: Plan) -> tuple[Problem, Plan]:
    changes: dict[str, Any] = {half: 99}
    sites = tuple(
        replace(
            site,
            before=tuple(
                {to: replace(room, **changes) if to == peer else room for to, room in b.items()}
                for b in site.before
            ),
        )
        for site in GIVEN.sites
    )
    return replace(GIVEN, sites=sites), plan


Change = Callable[[Plan], tuple[Problem, Plan]]
BROKEN: dict[str, tuple[str, str, Change]] = {
    "after the start": ("data", "after the start", lambda plan: (GIVEN, late(plan))),
    "too slow": ("data", "all there", lambda plan: (GIVEN, with_second(plan, mbit_s=99))),
    "not there yet": (
        "data",
        "does not have data by then",
        lambda plan: (GIVEN, with_second(plan, begin=plan.transfers[1].begin - SECOND)),
    ),
    "from who never has it": (
        "data",
        "c does not have data",
        lambda plan: (GIVEN, with_first(plan, from_site="c")),
    ),
    "left out": (
        "data",
        "not brought to c",
        lambda plan: (GIVEN, replace(plan, transfers=plan.transfers[:1])),
    ),
    "twice": ("data", "though it is there", lambda plan: (GIVEN, twice(plan))),
    "to who has it": (
        "data",
        "though it is there",
        lambda plan: (
            replace(GIVEN, items=(item("data", 1_700, "a", "b"),)),
            plan,
        ),
    ),
    "unknown": ("data", "nothing that is needed", lambda plan: (GIVEN, with_first(plan, item="x"))),
    "over who does not forward": (
        "data",
        "forwards nothing",
        lambda plan: (
            replace(GIVEN, sites=tuple(replace(s, forwards=False) for s in GIVEN.sites)),
            replace(plan, transfers=(plan.transfers[0], both_at_once(plan).transfers[1])),
        ),
    ),
    "in a circle": (
        "data",
        "in a circle",
        lambda plan: (GIVEN, with_first(plan, via=("c", "b"))),
    ),
    "together too much": ("link_egress", "", lambda plan: (GIVEN, both_at_once(plan))),
    "too much for who sends": (
        "link_egress",
        "",
        lambda plan: narrower("b", "egress_mbit_s", plan),
    ),
    "too much for who takes": (
        "link_egress",
        "",
        lambda plan: narrower("a", "ingress_mbit_s", plan),
    ),
    "no link": ("link_egress", "", lambda plan: (GIVEN, with_second(plan, from_site="a"))),
    "unsaid": ("link_egress", "", unsaid),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(name: str) -> None:
    resource, message, change = BROKEN[name]
    given, plan = change(a_plan())
    found = check(given, plan)
    assert any(each.resource == resource and message in each.message for each in found), found
    assert not is_sound(given, plan)


def test_less_in_a_span_that_begins_while_it_is_sent_is_found() -> None:
    given = staged({"a": 0, "b": 1}, {("a", "b"): 100}, [item("data", 5_000, "a")])
    plan = solve(given)
    assert plan is not None
    assert plan.transfers[0].begin < given.spans[1].start < plan.transfers[0].end
    sites = tuple(
        replace(
            site,
            before=(
                site.before[0],
                {to: replace(room, egress_mbit_s=50) for to, room in site.before[1].items()},
                site.before[2],
            ),
        )
        for site in given.sites
    )
    [found] = check(replace(given, sites=sites), plan)
    assert (found.site, found.peer, found.wanted, found.available) == ("a", "b", 100, 50)
