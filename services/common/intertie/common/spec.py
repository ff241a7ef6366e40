"""What a user asks for: the rules it must keep and the defaults it is given.

Everything behind the API works on specifications that went through `validate` and
then `normalise`. This module is the one to import from, for the values too.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from intertie.common.layout import Layout, layout
from intertie.common.part_spec import FurtherDisk, further_disks
from intertie.common.quantities import Vector
from intertie.common.spec_rules import (
    check_can_be_chosen,
    dataset_field,
    image_field,
    validate,
)
from intertie.common.terms import (
    DEFAULT_DURATION,
    DEFAULT_READY_WITHIN,
    Affinity,
    AffinityKind,
    Allocation,
    AvailabilityTerm,
    BandwidthTerm,
    ClusterSpec,
    Contextualization,
    Dataset,
    DiskTerm,
    Environment,
    Group,
    GroupPlacement,
    Kind,
    LatencyBound,
    LeaseTerms,
    Network,
    OnHostLoss,
    OnIsolation,
    OnLinkLoss,
    OnSiteLoss,
    PairTerm,
    Placement,
    Readiness,
    Volume,
    shared_networks,
)
from intertie.common.values import replace

__all__ = [
    "DEFAULT_DURATION",
    "Affinity",
    "AffinityKind",
    "Allocation",
    "AvailabilityTerm",
    "BandwidthTerm",
    "ClusterSpec",
    "Contextualization",
    "Dataset",
    "DiskTerm",
    "Environment",
    "Group",
    "GroupPlacement",
    "Kind",
    "LatencyBound",
    "Layout",
    "LeaseTerms",
    "Network",
    "OnHostLoss",
    "OnIsolation",
    "OnLinkLoss",
    "OnSiteLoss",
    "PairTerm",
    "Placement",
    "Readiness",
    "Volume",
    "capped_disk",
    "check_can_be_chosen",
    "dataset_field",
    "demand_of",
    "demand_of_disk",
    "image_field",
    "layout",
    "least_demand",
    "normalise",
    "shared_networks",
    "total_demand",
    "validate",
]

DEFAULT_ARCHITECTURE = "x86_64"
ANY_HYPERVISOR = "any"


def normalise(spec: ClusterSpec, *, now: datetime) -> ClusterSpec:
    """The same request with everything said that was left to defaults.

    An open start stays open: only admission knows it. One that has just passed is now.
    """
    names = tuple(network.name for network in spec.networks)
    networks_of = {group.name: group.networks or names for group in spec.groups}
    lease = spec.lease
    if lease.duration is None and lease.end_time is None:
        lease = replace(lease, duration=DEFAULT_DURATION)
    if lease.start_time is not None and lease.start_time < now:
        lease = replace(lease, start_time=now)
    return replace(
        spec,
        groups=tuple(_normal_group(group, networks_of) for group in spec.groups),
        lease=lease,
        datasets=tuple(replace(each, disk=capped_disk(each.disk)) for each in spec.datasets),
        volumes=tuple(replace(each, disk=capped_disk(each.disk)) for each in spec.volumes),
    )


def demand_of(
    allocation: Allocation,
    nics: int,
    pair_mbit_s: int | None = None,
    disks: Iterable[FurtherDisk] = (),
) -> Vector:
    """What one workspace takes from its host.

    Disk operations and throughput count by their caps, because only the sum of all caps
    keeps every floor. The uplink counts what is guaranteed to each NIC and to pairs:
    `pair_mbit_s` is the sum over all promised pairs that the workspace is an end of; left
    out, each pair term of the allocation counts as one peer. `disks` are those beside its root
    disk.
    """
    if pair_mbit_s is None:
        pair_mbit_s = sum(pair.bandwidth.guarantee_mbit_s for pair in allocation.pairs)
    alone = Vector(
        vcpus=allocation.vcpus,
        memory_mib=allocation.memory_mib,
        disk_mib=allocation.disk_mib,
        iops=max(allocation.disk.cap_iops, allocation.disk.guarantee_iops),
        throughput_mib_s=max(allocation.disk.cap_mib_s, allocation.disk.guarantee_mib_s),
        uplink_mbit_s=allocation.nic.guarantee_mbit_s * nics + pair_mbit_s,
    )
    return sum(map(demand_of_disk, disks), start=alone)


def demand_of_disk(disk: FurtherDisk) -> Vector:
    """As a root disk counts. The octets of a data set do not, no more than those of an image."""
    return Vector(
        disk_mib=disk.size_mib,
        iops=max(disk.disk.cap_iops, disk.disk.guarantee_iops),
        throughput_mib_s=max(disk.disk.cap_mib_s, disk.disk.guarantee_mib_s),
    )


def total_demand(spec: ClusterSpec, counts: Mapping[str, int]) -> Vector:
    """What so many workspaces of each group take of their hosts together; each pair term counts as
    one peer."""
    needs = (
        demand_of(group.allocation, len(group.networks), disks=further_disks(spec, group.name))
        * counts[group.name]
        for group in spec.groups
    )
    return sum(needs, start=Vector())


def least_demand(spec: ClusterSpec) -> Vector:
    """Of the fewest workspaces that it begins with."""
    return total_demand(spec, {group.name: group.fewest for group in spec.groups})


def _normal_group(group: Group, networks_of: dict[str, tuple[str, ...]]) -> Group:
    networks, environment = networks_of[group.name], group.environment
    return replace(
        group,
        networks=networks,
        environment=replace(
            environment,
            architecture=environment.architecture or DEFAULT_ARCHITECTURE,
            hypervisor=environment.hypervisor or ANY_HYPERVISOR,
            ready_within=environment.ready_within or DEFAULT_READY_WITHIN,
        ),
        allocation=_normal_allocation(group.allocation, networks, networks_of),
    )


def _normal_allocation(
    allocation: Allocation, networks: tuple[str, ...], networks_of: dict[str, tuple[str, ...]]
) -> Allocation:
    pairs = tuple(
        replace(
            pair,
            network=pair.network or shared_networks(networks, networks_of.get(pair.group, ()))[0],
            bandwidth=_normal_bandwidth(pair.bandwidth),
        )
        for pair in allocation.pairs
    )
    # Most ask for no cap and no pair: what is as it should be is not made anew.
    nic = _normal_bandwidth(allocation.nic)
    disk = capped_disk(allocation.disk)
    if nic is allocation.nic and disk is allocation.disk and not pairs:
        return allocation
    return replace(allocation, nic=nic, pairs=pairs, disk=disk)


def capped_disk(disk: DiskTerm, *, iops: int = 0, mib_s: int = 0) -> DiskTerm:
    """With the caps that it says; else its guarantees; else these."""
    cap_iops = disk.cap_iops or disk.guarantee_iops or iops
    cap_mib_s = disk.cap_mib_s or disk.guarantee_mib_s or mib_s
    if (cap_iops, cap_mib_s) == (disk.cap_iops, disk.cap_mib_s):
        return disk
    return replace(disk, cap_iops=cap_iops, cap_mib_s=cap_mib_s)


def _normal_bandwidth(term: BandwidthTerm) -> BandwidthTerm:
    if term.cap_mbit_s or not term.guarantee_mbit_s:
        return term
    return replace(term, cap_mbit_s=term.guarantee_mbit_s)
