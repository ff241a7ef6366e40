"""What links have free before a cluster starts, direction by direction and span by span, and the
ways over them."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush

from intertie.metasched.domain.costs import sent_price
from intertie.metasched.domain.data import BITS_IN_MIB, lasts_us
from intertie.metasched.domain.graph import MICROSECOND, Way
from intertie.metasched.domain.problem import Problem

NEVER = 1 << 62
"""Later than any start, and dearer than any way: it cannot be."""

Path = tuple[Way, tuple[int, ...]]
"""The sites, and the links between them, by numbers."""
Taken = Sequence[tuple[int, int, int]]
"""From when to when so many Mbit/s of a link are taken."""


class LinkTimes:
    """Sites are numbered as in the problem, and each direction of a link is a link of its own. Time
    is counted in microseconds from the beginning of the first span."""

    def __init__(self, problem: Problem) -> None:
        number = {site.name: at for at, site in enumerate(problem.sites)}
        self.names = tuple(number)
        self.forwards = tuple(site.forwards for site in problem.sites)
        spans = problem.spans
        self.zero = spans[0].start if spans else problem.windows[0].start
        self.begins = [(span.start - self.zero) // MICROSECOND for span in spans]
        self.ends = [(span.end - self.zero) // MICROSECOND for span in spans]
        self.out: list[list[tuple[int, int]]] = [[] for _ in number]
        """Of each site: to whom there is a link, and which."""
        self.into: list[list[int]] = [[] for _ in number]
        self.price: list[float] = []
        """Of a MiB over each link."""
        self.free: list[list[int]] = [[] for _ in spans]
        """Of each span: of each link, Mbit/s."""
        for one in problem.sites:
            for peer in sorted({peer for links in one.before for peer in links} & number.keys()):
                self._add(problem, one.name, peer, number)
        self.most = [
            max((free[link] for free in self.free for link in links), default=0)
            for links in self.into
        ]
        """Of each site: what is free of some link to it at some time, at most."""
        self._least: dict[tuple[int, int], list[int]] = {}

    def _add(self, problem: Problem, one: str, two: str, number: dict[str, int]) -> None:
        here, there = problem.site(one), problem.site(two)
        link = len(self.price)
        self.out[number[one]].append((number[two], link))
        self.into[number[two]].append(link)
        self.price.append(sent_price(here, there, size_mib=1))
        for free, sent, taken in zip(self.free, here.before, there.before, strict=True):
            both = two in sent and one in taken
            most = min(sent[two].egress_mbit_s, taken[one].ingress_mbit_s) if both else 0
            free.append(max(most, 0))

    def least(self, begin_us: int, end_us: int) -> list[int]:
        """Of each link, what it has free all the time between the two, which is not after the last
        span. The list is not to be changed."""
        return self._of(bisect_right(self.ends, begin_us), bisect_left(self.ends, end_us))

    def _of(self, first: int, last: int) -> list[int]:
        if first >= last:
            return self.free[last]
        found = self._least.get((first, last))
        if found is None:
            found = list(map(min, self._of(first, last - 1), self.free[last]))
            self._least[first, last] = found
        return found

    def less(
        self, begin_us: int, end_us: int, taken: dict[int, list[tuple[int, int, int]]]
    ) -> list[int]:
        """`least`, of what is left where some is taken."""
        free = self.least(begin_us, end_us)
        if not taken:
            return free
        free = list(free)
        for link, by in taken.items():
            free[link] = max(free[link] - _most_at_once(by, begin_us, end_us), 0)
        return free

    def widest(
        self, free: Sequence[int], sources: Collection[int], target: int
    ) -> tuple[int, Path] | None:
        """The way from one of these on which most is free, how much that is, and the cheapest of
        such ways."""
        line = [(-NEVER, source) for source in sources]
        found: set[int] = set()
        while line:
            width, site = heappop(line)
            if site == target:
                path = self.cheapest(free, sources, target, least=-width)
                return None if path is None else (-width, path)
            if site in found:
                continue
            found.add(site)
            if site not in sources and not self.forwards[site]:
                continue
            for peer, link in self.out[site]:
                if peer not in found and free[link]:
                    heappush(line, (max(width, -free[link]), peer))
        return None

    def cheapest(
        self, free: Sequence[int], sources: Collection[int], target: int, *, least: int
    ) -> Path | None:
        """The cheapest way from one of these on which so much is free; the shortest of those."""
        line = [(0.0, 0, source, -1, -1) for source in sorted(sources)]
        before: dict[int, tuple[int, int]] = {}
        while line:
            price, steps, site, last, over = heappop(line)
            if site in before:
                continue
            before[site] = (last, over)
            if site == target:
                return _back(before, target)
            if last >= 0 and not self.forwards[site]:
                continue
            for peer, link in self.out[site]:
                if peer not in before and free[link] >= least:
                    heappush(line, (price + self.price[link], steps + 1, peer, site, link))
        return None

    def ways(
        self, sources: Collection[int], usable: Sequence[bool]
    ) -> list[tuple[float, Path] | None]:
        """To each site: the price of a MiB by the cheapest way from one of these over links that
        are usable, and that way; the shortest of those."""
        found: list[tuple[float, Path] | None] = [None] * len(self.names)
        line: list[tuple[float, int, int, Way, tuple[int, ...]]] = [
            (0.0, 0, source, (source,), ()) for source in sources
        ]
        heapify(line)
        while line:
            price, steps, site, way, links = heappop(line)
            if found[site] is not None:
                continue
            found[site] = price, (way, links)
            for peer, link in self.out[site] if not steps or self.forwards[site] else ():
                if found[peer] is None and usable[link]:
                    more = price + self.price[link], steps + 1
                    heappush(line, (*more, peer, (*way, peer), (*links, link)))
        return found

    def alone_us(self, link: int, size_mib: int) -> int:
        """When so much can be over the link at the soonest, at one rate without a break."""
        best = NEVER
        for first, begin in enumerate(self.begins):
            if begin >= best:
                break
            for last in range(first, len(self.ends)):
                mbit_s = self._of(first, last)[link]
                if not mbit_s:
                    break
                end = begin + lasts_us(size_mib, mbit_s)
                if end <= self.ends[last]:
                    best = min(best, end)
                    break
        return best

    def enters_us(self, site: int, size_mib: int) -> int:
        """When so much can have come to the site at the soonest, over all links, at any rates."""
        left = size_mib * BITS_IN_MIB
        for free, begin, end in zip(self.free, self.begins, self.ends, strict=True):
            mbit_s = sum(free[link] for link in self.into[site])
            if left <= mbit_s * (end - begin):
                return begin - (-left // mbit_s)
            left -= mbit_s * (end - begin)
        return NEVER


Widths = Callable[[int, int], tuple[int, Path] | None]
"""What is free between two moments, and on which way."""


def soonest(
    size_mib: int,
    begins: Sequence[int],
    ends: Sequence[int],
    way: Widths,
    *,
    shortest_us: int = 0,
) -> tuple[int, int, int, Path] | None:
    """When it can be there at the soonest, at one rate without a break: from when to when, how
    fast, and by which way. It begins at one of `begins`, and has ended by the last of `ends`, both
    in order; between two of all these moments nothing changes. It cannot be done in less than
    `shortest_us`."""
    best: tuple[int, int, int, Path] | None = None
    for begin in begins:
        if begin + shortest_us > (ends[-1] if best is None else best[1] - 1):
            break
        at = bisect_right(ends, begin)
        while at < len(ends):
            found = way(begin, ends[at])
            if found is None:
                break
            mbit_s, path = found
            end = begin + lasts_us(size_mib, mbit_s)
            if end <= ends[at]:
                if best is None or end < best[1]:
                    best = begin, end, mbit_s, path
                break
            at = bisect_left(ends, end)
    return best


def _most_at_once(taken: Taken, begin_us: int, end_us: int) -> int:
    there = [each for each in taken if each[0] < end_us and each[1] > begin_us]
    if len(there) < 2:
        return there[0][2] if there else 0
    return max(sum(more for b, e, more in there if b <= begin < e) for begin, _, _ in there)


def _back(before: dict[int, tuple[int, int]], target: int) -> Path:
    way, links = [target], list[int]()
    while (last := before[way[-1]])[0] >= 0:
        way.append(last[0])
        links.append(last[1])
    return tuple(way[::-1]), tuple(links[::-1])
