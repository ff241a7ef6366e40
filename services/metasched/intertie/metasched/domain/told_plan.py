"""A plan that was told to choose from, and what becomes of it when it is accepted."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.errors import PlanStale
from intertie.common.intervals import Window
from intertie.common.price import PriceTerm
from intertie.common.spec import LeaseTerms
from intertie.common.spec_rules import PAST_TOLERANCE
from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.waiting import LEAST

ROUNDING = 1e-6
"""Of what sites agree on, by which it may be above what was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldPlan:
    request: str
    """Digest of what it was planned for: nothing else gets it."""
    plan: Plan
    accept_before: datetime
    lead: timedelta = timedelta()
    """It begins no sooner after it is accepted: others are put aside first."""


def told(
    plan: Plan,
    lease: LeaseTerms,
    *,
    request: str,
    made: Collection[Window],
    now: datetime,
    within: timedelta,
) -> ToldPlan:
    """To be accepted `within` so long, or before it is too late for the lease as it was asked for:
    Create refuses what should have begun, and what is to be done by a deadline can be put off by
    what is left until then. `made`: windows that begin when others are saved."""
    lead = plan.window.start - now if plan.window in made else timedelta()
    ends = [now + within]
    if lease.start_time is not None:
        ends.append(lease.start_time + PAST_TOLERANCE)
    if lease.end_time is not None:
        ends.append(lease.end_time - lead - LEAST)
    if lease.deadline is not None:
        ends.append(plan.window.start + (lease.deadline - plan.window.end) - lead)
    return ToldPlan(request=request, plan=plan, accept_before=min(ends), lead=lead)


def as_accepted(given: ToldPlan, lease: LeaseTerms, *, now: datetime) -> Plan:
    """The plan, accepted now. What should have begun by now begins now and lasts as long, or to
    the end that was asked for, at the price of that time."""
    plan = given.plan
    start = max(plan.window.start, now + given.lead)
    end = lease.end_time or start + plan.window.duration
    share = (end - start) / plan.window.duration
    sites = tuple(each.for_part_of_it(share) for each in plan.sites)
    return replace(plan, window=Window(start, end), sites=sites, cost=plan.cost * share)


def check_price(given: ToldPlan, agreed: Collection[PriceTerm]) -> None:
    """PlanStale where the sites ask more than was told."""
    told_cost, asked = given.plan.cost, sum(each.amount for each in agreed)
    if asked > told_cost + ROUNDING * max(told_cost, 1.0):
        raise PlanStale(f"its sites ask {asked:.6g} by now, and {told_cost:.6g} was told")
