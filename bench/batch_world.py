"""Ten sites on which batches run: what is free now, and one batch's request as a problem."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement

from bench.azure import Batch
from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.tariff import Rates
from intertie.metasched.domain.plan import LinkPlan, Plan
from intertie.metasched.domain.problem import (
    GroupNeed,
    HostRoom,
    ImageFound,
    LinkRoom,
    Offer,
    Problem,
    Promise,
    Site,
)
from intertie.metasched.domain.site_plan import SitePlan

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SITES = tuple(f"s{number}" for number in range(10))
HOST = Vector(vcpus=64, memory_mib=256 * 1024, uplink_mbit_s=89_000)
"""Of each: an uplink of 100 Gbit/s."""
LINK_MBIT_S = 8_900
"""Of a link between any two sites, each way: 10 Gbit/s."""
PAIR_MBIT_S = 1
"""That any two machines of a batch are promised."""
LATENCY = timedelta(milliseconds=5)
RATES = Rates(vcpu_hour=1.0, link_mbit_s_hour=0.001)
"""The same everywhere: a plan is the better the less of it goes over links."""
IMAGES = {"any": ImageFound(digest="any")}
LAN = "lan"

Packing = Mapping[str, tuple[Mapping[str, int], ...]]
"""By site, how many of each flavour are on each of its hosts."""


class Sites:
    """All of them alike but for a host; each with a link to every other."""

    def __init__(self, hosts: int, flavours: Mapping[str, Vector]) -> None:
        self.flavours = flavours
        self.free = {name: [HOST] * (hosts // len(SITES)) for name in SITES}
        for name in SITES[: hosts % len(SITES)]:
            self.free[name].append(HOST)
        self.vcpus = hosts * HOST.vcpus
        self.width = {(one, two): LINK_MBIT_S for one in SITES for two in SITES if one != two}
        self._sites = {name: self._site(name) for name in SITES}
        self._running: list[tuple[int, int, Batch, Packing]] = []

    def free_what_ended(self, now_s: int) -> None:
        while self._running and self._running[0][0] <= now_s:
            _, _, batch, packing = heapq.heappop(self._running)
            self._give(batch, packing, 1)

    def take(self, batch: Batch, plan: Plan, now_s: int) -> None:
        """Until it has run for as long as it asked for."""
        packing = {each.site: each.packing for each in plan.sites}
        self._give(batch, packing, -1)
        end_s = now_s + batch.duration_s
        heapq.heappush(self._running, (end_s, batch.id, batch, packing))

    def problem(self, batch: Batch, now_s: int) -> Problem:
        """Machines of one flavour are a group, and any two of them a promised pair."""
        groups = tuple(
            GroupNeed(
                name=name,
                fewest=count,
                most=count,
                need=self.flavours[name],
                image="any",
                architecture="x86_64",
                hypervisor="any",
                networks=(LAN,),
            )
            for name, count in batch.counts.items()
        )
        pairs = combinations_with_replacement(batch.counts, 2)
        start = EPOCH + timedelta(seconds=now_s)
        return Problem(
            groups=groups,
            sites=tuple(self._sites.values()),
            windows=(Window(start, start + timedelta(seconds=batch.duration_s)),),
            promises=tuple(
                Promise(a=a, b=b, network=LAN, mbit_s=PAIR_MBIT_S)
                for a, b in pairs
                if a != b or batch.counts[a] > 1
            ),
        )

    def _give(self, batch: Batch, packing: Packing, sign: int) -> None:
        at = {site: machines_at(hosts) for site, hosts in packing.items()}
        for site, hosts in packing.items():
            for number, counts in enumerate(hosts):
                self.free[site][number] += self.taken(batch, counts) * sign
            for peer, there in at.items():
                if peer != site:
                    self.width[site, peer] += sign * PAIR_MBIT_S * at[site] * there
        for site in packing:
            self._sites[site] = self._site(site)

    def taken(self, batch: Batch, counts: Mapping[str, int]) -> Vector:
        """Of a host by so many of its machines."""
        total = Vector()
        for name, count in counts.items():
            total += self.flavours[name] * count
        here = sum(counts.values())
        pairs = PAIR_MBIT_S * here * (batch.machines - here)
        return total + Vector(uplink_mbit_s=pairs)

    def _site(self, name: str) -> Site:
        links = {
            peer: LinkRoom(
                egress_mbit_s=self.width[name, peer],
                ingress_mbit_s=self.width[peer, name],
                latency=LATENCY,
            )
            for peer in SITES
            if peer != name
        }
        hosts = tuple(HostRoom(free=each) for each in self.free[name])
        offer = Offer(hosts=hosts, links=links, images=IMAGES, rates=RATES)
        return Site(name=name, offers=(offer,))


def machines_at(hosts: Iterable[Mapping[str, int]]) -> int:
    return sum(sum(counts.values()) for counts in hosts)


def plan_of(problem: Problem, packing: Packing) -> Plan:
    """What others than the planner have found, to be checked by the same rules."""
    counts: dict[str, Counter[str]] = {}
    for site, hosts in packing.items():
        counts[site] = Counter()
        for each in hosts:
            counts[site].update(each)
    links = [
        LinkPlan(
            from_site=one,
            to_site=two,
            network=LAN,
            mbit_s=PAIR_MBIT_S * counts[one].total() * counts[two].total(),
            latency=LATENCY,
        )
        for one in packing
        for two in packing
        if one != two
    ]
    return Plan(
        window=problem.windows[0],
        sites=tuple(
            SitePlan(site=site, counts=dict(counts[site]), packing=tuple(hosts))
            for site, hosts in sorted(packing.items())
        ),
        links=tuple(links),
        images={group.name: "any" for group in problem.groups},
    )
