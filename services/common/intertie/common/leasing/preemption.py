"""Who gives way to whom: one of a policy's plug-ins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from intertie.common.errors import FieldInvalid
from intertie.common.leasing.lease import Lease

Rank = Callable[[Lease], float]


class Preemption(Protocol):
    def for_reservation(
        self, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        """Those of `running` that give way to a reservation which lacks so many nodes: with at
        least as many nodes, or all."""

    def for_lease(
        self, lease: Lease, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        """Those that give way to `lease`, a best-effort one as they are, with at least so many
        nodes; [] if it is not worth it, or if those that might have too few."""


@dataclass(frozen=True, slots=True)
class LastInOrder:
    """To reservations, those give way that are last in the order; to each other, none."""

    def for_reservation(
        self, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        return _enough(_last_first(running, rank), nodes)

    def for_lease(
        self, lease: Lease, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        return []


@dataclass(frozen=True, slots=True)
class LeastDone:
    """To reservations, those give way that have run the shortest: where they are cancelled, the
    least is lost. To each other, none."""

    def for_reservation(
        self, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        return _enough(sorted(running, key=lambda lease: lease.done_s(now_s)), nodes)

    def for_lease(
        self, lease: Lease, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class FarInOrder(LastInOrder):
    """To reservations, those give way that are last in the order; to each other, those that come
    later in it, have run for `least_run_s` since they last started, and have a rank that is
    `factor` times as high, in the mean over their nodes: what two leases would win by taking
    turns goes into suspends. The mean, since one lease that is not far behind would else be in
    the way of one that wants all nodes.
    """

    factor: float = 4.0
    least_run_s: int = 60

    def __post_init__(self) -> None:
        """Less than this, and two leases could suspend each other for ever."""
        if self.factor < 1:
            raise FieldInvalid("factor", f"is {self.factor}; must be 1 or more")
        if self.least_run_s < 1:
            raise FieldInvalid("least_run_s", f"is {self.least_run_s}; must be 1 or more")

    def for_lease(
        self, lease: Lease, running: Sequence[Lease], nodes: int, rank: Rank, now_s: int
    ) -> list[Lease]:
        own = rank(lease)
        may = [
            other
            for other in running
            if now_s - other.since_s >= self.least_run_s and rank(other) > own
        ]
        if sum(other.nodes for other in may) < nodes:
            return []
        chosen = _enough(_last_first(may, rank), nodes)
        held = sum(other.nodes for other in chosen)
        far = sum(other.nodes * rank(other) for other in chosen)
        return chosen if far >= self.factor * own * held else []


@dataclass(frozen=True, slots=True)
class ByMigration:
    """Who gives way to a reservation goes to other hosts while it runs, where there is room."""

    longest_delay: timedelta
    """By which one that is to begin at once may begin later than if others were suspended."""
    moves: bool = True
    """Any of them does."""


def _last_first(leases: Sequence[Lease], rank: Rank) -> list[Lease]:
    """Of equal ones, who came first gives way last."""
    return sorted(leases, key=lambda lease: (rank(lease), lease.submit_s))[::-1]


def _enough(leases: Sequence[Lease], nodes: int) -> list[Lease]:
    """The first that together have so many nodes, less those that the rest can do without; all,
    if they have too few."""
    chosen: list[Lease] = []
    missing = nodes
    for lease in leases:
        if missing <= 0:
            break
        chosen.append(lease)
        missing -= lease.nodes
    for lease in sorted(chosen, key=lambda lease: lease.nodes):
        if missing + lease.nodes <= 0:
            chosen.remove(lease)
            missing += lease.nodes
    return chosen
