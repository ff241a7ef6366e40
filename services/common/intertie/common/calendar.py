"""The one function that says what fits: sums of demand over half-open windows of time.

Broker admission, placement and the meta-scheduler all ask this module, so that there
is one opinion of what is free.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from intertie.common.intervals import Window


@dataclass(frozen=True, slots=True)
class Demand:
    """What one admission takes, from the window's start up to, not including, its end.

    `amounts` goes from a resource's key (`host/n1/vcpus`, `link/south/egress`) to how
    much of it; none is negative.
    """

    key: str
    window: Window
    amounts: Mapping[str, int]

    def __post_init__(self) -> None:
        for resource, amount in self.amounts.items():
            if amount < 0:
                raise ValueError(f"{self.key} takes {amount} of {resource}")


class Calendar:
    """Capacities and every demand on them, over all time.

    It counts, it does not refuse: `add` takes what does not fit too, as a ledger must
    when capacity has shrunk under what was promised. A resource without a capacity has 0.
    """

    def __init__(self, capacities: Mapping[str, int], demands: Iterable[Demand] = ()) -> None:
        self._capacities = dict(capacities)
        self._demands: dict[str, Demand] = {}
        changes: defaultdict[str, defaultdict[datetime, int]] = defaultdict(
            lambda: defaultdict(int)
        )
        for demand in demands:
            self._remember(demand)
            for resource, amount in demand.amounts.items():
                changes[resource][demand.window.start] += amount
                changes[resource][demand.window.end] -= amount
        self._profiles = {resource: _Profile(of) for resource, of in changes.items()}

    def over(self, capacities: Mapping[str, int]) -> "Calendar":
        """The same demands on other capacities. Not a copy: what is added or removed later is
        added and removed in both."""
        other = Calendar(capacities)
        other._demands, other._profiles = self._demands, self._profiles
        return other

    def capacity(self, resource: str) -> int:
        return self._capacities.get(resource, 0)

    def peak(self, resource: str, window: Window) -> int:
        """The highest sum of demand at any moment of the window."""
        profile = self._profiles.get(resource)
        return profile.peak(window) if profile else 0

    def free(self, resource: str, window: Window) -> int:
        """What may be taken over the whole window; negative where too much was promised."""
        return self.capacity(resource) - self.peak(resource, window)

    def moments(self, resource: str) -> tuple[datetime, ...]:
        """When the sum of demand changes, in order: the only starts worth trying later."""
        profile = self._profiles.get(resource)
        return profile.moments() if profile else ()

    def fits(self, demand: Demand) -> bool:
        return not self.shortfalls(demand)

    def shortfalls(self, demand: Demand) -> tuple[tuple[str, int, int], ...]:
        """(resource, wanted, available) for each resource of which too little is free."""
        return tuple(
            (resource, amount, max(free, 0))
            for resource, amount in demand.amounts.items()
            if 0 < amount > (free := self.free(resource, demand.window))
        )

    def add(self, demand: Demand) -> None:
        """Counts a demand; its key must be new."""
        self._remember(demand)
        for resource, amount in demand.amounts.items():
            self._profile(resource).shift(demand.window, amount)

    def remove(self, key: str) -> None:
        """Counts a demand no more; KeyError where there is none of that key."""
        demand = self._demands.pop(key)
        for resource, amount in demand.amounts.items():
            self._profiles[resource].shift(demand.window, -amount)

    def __contains__(self, key: str) -> bool:
        return key in self._demands

    def _profile(self, resource: str) -> "_Profile":
        if resource not in self._profiles:
            self._profiles[resource] = _Profile({})
        return self._profiles[resource]

    def _remember(self, demand: Demand) -> None:
        if demand.key in self._demands:
            raise ValueError(f"{demand.key} is counted already")
        self._demands[demand.key] = demand


class _Profile:
    """A step function of time: `levels[i]` holds from `times[i]` up to `times[i + 1]`.

    0 before the first step, and the last level is 0. No two neighbours are equal, so the
    size is bounded by the demands that are counted now.
    """

    __slots__ = ("_levels", "_times")

    def __init__(self, changes: Mapping[datetime, int]) -> None:
        self._times: list[datetime] = []
        self._levels: list[int] = []
        level = 0
        for time, change in sorted(changes.items()):
            if change:
                level += change
                self._times.append(time)
                self._levels.append(level)

    def moments(self) -> tuple[datetime, ...]:
        return tuple(self._times)

    def peak(self, window: Window) -> int:
        first = bisect_right(self._times, window.start)
        last = bisect_left(self._times, window.end)
        before = self._levels[first - 1] if first else 0
        return max(before, max(self._levels[first:last], default=0))

    def shift(self, window: Window, amount: int) -> None:
        if not amount:
            return
        first, last = self._step_at(window.start), self._step_at(window.end)
        self._levels[first:last] = [level + amount for level in self._levels[first:last]]
        self._forget_if_flat(last)
        self._forget_if_flat(first)

    def _step_at(self, time: datetime) -> int:
        """Where the step at `time` is; made, without height, if there is none."""
        place = bisect_left(self._times, time)
        if place == len(self._times) or self._times[place] != time:
            self._times.insert(place, time)
            self._levels.insert(place, self._levels[place - 1] if place else 0)
        return place

    def _forget_if_flat(self, place: int) -> None:
        before = self._levels[place - 1] if place else 0
        if self._levels[place] == before:
            del self._times[place], self._levels[place]
