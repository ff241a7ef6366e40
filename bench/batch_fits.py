"""Batches put on sites without a plan: first-fit and best-fit, site by site."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.azure import Batch
from bench.batch_world import SITES, Sites, plan_of
from intertie.common.quantities import Vector
from intertie.metasched.domain.plan import Plan, is_sound
from intertie.metasched.domain.problem import Problem

Packed = list[dict[str, int]]
"""On each host of a site, how many of each flavour."""
Choice = Callable[[Sequence[Vector], Vector], int | None]
"""Of a site's hosts, by what is free, the one for a machine that takes so much."""


def first_fit(batch: Batch, problem: Problem, sites: Sites) -> Plan | None:
    """At the first site that has room for all of it, each machine on the first host that has; else,
    from the first site on, as much as each has room for."""
    return _placed(batch, problem, sites, first_host, whole=SITES, split=SITES)


def best_fit(batch: Batch, problem: Problem, sites: Sites) -> Plan | None:
    """At the site that has the least left then, each machine on the host that has; else over the
    sites with the most room first."""
    room = {name: sum(host.vcpus for host in sites.free[name]) for name in SITES}
    tight = sorted(SITES, key=lambda name: (room[name], name))
    return _placed(batch, problem, sites, tightest_host, whole=tight, split=tight[::-1])


def first_host(hosts: Sequence[Vector], takes: Vector) -> int | None:
    return next((number for number, free in enumerate(hosts) if takes <= free), None)


def tightest_host(hosts: Sequence[Vector], takes: Vector) -> int | None:
    fits = [number for number, free in enumerate(hosts) if takes <= free]
    return min(
        fits, key=lambda number: (hosts[number].vcpus, hosts[number].memory_mib), default=None
    )


def _placed(
    batch: Batch,
    problem: Problem,
    sites: Sites,
    choose: Choice,
    *,
    whole: Sequence[str],
    split: Sequence[str],
) -> Plan | None:
    """By the same rules as any plan: where these are broken, the next way is tried, and with none
    left it is refused."""
    # The largest first, as both do where several are to be put at once.
    machines = sorted(
        (name for name, count in batch.counts.items() for _ in range(count)),
        key=lambda name: (-sites.flavours[name].vcpus, -sites.flavours[name].memory_mib, name),
    )
    for name in whole:
        packed, left = _filled(sites, name, machines, choose)
        if not left:
            plan = plan_of(problem, {name: tuple(packed)})
            if is_sound(problem, plan):
                return plan
    packing: dict[str, tuple[dict[str, int], ...]] = {}
    left = machines
    for name in split:
        packed, rest = _filled(sites, name, left, choose)
        if len(rest) < len(left):
            packing[name] = tuple(packed)
        left = rest
        if not left:
            plan = plan_of(problem, packing)
            return plan if is_sound(problem, plan) else None
    return None


def _filled(
    sites: Sites, name: str, machines: Sequence[str], choose: Choice
) -> tuple[Packed, list[str]]:
    """As many of these as the site's hosts have room for, and those that are left over."""
    free = list(sites.free[name])
    packed: Packed = [{} for _ in free]
    left: list[str] = []
    full: set[str] = set()
    for flavour in machines:
        takes = sites.flavours[flavour]
        at = choose(free, takes) if flavour not in full else None
        if at is None:
            full.add(flavour)
            left.append(flavour)
            continue
        free[at] -= takes
        packed[at][flavour] = packed[at].get(flavour, 0) + 1
    return packed, left
