"""Where a site has room for leases that wait: `leasing.Availability` on the ledger's own calendar.

What is tried out is counted on the book's calendar itself, where all else counts, and taken out
again at the end: nothing else is decided meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from types import TracebackType
from typing import Protocol, Self

from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window
from intertie.common.leasing.availability import Held
from intertie.common.leasing.lease import Lease

MAX_STARTS = 32
"""Starts that are tried for one lease; later ones are out of sight."""


class Opening(Protocol):
    """One lease that waits, and where it could go."""

    span_s: int
    """For how long there has to be room for it to begin."""

    def take(self, window: Window) -> Sequence[Demand] | None:
        """What it would take over that window; None where there is no room for it."""
        ...


def seconds(moment: datetime) -> int:
    """Whole ones since 1970, the last that had begun."""
    return int(moment.timestamp())


class Openings:
    """See leasing.availability.Availability. `now_s` of all questions is that of `now`."""

    def __init__(self, calendar: Calendar, of: Mapping[str, Opening], *, now: datetime) -> None:
        """`of`: by the lease's name."""
        self._calendar = calendar
        self._of = of
        self._now = now
        self.now_s = seconds(now)
        self._counted: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for key in self._counted:
            self._calendar.remove(key)
        self._counted = []

    def moment(self, at_s: int) -> datetime:
        return self._now + timedelta(seconds=at_s - self.now_s)

    def fits(self, lease: Lease, start_s: int, end_s: int) -> bool:
        return self._find(lease, start_s, end_s) is not None

    def earliest(self, lease: Lease, span_s: int, from_s: int) -> int | None:
        """Now, or when something ends: nothing else makes room."""
        if self.fits(lease, from_s, from_s + span_s):
            return from_s
        latest = datetime.max.replace(tzinfo=self._now.tzinfo)
        ends = self._calendar.ends(self.moment(from_s), latest)
        for end in islice(ends, MAX_STARTS):
            at_s = self._after(end)
            if self.fits(lease, at_s, at_s + span_s):
                return at_s
        return None

    def take(self, lease: Lease, start_s: int, end_s: int) -> None:
        """Where it would have to be put aside before that, what it needs to begin."""
        found = self._find(lease, start_s, end_s)
        if found is None:
            span_s = self._of[lease.request.name].span_s
            found = self._find(lease, start_s, min(end_s, start_s + span_s))
        for number, demand in enumerate(found or ()):
            key = f"openings/{len(self._counted)}/{number}"
            self._calendar.add(Demand(key, demand.window, demand.amounts))
            self._counted.append(key)

    def hold(self, lease: Lease, start_s: int, end_s: int) -> Held:
        """It is counted at once, so whoever fits beside it does not put it off."""
        self.take(lease, start_s, end_s)
        return _Held(self, start_s, end_s)

    def _find(self, lease: Lease, start_s: int, end_s: int) -> Sequence[Demand] | None:
        window = Window(self.moment(start_s), self.moment(end_s))
        return self._of[lease.request.name].take(window)

    def _after(self, end: datetime) -> int:
        whole = self.now_s + int((end - self._now) / timedelta(seconds=1))
        return whole if self.moment(whole) >= end else whole + 1


@dataclass(frozen=True, slots=True)
class _Held:
    openings: Openings
    at_s: int
    until_s: int

    def leaves(self, lease: Lease) -> bool:
        return self.openings.fits(lease, self.openings.now_s, self.until_s)

    def let_by(self, lease: Lease) -> None:
        """Whoever takes it is counted."""
