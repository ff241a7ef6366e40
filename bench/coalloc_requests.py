"""Sites on real topologies, and seeded requests for clusters over several of them, with images,
data sets and windows.

A node of the topology is a site with 2 to 4 hosts of 32 vCPUs and 128 GiB, a link of it one of
1,000, 2,500 or 10,000 Mbit/s each way for what is reserved, 5 us a kilometre; all sites forward. Of
12 images of 2 to 12 GiB a site has each with a chance of a third, and one site has it at least; 30
data sets of 10 to 400 GiB are at one or two sites each. A request is one to four groups of 1 to 8
workspaces of 1, 2, 4 or 8 vCPUs with 4 GiB for each; every group has an image, and most need up to
two data sets. Six in ten have a group that is to be at two sites at least, half have pairs with a
promised bandwidth, a quarter a bound on latency. One lasts 1 to 8 hours and may begin up to 1, 2 or
4 hours after it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from heapq import heappop, heappush
from math import exp, log
from random import Random
from typing import Any

from intertie.common.quantities import Vector
from intertie.common.tariff import Rates
from intertie.metasched.domain.data import BITS_IN_MIB, Item
from intertie.metasched.domain.problem import GroupNeed, LatencyLimit, Promise

TOPOLOGIES = {
    5: "topozoo/Nordu1989",
    20: "topozoo/EliBackbone",
    50: "sndlib/germany50",
    91: "topozoo/VtlWavenet2011",
}
"""By how many sites they have. Of those in these collections the last, which is nearly a chain, is
the only one of about 100."""
FILLING = timedelta(hours=6)
LOAD = 0.9
"""Offered, of what is scarcest."""
GIB = 1024
MIB_A_VCPU = 4 * GIB
"""Of what workspaces take, and of what hosts have."""
HOST = Vector(vcpus=32, memory_mib=32 * MIB_A_VCPU, disk_mib=4096 * GIB, uplink_mbit_s=40_000)
WIDTHS = (1000, 2500, 2500, 10_000)
KM_A_MS = 200.0
IMAGES, DATA_SETS = 12, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a site is."""

    name: str
    hosts: int
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A link, the same both ways."""

    one: str
    two: str
    mbit_s: int
    latency: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    name: str
    arrives_s: float
    lasts: timedelta
    most_delay: timedelta
    groups: tuple[GroupNeed, ...]
    promises: tuple[Promise, ...]
    limits: tuple[LatencyLimit, ...]
    items: tuple[Item, ...]
    """Images are among them, by the name that groups call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    topology: str
    places: tuple[Place, ...]
    wires: tuple[Wire, ...]
    requests: tuple[Request, ...]
    """In order of arrival."""
    filling: int
    """So many of them, the first, are there to fill the sites."""
    loads: dict[str, float]
    """Offered, of each resource."""


def scenario(topology: str, *, requests: int, seed: int) -> Scenario:
    """So many requests, at the load of LOAD, and before them others for the time of FILLING.
    ModuleNotFoundError without topohub."""
    import topohub

    read = topohub.get(topology)
    draw = Random(f"{topology} {seed}")
    digits = len(str(len(read["nodes"]) - 1))
    names = {node["id"]: f"s{at:0{digits}}" for at, node in enumerate(read["nodes"])}
    places = tuple(_place(draw, name) for name in names.values())
    wires = tuple(_wires(draw, read["edges"], names))
    catalogue = _catalogue(draw, [each.name for each in places])
    drawn = [_request(draw, f"r{at:04}", catalogue) for at in range(requests)]
    apart_s = max(_work(drawn, places, wires).values()) / LOAD / requests
    filling = round(FILLING.total_seconds() / apart_s)
    drawn += [_request(draw, f"r{at + requests:04}", catalogue) for at in range(filling)]
    work = _work(drawn, places, wires)
    lasts_s = max(work.values()) / LOAD
    arrivals = sorted(draw.uniform(0, lasts_s) for _ in drawn)
    return Scenario(
        topology=topology,
        places=places,
        wires=wires,
        requests=tuple(
            replace(each, arrives_s=arrives_s)
            for each, arrives_s in zip(drawn, arrivals, strict=True)
        ),
        filling=filling,
        loads={name: each / lasts_s for name, each in work.items()},
    )


def _place(draw: Random, name: str) -> Place:
    dear = draw.uniform(0.8, 1.25)
    rates = Rates(vcpu_hour=0.04, memory_gib_hour=0.005, link_mbit_s_hour=0.001).times(dear)
    return Place(name=name, hosts=draw.randint(2, 4), rates=rates)


def _wires(draw: Random, edges: Sequence[Any], names: dict[Any, str]) -> list[Wire]:
    """One for each two sites that have any."""
    found: dict[tuple[str, str], Wire] = {}
    for edge in edges:
        one, two = sorted((names[edge["source"]], names[edge["target"]]))
        if one == two or (one, two) in found:
            continue
        us = max(round(1000 * edge["dist"] / KM_A_MS), 50)
        found[one, two] = Wire(
            one=one, two=two, mbit_s=draw.choice(WIDTHS), latency=timedelta(microseconds=us)
        )
    return list(found.values())


def _catalogue(draw: Random, sites: list[str]) -> tuple[list[Item], list[Item]]:
    """Images and data sets, without groups."""
    images = []
    for at in range(IMAGES):
        size_mib = draw.randint(2, 12) * GIB
        there = [site for site in sites if draw.random() < 1 / 3] or [draw.choice(sites)]
        images.append(
            Item(name=f"image{at}", size_mib=size_mib, at=frozenset(there), groups=frozenset())
        )
    data = [
        Item(
            name=f"data{at}",
            size_mib=round(exp(draw.uniform(log(10), log(400))) * GIB),
            at=frozenset(draw.sample(sites, draw.randint(1, 2))),
            groups=frozenset(),
        )
        for at in range(DATA_SETS)
    ]
    return images, data


def _request(draw: Random, name: str, catalogue: tuple[list[Item], list[Item]]) -> Request:
    images, data = catalogue
    count = draw.choices((1, 2, 3, 4), (3, 4, 2, 1))[0]
    wide = draw.randrange(count) if draw.random() < 0.6 else -1
    groups, needs = [], dict[Item, set[str]]()
    for at in range(count):
        vcpus, image = draw.choice((1, 2, 4, 8)), draw.choice(images)
        size = draw.randint(2 if at == wide else 1, 8)
        groups.append(
            GroupNeed(
                name=f"g{at}",
                fewest=size,
                most=size,
                need=Vector(vcpus=vcpus, memory_mib=vcpus * MIB_A_VCPU, disk_mib=40 * GIB),
                image=image.name,
                architecture="x86_64",
                hypervisor="any",
                networks=("lan",),
                min_sites=2 if at == wide else 0,
            )
        )
        for item in (image, *draw.sample(data, draw.choices((0, 1, 2), (3, 5, 2))[0])):
            needs.setdefault(item, set()).add(f"g{at}")
    a, b = groups[0].name, groups[-1].name
    promises: tuple[Promise, ...] = ()
    if draw.random() < 0.5:
        promises = (Promise(a=a, b=b, network="lan", mbit_s=draw.choice((2, 5, 10))),)
    limits: tuple[LatencyLimit, ...] = ()
    if draw.random() < 0.25:
        most = timedelta(milliseconds=draw.choice((5, 10, 20)))
        limits = (LatencyLimit(a=a, b=b, network="lan", most=most),)
    return Request(
        name=name,
        arrives_s=0.0,
        lasts=timedelta(seconds=round(3600 * exp(draw.uniform(0, log(8))))),
        most_delay=timedelta(hours=draw.choice((1, 2, 4))),
        groups=tuple(groups),
        promises=promises,
        limits=limits,
        items=tuple(replace(item, groups=frozenset(by)) for item, by in needs.items()),
    )


def _work(
    requests: Sequence[Request], places: Sequence[Place], wires: Sequence[Wire]
) -> dict[str, float]:
    """For how many seconds all of a resource would be taken by all requests. Links: were each
    group at as few sites as it may be, all of these apart and drawn at random, an item brought to
    each from the nearest site that has it, and all over the fewest links."""
    hosts = sum(each.hosts for each in places)
    links = 2 * sum(each.mbit_s for each in wires)
    steps = _steps([each.name for each in places], wires)
    mean_steps = sum(sum(row.values()) for row in steps.values()) / len(steps) ** 2
    vcpus = sent = 0.0
    for each in requests:
        lasts_s = each.lasts.total_seconds()
        by_name = {group.name: group for group in each.groups}
        for group in each.groups:
            vcpus += group.fewest * group.need.vcpus * lasts_s
        for promise in each.promises:
            pairs = by_name[promise.a].fewest * by_name[promise.b].fewest / 2
            sent += 2 * pairs * promise.mbit_s * mean_steps * lasts_s
        for item in each.items:
            to = max(max(by_name[name].min_sites, 1) for name in item.groups)
            nearest = [min(row[source] for source in item.at) for row in steps.values()]
            links_away = sum(nearest) / len(nearest)
            sent += to * links_away * item.size_mib * BITS_IN_MIB / 1_000_000
    return {
        "vcpus": vcpus / (hosts * HOST.vcpus),
        "links": sent / links,
    }


def _steps(names: Sequence[str], wires: Sequence[Wire]) -> dict[str, dict[str, int]]:
    """How many links it is from each site to each."""
    near: dict[str, list[str]] = {name: [] for name in names}
    for wire in wires:
        near[wire.one].append(wire.two)
        near[wire.two].append(wire.one)
    found = {}
    for name in names:
        seen, line = dict[str, int](), [(0, name)]
        while line:
            steps, site = heappop(line)
            if site not in seen:
                seen[site] = steps
                for peer in near[site]:
                    heappush(line, (steps + 1, peer))
        found[name] = seen
    return found
