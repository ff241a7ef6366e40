"""Who of those that wait starts now: one of a policy's plug-ins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from intertie.common.leasing.availability import Availability, Held
from intertie.common.leasing.lease import Lease

Span = Callable[[Lease], int]
"""For how many seconds nodes have to be free for a lease to start on them."""


class Backfilling(Protocol):
    def starts(
        self,
        waiting: Sequence[Lease],
        free: Availability,
        unreserved: Availability,
        span: Span,
        full: Span,
        now_s: int,
    ) -> list[Lease]:
        """Those that start now, of `waiting` in its order.

        `span` is what must be free for a lease to start, `full` what it takes if no reservation
        stops it. `unreserved` is what is free without reservations: into these, who can be
        suspended may run. Both profiles may be changed.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggressive:
    """EASY: the first that cannot start gets a start on the calendar, and others may pass it if
    they do not put that off. `protected` is how many get one; with 0 all may pass all."""

    protected: int = 1

    def starts(
        self,
        waiting: Sequence[Lease],
        free: Availability,
        unreserved: Availability,
        span: Span,
        full: Span,
        now_s: int,
    ) -> list[Lease]:
        begun: list[Lease] = []
        held: list[Held] = []
        for lease in waiting:
            if free.fits(lease, now_s, now_s + span(lease)):
                end = now_s + full(lease)
                late = [start for start in held if end > start.at_s]
                if all(start.leaves(lease) for start in late):
                    for start in late:
                        start.let_by(lease)
                    free.take(lease, now_s, end)
                    begun.append(lease)
                    continue
            if len(held) < self.protected:
                at = free.earliest(lease, span(lease), now_s)
                if at is not None:
                    held.append(free.hold(lease, at, at + span(lease)))
        return begun


@dataclass(frozen=True, slots=True)
class Conservative:
    """Each gets the earliest start that puts off nobody before it in the order."""

    def starts(
        self,
        waiting: Sequence[Lease],
        free: Availability,
        unreserved: Availability,
        span: Span,
        full: Span,
        now_s: int,
    ) -> list[Lease]:
        begun: list[Lease] = []
        for lease in waiting:
            full_s = full(lease)
            at = _earliest(lease, free, span(lease), unreserved, full_s, now_s)
            if at is None:
                continue
            if at == now_s:
                begun.append(lease)
            free.take(lease, at, at + full_s)
            unreserved.take(lease, at, at + full_s)
        return begun


def _earliest(
    lease: Lease,
    free: Availability,
    span_s: int,
    unreserved: Availability,
    full_s: int,
    from_s: int,
) -> int | None:
    """When nodes are free both for the span and, but for reservations, to the end."""
    while True:
        at = free.earliest(lease, span_s, from_s)
        if at is None:
            return None
        then = unreserved.earliest(lease, full_s, at)
        if then is None or then == at:
            return then
        from_s = then
