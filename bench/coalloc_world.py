"""What is free at sites and on links, over time, while clusters come and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from bench.coalloc_requests import HOST, MIB_A_VCPU, Request, Scenario
from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.metasched.domain.candidates import MOST_WINDOWS
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import HostRoom, ImageFound, LinkRoom, Offer, Problem, Site

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SLOT = timedelta(minutes=5)
"""From one start that may be to the next: a meta-scheduler's own, where nothing is said."""
KINDS = frozenset({"qemu"})


class World:
    """Counts what plans have taken, exactly; copies that they have made are gone with them. Of
    hosts it counts vCPUs, of which memory is a multiple."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        capacities: dict[str, int] = {}
        for place in scenario.places:
            for host in range(place.hosts):
                capacities[f"{place.name}/{host}"] = HOST.vcpus
        for wire in scenario.wires:
            capacities[f"{wire.one}>{wire.two}"] = wire.mbit_s
            capacities[f"{wire.two}>{wire.one}"] = wire.mbit_s
        self._capacities = capacities
        self._calendar = Calendar(capacities)
        self._ends: list[tuple[datetime, str]] = []
        self._rooms: dict[int, HostRoom] = {}

    def problem(self, request: Request) -> Problem:
        """What sites offer to it when it is asked for."""
        now = EPOCH + timedelta(seconds=request.arrives_s)
        self._forget(now)
        count = min(request.most_delay // SLOT + 1, MOST_WINDOWS)
        starts = [now + number * request.most_delay / (count - 1) for number in range(count)]
        windows = tuple(Window(start, start + request.lasts) for start in starts)
        spans = tuple(Window(one, two) for one, two in pairwise(starts))
        links = [self._links(window) for window in windows]
        before = [self._links(span) for span in spans]
        images = {
            group.image: ImageFound(digest=group.image, virtual_mib=1) for group in request.groups
        }
        sites = tuple(
            Site(
                name=place.name,
                offers=tuple(
                    Offer(
                        hosts=tuple(
                            self._host(f"{place.name}/{host}", window)
                            for host in range(place.hosts)
                        ),
                        links=there[place.name],
                        images=images,
                        rates=place.rates,
                    )
                    for window, there in zip(windows, links, strict=True)
                ),
                forwards=True,
                before=tuple(there[place.name] for there in before),
            )
            for place in self.scenario.places
        )
        return Problem(
            groups=request.groups,
            sites=sites,
            windows=windows,
            promises=request.promises,
            limits=request.limits,
            items=request.items,
            spans=spans,
        )

    def take(self, request: Request, plan: Plan) -> None:
        """What the plan takes, until its window is over."""
        amounts: dict[str, int] = {}
        by_name = {group.name: group for group in request.groups}
        for site in plan.sites:
            for host, counts in enumerate(site.packing):
                for name, count in counts.items():
                    key = f"{site.site}/{host}"
                    amounts[key] = amounts.get(key, 0) + count * by_name[name].need.vcpus
        for link in plan.links:
            for one, two in pairwise(link.route):
                key = f"{one}>{two}"
                amounts[key] = amounts.get(key, 0) + link.mbit_s
        self._add(request.name, plan.window, amounts)
        for number, sent in enumerate(plan.transfers):
            hops = {f"{one}>{two}": sent.mbit_s for one, two in pairwise(sent.route)}
            self._add(f"{request.name}/{number}", Window(sent.begin, sent.end), hops)

    def overfull(self) -> bool:
        """Whether more is promised of anything at any time than there is."""
        ever = Window(EPOCH, EPOCH + timedelta(days=3650))
        return any(self._calendar.free(key, ever) < 0 for key in self._capacities)

    def _add(self, key: str, window: Window, amounts: dict[str, int]) -> None:
        self._calendar.add(Demand(key, window, amounts))
        self._ends.append((window.end, key))

    def _forget(self, now: datetime) -> None:
        for end, key in self._ends:
            if end <= now:
                self._calendar.remove(key)
        self._ends = [each for each in self._ends if each[0] > now]

    def _host(self, name: str, window: Window) -> HostRoom:
        vcpus = self._calendar.free(name, window)
        room = self._rooms.get(vcpus)
        if room is None:
            free = Vector(
                vcpus=vcpus,
                memory_mib=vcpus * MIB_A_VCPU,
                disk_mib=HOST.disk_mib,
                uplink_mbit_s=HOST.uplink_mbit_s,
            )
            room = self._rooms[vcpus] = HostRoom(free=free, hypervisors=KINDS)
        return room

    def _links(self, window: Window) -> dict[str, dict[str, LinkRoom]]:
        found: dict[str, dict[str, LinkRoom]] = {place.name: {} for place in self.scenario.places}
        for wire in self.scenario.wires:
            there = self._calendar.free(f"{wire.one}>{wire.two}", window)
            back = self._calendar.free(f"{wire.two}>{wire.one}", window)
            for one, two, out, into in (
                (wire.one, wire.two, there, back),
                (wire.two, wire.one, back, there),
            ):
                found[one][two] = LinkRoom(
                    egress_mbit_s=out, ingress_mbit_s=into, latency=wire.latency
                )
        return found
