"""A substrate of virtual network embedding as sites with links, and its requests as clusters."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.spec import AffinityKind
from intertie.common.tariff import Rates
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import (
    Affinity,
    GroupNeed,
    HostRoom,
    ImageFound,
    LinkRoom,
    Offer,
    Problem,
    Promise,
    Site,
)

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
RATES = Rates(vcpu_hour=1.0, link_mbit_s_hour=0.25)
"""A Mbit/s each way on a link is charged by both ends, and for both halves: 1 in all. So a plan
costs what the published figures call cost, for each hour."""
IMAGES = {"any": ImageFound(digest="any")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    id: int
    arrival_s: float
    lifetime_s: float
    cpus: tuple[int, ...]
    links: tuple[tuple[int, int, int], ...]
    """Two of its nodes, and the bandwidth between them."""

    @property
    def revenue(self) -> int:
        return sum(self.cpus) + sum(width for _, _, width in self.links)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    cpus: tuple[int, ...]
    links: tuple[tuple[int, int, int], ...]
    requests: tuple[Request, ...]
    """In order of arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Where each node of a request is, and by which nodes each of its links goes."""

    nodes: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    def cost(self, request: Request) -> int:
        return sum(request.cpus) + sum(
            width * (len(path) - 1)
            for (_, _, width), path in zip(request.links, self.paths, strict=True)
        )


def read_instance(path: Path) -> Instance:
    """FieldInvalid where the file has not what it is to have."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        cpus, links = _graph(read["substrate"])
        return Instance(cpus=cpus, links=links, requests=tuple(map(_request, read["requests"])))
    except (ValueError, KeyError, TypeError) as error:
        raise FieldInvalid(path.name, f"is no instance: {error!r}") from error


def _graph(read: Any) -> tuple[tuple[int, ...], tuple[tuple[int, int, int], ...]]:
    """What nodes have, and links between two of them. ValueError where these are no numbers of
    such a graph."""
    cpus = tuple(read["nodes"])
    links = tuple((u, v, width) for u, v, width in read["links"])
    whole = all(isinstance(each, int) and each >= 0 for link in (cpus, *links) for each in link)
    if not whole or any(u == v or max(u, v) >= len(cpus) for u, v, _ in links):
        raise ValueError(f"{len(cpus)} nodes cannot have these numbers: {cpus}, {links}"[:200])
    return cpus, links


def _request(read: Any) -> Request:
    cpus, links = _graph(read)
    arrival_s, lifetime_s = read["arrival"], read["lifetime"]
    if not (0 <= arrival_s < math.inf and 0 < lifetime_s < math.inf):
        raise ValueError(f"from {arrival_s} s for {lifetime_s} s")
    return Request(
        id=read["id"], arrival_s=arrival_s, lifetime_s=lifetime_s, cpus=cpus, links=links
    )


class Substrate:
    """What is free now. A node is a site with one host, whose uplink bounds nothing; a link of the
    substrate is one between sites, and all sites forward. What is promised over a link takes as
    much of each of its four halves as it is, so a link of capacity b carries b in all."""

    def __init__(self, instance: Instance) -> None:
        self.cpu = list(instance.cpus)
        self.width = {_ends(u, v): width for u, v, width in instance.links}
        self.capacity = sum(self.cpu) + sum(self.width.values())
        self._peers: list[list[int]] = [[] for _ in self.cpu]
        for u, v in self.width:
            self._peers[u].append(v)
            self._peers[v].append(u)
        self._uplink = sum(self.width.values())
        digits = len(str(len(self.cpu) - 1))
        self._names = [f"{at:0{digits}}" for at in range(len(self.cpu))]
        self._sites = [self._site(at) for at in range(len(self.cpu))]
        self._running: list[tuple[float, int, Request, Embedded]] = []

    def free_what_ended(self, now_s: float) -> None:
        while self._running and self._running[0][0] <= now_s:
            _, _, request, embedded = heapq.heappop(self._running)
            self._give(request, embedded, 1)

    def take(self, request: Request, embedded: Embedded) -> None:
        """Until its life is over."""
        self._give(request, embedded, -1)
        end_s = request.arrival_s + request.lifetime_s
        heapq.heappush(self._running, (end_s, request.id, request, embedded))

    def problem(self, request: Request) -> Problem:
        """Each node of the request is a group of one, at a site of its own; each of its links a
        network of its own, with a promised pair."""
        networks: list[list[str]] = [[] for _ in request.cpus]
        for number, (a, b, _) in enumerate(request.links):
            networks[a].append(f"l{number}")
            networks[b].append(f"l{number}")
        groups = tuple(
            GroupNeed(
                name=f"v{at}",
                fewest=1,
                most=1,
                need=Vector(vcpus=cpu),
                image="any",
                architecture="x86_64",
                hypervisor="any",
                networks=tuple(networks[at]),
            )
            for at, cpu in enumerate(request.cpus)
        )
        start = EPOCH + timedelta(seconds=request.arrival_s)
        return Problem(
            groups=groups,
            sites=tuple(self._sites),
            windows=(Window(start, start + timedelta(seconds=request.lifetime_s)),),
            promises=tuple(
                Promise(a=f"v{a}", b=f"v{b}", network=f"l{number}", mbit_s=width)
                for number, (a, b, width) in enumerate(request.links)
                if width
            ),
            affinities=(
                Affinity(groups=tuple(each.name for each in groups), kind=AffinityKind.APART),
            ),
        )

    def embedded(self, request: Request, plan: Plan) -> Embedded:
        nodes = [-1] * len(request.cpus)
        for each in plan.sites:
            for group in each.counts:
                nodes[int(group[1:])] = int(each.site)
        routes: Mapping[tuple[int, int], Sequence[str]] = {
            (int(link.from_site), int(link.to_site)): link.route for link in plan.links
        }
        paths = []
        for a, b, _ in request.links:
            route = routes.get((nodes[a], nodes[b]))
            paths.append(tuple(map(int, route)) if route else (nodes[a], nodes[b]))
        return Embedded(nodes=tuple(nodes), paths=tuple(paths))

    def _give(self, request: Request, embedded: Embedded, sign: int) -> None:
        changed = set(embedded.nodes)
        for at, cpu in zip(embedded.nodes, request.cpus, strict=True):
            self.cpu[at] += sign * cpu
        for (_, _, width), path in zip(request.links, embedded.paths, strict=True):
            changed.update(path)
            for u, v in pairwise(path):
                self.width[_ends(u, v)] += sign * width
        for at in changed:
            self._sites[at] = self._site(at)

    def _site(self, at: int) -> Site:
        links = {}
        for peer in self._peers[at]:
            width = self.width[_ends(at, peer)]
            links[self._names[peer]] = LinkRoom(
                egress_mbit_s=width, ingress_mbit_s=width, latency=timedelta()
            )
        free = Vector(vcpus=self.cpu[at], uplink_mbit_s=self._uplink)
        offer = Offer(hosts=(HostRoom(free=free),), links=links, images=IMAGES, rates=RATES)
        return Site(name=self._names[at], offers=(offer,), forwards=True)


def _ends(u: int, v: int) -> tuple[int, int]:
    return (u, v) if u < v else (v, u)
