"""The graph of links over one window, by numbers: how far it is from a site to all others, and one
route each for many demands at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from heapq import heappop, heappush

from intertie.metasched.domain.costs import COST_SCALE, link_hour
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.routes import latency, least_half, linked_sites

FAR = 1 << 100
"""More than any plan costs: it cannot be."""
FINE = 1 << 20
"""What one millionth of the unit of account counts, so that a link without a price costs less."""
MICROSECOND = timedelta(microseconds=1)

Way = tuple[int, ...]
"""Sites by number, in order."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What two sites send one another, each way."""

    one: int
    two: int
    mbit_s: int
    most_us: int | None = None
    """The longest route that it may take."""


class Graph:
    """Sites in the order of the problem. Costs are whole; one Mbit/s on one link costs at least 1,
    so that shorter is cheaper where links have no price."""

    def __init__(self, problem: Problem, slot: int) -> None:
        self.names = tuple(site.name for site in problem.sites)
        number = {name: at for at, name in enumerate(self.names)}
        hours = problem.windows[slot].duration / timedelta(hours=1)
        self.forwards = tuple(site.forwards for site in problem.sites)
        self.free: list[int] = []
        """Of each link, Mbit/s each way."""
        self.price: list[int] = []
        """Of a Mbit/s on each link."""
        self.far_us: list[int] = []
        self.near: list[list[tuple[int, int]]] = [[] for _ in self.names]
        """Of each site: to whom it is linked, and by which link."""
        for one, two in linked_sites(problem):
            here, there = number[one.name], number[two.name]
            self.near[here].append((there, len(self.free)))
            self.near[there].append((here, len(self.free)))
            self.free.append(least_half(one, two, slot))
            price = round(link_hour(one, two, slot) * hours * COST_SCALE)
            self.price.append(max(price * FINE, 1))
            self.far_us.append(latency(one, two) // MICROSECOND)
        self.uniform = len(set(self.price)) <= 1
        self.whole = self._reaches_all()
        """From every site there is a way to every other, however little is free; else that may
        be so."""
        self.cheapest = min(self.price, default=0)
        self._steps: dict[int, tuple[list[list[int]], dict[tuple[str, ...], int]]] = {}
        self._wide: dict[int, list[list[tuple[int, int]]]] = {}

    def _reaches_all(self) -> bool:
        others = len(self.names) - 1
        if all(len(near) == others for near in self.near):
            return True
        return all(self.forwards) and len(self._tree(0, self.near, by_time=False)) == others + 1

    def in_units_of(self, unit: int) -> None:
        """Counts all prices in these, of which they are multiples."""
        self.price = [each // unit for each in self.price]
        self.cheapest //= unit

    def wide(self, mbit_s: int) -> list[list[tuple[int, int]]]:
        """`near`, but for the links that have less free."""
        found = self._wide.get(mbit_s)
        if found is None:
            free = self.free
            found = [[(v, e) for v, e in near if free[e] >= mbit_s] for near in self.near]
            self._wide[mbit_s] = found
        return found

    def costs_from(self, start: int, mbit_s: int, most_us: int | None) -> list[int]:
        """What it costs to send that much between a site and each other, as if nothing else were
        sent; FAR where there is no way. 0 to itself."""
        if self.uniform and most_us is None:
            return self._steps_from(start, mbit_s)
        costs = [FAR] * len(self.names)
        for by_time in (False, True) if most_us is not None else (False,):
            for site, (cost, far_us, _) in self._tree(start, self.wide(mbit_s), by_time).items():
                if most_us is None or far_us <= most_us:
                    costs[site] = min(costs[site], cost * mbit_s)
        return costs

    def _steps_from(self, start: int, mbit_s: int) -> list[int]:
        """The same where all links cost the same, and time does not count."""
        reached, prices = self._reached(mbit_s)
        above = 1 << len(self.names)
        # Of each site, from the first one: '1' where it is reached over so many links.
        within = (bin(bits[start] | above)[:2:-1] for bits in reached)
        costs = list(map(prices.__getitem__, zip(*within, strict=True)))
        costs[start] = 0
        return costs

    def _reached(self, mbit_s: int) -> tuple[list[list[int]], dict[tuple[str, ...], int]]:
        """Of each site, whom it reaches over one link, over two at most, and so on, a bit each; and
        what that costs, by in which of these one is."""
        found = self._steps.get(mbit_s)
        if found is None:
            near = [[peer for peer, _ in near] for near in self.wide(mbit_s)]
            one = [sum(1 << peer for peer in peers) for peers in near]
            beyond = [[peer for peer in peers if self.forwards[peer]] for peers in near]
            reached, more = [one], list[int]()
            while more != reached[-1]:
                if more:
                    reached.append(more)
                last, more = reached[-1], []
                for site, peers in enumerate(beyond):
                    bits = last[site]
                    for peer in peers:
                        bits |= last[peer]
                    more.append(bits)
            count, step = len(reached), self.cheapest * mbit_s
            prices = {
                ("0",) * at + ("1",) * (count - at): step * (at + 1) if at < count else FAR
                for at in range(count + 1)
            }
            found = self._steps[mbit_s] = reached, prices
        return found

    def _tree(
        self,
        start: int,
        wide: Sequence[Sequence[tuple[int, int]]],
        by_time: bool,
        end: int | None = None,
    ) -> dict[int, tuple[int, int, tuple[int, int]]]:
        """The best ways from a site, until `end` is reached: what a Mbit/s costs, how long it
        takes, and the site and the link before."""
        found: dict[int, tuple[int, int, tuple[int, int]]] = {}
        line = [(0, 0, start, (-1, -1))]
        while line and end not in found:
            first, second, site, before = heappop(line)
            if site in found:
                continue
            cost, far_us = (second, first) if by_time else (first, second)
            found[site] = (cost, far_us, before)
            if site != start and not self.forwards[site]:
                continue
            for peer, link in wide[site]:
                if peer not in found:
                    more = cost + self.price[link], far_us + self.far_us[link]
                    heappush(line, (*(more[::-1] if by_time else more), peer, (site, link)))
        return found

    def ways(self, demands: Sequence[Demand]) -> tuple[int, list[Way]] | None:
        """One way for each, all at once, and what they cost; None where that was not found. Those
        that fit their own link go first, the others by how much they are."""
        left = dict[int, int]()
        ways: list[Way] = [()] * len(demands)
        total = 0
        for at in self._in_order(demands):
            found = self._way(demands[at], left)
            if found is None:
                return None
            ways[at], links = found
            for link in links:
                left[link] = left.get(link, self.free[link]) - demands[at].mbit_s
                total += self.price[link] * demands[at].mbit_s
        return total, ways

    def _in_order(self, demands: Sequence[Demand]) -> Iterator[int]:
        def key(at: int) -> tuple[bool, int]:
            demand = demands[at]
            beside = any(peer == demand.two for peer, _ in self.wide(demand.mbit_s)[demand.one])
            return not beside, -demand.mbit_s

        return iter(sorted(range(len(demands)), key=key))

    def _way(self, demand: Demand, left: dict[int, int]) -> tuple[Way, list[int]] | None:
        """The cheapest in time; else, the quickest, if that is. `left`: of links that are taken."""
        free, mbit_s = self.free, demand.mbit_s
        if self.uniform and demand.most_us is None:
            return self._fewest_steps(demand, left)
        wide = [[(v, e) for v, e in near if left.get(e, free[e]) >= mbit_s] for near in self.near]
        for by_time in (False, True) if demand.most_us is not None else (False,):
            tree = self._tree(demand.one, wide, by_time, demand.two)
            if demand.two not in tree:
                return None
            if demand.most_us is None or tree[demand.two][1] <= demand.most_us:
                return _back(demand, {site: each[2] for site, each in tree.items()})
        return None

    def _fewest_steps(self, demand: Demand, left: dict[int, int]) -> tuple[Way, list[int]] | None:
        one, two, mbit_s = demand.one, demand.two, demand.mbit_s
        before = {one: (-1, -1)}
        edge = [one]
        while edge:
            beyond = []
            for site in edge:
                for peer, link in self.wide(mbit_s)[site]:
                    if peer not in before and left.get(link, mbit_s) >= mbit_s:
                        before[peer] = (site, link)
                        if peer == two:
                            return _back(demand, before)
                        if self.forwards[peer]:
                            beyond.append(peer)
            edge = beyond
        return None


def _back(demand: Demand, before: dict[int, tuple[int, int]]) -> tuple[Way, list[int]]:
    """The way to the second end, and its links."""
    way, links = [demand.two], []
    while way[-1] != demand.one:
        site, link = before[way[-1]]
        way.append(site)
        links.append(link)
    return tuple(way[::-1]), links
