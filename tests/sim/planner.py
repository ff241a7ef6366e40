"""A planner that is quick: first fit, in the first window that works. The solver has tests of its
own; here a plan is only what the sites are asked for."""

from __future__ import annotations

from datetime import datetime

from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.quantities import Vector
from intertie.metasched.domain.assemble import assembled
from intertie.metasched.domain.candidates import allowed
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.problem import GroupNeed, Problem, Site
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.explaining import Explaining


def simple_plan(problem: Problem, *, effort: float = 0.0) -> Plan | None:
    """In the place of intertie.metasched.domain.planned.planned, and of planner.best_plan."""
    for slot in range(len(problem.windows)):
        sites = _placed(problem, slot)
        if sites is None:
            continue
        plan = assembled(problem, slot, sites, routes={}, optimal=True)
        if not check(problem, plan):
            return plan
    return None


def nothing_short(problem: Problem, *, effort: float = 0.0) -> tuple[Shortfall, ...]:
    """In the place of intertie.metasched.domain.explain.shortfalls."""
    return ()


async def unexplained(
    _: Explaining, brief: Brief, refusal: NoCapacity, *, now: datetime
) -> NoCapacity:
    """In the place of Explaining: the model's answers are what it goes by."""
    return refusal


def _placed(problem: Problem, slot: int) -> dict[str, list[dict[str, int]]] | None:
    rooms = {site.name: [host.free for host in site.offers[slot].hosts] for site in problem.sites}
    packing: dict[str, list[dict[str, int]]] = {
        name: [{} for _ in hosts] for name, hosts in rooms.items()
    }
    for group in problem.groups:
        among = [site for site in problem.sites if allowed(group, site.name) and site.images]
        for _ in range(group.fewest):
            if not _put(group, among, rooms, packing):
                return None
    return packing


def _put(
    group: GroupNeed,
    among: list[Site],
    rooms: dict[str, list[Vector]],
    packing: dict[str, list[dict[str, int]]],
) -> bool:
    for site in among:
        takes = site.takes(group)
        for number, free in enumerate(rooms[site.name]):
            left = free - takes
            if all(amount >= 0 for _, amount in left.items()):
                rooms[site.name][number] = left
                here = packing[site.name][number]
                here[group.name] = here.get(group.name, 0) + 1
                return True
    return False
