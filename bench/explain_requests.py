"""Requests that can be had on drawn sites, and what makes them such that they cannot.

Each cause changes one requirement alone, and says which field that is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bench.explain_sites import (
    BASE,
    FULL,
    HOUR,
    IMAGE_MIB,
    NEW,
    NOW,
    RARE,
    TINY,
    DrawnSites,
)
from intertie.common.spec import (
    Affinity,
    AffinityKind,
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    DiskTerm,
    Environment,
    Group,
    Kind,
    LatencyBound,
    LeaseTerms,
    Network,
    PairTerm,
)
from intertie.common.values import replace

MINUTE = timedelta(minutes=1)
WORKER = 1
"""The position of the group that most causes change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    name: str
    field: str
    change: Callable[[random.Random, DrawnSites, ClusterSpec], ClusterSpec | None]
    """None: it cannot be done to these sites, or to this request."""


def draw_request(draw: random.Random, sites: DrawnSites) -> ClusterSpec:
    """A head at one site and workers at another that it has a link to, or anywhere; and, on a
    network of its own, a store."""
    near, far = draw.choice(sites.neighbours())
    pinned = draw.random() < 0.6
    _, latency = sites.links[frozenset((near, far))]
    head = _group(draw, "head", 1, (near,) if pinned else ())
    worker = _group(draw, "worker", draw.randint(2, 5), (far,) if pinned else ())
    pair = PairTerm(group="head", bandwidth=BandwidthTerm(guarantee_mbit_s=draw.randint(5, 20)))
    worker = replace(worker, allocation=replace(worker.allocation, pairs=(pair,)))
    bound = LatencyBound(
        groups=("head", "worker"), max_latency=latency + 20 * timedelta(milliseconds=1)
    )
    strangers = sites.strangers()
    apart = [other for pair in strangers if near in pair for other in pair if other != near]
    store = _group(draw, "store", draw.randint(1, 2), (draw.choice(apart),) if apart else ())
    return ClusterSpec(
        groups=(
            replace(head, networks=("lan",)),
            replace(worker, networks=("lan",)),
            replace(store, networks=("back",)),
        ),
        networks=(
            Network(name="lan", subnet="10.1.0.0/24", latency=(bound,)),
            Network(name="back", subnet="10.2.0.0/24"),
        ),
        lease=LeaseTerms(duration=draw.choice((HOUR, 2 * HOUR))),
    )


def _group(draw: random.Random, name: str, count: int, sites: tuple[str, ...]) -> Group:
    group = Group(
        name=name,
        count=count,
        environment=Environment(image=BASE),
        allocation=Allocation(
            vcpus=draw.choice((1, 2, 4)),
            memory_mib=draw.choice((1024, 4096, 8192)),
            disk_mib=draw.choice((4096, 16384)),
            disk=DiskTerm(guarantee_iops=200, guarantee_mib_s=20),
            nic=BandwidthTerm(guarantee_mbit_s=draw.choice((0, 10))),
        ),
    )
    return replace(group, placement=replace(group.placement, allow_sites=sites))


def _worker(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    group = replace(spec.groups[WORKER], **changes)
    return replace(spec, groups=(*spec.groups[:WORKER], group, *spec.groups[WORKER + 1 :]))


def _allocated(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    return _worker(spec, allocation=replace(spec.groups[WORKER].allocation, **changes))


def _placed(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    return _worker(spec, placement=replace(spec.groups[WORKER].placement, **changes))


def _environment(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    return _worker(spec, environment=replace(spec.groups[WORKER].environment, **changes))


def _leased(spec: ClusterSpec, **changes: Any) -> ClusterSpec:
    return replace(spec, lease=replace(spec.lease, **changes))


def _each(sites: DrawnSites, dimension: str) -> list[int]:
    """What hosts have of it."""
    hosts = (host for of_site in sites.hosts.values() for host in of_site)
    return [int(getattr(host.capacity, dimension)) for host in hosts]


def _beyond(draw: random.Random, most: int) -> int:
    """More than that, by a little or by much."""
    return most + draw.choice((1, max(most // 10, 1), most))


def _amount(name: str, field: str = "") -> Cause:
    """More than any host has, whenever that is."""

    def change(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
        return _allocated(spec, **{name: _beyond(draw, max(_each(sites, name)))})

    return Cause(name=name, field=f"spec.groups[1].allocation.{field or name}", change=change)


def _iops(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    most = _beyond(draw, max(_each(sites, "iops")))
    return _allocated(spec, disk=DiskTerm(guarantee_iops=most, guarantee_mib_s=20))


def _throughput(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    most = _beyond(draw, max(_each(sites, "throughput_mib_s")))
    return _allocated(spec, disk=DiskTerm(guarantee_iops=200, guarantee_mib_s=most))


def _nic(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    most = _beyond(draw, max(_each(sites, "uplink_mbit_s")))
    return _allocated(spec, nic=BandwidthTerm(guarantee_mbit_s=most))


def _count(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """More than all hosts together have."""
    per = spec.groups[WORKER].allocation
    most = min(
        sum(_each(sites, "vcpus")) // per.vcpus,
        sum(_each(sites, "memory_mib")) // per.memory_mib,
        200,
    )
    return _worker(spec, count=_beyond(draw, most) if most < 200 else 201)


def _at_least(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    many = _count(draw, sites, spec).groups[WORKER].count
    return _worker(spec, count=0, min_count=many, max_count=many + 2)


def _allow(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """At the tiny site alone, which is too small for them."""
    return _placed(_large(spec), allow_sites=(TINY,))


def _deny(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    if spec.groups[WORKER].placement.allow_sites:
        return None
    return _placed(_large(spec), deny_sites=sites.large)


def _large(spec: ClusterSpec) -> ClusterSpec:
    """With workers that the tiny site has no room for."""
    return _allocated(spec, vcpus=max(spec.groups[WORKER].allocation.vcpus, 4))


def _per_site(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    """One at each of more sites than there are."""
    group = spec.groups[WORKER]
    if group.placement.allow_sites:
        return None
    return _placed(_worker(spec, count=len(sites.hosts) + 1), max_per_site=1)


def _per_host(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    hosts = sum(len(each) for each in sites.hosts.values())
    return _placed(_worker(spec, count=hosts + 1), max_per_host=1)


def _min_sites(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    if spec.groups[WORKER].placement.allow_sites:
        return None
    many = len(sites.hosts) + 1
    return _placed(_worker(spec, count=many), min_sites=many)


def _max_sites(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    if not spec.groups[WORKER].placement.allow_sites:
        return None
    return replace(spec, placement=replace(spec.placement, max_sites=1))


def _budget(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """Less than all would cost at the cheapest site."""
    hours = (spec.lease.duration or HOUR) / HOUR
    vcpus = sum(group.fewest * group.allocation.vcpus for group in spec.groups)
    least = vcpus * hours * min(each.vcpu_hour for each in sites.rates.values())
    max_cost = round(draw.uniform(0.3, 0.9) * least, 4)
    return replace(spec, placement=replace(spec.placement, max_cost=max_cost))


def _together(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    """Head and workers at one site, which are denied all but one each."""
    return _parted(sites, spec, AffinityKind.TOGETHER, one_site=False)


def _apart(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    """Head and workers at different sites, which are denied all but the same one."""
    return _parted(sites, spec, AffinityKind.APART, one_site=True)


def _parted(
    sites: DrawnSites, spec: ClusterSpec, kind: AffinityKind, *, one_site: bool
) -> ClusterSpec | None:
    """Where each is pinned, by denying it all others: what allow_sites contradict is refused before
    it is planned."""
    head, worker = spec.groups[0], spec.groups[WORKER]
    if not worker.placement.allow_sites:
        return None
    near, far = head.placement.allow_sites[0], worker.placement.allow_sites[0]
    homes = (near, near if one_site else far)
    groups = (
        replace(
            group,
            placement=replace(
                group.placement,
                allow_sites=(),
                deny_sites=tuple(sorted(set(sites.hosts) - {home})),
            ),
        )
        for group, home in zip((head, worker), homes, strict=True)
    )
    affinity = Affinity(groups=(head.name, worker.name), kind=kind)
    placement = replace(spec.placement, affinities=(affinity,))
    return replace(spec, groups=(*groups, *spec.groups[WORKER + 1 :]), placement=placement)


def _image(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """Nowhere, or where there is no room."""
    if draw.random() < 0.5 or spec.groups[WORKER].placement.allow_sites:
        return _environment(spec, image=NEW)
    return _environment(_large(spec), image=RARE)


def _architecture(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    return _environment(spec, architecture="riscv64")


def _hypervisor(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    return _environment(spec, hypervisor="xen")


def _pair(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    """More than the link between the two sites has."""
    place = spec.groups[WORKER].placement.allow_sites
    if not place:
        return None
    near, far = spec.groups[0].placement.allow_sites[0], place[0]
    mbit_s, _ = sites.links[frozenset((near, far))]
    pair = spec.groups[WORKER].allocation.pairs[0]
    most = _beyond(draw, mbit_s // spec.groups[WORKER].count)
    return _allocated(spec, pairs=(replace(pair, bandwidth=BandwidthTerm(guarantee_mbit_s=most)),))


def _latency(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    if not spec.groups[WORKER].placement.allow_sites:
        return None
    bound = replace(spec.networks[0].latency[0], max_latency=timedelta(milliseconds=1))
    return replace(spec, networks=(replace(spec.networks[0], latency=(bound,)), *spec.networks[1:]))


def _network(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec | None:
    """The store is on the head's network, whose site has no link to its own."""
    head, _, store = (group.placement.allow_sites for group in spec.groups)
    if not head or not store or frozenset((head[0], store[0])) in sites.links:
        return None
    groups = (replace(spec.groups[0], networks=("lan", "back")), *spec.groups[1:])
    return replace(spec, groups=groups)


def _start(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """When nobody has anything free."""
    within = FULL.start + draw.randint(0, 120) * MINUTE
    return _leased(spec, start_time=within)


def _delay(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """From when nobody has, and not for long enough until somebody does."""
    wait = draw.randint(5, 60) * MINUTE
    return _leased(spec, start_time=FULL.start + 30 * MINUTE, max_delay=wait)


def _duration(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """Until nobody has anything free."""
    return _leased(spec, duration=FULL.start - NOW + draw.randint(1, 180) * MINUTE)


def _end(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    return _leased(spec, duration=None, end_time=FULL.start + draw.randint(1, 180) * MINUTE)


def _deadline(draw: random.Random, sites: DrawnSites, spec: ClusterSpec) -> ClusterSpec:
    """It lasts until nobody has anything free, and would be done only after that."""
    lasts = FULL.start - NOW + draw.randint(1, 60) * MINUTE
    by = NOW + lasts + draw.randint(1, 120) * MINUTE
    return _leased(spec, duration=lasts, kind=Kind.DEADLINE, deadline=by)


_ALLOCATION, _PLACEMENT = "spec.groups[1].allocation", "spec.groups[1].placement"
_ENVIRONMENT, _LEASE = "spec.groups[1].environment", "spec.lease"
CAUSES: tuple[Cause, ...] = (
    _amount("vcpus"),
    _amount("memory_mib"),
    _amount("disk_mib"),
    Cause(name="iops", field=f"{_ALLOCATION}.disk.cap_iops", change=_iops),
    Cause(name="throughput", field=f"{_ALLOCATION}.disk.cap_mib_s", change=_throughput),
    Cause(name="nic", field=f"{_ALLOCATION}.nic.guarantee_mbit_s", change=_nic),
    Cause(
        name="pair",
        field=f"{_ALLOCATION}.pairs[0].bandwidth.guarantee_mbit_s",
        change=_pair,
    ),
    Cause(name="count", field="spec.groups[1].count", change=_count),
    Cause(name="min_count", field="spec.groups[1].min_count", change=_at_least),
    Cause(name="allow_sites", field=f"{_PLACEMENT}.allow_sites", change=_allow),
    Cause(name="deny_sites", field=f"{_PLACEMENT}.deny_sites", change=_deny),
    Cause(name="max_per_site", field=f"{_PLACEMENT}.max_per_site", change=_per_site),
    Cause(name="max_per_host", field=f"{_PLACEMENT}.max_per_host", change=_per_host),
    Cause(name="min_sites", field=f"{_PLACEMENT}.min_sites", change=_min_sites),
    Cause(name="max_sites", field="spec.placement.max_sites", change=_max_sites),
    Cause(name="together", field="spec.placement.affinities[0]", change=_together),
    Cause(name="apart", field="spec.placement.affinities[0]", change=_apart),
    Cause(name="max_cost", field="spec.placement.max_cost", change=_budget),
    Cause(name="image", field=f"{_ENVIRONMENT}.image", change=_image),
    Cause(name="architecture", field=f"{_ENVIRONMENT}.architecture", change=_architecture),
    Cause(name="hypervisor", field=f"{_ENVIRONMENT}.hypervisor", change=_hypervisor),
    Cause(name="latency", field="spec.networks[0].latency[0].max_latency", change=_latency),
    Cause(name="network", field="spec.networks[1]", change=_network),
    Cause(name="start_time", field=f"{_LEASE}.start_time", change=_start),
    Cause(name="max_delay", field=f"{_LEASE}.max_delay", change=_delay),
    Cause(name="duration", field=f"{_LEASE}.duration", change=_duration),
    Cause(name="end_time", field=f"{_LEASE}.end_time", change=_end),
    Cause(name="deadline", field=f"{_LEASE}.deadline", change=_deadline),
)


def given_up(spec: ClusterSpec, field: str) -> list[ClusterSpec]:
    """The request as its user would send it without that requirement: any of these will do. By
    the API's own words, and by nothing that the explanation was found with."""
    parts = field.split(".")
    at = int(parts[1][7:-1]) if parts[1].startswith("groups[") else -1
    group = spec.groups[at] if at >= 0 else None
    match parts[1:]:
        case ["lease", what]:
            return [_without_time(spec, what)]
        case ["placement", "max_sites"]:
            return [replace(spec, placement=replace(spec.placement, max_sites=0))]
        case ["placement", "max_cost"]:
            return [replace(spec, placement=replace(spec.placement, max_cost=0.0))]
        case ["placement", affinity] if affinity.startswith("affinities["):
            every, number = spec.placement.affinities, int(affinity[11:-1])
            others = (*every[:number], *every[number + 1 :])
            return [replace(spec, placement=replace(spec.placement, affinities=others))]
        case [network] if network.startswith("networks["):
            return [_without_network(spec, int(network[9:-1]))]
        case [network, bound, _]:
            if network.startswith("networks["):
                return [_without_bound(spec, int(network[9:-1]), int(bound[8:-1]))]
    assert group is not None, field

    def put(**changes: Any) -> list[ClusterSpec]:
        changed = replace(group, **changes)
        return [replace(spec, groups=(*spec.groups[:at], changed, *spec.groups[at + 1 :]))]

    least: Mapping[str, Any] = {
        "vcpus": 1, "memory_mib": 16, "disk_mib": IMAGE_MIB, "nic": BandwidthTerm(),
    }  # fmt: skip
    match parts[2:]:
        case ["count"]:
            return put(count=1)
        case ["min_count"]:
            return put(min_count=1)
        case ["placement", what]:
            empty: Any = () if what.endswith("_sites") and what != "min_sites" else 0
            return put(placement=replace(group.placement, **{what: empty}))
        case ["environment", "image"]:
            return put(environment=replace(group.environment, image=BASE))
        case ["environment", "architecture"]:
            return put(environment=replace(group.environment, architecture="x86_64"))
        case ["environment", "hypervisor"]:
            return put(environment=replace(group.environment, hypervisor="any"))
        case ["allocation", "disk", what]:
            unit = "iops" if what.endswith("iops") else "mib_s"
            one: dict[str, Any] = {f"guarantee_{unit}": 0, f"cap_{unit}": 1}
            disk = replace(group.allocation.disk, **one)
            return put(allocation=replace(group.allocation, disk=disk))
        case ["allocation", pair, *_] if pair.startswith("pairs["):
            number = int(pair[6:-1])
            rest = tuple(p for n, p in enumerate(group.allocation.pairs) if n != number)
            return put(allocation=replace(group.allocation, pairs=rest))
        case ["allocation", what, *_]:
            return put(allocation=replace(group.allocation, **{what: least[what]}))
    raise ValueError(field)


def _without_time(spec: ClusterSpec, what: str) -> ClusterSpec:
    """At any time of the next day; for as short as it is tried."""
    lease = spec.lease
    day = 24 * HOUR
    if what == "duration":
        return _leased(spec, duration=(lease.duration or HOUR) / 32)
    if what == "end_time":
        start = lease.start_time or NOW
        assert lease.end_time is not None
        return _leased(spec, end_time=start + (lease.end_time - start) / 32)
    if what == "deadline":
        return _leased(spec, deadline=NOW + day + (lease.duration or HOUR))
    if lease.end_time is not None:
        span = lease.end_time - (lease.start_time or NOW)
        return _leased(spec, start_time=None, end_time=None, duration=span, max_delay=day)
    return _leased(spec, start_time=None, max_delay=day)


def _without_bound(spec: ClusterSpec, at: int, number: int) -> ClusterSpec:
    network = spec.networks[at]
    rest = tuple(bound for n, bound in enumerate(network.latency) if n != number)
    networks = (*spec.networks[:at], replace(network, latency=rest), *spec.networks[at + 1 :])
    return replace(spec, networks=networks)


def _without_network(spec: ClusterSpec, at: int) -> ClusterSpec:
    """Who was on it alone has one of its own: to say none is to be on all."""
    gone = spec.networks[at].name
    networks = [each for each in spec.networks if each.name != gone]
    groups = []
    for number, group in enumerate(spec.groups):
        left = tuple(name for name in group.networks if name != gone)
        if not left:
            own = Network(name=f"own{number}", subnet=f"10.9.{number}.0/24")
            networks.append(own)
            left = (own.name,)
        pairs = tuple(pair for pair in group.allocation.pairs if pair.network != gone)
        allocation = replace(group.allocation, pairs=pairs)
        groups.append(replace(group, networks=left, allocation=allocation))
    return replace(spec, groups=tuple(groups), networks=tuple(networks))
