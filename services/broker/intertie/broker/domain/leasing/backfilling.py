"""Who of those that wait starts now: one of a policy's plug-ins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from intertie.broker.domain.leasing.availability import Availability
from intertie.broker.domain.leasing.lease import Lease

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
        held: list[_Start] = []
        for lease in waiting:
            nodes = lease.nodes
            if free.free(now_s) >= nodes and free.least(now_s, now_s + span(lease)) >= nodes:
                end = now_s + full(lease)
                late = [start for start in held if end > start.at_s]
                if all(nodes <= start.spare for start in late):
                    for start in late:
                        start.spare -= nodes
                    free.take(nodes, now_s, end)
                    begun.append(lease)
                    continue
            if len(held) < self.protected:
                at = free.earliest(nodes, span(lease), now_s)
                if at is not None:
                    spare = free.least(at, at + span(lease)) - nodes
                    held.append(_Start(at_s=at, spare=spare))
        return begun


@dataclass(slots=True, kw_only=True)
class _Start:
    """A start that is not to be put off: who runs past it must do with `spare` nodes."""

    at_s: int
    spare: int


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
            nodes, span_s, full_s = lease.nodes, span(lease), full(lease)
            at = _earliest(nodes, free, span_s, unreserved, full_s, now_s)
            if at is None:
                continue
            if at == now_s:
                begun.append(lease)
            free.take(nodes, at, at + full_s)
            unreserved.take(nodes, at, at + full_s)
        return begun


def _earliest(
    nodes: int, free: Availability, span_s: int, unreserved: Availability, full_s: int, from_s: int
) -> int | None:
    """When nodes are free both for the span and, but for reservations, to the end."""
    while True:
        at = free.earliest(nodes, span_s, from_s)
        if at is None:
            return None
        then = unreserved.earliest(nodes, full_s, at)
        if then is None or then == at:
            return then
        from_s = then
