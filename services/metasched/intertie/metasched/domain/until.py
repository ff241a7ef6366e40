"""When what is short would be free, as things stand."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from intertie.common.errors import Shortfall
from intertie.common.quantities import RESOURCE_OF
from intertie.common.values import replace
from intertie.metasched.domain.problem import Problem, Site

_DIMENSION = {resource: dimension for dimension, resource in RESOURCE_OF.items()}


def with_until(
    shortfalls: Iterable[Shortfall], problem: Problem, slots: Sequence[int]
) -> tuple[Shortfall, ...]:
    """Each with the start of the first of these windows over which as much as is wanted is free
    there, in total. `slots` are later than what was asked for, the earliest first."""
    return tuple(replace(each, until=_until(each, problem, slots)) for each in shortfalls)


def _until(short: Shortfall, problem: Problem, slots: Sequence[int]) -> datetime | None:
    if short.until is not None or not short.unit or not short.wanted or short.host:
        return short.until
    sites = [site for site in problem.sites if short.site in ("", site.name)]
    enough = (slot for slot in slots if _free(short, sites, slot) >= short.wanted)
    return next((problem.windows[slot].start for slot in enough), None)


def _free(short: Shortfall, sites: Sequence[Site], slot: int) -> int:
    if short.peer:
        links = [link for site in sites if (link := site.offers[slot].links.get(short.peer))]
        way = {"link_egress": "egress_mbit_s", "link_ingress": "ingress_mbit_s"}
        return sum(getattr(each, way.get(short.resource, ""), 0) for each in links)
    dimension = _DIMENSION.get(short.resource)
    if dimension is None:
        return 0
    hosts = (host for site in sites for host in site.offers[slot].hosts)
    return sum(max(getattr(host.free, dimension), 0) for host in hosts)
