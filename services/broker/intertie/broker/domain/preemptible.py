"""Who could be put aside for a lease that does not wait, in which order, and when that is done."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.recalling import as_lease, recalled
from intertie.broker.domain.running import Running, chosen
from intertie.broker.domain.stretches import (
    may_give_way,
    must_be_done,
    put_aside,
    save_of,
)
from intertie.broker.domain.vacating import called_off
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.preemption import Rank
from intertie.common.values import Struct


def running_leases(view: LedgerView, *, now: datetime) -> list[Running]:
    found = []
    for each in view.in_line():
        part = view.parts.get(each.value.part)
        if part is not None and may_give_way(part.value, now=now):
            found.append((each, part.value))
    found += [
        (as_lease(each.value), each.value)
        for each in view.recallables()
        if may_give_way(each.value, now=now)
    ]
    return found


def with_no_other_terms(running: Iterable[Running], view: LedgerView) -> list[Running]:
    """Those of them that count by their records: of the others other terms are on their way."""
    return [each for each in running if each[1].name not in view.amended]


def being_saved(view: LedgerView, at: datetime) -> Iterator[datetime]:
    """When each is that is being saved at that moment, and what each is giving up is there."""
    own = (view.parts.get(each.value.part) for each in view.in_line())
    for each in (*own, *view.recallables()):
        if each is not None and each.value.window.end <= at < free_from(each.value):
            yield free_from(each.value)
    yield from being_given_up(view, at)


def being_given_up(view: LedgerView, at: datetime) -> Iterator[datetime]:
    """When what each is giving up at that moment is there for others."""
    for each in view.in_line():
        part = view.parts.get(each.value.part)
        by = part.value.gives_up_by if part is not None else None
        if by is not None and by > at:
            yield by


def all_saved_by(view: LedgerView, at: datetime) -> datetime:
    """When all of those are: nobody need give way for what others give way for already."""
    return max(being_saved(view, at), default=at)


def is_over_first(part: Part, at: datetime, save: timedelta, *, now: datetime) -> bool:
    """It runs, and is out of the way anyway before it were saved if that began `at`, or now."""
    return part.window.start <= now and max(at, now) + save >= free_from(part)


class CouldGiveWay(Struct, frozen=True, kw_only=True):
    free_from: datetime
    """All that it takes but disk is free from then on."""
    part: Part
    after: Part
    """The same where it is over before it were saved."""


def could_give_way(view: LedgerView, policy: Policy, *, now: datetime) -> list[CouldGiveWay]:
    """As it would be were it decided now; but for this site's own with a deadline, for which later
    room would have to be found first."""
    paces = paces_of(view, policy)
    found = []
    for record, part in with_no_other_terms(running_leases(view, now=now), view):
        elsewhere = bool(part.coordinator)
        if must_be_done(record.value.spec) and not elsewhere:
            continue
        after: Part | None = part
        if part.vacating is not None:
            after = called_off(part, now, now=now)
        elif not is_over_first(part, now, save_of(part, record.value, paces), now=now):
            way = recalled if elsewhere else put_aside
            after = way(part, record.value, now, paces, policy, now=now)
        if after is not None:
            found.append(CouldGiveWay(free_from=free_from(after), part=part, after=after))
    return found


def free_from(part: Part) -> datetime:
    """But for disk that is kept. Of one that gives way by migration, the hosts that it leaves."""
    if part.vacating is not None:
        return part.vacating.free_from
    saved = part.keeping.save if part.keeping and part.keeping.until else timedelta()
    return part.window.end + saved


def in_order(
    running: Sequence[Running], view: LedgerView, policy: Policy, now: datetime
) -> list[Running]:
    """Who gives way first; those with a deadline only where the others are not enough."""

    def preempted(leases: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        nodes = sum(each.nodes for each in leases)
        return policy.queue.preemption.for_reservation(leases, nodes, rank, now_s)

    found = chosen(running, preempted, view, policy, now)
    return sorted(found, key=lambda each: must_be_done(each[0].value.spec))
