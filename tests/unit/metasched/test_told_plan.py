"""Until when a plan that was told may be accepted, and how it begins then."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.errors import PlanStale
from intertie.common.intervals import Window
from intertie.common.price import PriceTerm
from intertie.common.spec import LeaseTerms
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.site_plan import SitePlan
from intertie.metasched.domain.told_plan import ToldPlan, as_accepted, check_price, told
from intertie.metasched.domain.waiting import LEAST
from tests.unit.metasched.problems import NOW

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


def plan(start: timedelta = timedelta(), lasts: timedelta = HOUR) -> Plan:
    sites = (
        SitePlan(site="north", counts={"worker": 1}, cost=2.0),
        SitePlan(site="south", counts={"worker": 2}, cost=4.0),
    )
    return Plan(window=Window(NOW + start, NOW + start + lasts), sites=sites, images={}, cost=6.0)


@dataclass
class Case:
    lease: LeaseTerms
    plan: Plan
    made: bool = False

    def told(self) -> ToldPlan:
        made = (self.plan.window,) if self.made else ()
        return told(self.plan, self.lease, request="b2:1", made=made, now=NOW, within=5 * MINUTE)


def lease(**terms: Any) -> LeaseTerms:
    return LeaseTerms(**terms)


@pytest.mark.parametrize(
    ("case", "left"),
    [
        (Case(lease(duration=HOUR), plan()), 5 * MINUTE),
        (Case(lease(duration=HOUR), plan(start=2 * HOUR)), 5 * MINUTE),
        # Create takes a start that has passed by a minute for now.
        (Case(lease(start_time=NOW + MINUTE, duration=HOUR), plan(MINUTE)), 2 * MINUTE),
        # It ends whenever it is accepted, and has to begin before.
        (Case(lease(end_time=NOW + 2 * MINUTE), plan(lasts=2 * MINUTE)), 2 * MINUTE - LEAST),
        (
            Case(lease(end_time=NOW + 3 * MINUTE), plan(MINUTE, 2 * MINUTE), made=True),
            2 * MINUTE - LEAST,
        ),
        # By its deadline it has to be over: it can be put off by three minutes, and four.
        (Case(lease(duration=HOUR, deadline=NOW + HOUR + 3 * MINUTE), plan()), 3 * MINUTE),
        (
            Case(lease(duration=HOUR, deadline=NOW + HOUR + 4 * MINUTE), plan(MINUTE)),
            4 * MINUTE,
        ),
        (
            Case(lease(duration=HOUR, deadline=NOW + HOUR + 4 * MINUTE), plan(MINUTE), made=True),
            3 * MINUTE,
        ),
    ],
)
def test_it_may_be_accepted_until_it_would_be_too_late(case: Case, left: timedelta) -> None:
    given = case.told()
    assert given.accept_before == NOW + left
    last = as_accepted(given, case.lease, now=given.accept_before - SECOND)
    assert last.window.start >= NOW + left - SECOND
    if case.lease.deadline is not None:
        assert last.window.end <= case.lease.deadline


def test_what_begins_later_begins_when_it_was_told() -> None:
    given = Case(lease(duration=HOUR), plan(2 * HOUR)).told()
    assert as_accepted(given, lease(duration=HOUR), now=NOW + 4 * MINUTE) == given.plan


def test_what_begins_at_once_lasts_as_long_at_the_same_price() -> None:
    given = Case(lease(duration=HOUR), plan()).told()
    found = as_accepted(given, lease(duration=HOUR), now=NOW + 4 * MINUTE)
    assert found.window == Window(NOW + 4 * MINUTE, NOW + 4 * MINUTE + HOUR)
    assert found.cost == pytest.approx(6.0)


def test_what_has_its_end_lasts_and_costs_less() -> None:
    ends = lease(end_time=NOW + HOUR)
    given = Case(ends, plan()).told()
    found = as_accepted(given, ends, now=NOW + 3 * MINUTE)
    assert found.window == Window(NOW + 3 * MINUTE, NOW + HOUR)
    assert found.cost == pytest.approx(6.0 * 57 / 60)
    assert [each.cost for each in found.sites] == pytest.approx([1.9, 3.8])


def test_what_begins_when_others_are_saved_begins_so_long_after_it_is_accepted() -> None:
    given = Case(lease(duration=HOUR), plan(40 * SECOND), made=True).told()
    assert given.lead == 40 * SECOND
    found = as_accepted(given, lease(duration=HOUR), now=NOW + MINUTE)
    assert found.window.start == NOW + MINUTE + 40 * SECOND


@pytest.mark.parametrize(("asked", "taken"), [(5.0, True), (6.000001, True), (6.1, False)])
def test_at_most_the_price_that_was_told_is_paid(asked: float, taken: bool) -> None:
    given = Case(lease(duration=HOUR), plan()).told()
    terms = [PriceTerm(site="north", window=given.plan.window, amount=asked)]
    if taken:
        check_price(given, terms)
        return
    with pytest.raises(PlanStale, match=r"ask 6\.1 by now, and 6 was told"):
        check_price(given, terms)
