"""Who is put aside for a lease that does not wait, in the transaction that admits it; and before
that, who goes on with fewer workspaces."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeVar

from intertie.broker.domain.amounts import amounts_of
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.counted_as import counted_as
from intertie.broker.domain.fewest import Fewest, GivesWay
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.malleable import fewer_of
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.planning import Allotment, Draft, allot, draft
from intertie.broker.domain.preemptible import (
    all_saved_by,
    being_given_up,
    free_from,
    running_leases,
    with_no_other_terms,
)
from intertie.broker.domain.price import asked_for
from intertie.broker.domain.recalling import allotted
from intertie.broker.domain.records import Write
from intertie.broker.domain.refusing import check_budget
from intertie.broker.domain.room_paid import asks_for_room, free_together
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.stretches import (
    GIVEN_UP_WITHIN,
    save_of,
    suspended,
    window_changed,
)
from intertie.broker.domain.vacating import GOES, called_off, goes
from intertie.common.calendar import Demand
from intertie.common.errors import NoCapacity
from intertie.common.names import ClusterName
from intertie.common.part_rules import for_promise_alone
from intertie.common.part_spec import PartSpec
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import Struct, replace

T = TypeVar("T")


class RoomToBeMade(Exception):
    """It fits only if others give way, which is decided for one lease at a time."""


class Admissible(Struct, frozen=True, kw_only=True):
    draft: Draft
    aside: tuple[GivesWay, ...] = ()


def draft_before_others(
    name: ClusterName,
    uid: str,
    spec: ClusterSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
    alone: bool = True,
    patient: bool = True,
) -> Admissible:
    """As `planning.draft`; where that has no room at the start that was asked for, leases give way
    that wait. One that begins at once begins when they are saved, which is no delay that its owner
    has to allow, or have gone to other hosts, if it is `patient`. NoCapacity where they would have
    to for nothing. RoomToBeMade where they might have to, and others may be asked to at the same
    time: not `alone`."""
    asked = spec.lease.window(now=now).start
    found: Draft | None = None
    problem: NoCapacity | None = None
    try:
        found = draft(name, uid, spec, view, policy, now=now)
        if found.start == asked:
            return Admissible(draft=found)
    except NoCapacity as error:
        problem = error
    running, saved = running_leases(view, now=now), all_saved_by(view, asked)
    if (running or saved > asked) and not alone:
        raise RoomToBeMade
    running = with_no_other_terms(running, view)
    if running or saved > asked:

        def drafted(lease: LeaseTerms, view: LedgerView) -> Draft:
            return draft(name, uid, replace(spec, lease=lease), view, policy, now=now)

        fewer = tuple(fewer_of(running, view, policy, now=now))
        given_up = max(being_given_up(view, asked), default=asked)
        at_once = spec.lease.start_time is None and spec.lease.end_time is None
        patience = policy.queue.migration.longest_delay if patient and at_once else timedelta()
        with Fewest(
            drafted,
            spec.lease,
            view,
            policy,
            running,
            now,
            takes=lambda found: _taken_by(found.allotment),
            patience=patience,
            before=found.start if found is not None else None,
            fewer=fewer,
        ) as attempt:
            better = attempt.with_nobody(given_up) if given_up > asked else None
            better = better or attempt.fewest(asked)
            better = better or (attempt.fewest(saved) if saved > asked else None)
        if better is not None:
            sooner, aside = better
            if found is None or sooner.start < found.start:
                reasons = (*sooner.reasons, *said_of(aside))
                return Admissible(draft=replace(sooner, reasons=reasons), aside=aside)
    if found is not None:
        return Admissible(draft=found)
    raise problem or NoCapacity(())


def draft_within_budget(
    name: ClusterName,
    uid: str,
    spec: ClusterSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
    alone: bool = True,
) -> tuple[Admissible, Stretch]:
    """As `draft_before_others`, and what is asked for it. Where the room that others make is what
    makes it too dear, nobody gives way, if there is a later start so. NoCapacity where it costs
    more than its budget."""
    found = draft_before_others(name, uid, spec, view, policy, now=now, alone=alone)
    asked = asked_before_others(found.draft.allotment.spec, found.aside, view, policy, now=now)
    try:
        check_budget(spec, (asked,), policy.site)
    except NoCapacity as too_dear:
        if asked.room is None:
            raise
        with suppress(NoCapacity):
            later = Admissible(draft=draft(name, uid, spec, view, policy, now=now))
            asked = asked_before_others(later.draft.allotment.spec, (), view, policy, now=now)
            check_budget(spec, (asked,), policy.site)
            return later, asked
        raise too_dear from None
    return found, asked


def allotted_before_others(
    spec: PartSpec, view: LedgerView, policy: Policy, *, tenant: str, now: datetime, alone: bool
) -> tuple[Allotment, tuple[GivesWay, ...]]:
    """As `planning.allot`, or `recalling.allotted`; where there is no room, leases give way that
    wait, and that are saved before its window begins: of a lease over several sites none moves it.
    None does for what is to be promised to it alone: where it has room but for that, the refusal
    says so. RoomToBeMade as above."""
    fits = allot if spec.recallable is None else allotted
    try:
        return fits(spec, view, policy, tenant=tenant, now=now), ()
    except NoCapacity as error:
        problem = error
    start = spec.window.start
    if start <= now or for_promise_alone(problem):
        raise problem
    check_alone(view, now=now, alone=alone)
    unpromised: list[NoCapacity] = []

    def attempt(view: LedgerView) -> Allotment:
        try:
            return fits(spec, view, policy, tenant=tenant, now=now, calendar=view.demands)
        except NoCapacity as error:
            if for_promise_alone(error):
                unpromised.append(error)
            raise

    found = with_others_saved(attempt, start, view, policy, takes=_taken_by, now=now)
    if found is None:
        raise next(iter(unpromised), problem)
    return found


def _taken_by(found: Allotment) -> Iterator[Demand]:
    spec = found.spec
    yield Demand("", spec.window, amounts_of(spec, hosts_of(found.placed), found.gateway))


def check_alone(view: LedgerView, *, now: datetime, alone: bool) -> None:
    """RoomToBeMade where others might have to give way, and not `alone`."""
    if not alone and running_leases(view, now=now):
        raise RoomToBeMade


def with_others_saved(
    attempt: Callable[[LedgerView], T],
    since: datetime,
    view: LedgerView,
    policy: Policy,
    *,
    takes: Callable[[T], Iterable[Demand]],
    now: datetime,
) -> tuple[T, tuple[GivesWay, ...]] | None:
    """What there is room for with others out of the way from `since` on who can be saved by then,
    and who that is: as few as are enough. None where it would not be enough."""
    paces = paces_of(view, policy)

    def in_time(record: ClusterRecord, part: Part) -> bool:
        if part.vacating is not None:
            return free_from(called_off(part, since, now=now)) <= since
        return part.window.start > now or now + save_of(part, record, paces) <= since

    running = with_no_other_terms(running_leases(view, now=now), view)
    fewer = tuple(fewer_of(running, view, policy, now=now))
    if now + GIVEN_UP_WITHIN > since:
        fewer = ()
    aside = [(record, part) for record, part in running if in_time(record.value, part)]
    if not aside and not fewer:
        return None
    lease = LeaseTerms(start_time=since)
    with Fewest(
        lambda _, view: attempt(view), lease, view, policy, aside, now, takes=takes, fewer=fewer
    ) as tried:
        return tried.fewest(since)


def with_fewer(
    attempt: Callable[[LedgerView], T],
    since: datetime,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[T, tuple[GivesWay, ...]] | None:
    """As `with_others_saved`, with nobody put aside: others go on with fewer workspaces. `since` is
    late enough for them to have given these up."""
    running = with_no_other_terms(running_leases(view, now=now), view)
    fewer = tuple(fewer_of(running, view, policy, now=now))
    if not fewer:
        return None
    lease = LeaseTerms(start_time=since)
    with Fewest(
        lambda _, view: attempt(view),
        lease,
        view,
        policy,
        (),
        now,
        takes=lambda _: (),
        fewer=fewer,
    ) as tried:
        return tried.fewest(since)


def asked_before_others(
    spec: PartSpec,
    aside: Sequence[GivesWay],
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
    kind: str = "",
) -> Stretch:
    """As `price.asked_for`, with those out of the way, as offers say it; and with what is asked for
    the room that they make, which nobody does who is out of the way anyway."""
    calendar = calendar_of(view, policy)
    free = None
    if aside and asks_for_room(policy):
        free = free_together(calendar, view, policy, spec.window, now=now)
    before = {each.after.name: each.part.value for each in aside}
    after = {each.after.name: each.after for each in aside}
    with counted_as(calendar, before, after, policy.admission):
        here = replace(view, demands=calendar)
        return asked_for(spec, here, policy, now=now, kind=kind, free=free)


def said_of(aside: Sequence[GivesWay]) -> Iterator[str]:
    """For its plan."""
    if count := len(aside):
        yield f"{count} {'lease gives' if count == 1 else 'leases give'} way that may have to"
    if count := sum(goes(each.after) for each in aside):
        yield f"of these {count} {'goes' if count == 1 else 'go'} to other hosts meanwhile"


def writes_of(aside: Sequence[GivesWay], *, now: datetime) -> Iterator[Write]:
    """With the records of their clusters, which say so at once."""
    for each in aside:
        yield Write(record=each.after, read_at=each.part.revision)
        if not each.record.revision:
            continue  # its cluster is on record elsewhere
        after = each.fewer
        if after is None:
            record = window_changed(each.record.value, each.after)
            if goes(each.after):
                record = replace(record, reasons=(GOES,))
            after = suspended(record, each.after, now=now)
        yield Write(record=after, read_at=each.record.revision)
