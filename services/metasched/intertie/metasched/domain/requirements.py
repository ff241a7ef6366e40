"""What a request asks for, one requirement at a time, and the problem without it.

A requirement that is left out is as if the request asked for the least that it could: for one
workspace of a group, say, of 16 MiB, or for any site. Nothing here knows of the model, which is
asked about problems as ever.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from intertie.common import budget
from intertie.common.spec import ANY_HYPERVISOR, DEFAULT_DURATION, LeaseTerms
from intertie.common.term_rules import MIN_MEMORY_MIB
from intertie.common.values import replace
from intertie.metasched.domain.candidates import allowed
from intertie.metasched.domain.problem import (
    Affinity,
    DiskNeed,
    GroupNeed,
    ImageFound,
    LatencyLimit,
    Problem,
    Promise,
    over,
    who_need,
)

T = TypeVar("T")

_LARGEST_DISK = 1 << 40
"""MiB: any image fits."""


class What(Enum):
    """What kind of thing is asked for."""

    COUNT = "COUNT"
    VCPUS = "vcpus"
    MEMORY = "memory_mib"
    DISK = "disk_mib"
    IOPS = "iops"
    THROUGHPUT = "throughput_mib_s"
    NIC = "uplink_mbit_s"
    PAIR = "PAIR"
    LATENCY = "LATENCY"
    NETWORK = "NETWORK"
    IMAGE = "IMAGE"
    ARCHITECTURE = "ARCHITECTURE"
    HYPERVISOR = "HYPERVISOR"
    ALLOW_SITES = "allow_sites"
    DENY_SITES = "deny_sites"
    MAX_PER_SITE = "max_per_site"
    MAX_PER_HOST = "max_per_host"
    MIN_SITES = "min_sites"
    MAX_SITES = "max_sites"
    AFFINITY = "AFFINITY"
    MAX_COST = "max_cost"
    START = "START"
    DURATION = "DURATION"
    FURTHER_DISK = "FURTHER_DISK"


def _as_it_is(problem: Problem) -> Problem:
    return problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One requirement of a request."""

    what: What
    field: str
    message: str
    group: int = 0
    """The position of its group, of what a group asks for."""
    drop: Callable[[Problem], Problem] = _as_it_is
    """Handed to another process, so made of functions of this module and of values."""
    opens: frozenset[int] = frozenset()
    """Windows that are possible only without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Which of a problem's windows the request allows, by their numbers, and which it would allow
    if it asked for less."""

    asked: tuple[int, ...]
    later: tuple[int, ...] = ()
    """For as long, from the earliest."""
    shorter: tuple[int, ...] = ()
    """From the same start, from the longest."""
    made: frozenset[int] = frozenset()
    """Of the later ones, those that begin when others can have been put aside for it."""


def without(problem: Problem, times: Times, dropped: Iterable[Asked]) -> Problem:
    """The problem, over the windows that are left to it, without these requirements."""
    left = list(dropped)
    slots = {*times.asked, *(slot for each in left for slot in each.opens)}
    problem = over(problem, sorted(slots, key=lambda slot: (problem.windows[slot].start, slot)))
    for each in left:
        problem = each.drop(problem)
    return problem


def asked_of(
    problem: Problem, times: Times, networks: Sequence[str] = (), lease: LeaseTerms | None = None
) -> tuple[Asked, ...]:
    """All that is asked for; where several explanations are as good, what comes first is named
    first. `networks` are the request's, in its order."""
    found: list[Asked] = []
    for at, group in enumerate(problem.groups):
        found += _what_it_is(group, at)
    for at, group in enumerate(problem.groups):
        found += _amounts(problem, group, at)
        found += _further(group, at)
    found += (_promised(problem, each) for each in problem.promises)
    found += (_bounded(each) for each in problem.limits)
    found += _on_networks(problem, networks)
    for at, group in enumerate(problem.groups):
        found += _placed(group, at)
    if problem.max_sites:
        most = problem.max_sites
        found.append(
            Asked(
                what=What.MAX_SITES,
                field="spec.placement.max_sites",
                message=f"at most {most} {'site' if most == 1 else 'sites'} in all",
                drop=_at_any_number_of_sites,
            )
        )
    found += (_related(each) for each in problem.affinities)
    if problem.max_cost is not None:
        found.append(
            Asked(
                what=What.MAX_COST,
                field=budget.FIELD,
                message=f"for {problem.max_cost:.10g} at most",
                drop=_at_any_cost,
            )
        )
    for at, group in enumerate(problem.groups):
        found += _counted(group, at)
    if lease is not None:
        found += _timed(lease, times)
    return tuple(found)


def _what_it_is(group: GroupNeed, at: int) -> Iterator[Asked]:
    """Its image, which all of the group have, and what its hosts must be."""
    path = f"spec.groups[{at}].environment"
    yield Asked(
        what=What.IMAGE,
        field=f"{path}.image",
        message=f"image {group.image} for {group.name}",
        group=at,
        drop=partial(_any_image, at=at),
    )
    yield Asked(
        what=What.ARCHITECTURE,
        field=f"{path}.architecture",
        message=f"{group.architecture} hosts for {group.name}",
        group=at,
        drop=_changing(at, architecture=""),
    )
    if group.hypervisor not in ("", ANY_HYPERVISOR):
        yield Asked(
            what=What.HYPERVISOR,
            field=f"{path}.hypervisor",
            message=f"hosts with {group.hypervisor} for {group.name}",
            group=at,
            drop=_changing(at, hypervisor=ANY_HYPERVISOR),
        )


_AMOUNTS = {
    What.VCPUS: ("vcpus", "vCPU", 1),
    What.MEMORY: ("memory_mib", "MiB of memory", MIN_MEMORY_MIB),
    What.DISK: ("disk_mib", "MiB of disk", 1),
    What.IOPS: ("disk.cap_iops", "operations a second of disk", 1),
    What.THROUGHPUT: ("disk.cap_mib_s", "MiB/s of disk", 1),
    What.NIC: ("nic.guarantee_mbit_s", "Mbit/s for its NICs", 0),
}
"""Field, unit, and the least that can be asked for. No disk is smaller than its image."""


def _amounts(problem: Problem, group: GroupNeed, at: int) -> Iterator[Asked]:
    """How much each workspace of the group gets. What the request does not say of disk operations
    and throughput, sites do by their defaults."""
    for what, (name, unit, least) in _AMOUNTS.items():
        dimension = what.value
        amount = getattr(group.need, dimension)
        alone = replace(group, further=())
        most = max((getattr(site.takes(alone), dimension) for site in problem.sites), default=0)
        sizes = image_sizes(problem, group) if what is What.DISK else ()
        least = min(sizes, default=least) or least
        if most <= least and not any(size > amount for size in sizes):
            continue
        said = f"{amount} {unit}" if amount else f"as many {unit} as sites give by default"
        yield Asked(
            what=what,
            field=f"spec.groups[{at}].allocation.{name}",
            message=f"{said} for each {group.name}",
            group=at,
            drop=partial(_with_least, at=at, dimension=dimension, least=least),
        )


def _further(group: GroupNeed, at: int) -> Iterator[Asked]:
    for disk in group.further:
        yield Asked(
            what=What.FURTHER_DISK,
            field=disk.field,
            message=f"{disk.said} for each {group.name}",
            group=at,
            drop=partial(_without_disk, at=at, disk=disk),
        )


def _without_disk(problem: Problem, at: int, disk: DiskNeed) -> Problem:
    group = problem.groups[at]
    less = _with_group(problem, at, replace(group, further=_less(group.further, disk)))
    return _with_items_needed(less)


def image_sizes(problem: Problem, group: GroupNeed) -> tuple[int, ...]:
    """MiB of disk that its image needs, at the sites where it may be."""
    places = (site for site in problem.sites if allowed(group, site.name))
    found = (site.images[group.image] for site in places if group.image in site.images)
    return tuple(sorted({each.virtual_mib for each in found}))


def _promised(problem: Problem, promise: Promise) -> Asked:
    return Asked(
        what=What.PAIR,
        field=promise.field,
        message=f"{promise.mbit_s} Mbit/s between each {promise.a} and each {promise.b}"
        f" on {promise.network}",
        drop=partial(_without_promise, promise=promise),
    )


def _bounded(limit: LatencyLimit) -> Asked:
    return Asked(
        what=What.LATENCY,
        field=limit.field,
        message=f"at most {in_ms(limit.most)} between {limit.a} and {limit.b} on {limit.network}",
        drop=partial(_without_limit, limit=limit),
    )


def _related(affinity: Affinity) -> Asked:
    return Asked(
        what=What.AFFINITY,
        field=affinity.field,
        message=affinity.said,
        drop=partial(_without_affinity, affinity=affinity),
    )


def in_ms(span: timedelta) -> str:
    return f"{span / timedelta(milliseconds=1):g} ms"


def _less(all_of: tuple[T, ...], one: T) -> tuple[T, ...]:
    """Without one of those that are the same, if it is there."""
    at = all_of.index(one) if one in all_of else len(all_of)
    return (*all_of[:at], *all_of[at + 1 :])


def _on_networks(problem: Problem, networks: Sequence[str]) -> Iterator[Asked]:
    """That groups can reach one another; without it there is nothing to promise on it either, and
    each is by itself."""
    for at, name in enumerate(networks):
        members = [group.name for group in problem.groups if name in group.networks]
        if not members:
            continue
        yield Asked(
            what=What.NETWORK,
            field=f"spec.networks[{at}]",
            message=f"network {name} for {', '.join(members)}",
            drop=partial(_without_network, name=name),
        )


def _placed(group: GroupNeed, at: int) -> Iterator[Asked]:
    """Where the group may be, and how it is to be spread."""
    name = group.name

    def asked(what: What, message: str, nothing: object) -> Asked:
        return Asked(
            what=what,
            field=f"spec.groups[{at}].placement.{what.value}",
            message=message,
            group=at,
            drop=_changing(at, **{what.value: nothing}),
        )

    if group.allow_sites:
        yield asked(What.ALLOW_SITES, f"{name} only at {', '.join(group.allow_sites)}", ())
    if group.deny_sites:
        yield asked(What.DENY_SITES, f"{name} not at {', '.join(group.deny_sites)}", ())
    if group.max_per_site:
        yield asked(What.MAX_PER_SITE, f"at most {group.max_per_site} {name} at one site", 0)
    if group.max_per_host:
        yield asked(What.MAX_PER_HOST, f"at most {group.max_per_host} {name} on one host", 0)
    if group.min_sites > 1:
        yield asked(What.MIN_SITES, f"{name} at {group.min_sites} sites or more", 0)


def _counted(group: GroupNeed, at: int) -> Iterator[Asked]:
    """How many; without it one is enough."""
    if group.fewest > 1:
        least = "" if group.count_field == "count" else "at least "
        yield Asked(
            what=What.COUNT,
            field=f"spec.groups[{at}].{group.count_field}",
            message=f"{least}{group.fewest} {group.name}",
            group=at,
            drop=_changing(at, fewest=1),
        )


def _timed(lease: LeaseTerms, times: Times) -> Iterator[Asked]:
    """When, and for how long."""
    if times.later:
        field, said = _start_of(lease)
        yield Asked(what=What.START, field=field, message=said, opens=frozenset(times.later))
    if times.shorter:
        ends = lease.end_time is not None and lease.duration is None
        yield Asked(
            what=What.DURATION,
            field=f"spec.lease.{'end_time' if ends else 'duration'}",
            message=f"until {lease.end_time:%Y-%m-%d %H:%M:%SZ}"
            if ends
            else f"for {lease.duration or DEFAULT_DURATION}",
            opens=frozenset(times.shorter[-1:]),
        )


def _start_of(lease: LeaseTerms) -> tuple[str, str]:
    """What bounds the start, and that in words."""
    if lease.deadline is not None:
        return "spec.lease.deadline", f"done by {lease.deadline:%Y-%m-%d %H:%M:%SZ}"
    first = f"{lease.start_time:%Y-%m-%d %H:%M:%SZ}" if lease.start_time else ""
    if lease.max_delay:
        late = f"at most {lease.max_delay} after {first}" if first else f"within {lease.max_delay}"
        return "spec.lease.max_delay", f"a start {late}"
    if first:
        return "spec.lease.start_time", f"a start at {first}"
    return "spec.lease.max_delay", "a start at once"


def _at_any_number_of_sites(problem: Problem) -> Problem:
    return replace(problem, max_sites=0)


def _at_any_cost(problem: Problem) -> Problem:
    return replace(problem, max_cost=None)


def _without_promise(problem: Problem, promise: Promise) -> Problem:
    return replace(problem, promises=_less(problem.promises, promise))


def _without_limit(problem: Problem, limit: LatencyLimit) -> Problem:
    return replace(problem, limits=_less(problem.limits, limit))


def _without_affinity(problem: Problem, affinity: Affinity) -> Problem:
    return replace(problem, affinities=_less(problem.affinities, affinity))


def _without_network(problem: Problem, name: str) -> Problem:
    """A group that was on no other has one of its own then: who names none is on all there are."""

    def less(group: GroupNeed) -> GroupNeed:
        left = tuple(each for each in group.networks if each != name)
        return replace(group, networks=left or (f"{name} of {group.name}",))

    return replace(
        problem,
        groups=tuple(less(each) if name in each.networks else each for each in problem.groups),
        promises=tuple(each for each in problem.promises if each.network != name),
        limits=tuple(each for each in problem.limits if each.network != name),
    )


def _changing(at: int, **changes: Any) -> Callable[[Problem], Problem]:
    return partial(_changed, at=at, changes=changes)


def _changed(problem: Problem, at: int, changes: Mapping[str, Any]) -> Problem:
    return _with_group(problem, at, replace(problem.groups[at], **changes))


def _with_least(problem: Problem, at: int, dimension: str, least: int) -> Problem:
    group = problem.groups[at]
    taking = replace(group, at_most={**group.at_most, dimension: least})
    if dimension == "memory_mib":
        taking = replace(taking, saved_mib=min(group.saved_mib, least))
    if dimension == "disk_mib":
        taking = replace(taking, need=replace(group.need, disk_mib=_LARGEST_DISK))
    return _with_group(problem, at, taking)


def _any_image(problem: Problem, at: int) -> Problem:
    """As if all sites had one content under a name of the group's own."""
    name = f"any {at}"
    found = {name: ImageFound(digest=name)}
    sites = tuple(
        replace(
            site,
            offers=tuple(replace(each, images={**each.images, **found}) for each in site.offers),
        )
        for site in problem.sites
    )
    image = replace(problem.groups[at], image=name)
    return _with_items_needed(_with_group(replace(problem, sites=sites), at, image))


def _with_items_needed(problem: Problem) -> Problem:
    """What is brought is brought for those who need it still."""
    items = tuple(
        replace(item, groups=frozenset(who_need(problem, item.name))) for item in problem.items
    )
    return replace(problem, items=items) if items else problem


def _with_group(problem: Problem, at: int, group: GroupNeed) -> Problem:
    return replace(problem, groups=(*problem.groups[:at], group, *problem.groups[at + 1 :]))
