"""Which hosts of a site workspaces go on, one after another."""

from collections.abc import Mapping
from dataclasses import dataclass

from intertie.common.quantities import Vector
from intertie.common.values import replace
from intertie.metasched.domain.candidates import hindrance
from intertie.metasched.domain.problem import GroupNeed, HostRoom, Problem, Site


@dataclass(frozen=True, slots=True)
class Packing:
    """What is on the hosts of a site; it never changes, more makes another."""

    counts: tuple[Mapping[str, int], ...]
    """By group, of each host."""
    free: tuple[Vector, ...]
    """Without what promised pairs take of uplinks."""

    def count(self, group: str) -> int:
        return sum(host.get(group, 0) for host in self.counts)


class Packer:
    """Of the sites of a problem in one of its windows, where there are as many of each group as
    `totals` says."""

    def __init__(self, problem: Problem, slot: int, totals: Mapping[str, int]) -> None:
        self._problem, self._slot, self._totals = problem, slot, totals
        self._groups = {group.name: group for group in problem.groups}
        self._promises: dict[str, list[tuple[str, int]]] = {name: [] for name in self._groups}
        """Of each group: with whom, and how much."""
        for promise in problem.promises:
            self._promises[promise.a].append((promise.b, promise.mbit_s))
            if promise.a != promise.b:
                self._promises[promise.b].append((promise.a, promise.mbit_s))
        self._takes: dict[tuple[str, int, int], Vector] = {}
        self.narrow = False
        """Some host was not taken for its uplink, which may do once there are more on it."""
        self._most = self._mosts(problem, slot)

    def empty(self, site: Site) -> Packing:
        hosts = site.offers[self._slot].hosts
        return Packing(({},) * len(hosts), tuple(host.free.at_least_zero() for host in hosts))

    def may(self, site: Site, group: str) -> bool:
        return self._most.get((group, site.name), 1) > 0

    def with_more(self, site: Site, packing: Packing, group: str, count: int) -> Packing | None:
        """With so many more of the group, each on the host on which the fewest vCPUs are left; if
        they do not fit so, all are put anew, the largest first."""
        most = self._most.get((group, site.name))
        if most is not None and packing.count(group) + count > most:
            return None
        put = self._put(site, packing, group, count)
        if put is not None or not any(packing.counts):
            return put
        left = Vector()
        for free in packing.free:
            left += free
        if not self.takes(site, group) * count <= left:
            return None  # however they are put
        wanted = {name: packing.count(name) for name in self._groups}
        wanted[group] += count
        again = self.empty(site)
        order = sorted(wanted, key=lambda name: self._size(site, name), reverse=True)
        for name in order:
            found = self._put(site, again, name, wanted[name])
            if found is None:
                return None
            again = found
        return again

    def _size(self, site: Site, group: str) -> tuple[int, int, int]:
        takes = self.takes(site, group)
        return takes.vcpus, takes.memory_mib, takes.disk_mib

    def takes(self, site: Site, group: str) -> Vector:
        offer = site.offers[0]
        key = group, offer.default_iops, offer.default_mib_s
        if key not in self._takes:
            self._takes[key] = site.takes(self._groups[group])
        return self._takes[key]

    def _put(self, site: Site, packing: Packing, group: str, count: int) -> Packing | None:
        takes, need = self.takes(site, group), self._groups[group]
        hosts = site.offers[self._slot].hosts
        counts, free = list(packing.counts), list(packing.free)
        for _ in range(count):
            fits = [
                at
                for at, host in enumerate(hosts)
                if takes <= free[at] and self._suits(host, need, counts[at], free[at] - takes)
            ]
            if not fits:
                return None
            best = min(fits, key=lambda at: (free[at].vcpus, free[at].memory_mib))
            counts[best] = {**counts[best], group: counts[best].get(group, 0) + 1}
            free[best] -= takes
        return Packing(tuple(counts), tuple(free))

    def _suits(
        self, host: HostRoom, need: GroupNeed, here: Mapping[str, int], left: Vector
    ) -> bool:
        """Whether one more may be there, by all but the vector of the host; `left` by then."""
        there = here.get(need.name, 0) + 1
        if not host.suits(need) or (need.max_per_host and there > need.max_per_host):
            return False
        if self._leaving({**here, need.name: there}) <= left.uplink_mbit_s:
            return True
        self.narrow = True
        return False

    def _leaving(self, here: Mapping[str, int]) -> int:
        """Mbit/s of the pairs that have one end on a host with these, and the other elsewhere."""
        return sum(
            count * mbit_s * (self._totals[other] - here.get(other, 0))
            for name, count in here.items()
            for other, mbit_s in self._promises[name]
        )

    def _mosts(self, problem: Problem, slot: int) -> dict[tuple[str, str], int]:
        """How many of a group may be at a site at most, where that is bounded."""
        found: dict[tuple[str, str], int] = {}

        def at_most(group: str, site: str, most: int) -> None:
            found[group, site] = min(most, found.get((group, site), most))

        for group in problem.groups:
            for site in problem.sites:
                if hindrance(group, site) is not None:
                    at_most(group.name, site.name, 0)
                elif group.max_per_site:
                    at_most(group.name, site.name, group.max_per_site)
        for cut in problem.cuts:
            if len(cut.counts) == 1 and cut.holds_at(problem.windows[slot].start):
                for (name, place), count in cut.counts.items():
                    at_most(name, place, count - 1)
        return found


def fits_at_all(problem: Problem, slot: int, counts: Mapping[str, int]) -> bool:
    """Whether all hosts of all sites together have so much: where not, no search is needed."""
    free = Vector()
    for site in problem.sites:
        for host in site.offers[slot].hosts:
            free += host.free.at_least_zero()
    groups, least = {group.name: group for group in problem.groups}, Vector()
    for name, count in counts.items():
        # What sites do by their defaults is left out, for it is not the same everywhere.
        need = replace(groups[name].need, iops=0, throughput_mib_s=0)
        counted = {
            dimension: min(getattr(need, dimension), most)
            for dimension, most in groups[name].at_most.items()
        }
        least += replace(need, **counted) * count
    return least <= free


def places_for(group: GroupNeed, site: Site, slot: int, most: int) -> int:
    """For how many workspaces of the group there is room at the site, were it alone; `most` where
    for more."""
    takes = [(name, amount) for name, amount in site.takes(group).items() if amount]
    places = 0
    for host in site.offers[slot].hosts:
        if places >= most:
            break
        if host.suits(group):
            places += _on_host(group, host, takes, most)
    return min(places, group.max_per_site or most, most)


def _on_host(group: GroupNeed, host: HostRoom, takes: list[tuple[str, int]], most: int) -> int:
    fit = min((max(getattr(host.free, name), 0) // amount for name, amount in takes), default=most)
    return min(fit, group.max_per_host or most)
