"""A lease that is to begin at once, and has no room but what sites could make for it: it begins
when they can have put others aside, at all of them at the same time."""

from datetime import datetime, timedelta

from intertie.common.intervals import Window, spread
from intertie.common.spec import LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.candidates import MOST_WINDOWS, windows_from
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.problem import Problem, over


def windows_with_room_made(
    problem: Problem, lease: LeaseTerms, *, before: datetime, hold_within: timedelta
) -> tuple[Window, ...]:
    """Those that begin, after the first of the problem's and `before` a moment, when some site can
    have saved some of what would give way: later by `hold_within`, for by then they have to hold
    it. That is no delay that its owner has to allow. None of a lease that names its start."""
    if lease.start_time is not None:
        return ()
    first = problem.windows[0].start
    said = {each + hold_within for site in problem.sites for each in site.offers[0].room_from}
    starts = sorted(each for each in said if first < each < before)
    return windows_from(lease, spread(starts, MOST_WINDOWS))


def joined(one: Problem, other: Problem) -> Problem:
    """Of one cluster, over the windows of both, with the sites that offer something in both."""
    windows = (*one.windows, *other.windows)
    others = {each.name: each.offers for each in other.sites}
    sites = tuple(
        replace(each, offers=(*each.offers, *others[each.name]))
        for each in one.sites
        if each.name in others
    )
    slots = sorted(range(len(windows)), key=lambda slot: windows[slot].start)
    return over(replace(one, windows=windows, sites=sites), slots)


def with_room_made(problem: Problem, plan: Plan) -> Plan:
    """With the reason why it begins no sooner; `problem` is the one without that room."""
    at_once = check(problem, replace(plan, window=problem.windows[0]))
    short = {each.site for each in at_once}
    places = [name for name in plan.site_names if name in short] or plan.site_names
    said = f"leases give way that may have to at {' and '.join(places)}"
    return replace(plan, reasons=(*plan.reasons, f"{said}, and it begins when they are saved"))
