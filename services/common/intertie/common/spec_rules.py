"""What may be asked for: one function a rule, each refusal with the field's path and a remedy.

Rules of one group's environment and allocation are in `term_rules`.
"""

import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError

from intertie.common.affinity_rules import check_affinities
from intertie.common.disk_rules import check_further_disks
from intertie.common.errors import FieldInvalid
from intertie.common.layout import check_room, network_of
from intertie.common.names import check_label, workspace_label
from intertie.common.term_rules import (
    check_allocation,
    check_environment,
    check_range,
    check_unique,
    unknown,
)
from intertie.common.terms import (
    DEFAULT_DURATION,
    ClusterSpec,
    Group,
    Kind,
    LatencyBound,
    LeaseTerms,
    Network,
    shared_networks,
)

MAX_GROUPS = 1_000
MAX_WORKSPACES = 10_000
MAX_NETWORKS = 256
MAX_NICS = 16
MAX_SPAN = timedelta(days=366)
MAX_LATENCY = timedelta(seconds=10)
MAX_COST = 1e9
LONGEST_SUBNET = len("255.255.255.255/255.255.255.255")
PAST_TOLERANCE = timedelta(seconds=60)
"""A start that has passed by no more is taken for now: clocks differ, requests travel."""

Networks = Mapping[str, tuple[str, ...]]
"""Group to the networks it is on."""


def validate(spec: ClusterSpec, *, now: datetime) -> None:
    """Refuses, with FieldInvalid, the first thing that may not be asked for."""
    _some_groups_but_not_too_many(spec)
    for position, network in enumerate(spec.networks):
        _network_is_well_formed(network, f"spec.networks[{position}]")
    check_unique([network.name for network in spec.networks], "spec.networks", "name")
    _subnets_do_not_overlap(spec)
    for position, group in enumerate(spec.groups):
        _group_is_well_formed(group, f"spec.groups[{position}]")
    check_unique([group.name for group in spec.groups], "spec.groups", "name")
    _not_too_many_workspaces(spec)
    check_further_disks(spec)
    all_networks = tuple(network.name for network in spec.networks)
    networks_of = {group.name: group.networks or all_networks for group in spec.groups}
    for position, group in enumerate(spec.groups):
        field = f"spec.groups[{position}]"
        _networks_are_known(group, all_networks, field)
        _sites_can_be_met(group, spec.placement.max_sites, field)
    for position, group in enumerate(spec.groups):
        _pairs_are_known(group, networks_of, f"spec.groups[{position}].allocation.pairs")
    _no_pair_is_promised_twice(spec, networks_of)
    for position, network in enumerate(spec.networks):
        field = f"spec.networks[{position}]"
        wanted = sum(each.most for each in spec.groups if network.name in networks_of[each.name])
        check_room(network.subnet, wanted, f"{field}.subnet")
        for place, bound in enumerate(network.latency):
            _latency_is_known(bound, network.name, networks_of, f"{field}.latency[{place}]")
    check_range(spec.placement.max_sites, 0, 10_000, "spec.placement.max_sites", "sites")
    check_affinities(spec)
    _budget_is_a_price(spec)
    _lease_is_ahead(spec.lease, now=now)
    _lease_waits_or_not(spec.lease)
    _deadline_can_be_met(spec.lease, now=now)


def check_can_be_chosen(lease: LeaseTerms) -> None:
    """FieldInvalid where there are no plans to choose from, whatever sites have."""
    if lease.kind is Kind.BEST_EFFORT:
        raise FieldInvalid(
            "spec.lease.kind",
            "is BEST_EFFORT, which runs when there is room, so there is nothing to choose; "
            "Create with validate_only says when that would be",
        )


def image_field(position: int) -> str:
    """Where the group in that position says its image."""
    return f"spec.groups[{position}].environment.image"


def dataset_field(position: int) -> str:
    """Where the data set in that position says what it is of."""
    return f"spec.datasets[{position}].source"


def _some_groups_but_not_too_many(spec: ClusterSpec) -> None:
    """A cluster has 1 to 1,000 groups and at most 256 networks."""
    if not spec.groups:
        raise FieldInvalid("spec.groups", "is empty; name at least one group of workspaces")
    if len(spec.groups) > MAX_GROUPS:
        raise FieldInvalid(
            "spec.groups",
            f"has {len(spec.groups)} groups; at most {MAX_GROUPS} are allowed, "
            "join those that are alike",
        )
    if len(spec.networks) > MAX_NETWORKS:
        raise FieldInvalid(
            "spec.networks", f"has {len(spec.networks)}; at most {MAX_NETWORKS} are allowed"
        )


def _not_too_many_workspaces(spec: ClusterSpec) -> None:
    """A cluster has at most 10,000 workspaces."""
    total = sum(group.most for group in spec.groups)
    if total > MAX_WORKSPACES:
        raise FieldInvalid(
            "spec.groups",
            f"ask for {total} workspaces in all; at most {MAX_WORKSPACES} are allowed",
        )


def _group_is_well_formed(group: Group, field: str) -> None:
    check_label(group.name, f"{field}.name")
    _count_is_given_once(group, field)
    if len(workspace_label(group.name, group.most - 1)) > 63:
        raise FieldInvalid(
            f"{field}.name",
            "is too long: its workspaces' names, with their index, have more than 63 characters",
        )
    check_environment(group.environment, f"{field}.environment")
    check_allocation(group.allocation, f"{field}.allocation")


def _count_is_given_once(group: Group, field: str) -> None:
    """A group says how many by `count`, or from `min_count` to `max_count`."""
    if group.count and (group.min_count or group.max_count):
        raise FieldInvalid(
            f"{field}.count", "stands beside min_count or max_count; give the one or the others"
        )
    if group.count:
        check_range(group.count, 1, MAX_WORKSPACES, f"{field}.count", "workspaces")
    elif not group.min_count and not group.max_count:
        raise FieldInvalid(f"{field}.count", "is missing; say how many, 1 or more")
    else:
        check_range(group.min_count, 1, MAX_WORKSPACES, f"{field}.min_count", "workspaces")
        check_range(
            group.max_count, group.min_count, MAX_WORKSPACES, f"{field}.max_count", "workspaces"
        )


def _network_is_well_formed(network: Network, field: str) -> None:
    """A network has a private IPv4 subnet in CIDR form, without host bits."""
    check_label(network.name, f"{field}.name")
    if len(network.subnet) > LONGEST_SUBNET:
        raise FieldInvalid(f"{field}.subnet", "is no IPv4 subnet; give one like 10.1.0.0/24")
    if problem := _problem_of_subnet(network.subnet):
        raise FieldInvalid(f"{field}.subnet", problem)


@lru_cache(maxsize=1024)
def _problem_of_subnet(text: str) -> str:
    """Empty where there is none. Kept: clusters use the same few subnets again and again."""
    if not text:
        return "is missing; give one like 10.1.0.0/24"
    if ":" in text:
        return f"{text!r} is not IPv4; give one like 10.1.0.0/24"
    address, slash, length = text.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        return f"{text!r} has no prefix length; write 10.1.0.0/24"
    try:
        subnet = IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        return f"{text!r} is no IPv4 subnet; give one like 10.1.0.0/24"
    if str(subnet.network_address) != address:
        return f"{text!r} has host bits set; write {subnet}"
    if subnet.prefixlen < 8:
        return f"{text!r} is too large; give a prefix of /8 to /28"
    for what, is_so in (
        ("multicast", subnet.is_multicast),
        ("loopback", subnet.is_loopback),
        ("link-local", subnet.is_link_local),
        ("reserved", subnet.is_reserved or subnet.network_address.packed[0] == 0),
    ):
        if is_so:
            return f"{text!r} is {what}; give one like 10.1.0.0/24"
    return ""


def _subnets_do_not_overlap(spec: ClusterSpec) -> None:
    """Networks of one cluster have addresses of their own; other clusters may use the same."""
    placed = sorted((network_of(each.subnet), at) for at, each in enumerate(spec.networks))
    for (lower, one), (upper, other) in itertools.pairwise(placed):
        if lower.overlaps(upper):
            first, second = sorted((one, other))
            raise FieldInvalid(
                f"spec.networks[{second}].subnet",
                f"overlaps that of network {spec.networks[first].name!r}; "
                "give each network addresses of its own",
            )


def _networks_are_known(group: Group, known: tuple[str, ...], field: str) -> None:
    """A group is on networks of its cluster, each once, 16 at most."""
    for place, name in enumerate(group.networks):
        if name not in known:
            raise FieldInvalid(f"{field}.networks[{place}]", unknown("network", name, known))
    check_unique(group.networks, f"{field}.networks", "")
    if len(group.networks or known) > MAX_NICS:
        raise FieldInvalid(
            f"{field}.networks", f"gives a workspace more than {MAX_NICS} NICs; name fewer networks"
        )


def _sites_can_be_met(group: Group, max_sites: int, field: str) -> None:
    """What a group says of sites must leave a way to place all of it."""
    placement, at = group.placement, f"{field}.placement"
    for name, sites in (
        ("allow_sites", placement.allow_sites),
        ("deny_sites", placement.deny_sites),
    ):
        for place, site in enumerate(sites):
            check_label(site, f"{at}.{name}[{place}]")
        check_unique(sites, f"{at}.{name}", "")
    for place, site in enumerate(placement.deny_sites):
        if site in placement.allow_sites:
            raise FieldInvalid(
                f"{at}.deny_sites[{place}]", f"{site!r} is allowed too; take it out of one of them"
            )
    for name, bound in (
        ("max_per_site", placement.max_per_site),
        ("max_per_host", placement.max_per_host),
        ("min_sites", placement.min_sites),
    ):
        check_range(bound, 0, MAX_WORKSPACES, f"{at}.{name}", "")
    sites_at_most = min(
        (bound for bound in (len(placement.allow_sites), max_sites) if bound > 0),
        default=MAX_WORKSPACES,
    )
    if placement.min_sites > min(sites_at_most, group.most):
        raise FieldInvalid(
            f"{at}.min_sites",
            f"wants {placement.min_sites} sites, but at most "
            f"{min(sites_at_most, group.most)} can get a workspace of this group",
        )
    if placement.max_per_site and placement.max_per_site * sites_at_most < group.fewest:
        raise FieldInvalid(
            f"{at}.max_per_site",
            f"leaves room for {placement.max_per_site * sites_at_most} workspaces, "
            f"{group.fewest} are wanted; raise it or allow more sites",
        )


def _pairs_are_known(group: Group, networks_of: Networks, field: str) -> None:
    """A promised pair is between two groups of the cluster, on a network that both are on."""
    for place, pair in enumerate(group.allocation.pairs):
        at = f"{field}[{place}]"
        if pair.group not in networks_of:
            raise FieldInvalid(f"{at}.group", unknown("group", pair.group, tuple(networks_of)))
        shared = shared_networks(networks_of[group.name], networks_of[pair.group])
        if not shared:
            raise FieldInvalid(
                f"{at}.group", f"{pair.group!r} is on no network with {group.name!r}; put it on one"
            )
        if pair.network and pair.network not in shared:
            raise FieldInvalid(
                f"{at}.network", unknown("network of both groups", pair.network, shared)
            )
        if not pair.network and len(shared) > 1:
            raise FieldInvalid(
                f"{at}.network",
                f"is missing, and the groups share {len(shared)}; name one of {', '.join(shared)}",
            )


def _no_pair_is_promised_twice(spec: ClusterSpec, networks_of: Networks) -> None:
    """A pair term holds in both directions, so it is given on one side and once a network."""
    seen: set[tuple[frozenset[str], str]] = set()
    for position, group in enumerate(spec.groups):
        for place, pair in enumerate(group.allocation.pairs):
            shared = shared_networks(networks_of[group.name], networks_of[pair.group])
            promise = frozenset({group.name, pair.group}), pair.network or shared[0]
            if promise in seen:
                raise FieldInvalid(
                    f"spec.groups[{position}].allocation.pairs[{place}]",
                    f"bandwidth between {group.name!r} and {pair.group!r} is given twice on "
                    f"{promise[1]!r}; it holds in both directions, give it once",
                )
            seen.add(promise)


def _latency_is_known(bound: LatencyBound, network: str, networks_of: Networks, field: str) -> None:
    """A latency bound names two groups on its network and is positive."""
    if len(bound.groups) != 2:
        raise FieldInvalid(
            f"{field}.groups",
            f"names {len(bound.groups)} groups; name two (the same twice: within it)",
        )
    on_it = tuple(name for name, networks in networks_of.items() if network in networks)
    for place, name in enumerate(bound.groups):
        if name not in on_it:
            at = f"{field}.groups[{place}]"
            raise FieldInvalid(at, unknown("group on this network", name, on_it))
    if not timedelta() < bound.max_latency <= MAX_LATENCY:
        raise FieldInvalid(f"{field}.max_latency", "must be more than 0 s and at most 10 s")


def _budget_is_a_price(spec: ClusterSpec) -> None:
    """A budget is a price, of a lease whose price is known when it is admitted."""
    at, most = "spec.placement.max_cost", spec.placement.max_cost
    if not 0 <= most <= MAX_COST:  # nor what is no number
        raise FieldInvalid(at, f"is {most:g}; must be from 0, for no bound, to {MAX_COST:g}")
    if most and spec.lease.kind is not None:
        raise FieldInvalid(
            at,
            f"does not go with {spec.lease.kind.value}, whose price goes by when it runs; leave it "
            "out, or the kind",
        )


def _lease_is_ahead(lease: LeaseTerms, *, now: datetime) -> None:
    """A lease is ahead, ends after it starts, and lasts 366 days at most."""
    at = "spec.lease"
    start = lease.start_time or now
    if start < now - PAST_TOLERANCE:
        raise FieldInvalid(
            f"{at}.start_time",
            f"{start.isoformat()} is past (it is {now.isoformat(timespec='seconds')}); "
            "give a later one, or none for as soon as possible",
        )
    if start > now + MAX_SPAN:
        raise FieldInvalid(f"{at}.start_time", "is more than 366 days ahead; give an earlier one")
    if lease.duration is not None and lease.end_time is not None:
        raise FieldInvalid(f"{at}.duration", "stands beside end_time; give one of them")
    if lease.duration is not None and not timedelta() < lease.duration <= MAX_SPAN:
        raise FieldInvalid(f"{at}.duration", "must be more than 0 s and at most 366 days")
    if lease.end_time is not None:
        if lease.end_time <= max(start, now):
            raise FieldInvalid(f"{at}.end_time", "must be after the start, and ahead")
        if lease.end_time - start > MAX_SPAN:
            raise FieldInvalid(f"{at}.end_time", "is more than 366 days after the start")
    if not timedelta() <= lease.max_delay <= MAX_SPAN:
        raise FieldInvalid(f"{at}.max_delay", "must be from 0 s to 366 days")


def _lease_waits_or_not(lease: LeaseTerms) -> None:
    """One that waits says for how long it runs, and not from when to when; one that does not says
    nothing of waiting."""
    at = "spec.lease"
    if lease.kind is None:
        if lease.max_wait:
            raise FieldInvalid(f"{at}.max_wait", "goes only with a kind; leave it out")
        if lease.cancellable:
            raise FieldInvalid(f"{at}.cancellable", "goes only with a kind; leave it out")
        return
    kind = lease.kind.value
    for name, said in (
        ("start_time", lease.start_time is not None),
        ("end_time", lease.end_time is not None),
        ("max_delay", bool(lease.max_delay)),
    ):
        if said:
            raise FieldInvalid(
                f"{at}.{name}",
                f"does not go with {kind}, which starts when there is room; leave it out, "
                "and say with `duration` for how long it runs",
            )
    if not timedelta() <= lease.max_wait <= MAX_SPAN:
        raise FieldInvalid(f"{at}.max_wait", "must be from 0 s to 366 days")


def _deadline_can_be_met(lease: LeaseTerms, *, now: datetime) -> None:
    """A deadline goes with its kind, and leaves the time that the lease runs for."""
    at = "spec.lease"
    if lease.kind is not Kind.DEADLINE:
        if lease.deadline is not None:
            raise FieldInvalid(f"{at}.deadline", "goes only with kind DEADLINE; leave it out")
        return
    for name, said in (("max_wait", bool(lease.max_wait)), ("cancellable", lease.cancellable)):
        if said:
            raise FieldInvalid(
                f"{at}.{name}", "does not go with DEADLINE, which is done in time; leave it out"
            )
    if lease.deadline is None:
        raise FieldInvalid(f"{at}.deadline", "is missing; say by when it has to be done")
    earliest = now + (lease.duration or DEFAULT_DURATION)
    if lease.deadline < earliest:
        raise FieldInvalid(
            f"{at}.deadline",
            f"{lease.deadline.isoformat()} is earlier than it could be done if it began now; give "
            f"{earliest.isoformat(timespec='seconds')} or later, or a shorter duration",
        )
    if lease.deadline > now + MAX_SPAN:
        raise FieldInvalid(f"{at}.deadline", "is more than 366 days ahead; give an earlier one")
