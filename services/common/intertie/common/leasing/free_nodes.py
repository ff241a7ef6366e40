"""How many nodes are free from now on, where all are alike: a step function of time."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from intertie.common.leasing.lease import Lease


class FreeNodes:
    """`free[i]` nodes from `times[i]` up to `times[i + 1]`; the last holds for ever.

    Free is negative where more is planned than there is: running leases that a reservation
    will make suspend are counted as if they stayed.

    Made anew for each decision, of a few hundred spans at most: a third of what the ledger's
    calendar takes for the same, in which a replay spends its time.
    """

    __slots__ = ("_free", "_times")

    def __init__(self, now_s: int, nodes: int, taken: Iterable[tuple[int, int, int]] = ()) -> None:
        """`taken`: start, end and nodes of each span that is not free. What was before `now_s`
        is left out."""
        changes = {now_s: nodes}
        for start, end, amount in taken:
            if end <= now_s:
                continue
            start = max(start, now_s)
            changes[start] = changes.get(start, 0) - amount
            changes[end] = changes.get(end, 0) + amount
        self._times = sorted(changes)
        self._free: list[int] = []
        level = 0
        for time in self._times:
            level += changes[time]
            self._free.append(level)

    def free(self, at_s: int) -> int:
        return self._free[bisect_right(self._times, at_s) - 1]

    def least(self, start_s: int, end_s: int) -> int:
        """The fewest that are free at any moment from `start_s` up to, not including, `end_s`."""
        first = bisect_right(self._times, start_s) - 1
        return min(self._free[first : max(bisect_left(self._times, end_s), first + 1)])

    def earliest(self, nodes: int, span_s: int, from_s: int) -> int | None:
        """When so many nodes are first free for so long; None if there never are so many."""
        place = bisect_right(self._times, from_s) - 1
        start: int | None = None
        last = len(self._times) - 1
        for step in range(place, last + 1):
            if self._free[step] < nodes:
                start = None
                continue
            if start is None:
                start = max(self._times[step], from_s)
            if step == last or self._times[step + 1] - start >= span_s:
                return start
        return None

    def take(self, nodes: int, start_s: int, end_s: int) -> None:
        first, last = self._step_at(start_s), self._step_at(end_s)
        for step in range(first, last):
            self._free[step] -= nodes

    def _step_at(self, at_s: int) -> int:
        place = bisect_left(self._times, at_s)
        if place == len(self._times) or self._times[place] != at_s:
            self._times.insert(place, at_s)
            self._free.insert(place, self._free[place - 1])
        return place


@dataclass(frozen=True, slots=True)
class OnNodes:
    """See `availability.Availability`: a lease takes so many nodes, whichever they are."""

    free: FreeNodes

    def fits(self, lease: Lease, start_s: int, end_s: int) -> bool:
        free, nodes = self.free, lease.nodes
        return free.free(start_s) >= nodes and free.least(start_s, end_s) >= nodes

    def earliest(self, lease: Lease, span_s: int, from_s: int) -> int | None:
        return self.free.earliest(lease.nodes, span_s, from_s)

    def take(self, lease: Lease, start_s: int, end_s: int) -> None:
        self.free.take(lease.nodes, start_s, end_s)

    def hold(self, lease: Lease, start_s: int, end_s: int) -> "NodesHeld":
        return NodesHeld(start_s, self.free.least(start_s, end_s) - lease.nodes)


@dataclass(slots=True)
class NodesHeld:
    """Who runs past `at_s` must do with `spare` nodes."""

    at_s: int
    spare: int

    def leaves(self, lease: Lease) -> bool:
        return lease.nodes <= self.spare

    def let_by(self, lease: Lease) -> None:
        self.spare -= lease.nodes
