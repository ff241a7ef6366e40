"""The one function that says what fits: sums of demand over half-open windows of time.

Admission, placement, offers and what a site says of itself all ask this module, so that there
is one opinion of what is free.
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from intertie.common.intervals import Window
from intertie.common.profiles import Bounds, Profile
from intertie.common.values import Struct


class Demand(Struct, frozen=True):
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
    `capacities` is asked, not copied.
    """

    def __init__(self, capacities: Mapping[str, int], demands: Iterable[Demand] = ()) -> None:
        self._capacities = capacities
        self._demands: dict[str, Demand] = {}
        changes: defaultdict[str, defaultdict[datetime, int]] = defaultdict(
            lambda: defaultdict(int)
        )
        for demand in demands:
            self._remember(demand)
            for resource, amount in demand.amounts.items():
                changes[resource][demand.window.start] += amount
                changes[resource][demand.window.end] -= amount
        self._profiles = {resource: Profile(of) for resource, of in changes.items()}
        self._known: dict[tuple[str, ...], tuple[Bounds, tuple[int, ...]]] = {}
        """Peaks of resources that were asked for together, and for which windows."""
        self._asked: dict[str, set[tuple[str, ...]]] = {}
        """With which others each was."""
        self._ends = sorted(each.window.end for each in self._demands.values())

    def over(self, capacities: Mapping[str, int]) -> "Calendar":
        """The same demands on other capacities. Not a copy: what is added or removed later is
        added and removed in both."""
        other = Calendar.__new__(Calendar)
        other._capacities = capacities
        other._demands, other._profiles, other._ends = self._demands, self._profiles, self._ends
        other._known, other._asked = self._known, self._asked
        return other

    def capacity(self, resource: str) -> int:
        return self._capacities.get(resource, 0)

    def peak(self, resource: str, window: Window) -> int:
        """The highest sum of demand at any moment of the window."""
        profile = self._profiles.get(resource)
        return profile.peak(window) if profile else 0

    def peaks(self, resources: tuple[str, ...], window: Window) -> tuple[int, ...]:
        """Of each. What was found is kept until something of them is taken or given back: most
        admissions at a large site ask all of its hosts for windows that begin now, and between
        two of them nothing begins or ends on most hosts."""
        known = self._known.get(resources)
        if known is not None and known[0].contain(window):
            return known[1]
        if known is None:
            for each in resources:
                self._asked.setdefault(each, set()).add(resources)
        looks = [
            profile.look(window) if (profile := self._profiles.get(each)) else (0, Bounds())
            for each in resources
        ]
        found = tuple(peak for peak, _ in looks)
        self._known[resources] = Bounds.common([bounds for _, bounds in looks]), found
        return found

    def free(self, resource: str, window: Window) -> int:
        """What may be taken over the whole window; negative where too much was promised."""
        return self.capacity(resource) - self.peak(resource, window)

    def moments(self, resource: str) -> tuple[datetime, ...]:
        """When the sum of demand changes, in order."""
        profile = self._profiles.get(resource)
        return profile.moments() if profile else ()

    def ends(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """When demands end, in order and each moment once: later than `after`, and `until` at the
        latest."""
        while True:
            place = bisect_right(self._ends, after)
            if place == len(self._ends) or self._ends[place] > until:
                return
            after = self._ends[place]
            yield after

    def earliest(self, demand: Demand, latest: datetime) -> datetime | None:
        """The first start, from the demand's own on and `latest` at the latest, at which it fits
        for as long as it lasts; None where there is none."""
        limits = {
            resource: self.capacity(resource) - amount
            for resource, amount in demand.amounts.items()
            if amount
        }
        if any(limit < 0 for limit in limits.values()):
            return None
        lasts, start = demand.window.duration, demand.window.start
        while start <= latest:
            window = Window(start, start + lasts)
            clear = (
                profile.clear(limit, window)
                for resource, limit in limits.items()
                if (profile := self._profiles.get(resource))
            )
            later = next((each for each in clear if each is not None), None)
            if later is None:
                return start
            start = later
        return None

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
        insort(self._ends, demand.window.end)
        for resource, amount in demand.amounts.items():
            self._profile(resource).shift(demand.window, amount)
            self._forget(resource)

    def remove(self, key: str) -> None:
        """Counts a demand no more; KeyError where there is none of that key."""
        demand = self._demands.pop(key)
        del self._ends[bisect_left(self._ends, demand.window.end)]
        for resource, amount in demand.amounts.items():
            self._profiles[resource].shift(demand.window, -amount)
            self._forget(resource)

    def _forget(self, resource: str) -> None:
        for together in self._asked.pop(resource, ()):
            self._known.pop(together, None)

    def __contains__(self, key: str) -> bool:
        return key in self._demands

    def _profile(self, resource: str) -> Profile:
        if resource not in self._profiles:
            self._profiles[resource] = Profile({})
        return self._profiles[resource]

    def _remember(self, demand: Demand) -> None:
        if demand.key in self._demands:
            raise ValueError(f"{demand.key} is counted already")
        self._demands[demand.key] = demand
