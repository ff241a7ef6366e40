"""A check of what a plan costs that shares nothing with the planner: workspace by workspace, pair
by pair, link by link."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import combinations, pairwise
from itertools import product as both

from intertie.common.errors import Shortfall
from intertie.common.quantities import Vector
from intertie.metasched.domain.problem import Problem

Sent = tuple[Sequence[str], int]
"""The sites on its way, and Mbit/s, of one direction."""

_CLOSE = 1e-6


def broken_budget(
    problem: Problem,
    slot: int,
    counts: Mapping[str, Mapping[str, int]],
    links: Sequence[Sent],
    *,
    transfers: float,
    said: float,
) -> Iterator[Shortfall]:
    """What a plan with these workspaces at each site breaks. `transfers` is what these cost, `said`
    what the plan says that it costs in all."""
    most = problem.max_cost
    if most is None:
        return
    cost = transfers + _hour(problem, slot, counts, links) * (
        problem.windows[slot].duration / timedelta(hours=1)
    )
    if abs(cost - said) > _CLOSE * max(1.0, cost):
        yield _broken(f"it costs {cost:.10g}, and is said to cost {said:.10g}")
    if cost > most + _CLOSE * max(1.0, most):
        yield _broken(f"it costs {cost:.10g}, and may cost {most:.10g}")


def _hour(
    problem: Problem, slot: int, counts: Mapping[str, Mapping[str, int]], links: Sequence[Sent]
) -> float:
    rates = {site.name: site.offers[slot].rates for site in problem.sites}
    hour = 0.0
    homes: dict[str, list[str]] = {group.name: [] for group in problem.groups}
    for site, here in counts.items():
        for name, count in here.items():
            homes[name] += [site] * count
            one = rates[site].hour(problem.site(site).charges(problem.group(name)))
            hour += count * one
        hour += _room_made(problem, slot, site, here)
    for promise in problem.promises:
        a, b = homes[promise.a], homes[promise.b]
        pairs = combinations(a, 2) if promise.a == promise.b else both(a, b)
        for pair in pairs:
            for end in pair:
                hour += rates[end].hour(Vector(), pair_mbit_s=promise.mbit_s)
    for route, mbit_s in links:
        for pair in pairwise(route):  # the one asks for what leaves it, the other for what comes
            hour += sum(rates[end].hour(Vector(), link_mbit_s=mbit_s) for end in pair)
    return hour


def _room_made(problem: Problem, slot: int, name: str, here: Mapping[str, int]) -> float:
    """Of an hour: what the workspaces there take beyond what is free while nobody gives way."""
    site = problem.site(name)
    offer, left = site.offers[slot], site.offers[slot].free_together
    if left is None:
        return 0.0
    for group, count in here.items():
        for _ in range(count):
            left = left - site.charges(problem.group(group))
    vcpus, gib = max(-left.vcpus, 0), max(-left.memory_mib, 0) / 1024
    asked = offer.rates
    return vcpus * asked.give_way_vcpu_hour + gib * asked.give_way_memory_gib_hour


def _broken(message: str) -> Shortfall:
    return Shortfall(site="", resource="budget", field="spec.placement.max_cost", message=message)
