"""As few of those that could be put aside as are enough for a lease that does not wait; and before
that, of workspaces that others can do without."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic, Self, TypeVar

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.counted_as import counted_as
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.in_time import put_off
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of
from intertie.broker.domain.malleable import FewerOf
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.preemptible import free_from, in_order, is_over_first
from intertie.broker.domain.recalling import recalled
from intertie.broker.domain.running import Running
from intertie.broker.domain.stretches import must_be_done, put_aside, save_of
from intertie.broker.domain.vacating import called_off, goes, on_its_way_out
from intertie.common.calendar import Demand
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.spec import LeaseTerms
from intertie.common.values import Struct, replace

T = TypeVar("T")
_ASKED_FOR = "asked for"
SPARED_AT_MOST = 32
"""Of those that were found to give way, so many are asked whether it can be done without them."""


class GivesWay(Struct, frozen=True, kw_only=True):
    record: Versioned[ClusterRecord]
    part: Versioned[Part]
    after: Part
    fewer: ClusterRecord | None = None
    """Its cluster, where it goes on with fewer workspaces and is not put aside."""

    @property
    def free_from(self) -> datetime:
        """What it has no more, but for disk that is kept."""
        given_up = self.after.gives_up_by if self.fewer is not None else None
        return given_up or free_from(self.after)


class Fewest(Generic[T]):
    """With how many of them out of the way it fits. Whoever is tried is counted as put aside on the
    book's own calendar, one more or one less at a time, and as before once this is over."""

    def __init__(
        self,
        drafted: Callable[[LeaseTerms, LedgerView], T],
        lease: LeaseTerms,
        view: LedgerView,
        policy: Policy,
        running: Sequence[Running],
        now: datetime,
        *,
        takes: Callable[[T], Iterable[Demand]],
        patience: timedelta = timedelta(),
        before: datetime | None = None,
        fewer: Sequence[FewerOf] = (),
    ) -> None:
        """`drafted`: what is asked for, with such terms of lease; `takes`: what that takes. By
        `patience` it may begin later so that others need not be put aside, if that is `before`
        then. `fewer`: those that go on with fewer workspaces before anybody is put aside."""
        self._drafted = drafted
        self._takes = takes
        self._patience = patience
        self._before = before
        self._lease = lease
        self._policy = policy
        self._now = now
        self._asked = self._start = lease.start_time or now
        self._calendar = calendar_of(view, policy)
        self._view = replace(view, demands=self._calendar)
        self._paces = paces_of(view, policy)
        self._parts = view.parts
        self._fewer = {each.part.name: each for each in fewer}
        self._next = self._ways(in_order(running, view, policy, now))
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
        fits without it, so no more are asked than are needed, or twice as many. Who of them can go
        to other hosts by then does."""
        self._start = start
        found = self._enough()
        return self._by_migration(*found) if found is not None else None

    def _enough(self) -> tuple[T, tuple[GivesWay, ...]] | None:
        start = self._start
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
        return self._spared(found, self._order[:high])

    def with_nobody(self, start: datetime) -> tuple[T, tuple[GivesWay, ...]] | None:
        """From then on, with nobody out of the way who is not already."""
        self._start = start
        self._first(0)
        return self._fits()

    def _spared(
        self, found: tuple[T, tuple[GivesWay, ...]], chosen: list[GivesWay]
    ) -> tuple[T, tuple[GivesWay, ...]]:
        """Without those that the rest can do without; and those that have fewer, the last in order
        first, have as few fewer as are enough."""
        for each in [each for each in chosen if each.fewer is None][:SPARED_AT_MOST]:
            if len(chosen) == 1:
                break
            rest = [of for of in chosen if of is not each]
            self._count(rest)
            if (spared := self._fits()) is not None:
                found, chosen = spared, rest
        for each in [each for each in reversed(chosen) if each.fewer is not None]:
            others = [of for of in chosen if of is not each]
            fewer = self._fewer[each.after.name]
            low, high = 0 if others else 1, fewer.most
            while low < high:
                middle = (low + high) // 2
                tried = [self._with_fewer(fewer, middle), *others] if middle else others
                self._count(tried)
                if (spared := self._fits()) is not None:
                    found, chosen, high = spared, tried, middle
                else:
                    low = middle + 1
        self._count(chosen)
        return found

    def _fits(self) -> tuple[T, tuple[GivesWay, ...]] | None:
        """With those out of the way that are."""
        aside = [each for each, _ in self._counted.values()]
        kept = (each.after for each in aside if not each.fewer and not goes(each.after))
        if not all(map(self._can_be_kept, kept)):
            return None
        try:
            found = self._drafted(self._later(aside), self._view)
        except NoCapacity:
            return None
        return found, tuple(each for each in aside if each.after is not each.part.value)

    def _by_migration(
        self, found: T, aside: tuple[GivesWay, ...]
    ) -> tuple[T, tuple[GivesWay, ...]]:
        """The same with those of them on their way to other hosts for whom there is room there
        beside it; the others are put aside, no sooner than they have to be."""
        if not self._policy.queue.migration.moves:
            return found, aside
        begins = self._begins()
        for each in [one for one in aside if one.fewer is None]:
            after = self._on_its_way_out(each, found)
            if after is None or not self._is_in_time(after, begins):
                continue
            if (better := self._instead(each, after)) is not None:
                found, aside = better
        if (since := self._begins()) > begins:
            for each in [one for one in aside if not (one.fewer or goes(one.after))]:
                after = self._postponed(each, since)
                if after is not None and (later := self._instead(each, after)) is not None:
                    found, aside = later
        return found, aside

    def _begins(self) -> datetime:
        return self._later([each for each, _ in self._counted.values()]).start_time or self._asked

    def _instead(self, each: GivesWay, after: Part) -> tuple[T, tuple[GivesWay, ...]] | None:
        """What fits with that in the place of how it is out of the way; as before where nothing
        does."""
        self._back(after.name)
        self._away(replace(each, after=after))
        found = self._fits() if self._has_room(after) else None
        if found is None:
            self._back(after.name)
            self._away(each)
        return found

    def _has_room(self, part: Part) -> bool:
        """As it is counted: others may have been promised what it had when it was to be out of the
        way sooner."""
        return all(
            self._calendar.free(key, Window(max(demand.window.start, self._now), demand.window.end))
            >= 0
            for demand in demands_of(part)
            if demand.window.end > self._now
            for key in demand.amounts
        )

    def _on_its_way_out(self, each: GivesWay, found: T) -> Part | None:
        """Beside all others that are out of the way, and what is asked for."""
        part, record = each.part.value, each.record.value
        known = (self._parts.get(one.value.part) for one in self._view.in_line())
        counted = [one.after for one, _ in self._counted.values()]
        others = [*counted, *(one.value for one in known if one is not None)]
        self._back(part.name)
        with self._taken(found):
            after = on_its_way_out(
                part,
                record,
                self._asked - save_of(part, record, self._paces),
                [one for one in others if goes(one)],
                self._paces,
                self._view,
                self._policy,
                now=self._now,
            )
        self._away(each)
        return after

    def _postponed(self, each: GivesWay, since: datetime) -> Part | None:
        self._back(each.after.name)
        after = self._aside(each.record.value, each.part.value, since)
        self._away(each)
        return after

    def _is_in_time(self, part: Part, begins: datetime) -> bool:
        free = free_from(part)
        return free <= begins + self._patience and (self._before is None or free < self._before)

    @contextmanager
    def _taken(self, found: T) -> Iterator[None]:
        """It is on the book's calendar too."""
        keys = []
        for number, demand in enumerate(self._takes(found)):
            keys.append(f"{_ASKED_FOR}#{number}")
            self._calendar.add(Demand(keys[-1], demand.window, demand.amounts))
        try:
            yield
        finally:
            for key in keys:
                self._calendar.remove(key)

    def _first(self, count: int) -> int:
        """Has the first so many in order out of the way, or all that can; returns how many."""
        self._count(self._order[:count])
        while len(self._order) < count and (found := next(self._next, None)) is not None:
            self._order.append(found)
            self._count(self._order)
        return min(count, len(self._order))

    def _ways(self, running: Sequence[Running]) -> Iterator[GivesWay]:
        """Each is found beside all before it: what one with a deadline is promised must be free
        beside these."""
        for each in self._fewer.values():
            yield self._with_fewer(each, each.most)
        for record, part in running:
            if part.name in self._fewer:
                self._back(part.name)  # it is put aside with all that it has
            after = self._aside(record.value, part, self._asked)
            if part.name in self._fewer:
                self._count(self._order)
            if after is not None:
                yield GivesWay(record=record, part=self._parts[part.name], after=after)

    def _with_fewer(self, of: FewerOf, number: int) -> GivesWay:
        part, after = self._parts[of.part.name], of.without(number)
        return GivesWay(record=of.record, part=part, after=after.part, fewer=after.record)

    def _count(self, chosen: Sequence[GivesWay]) -> None:
        """Has these out of the way and nobody else: of one part the last, unless that changes
        nothing."""
        ways: dict[str, GivesWay] = {}
        for each in chosen:
            if each.after is not each.part.value or each.after.name not in ways:
                ways[each.after.name] = each
        for name, (way, _) in [*self._counted.items()]:
            if ways.get(name) is not way:
                self._back(name)
        for each in ways.values():
            self._away(each)

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
        cut = [each for each in aside if not _is_moved(each.part.value, each.after)]
        free = max((self._start, *(each.free_from for each in cut)))
        if free <= self._asked:
            return lease
        delay = max(lease.max_delay - (free - self._asked), timedelta())
        return replace(lease, start_time=free, max_delay=delay)

    def _with(self, after: Part) -> AbstractContextManager[None]:
        before = {after.name: self._parts[after.name].value}
        return counted_as(self._calendar, before, {after.name: after}, self._policy.admission)

    def _aside(self, record: ClusterRecord, part: Part, since: datetime) -> Part | None:
        """Out of the way from then on. None where it is over by then as it is, or where its disk is
        promised to others later, so that it cannot be kept, or where it would not be done in time.
        The same where it is over before it were saved: what it has is promised to others from its
        end on."""
        save = save_of(part, record, self._paces)
        at = since - save
        if at >= part.window.end:
            return None
        if part.vacating is not None:
            return called_off(part, since, now=self._now)
        if is_over_first(part, at, save, now=self._now):
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
