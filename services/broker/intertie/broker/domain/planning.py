"""How many workspaces of a cluster this site gives, from when on, and on which hosts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from intertie.broker.domain.amounts import amounts_alone, gateway_mbit_s, host_key, keyed
from intertie.broker.domain.board import Room
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_hosts
from intertie.broker.domain.link_room import link_shortfalls
from intertie.broker.domain.networks import leaves_site
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.placement import place
from intertie.broker.domain.refusing import check_quotas, check_window
from intertie.broker.domain.site_caps import (
    capped_by_site,
    with_site_caps,
    with_site_defaults,
)
from intertie.common.calendar import Calendar, Demand
from intertie.common.disk_rules import check_data_size
from intertie.common.errors import FieldInvalid, NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.layout import Numbers, layout
from intertie.common.names import ClusterName, workspace_label
from intertie.common.part_rules import MAX_PART_NETWORKS
from intertie.common.part_spec import PartNetwork, PartSpec, PartWorkspace, further_disks
from intertie.common.quantities import DIMENSIONS, Vector
from intertie.common.spec import AffinityKind, ClusterSpec, DiskTerm, Group, dataset_field
from intertie.common.values import Struct, replace

MAX_STARTS = 64
"""Starts that are tried within the delay that the owner allows."""
TICK = timedelta(microseconds=1)


class Image(Struct, frozen=True, kw_only=True):
    """What the site's image store says of an image."""

    digest: str
    size_bytes: int
    virtual_size_bytes: int


class Allotment(Struct, frozen=True, kw_only=True):
    """A part that fits, and where."""

    spec: PartSpec
    placed: tuple[Placed, ...]
    gateway: str


T = TypeVar("T")
Attempt = Callable[[Mapping[str, int]], T]
"""What fits with these counts, by group; NoCapacity where it does not."""


class Draft(Struct, frozen=True, kw_only=True):
    """A cluster that fits this site. What it costs is asked once it is found."""

    allotment: Allotment
    counts: tuple[tuple[str, int], ...]
    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...]
    """Why there are not more workspaces."""

    @property
    def start(self) -> datetime:
        return self.allotment.spec.window.start


def elsewhere(spec: ClusterSpec, site: str) -> Shortfall | None:
    """Why this site cannot be the only one; None when it can."""
    if len(spec.networks) > MAX_PART_NETWORKS:
        return _not_alone(site, f"a site holds at most {MAX_PART_NETWORKS} networks of a cluster")
    for group in spec.groups:
        if why := _not_only_here(group, site):
            return _not_alone(site, why, group.name)
    for affinity in spec.placement.affinities:
        if affinity.kind is AffinityKind.APART:
            why = f"{' and '.join(affinity.groups)} are to be at different sites"
            return _not_alone(site, why, affinity.groups[0])
    return None


def _not_alone(site: str, why: str, group: str = "") -> Shortfall:
    message = f"{site} cannot be the only site: {why}"
    return Shortfall(site=site, resource="policy", group=group, message=message)


def _not_only_here(group: Group, site: str) -> str:
    """As a sentence; empty where nothing speaks against it."""
    where = group.placement
    if where.allow_sites and site not in where.allow_sites:
        return f"{group.name} is allowed at {', '.join(where.allow_sites)} only"
    if site in where.deny_sites:
        return f"{group.name} is denied at {site}"
    if where.min_sites > 1:
        return f"{group.name} wants {where.min_sites} sites or more"
    if where.max_per_site and group.fewest > where.max_per_site:
        return f"{group.fewest} of {group.name} are wanted, at most {where.max_per_site} a site"
    return ""


def check_disks(spec: ClusterSpec, images: Mapping[str, Image]) -> None:
    """A root disk is at least as large as its image's own, and a data set is whole sectors."""
    for position, data in enumerate(spec.datasets):
        check_data_size(images[data.source].size_bytes, dataset_field(position))
    for position, group in enumerate(spec.groups):
        image = images[group.environment.image]
        least_mib = -(-image.virtual_size_bytes // (1 << 20))
        if group.allocation.disk_mib < least_mib:
            raise FieldInvalid(
                f"spec.groups[{position}].allocation.disk_mib",
                f"{group.allocation.disk_mib} MiB is less than the {least_mib} MiB of image "
                f"{group.environment.image}; give {least_mib} or more",
            )


def pinned(spec: ClusterSpec, images: Mapping[str, Image], policy: Policy) -> ClusterSpec:
    """The same with every image as a digest, and every disk with the site's caps where it has
    none: once for each group, not for each workspace at each attempt."""

    def pin(group: Group) -> Group:
        digest = images[group.environment.image].digest
        return replace(
            group,
            environment=replace(group.environment, image=digest),
            allocation=with_site_caps(group.allocation, policy),
        )

    def capped(disk: DiskTerm) -> DiskTerm:
        return capped_by_site(disk, policy)

    return replace(
        spec,
        groups=tuple(pin(group) for group in spec.groups),
        datasets=tuple(
            replace(each, source=images[each.source].digest, disk=capped(each.disk))
            for each in spec.datasets
        ),
        volumes=tuple(replace(each, disk=capped(each.disk)) for each in spec.volumes),
    )


def part_spec_of(
    name: ClusterName,
    uid: str,
    spec: ClusterSpec,
    counts: Mapping[str, int],
    window: Window,
    site: str,
    numbers: Numbers | None = None,
) -> PartSpec:
    """The cluster as one part, all of it here. `spec` is normalised and pinned; `numbers`: see
    `layout`."""
    labels = [
        workspace_label(group.name, index)
        for group in spec.groups
        for index in range(counts[group.name])
    ]
    plan = layout(uid, spec, counts, dict.fromkeys(labels, site), name.cluster_id, numbers)
    disks = {group.name: further_disks(spec, group.name) for group in spec.groups}
    return PartSpec(
        cluster=str(name),
        cluster_uid=uid,
        window=window,
        workspaces=tuple(
            PartWorkspace(
                group=group.name,
                index=index,
                environment=group.environment,
                allocation=group.allocation,
                nics=plan.nics[workspace_label(group.name, index)],
                max_per_host=group.placement.max_per_host,
                disks=disks[group.name],
            )
            for group in spec.groups
            for index in range(counts[group.name])
        ),
        networks=tuple(
            PartNetwork(
                name=network.name,
                subnet=network.subnet,
                members=plan.members[network.name],
                pairs=plan.pairs[network.name],
            )
            for network in spec.networks
        ),
        host_entries=plan.host_entries,
    )


def allot(
    spec: PartSpec,
    view: LedgerView,
    policy: Policy,
    *,
    tenant: str,
    now: datetime,
    calendar: Calendar | None = None,
    free: Mapping[str, Vector] | None = None,
) -> Allotment:
    """Places a part on hosts, gateway and links as they are free over its whole window, or
    says with NoCapacity what was short, or what the site's policy does not let the tenant have.
    `free`: of each host over that window, where it is known already."""
    check_window(spec.window, policy, tenant, now=now)
    calendar = calendar or calendar_of(view, policy)
    spec = with_site_defaults(spec, policy)
    short = link_shortfalls(calendar, policy, spec)
    if free is None:
        free = free_hosts(calendar, view, policy, spec.window, now=now)
    gateway = ""
    if spec.links or any(leaves_site(each, policy.site) for each in spec.networks):
        gateway = view.fleet.gateway(now=now)
        if not gateway:
            short += (_no_gateway(policy.site),)
        else:
            wanted = Vector(uplink_mbit_s=gateway_mbit_s(spec))
            short += wanted.shortfall_from(
                free[gateway].at_least_zero(), site=policy.site, host=gateway
            )
            free = {**free, gateway: free[gateway] - wanted}
    rooms = {host: Room(facts=view.fleet.facts[host], free=free[host]) for host in free}
    try:
        placed = place(spec, rooms, site=policy.site)
    except NoCapacity as error:
        raise NoCapacity((*short, *error.shortfalls)) from None
    if short:
        raise NoCapacity(short)
    check_quotas(spec, placed, gateway, calendar, policy, tenant)
    return Allotment(spec=spec, placed=placed, gateway=gateway)


def free_hosts_over(
    calendar: Calendar,
    view: LedgerView,
    policy: Policy,
    windows: Sequence[Window],
    kept: Window,
    *,
    now: datetime,
) -> dict[str, Vector]:
    """What is free in each of these windows, and of disk all the time that it is kept."""
    rooms = [free_hosts(calendar, view, policy, each, now=now) for each in windows]
    return {
        host: Vector(
            **{name: min(getattr(each[host], name) for each in rooms) for name in DIMENSIONS}
            | {"disk_mib": calendar.free(host_key(host, "disk_mib"), kept)}
        )
        for host in rooms[0]
    }


def _no_gateway(site: str) -> Shortfall:
    return Shortfall(
        site=site,
        resource="reachability",
        message=f"{site}: no gateway is alive, so no network can leave the site",
    )


def draft(
    name: ClusterName,
    uid: str,
    spec: ClusterSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> Draft:
    """The earliest start, within the delay that is allowed, at which the fewest workspaces
    fit; and then as many as fit, group by group in the order of the specification."""
    calendar = calendar_of(view, policy)
    fewest = {group.name: group.fewest for group in spec.groups}
    first_problem: NoCapacity | None = None
    for window in _windows(spec, view, policy, calendar, now=now):
        free = free_hosts(calendar, view, policy, window, now=now)

        def attempt(
            counts: Mapping[str, int],
            window: Window = window,
            free: Mapping[str, Vector] = free,
        ) -> Allotment:
            part = part_spec_of(name, uid, spec, counts, window, policy.site)
            return allot(
                part, view, policy, tenant=name.tenant, now=now, calendar=calendar, free=free
            )

        try:
            found = attempt(fewest)
        except NoCapacity as error:
            first_problem = first_problem or error
            continue
        counts, found, short = as_many_as_fit(spec, fewest, found, attempt)
        return _drafted(spec, counts, found, short, first_problem, policy, now=now)
    raise first_problem or NoCapacity(())


def _windows(
    spec: ClusterSpec, view: LedgerView, policy: Policy, calendar: Calendar, *, now: datetime
) -> Iterator[Window]:
    """As asked for; then from every moment on at which another part ends, while the start is
    within the delay allowed. An end that was asked for as a moment stays where it is."""
    asked = spec.lease.window(now=now)
    yield asked
    latest = asked.start + spec.lease.max_delay
    after = asked.start
    if spec.lease.end_time is None and after < latest:
        first = _not_before(spec, view, policy, calendar, asked, latest, now=now)
        if first is None:
            return
        after = max(after, first - TICK)
    for start in islice(calendar.ends(after, latest), MAX_STARTS):
        end = spec.lease.end_time or start + asked.duration
        if start < end:
            yield Window(start, end)


def _not_before(
    spec: ClusterSpec,
    view: LedgerView,
    policy: Policy,
    calendar: Calendar,
    asked: Window,
    latest: datetime,
    *,
    now: datetime,
) -> datetime | None:
    """The first start at which each group finds a host that could take one workspace of it, were
    it alone; None where there is none by `latest`. The starts before are not worth trying: at a
    large site there are thousands, and only so many are."""
    hosts = [facts.host for facts in view.fleet.alive(now=now)]
    first = asked.start
    for group in spec.groups:
        if not group.fewest:
            continue
        wanted = with_site_caps(group.allocation, policy)
        disks = further_disks(spec, group.name)
        amounts = amounts_alone(wanted, len(group.networks), disks)
        best: datetime | None = None
        for host in hosts:
            demand = Demand("", Window(first, first + asked.duration), keyed(host, amounts))
            found = calendar.earliest(demand, best - TICK if best else latest)
            best = found or best
            if best == first:
                break
        if best is None:
            return None
        first = best
    return first


def as_many_as_fit(
    spec: ClusterSpec, fewest: Mapping[str, int], found: T, attempt: Attempt[T]
) -> tuple[dict[str, int], T, tuple[Shortfall, ...]]:
    """From `fewest` on, with which `found` fits, group by group up to what the specification
    allows; and what was short where it allows more."""
    counts = dict(fewest)
    short: tuple[Shortfall, ...] = ()
    for group in spec.groups:
        low, high = counts[group.name], group.most
        if group.placement.max_per_site:
            high = min(high, group.placement.max_per_site)
        while low < high:
            middle = (low + high + 1) // 2
            try:
                found = attempt({**counts, group.name: middle})
                low = middle
            except NoCapacity as error:
                short = error.shortfalls
                high = middle - 1
        counts[group.name] = low
    return counts, found, short


def _drafted(
    spec: ClusterSpec,
    counts: Mapping[str, int],
    found: Allotment,
    short: tuple[Shortfall, ...],
    delayed_by: NoCapacity | None,
    policy: Policy,
    *,
    now: datetime,
) -> Draft:
    window = found.spec.window
    reasons = [f"{policy.site} has room for all of it"]
    if delayed_by is not None:
        delay = window.start - spec.lease.window(now=now).start
        seconds = delay / timedelta(seconds=1)
        reasons.append(f"starts {seconds:.0f} s later than asked for: {delayed_by}")
    return Draft(
        allotment=found,
        counts=tuple(counts.items()),
        reasons=(*reasons, *why_not_more(spec, counts)),
        shortfalls=short,
    )


def why_not_more(spec: ClusterSpec, counts: Mapping[str, int]) -> Iterator[str]:
    for group in spec.groups:
        if counts[group.name] < group.most:
            yield f"{counts[group.name]} of at most {group.most} {group.name} fit"
