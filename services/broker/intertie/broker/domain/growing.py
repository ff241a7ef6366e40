"""Other terms for a lease that stands may take more than there is: then leases give way that wait,
as far as they can be saved before they are in the way."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import more_of
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import check_alone, with_others_saved
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part
from intertie.broker.domain.preemptible import could_give_way
from intertie.common.calendar import Demand
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.part_rules import within
from intertie.common.part_spec import PartSpec
from intertie.common.values import replace

T = TypeVar("T")


def amended_before_others(
    attempt: Callable[[LedgerView], T],
    moments: Sequence[datetime],
    view: LedgerView,
    policy: Policy,
    *,
    takes: Callable[[T], Iterable[Demand]],
    now: datetime,
    alone: bool = True,
) -> tuple[T, tuple[GivesWay, ...]]:
    """What `attempt` finds, which is other terms; where it has no room, with those out of the way
    who can be saved by one of the moments at which they take more, see `more_from`. `takes` says
    what they take. NoCapacity where that is not enough; RoomToBeMade as `check_alone`."""
    try:
        return attempt(view), ()
    except NoCapacity as error:
        problem = error
    if not moments:
        raise problem
    check_alone(view, now=now, alone=alone)
    for since in moments:
        found = with_others_saved(attempt, since, view, policy, takes=takes, now=now)
        if found is not None:
            return found
    raise NoCapacity((*problem.shortfalls, *_too_late(moments[-1], view, policy, now)))


def more_from(window: Window, *, longer: bool, larger: bool, now: datetime) -> tuple[datetime, ...]:
    """When terms in the place of those for that window begin to take more, the latest first: from
    its end on where they last longer, and at once, or when it begins, where they are larger."""
    moments = [window.end] if longer else []
    if larger:
        moments.append(max(now, window.start))
    return tuple(moments)


def more_than(spec: PartSpec, asked: PartSpec, *, now: datetime) -> tuple[datetime, ...]:
    """As `more_from`, of a part."""
    longer = asked.window.end > spec.window.end
    larger = not within(replace(asked, window=spec.window), spec)
    return more_from(spec.window, longer=longer, larger=larger, now=now)


def more_than_counted(
    part: Part, after: Part, policy: Policy, *, now: datetime
) -> Iterator[Demand]:
    """What other terms for it take, or are held to take."""
    had, has = demands_of(part, policy.admission), demands_of(after, policy.admission)
    return more_of(had, has, since=now)


def _too_late(
    since: datetime, view: LedgerView, policy: Policy, now: datetime
) -> tuple[Shortfall, ...]:
    """What the owner can do where others would give way, and need longer."""
    if not any(each.free_from > since for each in could_give_way(view, policy, now=now)):
        return ()
    said = (
        f"{policy.site}: leases that may have to give way cannot be saved by "
        f"{since.isoformat(timespec='seconds')}, when the new terms would take more; what is made "
        "as a cluster of its own begins when they are"
    )
    return (Shortfall(site=policy.site, resource="hosts", message=said),)
