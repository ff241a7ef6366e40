"""What one lease is to get of its sites, and what is then left of what they offer to another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import LinkRoom, Offer, Problem, Site


@dataclass(frozen=True, slots=True)
class Taken:
    lease: str
    """By name."""
    window: Window
    plan: Plan
    problem: Problem

    def off(self, problem: Problem) -> Problem:
        """What is left of the offers of the one window of `problem`, which overlaps."""
        return replace(problem, sites=tuple(map(self._off_site, problem.sites)))

    def _off_site(self, site: Site) -> Site:
        return replace(site, offers=tuple(self._off_offer(site.name, each) for each in site.offers))

    def _off_offer(self, name: str, offer: Offer) -> Offer:
        free = [host.free for host in offer.hosts]
        taker = next((each for each in self.plan.sites if each.site == name), None)
        for group, count in taker.counts.items() if taker else ():
            takes = self.problem.site(name).takes(self.problem.group(group))
            for _ in range(count):
                at = _best(free, takes)
                if at is not None:
                    free[at] = (free[at] - takes).at_least_zero()
        hosts = tuple(
            replace(host, free=left) for host, left in zip(offer.hosts, free, strict=True)
        )
        links = {peer: self._off_link(name, peer, link) for peer, link in offer.links.items()}
        return replace(offer, hosts=hosts, links=links)

    def _off_link(self, site: str, peer: str, link: LinkRoom) -> LinkRoom:
        over = [(hop, each.mbit_s) for each in self.plan.links for hop in pairwise(each.route)]
        sent = sum(mbit_s for hop, mbit_s in over if hop == (site, peer))
        came = sum(mbit_s for hop, mbit_s in over if hop == (peer, site))
        return replace(
            link,
            egress_mbit_s=max(link.egress_mbit_s - sent, 0),
            ingress_mbit_s=max(link.ingress_mbit_s - came, 0),
        )


def _best(free: Sequence[Vector], takes: Vector) -> int | None:
    """The host on which least is left, or, where it fits on none, most."""
    if not free:
        return None
    left = [each - takes for each in free]
    fits = [n for n, each in enumerate(left) if each.at_least_zero() == each]
    if fits:
        return min(fits, key=lambda n: (left[n].vcpus, left[n].memory_mib))
    return max(range(len(free)), key=lambda n: (left[n].vcpus, left[n].memory_mib))


def less(problem: Problem, taken: Iterable[Taken]) -> Problem:
    """The problem on what all of these leave."""
    for each in taken:
        problem = each.off(problem)
    return problem
