"""What a user asks for: the rules it must keep and the defaults it is given.

Everything behind the API works on specifications that went through `validate` and
then `normalise`. This module is the one to import from, for the values too.
"""

from dataclasses import replace
from datetime import datetime

from intertie.common.layout import Layout, layout
from intertie.common.quantities import Vector
from intertie.common.spec_rules import image_field, validate
from intertie.common.terms import (
    DEFAULT_DURATION,
    DEFAULT_READY_WITHIN,
    Allocation,
    AvailabilityTerm,
    BandwidthTerm,
    ClusterSpec,
    Contextualization,
    DiskTerm,
    Environment,
    Group,
    GroupPlacement,
    LatencyBound,
    LeaseTerms,
    Network,
    OnIsolation,
    PairTerm,
    Placement,
    Readiness,
    shared_networks,
)

__all__ = [
    "DEFAULT_DURATION",
    "Allocation",
    "AvailabilityTerm",
    "BandwidthTerm",
    "ClusterSpec",
    "Contextualization",
    "DiskTerm",
    "Environment",
    "Group",
    "GroupPlacement",
    "LatencyBound",
    "Layout",
    "LeaseTerms",
    "Network",
    "OnIsolation",
    "PairTerm",
    "Placement",
    "Readiness",
    "demand_of",
    "image_field",
    "layout",
    "normalise",
    "shared_networks",
    "validate",
]

DEFAULT_ARCHITECTURE = "x86_64"
ANY_HYPERVISOR = "any"


def normalise(spec: ClusterSpec, *, now: datetime) -> ClusterSpec:
    """The same request with everything said that was left to defaults.

    An open start stays open: only admission knows it. One that has just passed is now.
    """
    names = tuple(network.name for network in spec.networks)
    groups = tuple(replace(group, networks=group.networks or names) for group in spec.groups)
    networks_of = {group.name: group.networks for group in groups}
    lease = spec.lease
    if lease.duration is None and lease.end_time is None:
        lease = replace(lease, duration=DEFAULT_DURATION)
    if lease.start_time is not None and lease.start_time < now:
        lease = replace(lease, start_time=now)
    return replace(
        spec, groups=tuple(_normal_group(group, networks_of) for group in groups), lease=lease
    )


def demand_of(allocation: Allocation, nics: int, pair_mbit_s: int | None = None) -> Vector:
    """What one workspace takes from its host.

    Disk operations and throughput count by their caps, because only the sum of all caps
    keeps every floor. The uplink counts what is guaranteed to each NIC and to pairs:
    `pair_mbit_s` is the sum over all promised pairs that the workspace is an end of; left
    out, each pair term of the allocation counts as one peer.
    """
    if pair_mbit_s is None:
        pair_mbit_s = sum(pair.bandwidth.guarantee_mbit_s for pair in allocation.pairs)
    return Vector(
        vcpus=allocation.vcpus,
        memory_mib=allocation.memory_mib,
        disk_mib=allocation.disk_mib,
        iops=max(allocation.disk.cap_iops, allocation.disk.guarantee_iops),
        throughput_mib_s=max(allocation.disk.cap_mib_s, allocation.disk.guarantee_mib_s),
        uplink_mbit_s=allocation.nic.guarantee_mbit_s * nics + pair_mbit_s,
    )


def _normal_group(group: Group, networks_of: dict[str, tuple[str, ...]]) -> Group:
    allocation = group.allocation
    pairs = tuple(
        replace(
            pair,
            network=pair.network
            or shared_networks(group.networks, networks_of.get(pair.group, ()))[0],
            bandwidth=_normal_bandwidth(pair.bandwidth),
        )
        for pair in allocation.pairs
    )
    disk = allocation.disk
    return replace(
        group,
        environment=replace(
            group.environment,
            architecture=group.environment.architecture or DEFAULT_ARCHITECTURE,
            hypervisor=group.environment.hypervisor or ANY_HYPERVISOR,
            ready_within=group.environment.ready_within or DEFAULT_READY_WITHIN,
        ),
        allocation=replace(
            allocation,
            nic=_normal_bandwidth(allocation.nic),
            pairs=pairs,
            disk=replace(
                disk,
                cap_iops=disk.cap_iops or disk.guarantee_iops,
                cap_mib_s=disk.cap_mib_s or disk.guarantee_mib_s,
            ),
        ),
    )


def _normal_bandwidth(term: BandwidthTerm) -> BandwidthTerm:
    return replace(term, cap_mbit_s=term.cap_mbit_s or term.guarantee_mbit_s)
