"""How items get to sites in time: which transfers, from where, by which way, how fast and when.

Each is at one rate without a break. Whatever has got an item may send it on. It is put together
one after another, beside those before: first by the cheapest ways, then as soon as can be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from math import inf

from intertie.common.values import replace
from intertie.metasched.domain.candidates import hindrance
from intertie.metasched.domain.costs import COST_SCALE
from intertie.metasched.domain.data import BITS_IN_MIB, TransferPlan, lasts_us
from intertie.metasched.domain.graph import FINE, MICROSECOND
from intertie.metasched.domain.link_times import NEVER, LinkTimes, Path, Widths, soonest
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem, Site

MOST_TRIED = 64
"""Spans in which a cheap way is looked for, for one transfer."""

Delivery = tuple[int, int]
"""An item and a site that does not have it, by numbers."""


@dataclass(frozen=True, slots=True)
class Move:
    """A transfer, by numbers; in microseconds from the beginning of the first span."""

    item: int
    path: Path
    mbit_s: int
    begin_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Staged:
    moves: tuple[Move, ...]
    cost: int
    """In the units of a graph."""


class Staging:
    """Of one problem that has items, over all of its windows."""

    def __init__(self, problem: Problem) -> None:
        self.links = LinkTimes(problem)
        self.items = problem.items
        number = {site.name: at for at, site in enumerate(problem.sites)}
        self.at = [frozenset(number[s] for s in item.at if s in number) for item in self.items]
        self._there = [
            at | {number[s] for s in item.settled if s in number}
            for at, item in zip(self.at, self.items, strict=True)
        ]
        """With those that do without."""
        self.of_group = {
            group.name: tuple(n for n, i in enumerate(self.items) if group.name in i.groups)
            for group in problem.groups
        }
        """Which items each group needs."""
        self.until_us = [
            max(
                min(
                    (window.start - self.links.zero) // MICROSECOND, max(self.links.ends, default=0)
                ),
                0,
            )
            for window in problem.windows
        ]
        """Of each window: by when all has to be there. In one that begins before anything could be
        sent, what needs nothing may be all the same."""
        self._problem = problem
        self._sites = range(len(problem.sites))
        self._alone_us = [
            [self.links.alone_us(link, item.size_mib) for link in range(len(self.links.price))]
            for item in self.items
        ]
        """Of each item: by when it can be over each link."""
        self._soonest = [self._soonest_of(at) for at in range(len(self.items))]
        self._ways: dict[tuple[int, int, int | None], list[tuple[float, Path] | None]] = {}
        self._prices: dict[tuple[int, int, int | None], list[int]] = {}
        self._missing: dict[tuple[str, int], tuple[int, ...]] = {}
        self._ready: dict[tuple[str, int], int] = {}
        self._found: dict[tuple[frozenset[Delivery], int], Staged | None] = {}
        self.tried = 0
        """How many transfers were looked for, all in all."""

    def missing(self, group: str, site: int) -> tuple[int, ...]:
        """What has to be brought before the group can be there."""
        found = self._missing.get((group, site))
        if found is None:
            found = tuple(item for item in self.of_group[group] if site not in self._there[item])
            self._missing[group, site] = found
        return found

    def ready_us(self, group: str, site: int) -> int:
        """When all that the group needs can be there at the soonest: no transfers whatsoever bring
        it sooner, however little else is sent."""
        found = self._ready.get((group, site))
        if found is None:
            missing = self.missing(group, site)
            found = max((self._soonest[item][site] for item in missing), default=0)
            if len(missing) > 1:
                size_mib = sum(self.items[item].size_mib for item in missing)
                found = max(found, self.links.enters_us(site, size_mib))
            self._ready[group, site] = found
        return found

    def all_there(self) -> timedelta:
        """How long it takes until each item could be wherever it can get to, one after another."""
        longest = (max((us for us in of if us < NEVER), default=0) for of in self._soonest)
        return timedelta(microseconds=sum(longest))

    def _soonest_of(self, item: int) -> list[int]:
        """By site. Every link on its way has carried all of it by then, be it that sites forward it
        or that they keep it and send it on."""
        links, alone_us = self.links, self._alone_us[item]
        passes = [self._may_pass(item, site) for site in self._problem.sites]
        found = [NEVER] * len(links.names)
        left = dict.fromkeys(self.at[item], 0)
        while left:
            site = min(left, key=lambda each: (left[each], each))
            found[site] = left.pop(site)
            if found[site] and not passes[site]:
                continue
            for peer, link in links.out[site]:
                if found[peer] < NEVER:
                    continue
                by = max(found[site], alone_us[link])
                if by < left.get(peer, NEVER):
                    left[peer] = by
        return found

    def _may_pass(self, item: int, site: Site) -> bool:
        groups = (self._problem.group(name) for name in self.items[item].groups)
        return site.forwards or any(hindrance(group, site) is None for group in groups)

    def way(
        self, item: int, until_us: int, site: int, source: int | None = None
    ) -> tuple[float, Path] | None:
        """The cheapest way there from a site that has it from the start, or from this one, over
        links that can carry it by then, were nothing else sent; and what a MiB costs."""
        key = item, until_us, source
        if key not in self._ways:
            usable = [alone <= until_us for alone in self._alone_us[item]]
            sources = self.at[item] if source is None else (source,)
            self._ways[key] = self.links.ways(sources, usable)
        return self._ways[key][site]

    def price(self, item: int, slot: int, site: int, source: int | None = None) -> int:
        """No transfer of it from there, that has come before the window, costs less; NEVER where
        there is none."""
        key = item, slot, source
        prices = self._prices.get(key)
        if prices is None:
            ways = (self.way(item, self.until_us[slot], at, source) for at in self._sites)
            prices = [NEVER if way is None else self._cost(item, way[0]) for way in ways]
            self._prices[key] = prices
        return prices[site]

    def cheapest_link(self, item: int, slot: int, site: int) -> int:
        """No transfer of it to the site, that has come before the window, costs less."""
        prices = [
            self.links.price[link]
            for link in self.links.into[site]
            if self._alone_us[item][link] <= self.until_us[slot]
        ]
        return self._cost(item, min(prices, default=0.0))

    def at_most(self) -> int:
        """No transfers at all of what there is cost more, each item to every site."""
        a_mib = sum(self.links.price) * len(self.links.names)
        return sum(self._cost(item, a_mib) for item in range(len(self.items)))

    def _cost(self, item: int, price: float) -> int:
        return round(price * self.items[item].size_mib * COST_SCALE) * FINE

    def scheduled(self, wanted: frozenset[Delivery], slot: int) -> Staged | None:
        """Transfers by which all of that is there before the window; None if none were found."""
        key = wanted, self.until_us[slot]
        if key not in self._found:
            self._found[key] = self._schedule(*key)
        return self._found[key]

    def _schedule(self, wanted: frozenset[Delivery], until_us: int) -> Staged | None:
        by_size = sorted(wanted, key=lambda each: (-self.items[each[0]].size_mib, *each))
        by_time = sorted(wanted, key=lambda each: (self._soonest[each[0]][each[1]], *each))
        for order, cheap in (
            (by_size, True),
            (by_time, False),
            (by_time[::-1], False),
            (by_size, False),
        ):
            moves = self._in_order(order, until_us, cheap=cheap)
            if moves is not None:
                cost = sum(self._cost_of(move) for move in moves)
                return Staged(tuple(moves), cost)
        return None

    def _cost_of(self, move: Move) -> int:
        _, links = move.path
        return self._cost(move.item, sum(self.links.price[link] for link in links))

    def _in_order(
        self, order: Sequence[Delivery], until_us: int, *, cheap: bool
    ) -> list[Move] | None:
        draft = Draft(self, until_us)
        left = list(order)
        while left:
            item, site = left[0]
            if cheap:  # the nearest to what has it, as that may be the next one's source
                sites = [s for i, s in left if i == item]
                site = min(sites, key=lambda s: (draft.price(item, s), s))
            left.remove((item, site))
            self.tried += 1
            move = (draft.cheaply(item, site) if cheap else None) or draft.at_once(item, site)
            if move is None:
                return None
            draft.add(move)
        return draft.moves

    def transfers(self, moves: Sequence[Move]) -> tuple[TransferPlan, ...]:
        """Of a plan, in the order in which they begin."""
        zero, found = self.links.zero, []
        for move in sorted(moves, key=lambda each: (each.begin_us, each.item, each.path)):
            way, links = move.path
            names = tuple(self.links.names[site] for site in way)
            item = self.items[move.item]
            found.append(
                TransferPlan(
                    item=item.name,
                    from_site=names[0],
                    to_site=names[-1],
                    via=names[1:-1],
                    mbit_s=move.mbit_s,
                    begin=zero + timedelta(microseconds=move.begin_us),
                    end=zero + timedelta(microseconds=move.end_us),
                    cost=item.size_mib * sum(self.links.price[link] for link in links),
                )
            )
        return tuple(found)


def with_moves(plan: Plan, staging: Staging, moves: Sequence[Move]) -> Plan:
    """With these transfers, which cost as much more."""
    transfers = staging.transfers(moves)
    cost = plan.cost + sum(each.cost for each in transfers)
    return replace(plan, transfers=transfers, cost=cost)


class Draft:
    """Transfers so far, and what they leave of the links."""

    def __init__(self, staging: Staging, until_us: int) -> None:
        self._staging, self._until_us = staging, until_us
        self._links, self._items = staging.links, staging.items
        self.has = [dict.fromkeys(sites, 0) for sites in staging.at]
        """Of each item: since when a site has it."""
        self.moves: list[Move] = []
        self._taken: dict[int, list[tuple[int, int, int]]] = {}
        links = staging.links
        self._changes = {0, *(each for each in links.begins if each < until_us)}

    def add(self, move: Move) -> None:
        way, links = move.path
        self.moves.append(move)
        self.has[move.item][way[-1]] = move.end_us
        for link in links:
            self._taken.setdefault(link, []).append((move.begin_us, move.end_us, move.mbit_s))
        self._changes |= {move.begin_us, move.end_us}

    def at_once(self, item: int, site: int) -> Move | None:
        """As soon as it can be, from wherever that is."""
        has = self.has[item]

        def widest(begin_us: int, end_us: int) -> tuple[int, Path] | None:
            free = self._links.less(begin_us, end_us, self._taken)
            sources = [each for each, since in has.items() if since <= begin_us]
            return self._links.widest(free, sources, site)

        return self._soonest(item, site, widest)

    def price(self, item: int, site: int) -> float:
        """Of a MiB that is brought there the cheapest way."""
        ways = self._ways(item, site)
        return min((price for price, _ in ways), default=inf)

    def _ways(self, item: int, site: int) -> list[tuple[float, Path]]:
        """The cheapest from those that have it from the start, and from each that has got it."""
        moved = (each.path[0][-1] for each in self.moves if each.item == item)
        ways = (self._staging.way(item, self._until_us, site, source) for source in (None, *moved))
        return [each for each in ways if each is not None]

    def cheaply(self, item: int, site: int) -> Move | None:
        """By the cheapest way, as soon as it can be by that; if that is not in time, by the
        cheapest of those that are."""
        ways = self._ways(item, site)
        if not ways:
            return None
        _, path = min(ways, key=lambda each: (each[0], len(each[1][0]), each[1]))
        move = self._by(item, path)
        if move is None and (in_time := self._cheapest_in_time(item, site)) is not None:
            move = self._by(item, in_time)
        return move

    def _by(self, item: int, path: Path) -> Move | None:
        """By that way, as soon as it can be."""
        since = self.has[item][path[0][0]]

        def of_path(begin_us: int, end_us: int) -> tuple[int, Path] | None:
            free = self._links.less(begin_us, end_us, self._taken)
            mbit_s = min(free[link] for link in path[1])
            return (mbit_s, path) if mbit_s and since <= begin_us else None

        return self._soonest(item, path[0][-1], of_path)

    def _cheapest_in_time(self, item: int, site: int) -> Path | None:
        """Of all ways by which it could be there between two moments; of the first MOST_TRIED of
        these, the earliest beginnings and the latest ends first."""
        has, size_mib = self.has[item], self._items[item].size_mib
        changes = sorted({*self._changes, *has.values()})
        within = (
            (begin, end)
            for begin in changes
            for end in (self._until_us, *reversed(changes))
            if begin < end <= self._until_us
        )
        best: tuple[float, Path] | None = None
        for begin, end in islice(within, MOST_TRIED):
            free = self._links.less(begin, end, self._taken)
            sources = [each for each, since in has.items() if since <= begin]
            least = -(-size_mib * BITS_IN_MIB // (end - begin))
            path = self._links.cheapest(free, sources, site, least=least)
            if path is not None:
                price = sum(self._links.price[link] for link in path[1])
                if best is None or price < best[0]:
                    best = price, path
        return best[1] if best is not None else None

    def _soonest(self, item: int, site: int, way: Widths) -> Move | None:
        size_mib, until_us, most = self._items[item].size_mib, self._until_us, self._links.most
        if not most[site]:
            return None
        changes = sorted({*self._changes, *self.has[item].values()})
        found = soonest(
            size_mib,
            [each for each in changes if each < until_us],
            [*(each for each in changes if 0 < each < until_us), until_us],
            way,
            shortest_us=lasts_us(size_mib, most[site]),
        )
        if found is None:
            return None
        begin_us, end_us, mbit_s, path = found
        return Move(item, path, mbit_s, begin_us, end_us)
