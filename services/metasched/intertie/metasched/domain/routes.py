"""The links between sites, and the ways over them from one site to another."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations, pairwise

from intertie.metasched.domain.problem import LinkRoom, Problem, Site

Route = tuple[str, ...]
"""Sites in order, both ends included, none of them twice."""
Pair = tuple[str, str]
"""Two sites, in order of their names."""

MOST_ROUTES = 8
"""Of one pair of sites that are told of, the ones over fewest sites first."""
MOST_TRIED = 400
"""Beginnings of routes that are followed for one pair."""


def halves(one: Site, two: Site, slot: int) -> tuple[LinkRoom, LinkRoom] | None:
    """What either end has to say of their link, from the first and from the second."""
    there = one.offers[slot].links.get(two.name)
    back = two.offers[slot].links.get(one.name)
    return (there, back) if there is not None and back is not None else None


def linked(one: Site, two: Site) -> bool:
    """Both know the link, in every window."""
    return all(halves(one, two, slot) is not None for slot in range(len(one.offers)))


def latency(one: Site, two: Site) -> timedelta:
    """The longer of what the two ends declare."""
    both = halves(one, two, 0)
    return max(half.latency for half in both) if both else timedelta()


def least_half(one: Site, two: Site, slot: int) -> int:
    """Mbit/s each way that both ends have free on their link."""
    both = halves(one, two, slot)
    if both is None:
        return 0
    there, back = both
    least = min(there.egress_mbit_s, there.ingress_mbit_s, back.egress_mbit_s, back.ingress_mbit_s)
    return max(least, 0)


def pair_of(one: str, two: str) -> Pair:
    return (one, two) if one < two else (two, one)


def hops(route: Sequence[str]) -> Iterator[Pair]:
    """The links of a route."""
    return (pair_of(one, two) for one, two in pairwise(route))


def linked_sites(problem: Problem) -> Iterator[tuple[Site, Site]]:
    """All that are linked in every window, by name; the lesser of each two first."""
    sites = {site.name: site for site in problem.sites}
    for name, site in sorted(sites.items()):
        for peer in sorted(site.offers[0].links):
            if peer in sites and peer > name and linked(site, sites[peer]):
                yield site, sites[peer]


@dataclass(frozen=True, slots=True)
class Routes:
    """The ways between all sites that a plan may take, and whether these are all there are."""

    of: Mapping[Pair, tuple[Route, ...]]
    """From the first of the pair to the second; empty where there is none."""
    complete: bool


def routes_of(problem: Problem) -> Routes:
    """Of every pair of sites: its link, and the ways over sites that forward."""
    near: dict[str, list[str]] = {site.name: [] for site in problem.sites}
    for one, two in linked_sites(problem):
        near[one.name].append(two.name)
        near[two.name].append(one.name)
    forwards = frozenset(site.name for site in problem.sites if site.forwards)
    names = sorted(near)
    found: dict[Pair, tuple[Route, ...]] = {}
    complete = True
    for pair in combinations(names, 2):
        found[pair], all_of_them = _between(pair, near, forwards)
        complete = complete and all_of_them
    return Routes(found, complete)


def _between(
    pair: Pair, near: Mapping[str, Sequence[str]], forwards: frozenset[str]
) -> tuple[tuple[Route, ...], bool]:
    first, last = pair
    if not forwards:
        return ((pair,) if last in near[first] else ()), True
    routes: list[Route] = []
    begun: deque[Route] = deque([(first,)])
    for _ in range(MOST_TRIED):
        if not begun:
            return tuple(routes), True
        route = begun.popleft()
        for peer in near[route[-1]]:
            if peer == last:
                if len(routes) == MOST_ROUTES:
                    return tuple(routes), False
                routes.append((*route, peer))
            elif peer in forwards and peer not in route:
                begun.append((*route, peer))
    return tuple(routes), not begun


def route_latency(problem: Problem, route: Route) -> timedelta:
    """One way, over all of its links."""
    sites = [problem.site(name) for name in route]
    return sum((latency(one, two) for one, two in pairwise(sites)), timedelta())
