"""Who is put aside for a lease that does not wait, in the transaction that admits it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic, Self, TypeVar

from intertie.broker.domain.admission_policy import AdmissionPolicy
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.in_time import put_off
from intertie.broker.domain.ledger import (
    LedgerView,
    Versioned,
    calendar_of,
    demand_key,
    demands_of,
)
from intertie.broker.domain.openings import seconds
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import Allotment, Draft, allot, draft
from intertie.broker.domain.price import asked_for
from intertie.broker.domain.recalling import allotted, as_lease, recalled
from intertie.broker.domain.records import Write
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.stretches import (
    may_give_way,
    must_be_done,
    put_aside,
    runs_for,
    save_of,
    suspended,
    window_changed,
)
from intertie.common.calendar import Calendar, Demand
from intertie.common.errors import NoCapacity
from intertie.common.leasing.lease import Lease, State
from intertie.common.leasing.requests import BestEffort
from intertie.common.names import ClusterName
from intertie.common.part_rules import for_promise_alone
from intertie.common.part_spec import PartSpec
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import Struct, replace

T = TypeVar("T")
_S = timedelta(seconds=1)
SPARED_AT_MOST = 32
"""Of those that were found to give way, so many are asked whether it can be done without them."""


class GivesWay(Struct, frozen=True, kw_only=True):
    record: Versioned[ClusterRecord]
    part: Versioned[Part]
    after: Part


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
) -> Admissible:
    """As `planning.draft`; where that has no room at the start that was asked for, leases give way
    that wait. One that begins at once begins when they are saved, which is no delay that its owner
    has to allow. NoCapacity where they would have to for nothing.
    RoomToBeMade where they might have to, and others may be asked to at the same time: not
    `alone`."""
    asked = spec.lease.window(now=now).start
    found: Draft | None = None
    problem: NoCapacity | None = None
    try:
        found = draft(name, uid, spec, view, policy, now=now)
        if found.start == asked:
            return Admissible(draft=found)
    except NoCapacity as error:
        problem = error
    running, saved = _running(view, now=now), _saved_by(view, asked)
    if (running or saved > asked) and not alone:
        raise RoomToBeMade
    # Those of which other terms are on their way count by these.
    running = [each for each in running if each[1].name not in view.amended]
    if running or saved > asked:

        def drafted(lease: LeaseTerms, view: LedgerView) -> Draft:
            return draft(name, uid, replace(spec, lease=lease), view, policy, now=now)

        with _Attempt(drafted, spec.lease, view, policy, running, now) as attempt:
            better = attempt.fewest(asked) or (attempt.fewest(saved) if saved > asked else None)
        if better is not None:
            sooner, aside = better
            if found is None or sooner.start < found.start:
                reasons = (*sooner.reasons, *said_of(aside))
                return Admissible(draft=replace(sooner, reasons=reasons), aside=aside)
    if found is not None:
        return Admissible(draft=found)
    raise problem or NoCapacity(())


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

    found = with_others_saved(attempt, start, view, policy, now=now)
    if found is None:
        raise next(iter(unpromised), problem)
    return found


def check_alone(view: LedgerView, *, now: datetime, alone: bool) -> None:
    """RoomToBeMade where others might have to give way, and not `alone`."""
    if not alone and _running(view, now=now):
        raise RoomToBeMade


def with_others_saved(
    attempt: Callable[[LedgerView], T],
    since: datetime,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[T, tuple[GivesWay, ...]] | None:
    """What there is room for with others out of the way from `since` on who can be saved by then,
    and who that is: as few as are enough. None where it would not be enough."""
    paces = paces_of(view, policy)

    def in_time(record: ClusterRecord, part: Part) -> bool:
        return part.window.start > now or now + save_of(part, record, paces) <= since

    running = [
        (record, part)
        for record, part in _running(view, now=now)
        if part.name not in view.amended and in_time(record.value, part)
    ]
    if not running:
        return None
    lease = LeaseTerms(start_time=since)
    with _Attempt(lambda _, view: attempt(view), lease, view, policy, running, now) as tried:
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
    """As `price.asked_for`, with those out of the way, as offers say it."""
    calendar = calendar_of(view, policy)
    before = {each.after.name: each.part.value for each in aside}
    after = {each.after.name: each.after for each in aside}
    with counted_as(calendar, before, after, policy.admission):
        return asked_for(spec, replace(view, demands=calendar), policy, now=now, kind=kind)


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
    for record, part in _running(view, now=now):
        elsewhere = bool(part.coordinator)
        if part.name in view.amended or (must_be_done(record.value.spec) and not elsewhere):
            continue
        after: Part | None = part
        if not _is_over_first(part, now, save_of(part, record.value, paces), now=now):
            way = recalled if elsewhere else put_aside
            after = way(part, record.value, now, paces, policy, now=now)
        if after is not None:
            found.append(CouldGiveWay(free_from=free_from(after), part=part, after=after))
    return found


def said_of(aside: Sequence[GivesWay]) -> Iterator[str]:
    """For its plan."""
    if count := len(aside):
        yield f"{count} {'lease gives' if count == 1 else 'leases give'} way that may have to"


def writes_of(aside: Sequence[GivesWay], *, now: datetime) -> Iterator[Write]:
    """With the records of their clusters, which say so at once."""
    for each in aside:
        yield Write(record=each.after, read_at=each.part.revision)
        if not each.record.revision:
            continue  # its cluster is on record elsewhere
        record = window_changed(each.record.value, each.after)
        after = suspended(record, each.after, now=now)
        yield Write(record=after, read_at=each.record.revision)


@contextmanager
def counted_as(
    calendar: Calendar, parts: Mapping[str, Part], instead: Mapping[str, Part], by: AdmissionPolicy
) -> Iterator[None]:
    """The book's calendar as it would be with some parts otherwise; as it was, afterwards. Nothing
    else is decided meanwhile. Each part counts by its record: of none are other terms on their
    way."""
    before = {name: demands_of(parts[name], by) for name in instead}
    after = {name: demands_of(part, by) for name, part in instead.items()}
    _count(calendar, before, after)
    try:
        yield
    finally:
        _count(calendar, after, before)


def _count(
    calendar: Calendar,
    before: Mapping[str, Sequence[Demand]],
    after: Mapping[str, Sequence[Demand]],
) -> None:
    for name, demands in after.items():
        for number in range(len(before[name])):
            calendar.remove(demand_key(name, number))
        for demand in demands:
            calendar.add(demand)


def _running(view: LedgerView, *, now: datetime) -> list[tuple[Versioned[ClusterRecord], Part]]:
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


def being_saved(view: LedgerView, at: datetime) -> Iterator[datetime]:
    """When each is that is being saved at that moment."""
    own = (view.parts.get(each.value.part) for each in view.in_line())
    for each in (*own, *view.recallables()):
        if each is not None and each.value.window.end <= at < free_from(each.value):
            yield free_from(each.value)


def _saved_by(view: LedgerView, at: datetime) -> datetime:
    """When all of those are: nobody need give way for what others give way for already."""
    return max(being_saved(view, at), default=at)


def _is_over_first(part: Part, at: datetime, save: timedelta, *, now: datetime) -> bool:
    """It runs, and is out of the way anyway before it were saved if that began `at`, or now."""
    return part.window.start <= now and max(at, now) + save >= free_from(part)


class _Attempt(Generic[T]):
    """With how many of them out of the way it fits. Whoever is tried is counted as put aside on the
    book's own calendar, one more or one less at a time, and as before once this is over."""

    def __init__(
        self,
        drafted: Callable[[LeaseTerms, LedgerView], T],
        lease: LeaseTerms,
        view: LedgerView,
        policy: Policy,
        running: Sequence[tuple[Versioned[ClusterRecord], Part]],
        now: datetime,
    ) -> None:
        """`drafted`: what is asked for, with such terms of lease."""
        self._drafted = drafted
        self._lease = lease
        self._policy = policy
        self._now = now
        self._asked = self._start = lease.start_time or now
        self._calendar = calendar_of(view, policy)
        self._view = replace(view, demands=self._calendar)
        self._paces = paces_of(view, policy)
        self._parts = view.parts
        self._next = iter(_in_order(running, policy, now))
        self._order: list[GivesWay] = []
        """Those of them that were asked so far, and can."""
        self._counted: dict[str, tuple[GivesWay, AbstractContextManager[None]]] = {}
        """By part, who is out of the way at this moment."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in [*self._counted]:
            self._back(name)

    def fewest(self, start: datetime) -> tuple[T, tuple[GivesWay, ...]] | None:
        """The first in the policy's order that are enough, less those that the rest can do
        without. It begins at `start` at the earliest. To ask one costs as much as to see whether it
        fits without it, so no more are asked than are needed, or twice as many."""
        self._start = start
        self._first(0)
        if start > self._asked and (found := self._fits()) is not None:
            return found
        low, high = 1, 1
        while (found := self._fits() if self._first(high) else None) is None:
            if len(self._order) < high:
                return None
            low, high = high + 1, high * 2
        high = min(high, len(self._order))
        while low < high:
            middle = (low + high) // 2
            self._first(middle)
            if (fewer := self._fits()) is not None:
                found, high = fewer, middle
            else:
                low = middle + 1
        self._first(high)
        for each in self._order[: min(high, SPARED_AT_MOST)]:
            if len(self._counted) == 1:
                break
            self._back(each.after.name)
            if (fewer := self._fits()) is not None:
                found = fewer
            else:
                self._away(each)
        return found

    def _fits(self) -> tuple[T, tuple[GivesWay, ...]] | None:
        """With those out of the way that are."""
        aside = [each for each, _ in self._counted.values()]
        if not all(self._can_be_kept(each.after) for each in aside):
            return None
        try:
            found = self._drafted(self._later(aside), self._view)
        except NoCapacity:
            return None
        return found, tuple(each for each in aside if each.after is not each.part.value)

    def _first(self, count: int) -> int:
        """Has the first so many in order out of the way, or all that can; returns how many."""
        for each in self._order[count:]:
            self._back(each.after.name)
        for each in self._order[:count]:
            self._away(each)
        while len(self._order) < count and (found := next(self._next, None)) is not None:
            # What one with a deadline is promised must be free beside all before it.
            record, part = found
            if (after := self._aside(record.value, part)) is None:
                continue
            self._order.append(GivesWay(record=record, part=self._parts[part.name], after=after))
            self._away(self._order[-1])
        return len(self._counted)

    def _away(self, each: GivesWay) -> None:
        if each.after.name not in self._counted:
            counted = self._with(each.after)
            counted.__enter__()
            self._counted[each.after.name] = each, counted

    def _back(self, name: str) -> None:
        if name in self._counted:
            _, counted = self._counted.pop(name)
            counted.__exit__(None, None, None)

    def _later(self, aside: Sequence[GivesWay]) -> LeaseTerms:
        """From when those are saved, where it was to begin before."""
        lease = self._lease
        cut = [each.after for each in aside if not _is_moved(each.part.value, each.after)]
        free = max((self._start, *map(free_from, cut)))
        if free <= self._asked:
            return lease
        delay = max(lease.max_delay - (free - self._asked), timedelta())
        return replace(lease, start_time=free, max_delay=delay)

    def _with(self, after: Part) -> AbstractContextManager[None]:
        before = {after.name: self._parts[after.name].value}
        return counted_as(self._calendar, before, {after.name: after}, self._policy.admission)

    def _aside(self, record: ClusterRecord, part: Part) -> Part | None:
        """None where it is over by then as it is, or where its disk is promised to others later, so
        that it cannot be kept, or where it would not be done in time. The same where it is over
        before it were saved: what it has is promised to others from its end on."""
        save = save_of(part, record, self._paces)
        at = self._asked - save
        if at >= part.window.end:
            return None
        if _is_over_first(part, at, save, now=self._now):
            return part
        if part.coordinator:
            found = recalled(part, record, at, self._paces, self._policy, now=self._now)
            tried = iter(() if found is None else (found,))
        elif must_be_done(record.spec):
            calendar, paces, policy = self._calendar, self._paces, self._policy
            tried = put_off(part, record, at, calendar, paces, policy, now=self._now)
        else:
            tried = iter([put_aside(part, record, at, self._paces, self._policy, now=self._now)])
        for after in tried:
            with self._with(after):
                if self._can_be_kept(after):
                    return after
        return None

    def _can_be_kept(self, part: Part) -> bool:
        """All that it takes but for what it took already."""
        had, demands = demands_of(self._parts[part.name].value)[0].window, demands_of(part)
        first = demands[0].window
        less = first.start == had.start and first.end <= had.end
        return all(
            self._calendar.free(key, demand.window) >= 0
            for demand in (demands[1:] if less else demands)
            for key in demand.amounts
        )


def _is_moved(before: Part, after: Part) -> bool:
    """As a whole: it has not begun."""
    return after.window.start != before.window.start


def free_from(part: Part) -> datetime:
    """But for disk that is kept."""
    saved = part.keeping.save if part.keeping and part.keeping.until else timedelta()
    return part.window.end + saved


def _in_order(
    running: Sequence[tuple[Versioned[ClusterRecord], Part]], policy: Policy, now: datetime
) -> list[tuple[Versioned[ClusterRecord], Part]]:
    """Who gives way first; those with a deadline only where the others are not enough."""
    now_s, order = seconds(now), policy.queue.order
    of = {record.value.name: (record, part) for record, part in running}
    leases = [_lease(record.value, part, now_s) for record, part in running]
    ranks = {each.request.name: order.rank(each, now_s) for each in leases}
    first = policy.queue.preemption.for_reservation(
        leases, sum(each.nodes for each in leases), lambda each: ranks[each.request.name], now_s
    )
    found = [of[each.request.name] for each in first]
    return sorted(found, key=lambda each: must_be_done(each[0].value.spec))


def _lease(record: ClusterRecord, part: Part, now_s: int) -> Lease:
    assert record.waits is not None
    restore = part.keeping.restore if part.keeping is not None else timedelta()
    return Lease(
        request=BestEffort(
            name=record.name,
            nodes=max(1, len(part.spec.workspaces)),
            duration_s=max(1, -(-runs_for(record.spec) // _S)),
        ),
        submit_s=seconds(record.create_time),
        state=State.RUNNING,
        since_s=min(seconds(part.window.start + restore), now_s),
        banked_s=record.waits.ran // _S,
    )
