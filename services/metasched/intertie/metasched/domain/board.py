"""A problem over one window as pieces that each go to one site, and what it costs to put them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import gcd

from intertie.common.budget import above
from intertie.common.spec import AffinityKind
from intertie.common.tariff import Rates
from intertie.metasched.domain.assemble import assembled
from intertie.metasched.domain.costs import COST_SCALE, workspace_hour
from intertie.metasched.domain.graph import FAR, FINE, MICROSECOND, Demand, Graph, Way
from intertie.metasched.domain.packing import Packer, Packing
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem, content_at
from intertie.metasched.domain.room_costs import NOTHING, RoomCosts, Taken
from intertie.metasched.domain.routes import pair_of
from intertie.metasched.domain.transfers import Delivery, Move

NONE: Packing = Packing((), ())


@dataclass(frozen=True, slots=True)
class Piece:
    """So many workspaces of a group that stay together."""

    group: str
    count: int


@dataclass(frozen=True, slots=True)
class Tie:
    """What two pieces have to do with one another where they are at two sites."""

    mbit_s: int
    """Promised, each way; -1 where they need not reach one another."""
    most_us: int | None
    apart: bool
    """They may not be at one site."""
    together: bool
    """They may not be at two."""


class Reach:
    """What a tie costs at the least, by where its pieces are."""

    __slots__ = ("_found", "_graph", "_tie")

    def __init__(self, graph: Graph, tie: Tie) -> None:
        self._graph, self._tie = graph, tie
        self._found: list[list[int] | None] = [None] * len(graph.names)

    def beside(self, site: int) -> list[int]:
        """With one piece there, and the other at each site."""
        found = self._found[site]
        if found is None:
            if self._tie.together:
                found = [FAR] * len(self._graph.names)
                found[site] = 0
            else:
                found = self._graph.costs_from(site, self._tie.mbit_s, self._tie.most_us)
            if self._tie.apart:
                found[site] = FAR
            self._found[site] = found
        return found


@dataclass(slots=True)
class Placed:
    """Where pieces are so far, by their numbers, and on which hosts; by sites' numbers."""

    where: dict[int, int] = field(default_factory=dict)
    packings: dict[int, Packing] = field(default_factory=dict)
    """Of the sites that have any."""
    on: dict[int, int] = field(default_factory=dict)
    """How many pieces each site has."""
    brought: dict[Delivery, int] = field(default_factory=dict)
    """What has to be brought to sites, and for how many pieces: see StagedBoard."""
    taken: dict[int, Taken] = field(default_factory=dict)
    """What pieces take of each site, where some site asks for room that others make."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All pieces put, with the ways between them."""

    where: Mapping[int, int]
    packings: Mapping[int, Packing]
    demands: tuple[Demand, ...]
    ways: tuple[Way, ...]
    cost: int
    """Smaller is better: in units of the board, sites included."""
    moves: tuple[Move, ...] = ()
    """Transfers, by which all is there that has to be."""


class Board:
    """What a search asks for. Sites are numbered as in the problem."""

    staged = False
    """Something has to be brought to sites: see StagedBoard."""

    def __init__(self, problem: Problem, slot: int, pieces: Sequence[Piece]) -> None:
        self.problem, self.slot, self.pieces = problem, slot, tuple(pieces)
        totals = {group.name: 0 for group in problem.groups}
        for piece in pieces:
            totals[piece.group] += piece.count
        self.graph = Graph(problem, slot)
        self.packer = Packer(problem, slot, totals)
        self.rooms = RoomCosts(problem, slot)
        self._totals = totals
        self._empty = [self.packer.empty(site) for site in problem.sites]
        self.ties: list[dict[int, Tie]] = [{} for _ in pieces]
        """Of each piece, to others."""
        self._tie_pieces()
        self.spread = (
            not self.staged
            and len(pieces) > 1
            and not problem.max_sites
            and all(group.min_sites < 2 for group in problem.groups)
            and all(
                len(ties) == len(pieces) - 1 and all(each.apart for each in ties.values())
                for ties in self.ties
            )
        )
        """Each piece goes to a site of its own, and nothing else is asked of where it goes."""
        alone = {piece: self._alone(piece) for piece in dict.fromkeys(self.pieces)}
        prices = [cost for costs in alone.values() for cost in costs if cost < FAR]
        self.unit = 1 if self.opens else max(gcd(*self.graph.price, *prices), 1)
        self.graph.in_units_of(self.unit)
        self.alone = [
            [cost // self.unit if cost < FAR else FAR for cost in alone[piece]]
            for piece in self.pieces
        ]
        """Of each piece: what it costs at each site, FAR where it may not be or does not fit, or
        where not all fits that is to be there with it."""
        self.blocks = self._blocks()
        for block in self.blocks:
            self._leave_only_where_all_fits(block)
        sites_first = problem.fewest_sites and not self.spread
        self.site_cost = self._above_all_costs() if sites_first else 0
        """Fewer sites come before less cost, unless the problem says otherwise."""
        self._reaches: dict[Tie, Reach] = {}
        self._digests = self._several_digests()

    @property
    def opens(self) -> bool:
        """What a piece costs at a site hangs on what else is there: see opening."""
        return self.staged or bool(self.rooms)

    def _tie_pieces(self) -> None:
        problem, groups = self.problem, {group.name: group for group in self.problem.groups}
        promised: dict[tuple[str, str], int] = {}
        for promise in problem.promises:
            key = pair_of(promise.a, promise.b)
            promised[key] = promised.get(key, 0) + promise.mbit_s
        most_us: dict[tuple[str, str], int] = {}
        for limit in problem.limits:
            key, most = pair_of(limit.a, limit.b), limit.most // MICROSECOND
            most_us[key] = min(most, most_us.get(key, most))
        parted, joined = self._said_in(AffinityKind.APART), self._said_in(AffinityKind.TOGETHER)
        for one, a in enumerate(self.pieces):
            for two in range(one):
                b = self.pieces[two]
                key = pair_of(a.group, b.group)
                mbit_s = promised.get(key, 0) * a.count * b.count
                apart = a.group != b.group and bool(parted[a.group] & parted[b.group])
                together = bool(joined[a.group] & joined[b.group])
                shared = set(groups[a.group].networks) & set(groups[b.group].networks)
                meet = bool(mbit_s or shared or key in promised or key in most_us)
                if meet or apart or together:
                    tie = Tie(mbit_s if meet else -1, most_us.get(key), apart, together)
                    self.ties[one][two] = self.ties[two][one] = tie

    def _said_in(self, kind: AffinityKind) -> dict[str, set[int]]:
        """Of each group, in which of these affinities it is, by their numbers."""
        found: dict[str, set[int]] = {group.name: set() for group in self.problem.groups}
        for at, affinity in enumerate(self.problem.of_kind(kind)):
            for name in affinity.groups:
                found[name].add(at)
        return found

    def _alone(self, piece: Piece) -> list[int]:
        hours = self.problem.windows[self.slot].duration / timedelta(hours=1)
        group = self.problem.group(piece.group)
        prices: dict[tuple[Rates, int, int], int] = {}
        """Sites that ask the same have the same price."""
        costs = []
        for at, site in enumerate(self.problem.sites):
            fits = self.packer.may(site, piece.group) and self.packer.with_more(
                site, self._empty[at], piece.group, piece.count
            )
            if not fits:
                costs.append(FAR)
                continue
            offer = site.offers[0]
            key = site.offers[self.slot].rates, offer.default_iops, offer.default_mib_s
            if key not in prices:
                hour = workspace_hour(self.problem, site, self.slot, group)
                prices[key] = round(hour * hours * COST_SCALE) * FINE * piece.count
            costs.append(prices[key])
        return costs

    def _blocks(self) -> list[tuple[int, ...]]:
        """Pieces that go to one site, all of them or none; not those that go alone."""
        found: list[tuple[int, ...]] = []
        if not self.problem.of_kind(AffinityKind.TOGETHER):
            return found
        seen: set[int] = set()
        for piece in range(len(self.pieces)):
            block, waiting = {piece}, [piece]
            while waiting and piece not in seen:
                ties = self.ties[waiting.pop()].items()
                more = {other for other, tie in ties if tie.together} - block
                block |= more
                waiting += more
            seen |= block
            if len(block) > 1:
                found.append(tuple(sorted(block)))
        return found

    def _leave_only_where_all_fits(self, block: Sequence[int]) -> None:
        for at, site in enumerate(self.problem.sites):
            packing: Packing | None = self._empty[at]
            for piece in block:
                group, count = self.pieces[piece].group, self.pieces[piece].count
                if packing is not None and self.alone[piece][at] < FAR:
                    packing = self.packer.with_more(site, packing, group, count)
                else:
                    packing = None
            if packing is None:
                for piece in block:
                    self.alone[piece][at] = FAR

    def _above_all_costs(self) -> int:
        highest = max(self.graph.price, default=0) * len(self.graph.names)
        links = sum(max(tie.mbit_s, 0) for ties in self.ties for tie in ties.values()) * highest
        links += self.rooms.at_most(self._totals)
        return 1 + links + sum(max((c for c in a if c < FAR), default=0) for a in self.alone)

    def _several_digests(self) -> dict[str, list[str]]:
        """Of groups whose image is not the same everywhere: what it is at each site."""
        found = {
            group.name: [content_at(site, group) for site in self.problem.sites]
            for group in self.problem.groups
        }
        return {name: each for name, each in found.items() if len({d for d in each if d}) > 1}

    def reach(self, tie: Tie) -> "Reach":
        """The same for all like ties."""
        if tie not in self._reaches:
            self._reaches[tie] = Reach(self.graph, tie)
        return self._reaches[tie]

    def opening(self, placed: Placed, piece: int, site: int) -> int:
        """What it costs, about, to have the piece at the site, beyond what it costs alone: here,
        what the site asks for room that others make for it."""
        if not self.rooms:
            return 0
        before = placed.taken.get(site, NOTHING)
        return self.rooms.of(site, self._with(before, piece, site)) - self.rooms.of(site, before)

    def _with(self, taken: Taken, piece: int, site: int) -> Taken:
        what = self.pieces[piece]
        return self.rooms.with_more(taken, site, what.group, what.count)

    def least_opening(self, piece: int, site: int) -> int:
        """What of that it costs at the least, if it is the only one."""
        return 0

    def transfers_tried(self) -> int:
        return 0

    def least(self, tie: Tie) -> int:
        """What it costs wherever they are."""
        return max(tie.mbit_s, 0) * self.graph.cheapest if tie.apart else 0

    def put(self, placed: Placed, piece: int, site: int) -> Packing | None:
        """The site's packing with the piece, which is put there; None if it may not be there.
        `take_back` undoes it."""
        if self.spread:
            if site in placed.on:
                return None
            before = NONE
        else:
            group = self.pieces[piece].group
            if not self._may_join(placed, piece, site):
                return None
            before = placed.packings.get(site, self._empty[site])
            after = self.packer.with_more(
                self.problem.sites[site], before, group, self.pieces[piece].count
            )
            if after is None:
                return None
            placed.packings[site] = after
        placed.where[piece] = site
        placed.on[site] = placed.on.get(site, 0) + 1
        if self.rooms:
            placed.taken[site] = self._with(placed.taken.get(site, NOTHING), piece, site)
        return before

    def take_back(self, placed: Placed, piece: int, before: Packing) -> None:
        """Of the last that was put: `before` is what `put` gave."""
        site = placed.where.pop(piece)
        placed.on[site] -= 1
        if self.rooms:
            more = self._with(NOTHING, piece, site)
            had = placed.taken[site]
            placed.taken[site] = had[0] - more[0], had[1] - more[1]
        if before is not NONE:
            placed.packings[site] = before
        if not placed.on[site]:
            del placed.on[site]
            placed.packings.pop(site, None)

    def _may_join(self, placed: Placed, piece: int, site: int) -> bool:
        problem, name = self.problem, self.pieces[piece].group
        if problem.max_sites and site not in placed.on and len(placed.on) >= problem.max_sites:
            return False
        others = [other for other in placed.where if self.pieces[other].group == name]
        digests = self._digests.get(name)
        if digests and any(digests[placed.where[o]] != digests[site] for o in others):
            return False
        group = problem.group(name)
        if group.min_sites > 1:
            homes = {placed.where[other] for other in others} | {site}
            of_group = sum(each.group == name for each in self.pieces)
            if len(homes) + of_group - len(others) - 1 < group.min_sites:
                return False
        return not any(
            (tie.apart and placed.where.get(other) == site)
            or (tie.together and placed.where.get(other, site) != site)
            for other, tie in self.ties[piece].items()
        )

    def laid_out(self, placed: Placed) -> Layout | None:
        """With ways for all that the sites send one another; None where there are none, or where a
        site has refused as much."""
        between: dict[tuple[int, int], Demand] = {}
        for one, ties in enumerate(self.ties):
            for two, tie in ties.items():
                a, b = placed.where[one], placed.where[two]
                if two > one or a == b or tie.mbit_s < 0:
                    continue
                key = (a, b) if a < b else (b, a)
                before = between.get(key)
                mbit_s, most_us = tie.mbit_s, tie.most_us
                if before is not None:
                    mbit_s += before.mbit_s
                    both = [each for each in (most_us, before.most_us) if each is not None]
                    most_us = min(both, default=None)
                between[key] = Demand(*key, mbit_s, most_us)
        demands = tuple(between.values())
        found = self.graph.ways(demands)
        if found is None or self._refused(placed):
            return None
        cost, ways = found
        cost += self.site_cost * len(placed.on)
        cost += sum(self.alone[piece][site] for piece, site in placed.where.items())
        cost += sum(self.rooms.of(site, taken) for site, taken in placed.taken.items())
        layout = Layout(dict(placed.where), dict(placed.packings), demands, tuple(ways), cost)
        return layout if self.affordable(layout) else None

    def affordable(self, layout: Layout) -> bool:
        """Whether it costs no more than the budget, as plans are priced."""
        if self.problem.max_cost is None:
            return True
        cost = self.plan(layout, optimal=False, bound=None).cost
        return not above(cost, self.problem.max_cost)

    def _refused(self, placed: Placed) -> bool:
        problem = self.problem
        start = problem.windows[self.slot].start
        for cut in problem.cuts:
            if cut.holds_at(start) and all(
                self._count(placed, group, site) >= count
                for (group, site), count in cut.counts.items()
            ):
                return True
        return False

    def _count(self, placed: Placed, group: str, site: str) -> int:
        return sum(
            self.pieces[piece].count
            for piece, at in placed.where.items()
            if self.pieces[piece].group == group and self.graph.names[at] == site
        )

    def plan(self, layout: Layout, *, optimal: bool, bound: int | None) -> Plan:
        names = self.graph.names
        packings = {names[at]: each.counts for at, each in layout.packings.items()}
        if self.spread:
            for piece, at in layout.where.items():
                site, what = self.problem.sites[at], self.pieces[piece]
                packing = self.packer.with_more(site, self._empty[at], what.group, what.count)
                assert packing is not None
                packings[names[at]] = packing.counts
        ways = (tuple(names[at] for at in way) for way in layout.ways)
        return assembled(
            self.problem,
            self.slot,
            packings,
            {pair_of(way[0], way[-1]): way for way in ways},
            optimal=optimal,
            bound=None if bound is None else bound * self.unit // FINE / COST_SCALE,
        )
