"""Sites that are drawn from a seed, and what they offer: hosts, links, and leases they have."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations

from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window
from intertie.common.quantities import DIMENSIONS, Vector
from intertie.common.tariff import Rates
from intertie.metasched.domain.problem import HostRoom, ImageFound, LinkRoom, Offer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FULL = Window(NOW + 8 * HOUR, NOW + 11 * HOUR)
"""Nobody has anything free then."""
BASE, RARE, NEW = "base", "rare", "new"
"""Images: at every site; at the smallest alone, as another content than elsewhere; nowhere."""
IMAGE_MIB = 2048
TINY = "tiny"
"""A site with one small host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnHost:
    capacity: Vector
    architecture: str
    hypervisors: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSites:
    """What there is, and what is taken of it when."""

    hosts: Mapping[str, tuple[DrawnHost, ...]]
    links: Mapping[frozenset[str], tuple[int, timedelta]]
    """Mbit/s each way, and one-way latency."""
    calendar: Calendar
    rates: Mapping[str, Rates]

    @property
    def large(self) -> tuple[str, ...]:
        return tuple(name for name in self.hosts if name != TINY)

    def neighbours(self) -> list[tuple[str, str]]:
        """Large sites with a link to one another."""
        return [pair for pair in combinations(self.large, 2) if frozenset(pair) in self.links]

    def strangers(self) -> list[tuple[str, str]]:
        """Those without."""
        return [pair for pair in combinations(self.large, 2) if frozenset(pair) not in self.links]

    def offer(self, site: str, window: Window) -> Offer:
        images = {BASE: ImageFound(digest="b3:" + "1" * 64, virtual_mib=IMAGE_MIB)}
        if site == TINY:
            images[RARE] = ImageFound(digest="b3:" + "2" * 64, virtual_mib=IMAGE_MIB)
        return Offer(
            hosts=tuple(
                HostRoom(
                    free=Vector(
                        **{
                            each: max(self.calendar.free(f"{site}/{number}/{each}", window), 0)
                            for each in DIMENSIONS
                        }
                    ),
                    architecture=host.architecture,
                    hypervisors=host.hypervisors,
                )
                for number, host in enumerate(self.hosts[site])
            ),
            links={
                peer: LinkRoom(egress_mbit_s=mbit_s, ingress_mbit_s=mbit_s, latency=latency)
                for pair, (mbit_s, latency) in self.links.items()
                if site in pair
                for peer in pair - {site}
            },
            images=images,
            rates=self.rates[site],
            default_iops=100,
            default_mib_s=10,
        )


class OfferedSites:
    """See metasched.domain.ports.Sites, of which planning asks for offers alone."""

    def __init__(self, sites: DrawnSites) -> None:
        self._sites = sites

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._sites.hosts)

    async def offers(
        self,
        site: str,
        tenant: str,
        windows: tuple[Window, ...],
        images: tuple[str, ...],
        *,
        before_others: bool = False,
    ) -> tuple[Offer, ...]:
        return tuple(self._sites.offer(site, window) for window in windows)


def draw_sites(draw: random.Random) -> DrawnSites:
    """3 to 5 sites of 2 to 4 hosts, some of which are taken for some hours of the next 24, and a
    tiny one. Some two of them have no link."""
    names = [f"s{number}" for number in range(draw.randint(3, 5))]
    hosts = {name: tuple(_host(draw) for _ in range(draw.randint(2, 4))) for name in names}
    hosts[TINY] = (_tiny(),)
    pairs = list(combinations(names, 2))
    apart = draw.choice(pairs)
    links = {
        frozenset(pair): (
            draw.randrange(200, 2000, 100),
            timedelta(milliseconds=draw.randint(3, 40)),
        )
        for pair in pairs
        if pair != apart
    }
    links |= {frozenset((name, TINY)): (100, timedelta(milliseconds=50)) for name in names}
    capacities = {
        f"{site}/{number}/{dimension}": amount
        for site, of_site in hosts.items()
        for number, host in enumerate(of_site)
        for dimension, amount in host.capacity.items()
    }
    return DrawnSites(
        hosts=hosts,
        links=links,
        calendar=Calendar(capacities, [*_taken(draw, hosts), *_full(capacities)]),
        rates={
            name: Rates(vcpu_hour=draw.uniform(0.02, 0.06), link_mbit_s_hour=0.001)
            for name in hosts
        },
    )


def _host(draw: random.Random) -> DrawnHost:
    size = draw.choice((1, 1, 2, 3))
    return DrawnHost(
        capacity=Vector(
            vcpus=16 * size,
            memory_mib=65536 * size,
            disk_mib=512 * 1024 * size,
            iops=20_000 * size,
            throughput_mib_s=1_000 * size,
            uplink_mbit_s=10_000,
        ),
        architecture="x86_64",
        hypervisors=frozenset({"qemu", "kvm"} if draw.random() < 0.7 else {"qemu"}),
    )


def _tiny() -> DrawnHost:
    capacity = Vector(
        vcpus=2,
        memory_mib=4096,
        disk_mib=16384,
        iops=500,
        throughput_mib_s=100,
        uplink_mbit_s=100,
    )
    hypervisors = frozenset({"qemu"})
    return DrawnHost(capacity=capacity, architecture="x86_64", hypervisors=hypervisors)


def _taken(draw: random.Random, hosts: Mapping[str, tuple[DrawnHost, ...]]) -> list[Demand]:
    """A half of each of some hosts, for one to six hours of the 24 to come."""
    demands = []
    for site, of_site in hosts.items():
        for number, host in enumerate(of_site):
            if site == TINY or draw.random() < 0.5:
                continue
            start = NOW + draw.randint(0, 18 * 60) * timedelta(minutes=1)
            window = Window(start, start + draw.randint(60, 360) * timedelta(minutes=1))
            amounts = {
                f"{site}/{number}/{dimension}": amount // 2
                for dimension, amount in host.capacity.items()
            }
            demands.append(Demand(f"taken {site}/{number}", window, amounts))
    return demands


def _full(capacities: Mapping[str, int]) -> list[Demand]:
    return [Demand("full", FULL, capacities)]
