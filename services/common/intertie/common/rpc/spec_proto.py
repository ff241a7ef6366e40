"""Specifications of clusters and of parts between the wire and the domain, without loss. The terms
in them are handed on from `terms_proto`, for who needs both."""

from collections.abc import Iterable

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2
from intertie.common import part_spec, spec
from intertie.common.errors import FieldInvalid
from intertie.common.rpc.shortfalls_proto import shortfall_from_proto, shortfall_to_proto
from intertie.common.rpc.terms_proto import (
    Fields,
    allocation_fields,
    allocation_from_proto,
    allocation_to_proto,
    bandwidth_fields,
    bandwidth_from_proto,
    bandwidth_to_proto,
    disk_fields,
    disk_from_proto,
    duration_fields,
    duration_from_proto,
    duration_to_proto,
    environment_fields,
    environment_from_proto,
    environment_to_proto,
    timestamp_fields,
    timestamp_from_proto,
    timestamp_to_proto,
    window_fields,
    window_from_proto,
    window_to_proto,
)

__all__ = [
    "Fields",
    "allocation_from_proto",
    "allocation_to_proto",
    "bandwidth_from_proto",
    "bandwidth_to_proto",
    "cluster_spec_fields",
    "cluster_spec_from_proto",
    "cluster_spec_to_proto",
    "duration_fields",
    "duration_from_proto",
    "duration_to_proto",
    "environment_from_proto",
    "environment_to_proto",
    "further_disks_from_proto",
    "further_disks_to_proto",
    "host_entries_from_proto",
    "host_entries_to_proto",
    "part_spec_fields",
    "part_spec_from_proto",
    "part_spec_to_proto",
    "shortfall_from_proto",
    "shortfall_to_proto",
    "timestamp_fields",
    "timestamp_from_proto",
    "timestamp_to_proto",
    "window_fields",
    "window_from_proto",
    "window_to_proto",
]


def cluster_spec_fields(value: spec.ClusterSpec) -> Fields:
    lease = value.lease
    start, duration, end = lease.start_time, lease.duration, lease.end_time
    deadline = lease.deadline
    return {
        "groups": [_group_fields(group) for group in value.groups],
        "networks": [_network_fields(network) for network in value.networks],
        "lease": {
            "start_time": timestamp_fields(start) if start is not None else None,
            "duration": duration_fields(duration) if duration is not None else None,
            "end_time": timestamp_fields(end) if end is not None else None,
            "max_delay": duration_fields(lease.max_delay),
            "kind": lease.kind.value if lease.kind is not None else None,
            "deadline": timestamp_fields(deadline) if deadline is not None else None,
            "max_wait": duration_fields(lease.max_wait) if lease.max_wait else None,
            "cancellable": lease.cancellable,
        },
        "placement": {
            "max_sites": value.placement.max_sites,
            "affinities": [
                {"groups": each.groups, "kind": each.kind.value}
                for each in value.placement.affinities
            ],
            "max_cost": value.placement.max_cost,
        },
        "datasets": [
            {
                "name": each.name,
                "source": each.source,
                "groups": each.groups,
                "disk": disk_fields(each.disk),
            }
            for each in value.datasets
        ],
        "volumes": [
            {
                "name": each.name,
                "size_mib": each.size_mib,
                "disk": disk_fields(each.disk),
                "group": each.group,
            }
            for each in value.volumes
        ],
    }


def cluster_spec_to_proto(value: spec.ClusterSpec) -> cluster_pb2.ClusterSpec:
    return cluster_pb2.ClusterSpec(**cluster_spec_fields(value))


def cluster_spec_from_proto(
    message: cluster_pb2.ClusterSpec, field: str = "spec"
) -> spec.ClusterSpec:
    return spec.ClusterSpec(
        groups=tuple(
            _group_from_proto(group, f"{field}.groups[{i}]")
            for i, group in enumerate(message.groups)
        ),
        networks=tuple(
            _network_from_proto(network, f"{field}.networks[{i}]")
            for i, network in enumerate(message.networks)
        ),
        lease=_lease_from_proto(message.lease, f"{field}.lease"),
        placement=_placement_from_proto(message.placement, f"{field}.placement"),
        datasets=tuple(
            spec.Dataset(
                name=each.name,
                source=each.source,
                groups=tuple(each.groups),
                disk=disk_from_proto(each.disk),
            )
            for each in message.datasets
        ),
        volumes=tuple(
            spec.Volume(
                name=each.name,
                size_mib=each.size_mib,
                disk=disk_from_proto(each.disk),
                group=each.group,
            )
            for each in message.volumes
        ),
    )


def _placement_from_proto(message: cluster_pb2.Placement, field: str) -> spec.Placement:
    return spec.Placement(
        max_sites=message.max_sites,
        affinities=tuple(
            spec.Affinity(
                groups=tuple(each.groups),
                kind=_affinity_kind_from_proto(each.kind, f"{field}.affinities[{i}].kind"),
            )
            for i, each in enumerate(message.affinities)
        ),
        max_cost=message.max_cost,
    )


def _affinity_kind_from_proto(kind: int, field: str) -> spec.AffinityKind:
    known = " or ".join(each.value for each in spec.AffinityKind)
    if kind == cluster_pb2.Affinity.KIND_UNSPECIFIED:
        raise FieldInvalid(field, f"is missing; say {known}")
    try:
        return spec.AffinityKind(cluster_pb2.Affinity.Kind.Name(kind))  # type: ignore[arg-type]
    except ValueError:
        raise FieldInvalid(field, f"is {kind}, which is not known here; use {known}") from None


def _lease_from_proto(message: cluster_pb2.LeaseTerms, field: str) -> spec.LeaseTerms:
    start = end = duration = deadline = None
    if message.HasField("start_time"):
        start = timestamp_from_proto(message.start_time, f"{field}.start_time")
    if message.HasField("end_time"):
        end = timestamp_from_proto(message.end_time, f"{field}.end_time")
    if message.HasField("duration"):
        duration = duration_from_proto(message.duration, f"{field}.duration")
    if message.HasField("deadline"):
        deadline = timestamp_from_proto(message.deadline, f"{field}.deadline")
    return spec.LeaseTerms(
        start_time=start,
        duration=duration,
        end_time=end,
        max_delay=duration_from_proto(message.max_delay, f"{field}.max_delay"),
        kind=_kind_from_proto(message.kind, f"{field}.kind"),
        deadline=deadline,
        max_wait=duration_from_proto(message.max_wait, f"{field}.max_wait"),
        cancellable=message.cancellable,
    )


def _kind_from_proto(kind: int, field: str) -> spec.Kind | None:
    if kind == cluster_pb2.LeaseTerms.KIND_UNSPECIFIED:
        return None
    try:
        return spec.Kind(cluster_pb2.LeaseTerms.Kind.Name(kind))  # type: ignore[arg-type]
    except ValueError:
        known = ", ".join(each.value for each in spec.Kind)
        raise FieldInvalid(
            field, f"is {kind}, which is not known here; use {known}, or leave it out"
        ) from None


def _group_fields(group: spec.Group) -> Fields:
    placement = group.placement
    return {
        "name": group.name,
        "count": group.count,
        "min_count": group.min_count,
        "max_count": group.max_count,
        "environment": environment_fields(group.environment),
        "allocation": allocation_fields(group.allocation),
        "networks": group.networks,
        "placement": {
            "allow_sites": placement.allow_sites,
            "deny_sites": placement.deny_sites,
            "max_per_site": placement.max_per_site,
            "max_per_host": placement.max_per_host,
            "min_sites": placement.min_sites,
        },
    }


def _group_from_proto(message: cluster_pb2.Group, field: str) -> spec.Group:
    placement = message.placement
    return spec.Group(
        name=message.name,
        count=message.count,
        min_count=message.min_count,
        max_count=message.max_count,
        environment=environment_from_proto(message.environment, f"{field}.environment"),
        allocation=allocation_from_proto(message.allocation, f"{field}.allocation"),
        networks=tuple(message.networks),
        placement=spec.GroupPlacement(
            allow_sites=tuple(placement.allow_sites),
            deny_sites=tuple(placement.deny_sites),
            max_per_site=placement.max_per_site,
            max_per_host=placement.max_per_host,
            min_sites=placement.min_sites,
        ),
    )


def _network_fields(network: spec.Network) -> Fields:
    return {
        "name": network.name,
        "subnet": network.subnet,
        "latency": [
            {"groups": bound.groups, "max_latency": duration_fields(bound.max_latency)}
            for bound in network.latency
        ],
    }


def _network_from_proto(message: cluster_pb2.Network, field: str) -> spec.Network:
    return spec.Network(
        name=message.name,
        subnet=message.subnet,
        latency=tuple(
            spec.LatencyBound(
                groups=tuple(bound.groups),
                max_latency=duration_from_proto(
                    bound.max_latency, f"{field}.latency[{i}].max_latency"
                ),
            )
            for i, bound in enumerate(message.latency)
        ),
    )


def host_entries_to_proto(entries: Iterable[part_spec.HostEntry]) -> list[part_pb2.HostEntry]:
    return [part_pb2.HostEntry(**each) for each in _host_entries_fields(entries)]


def _host_entries_fields(entries: Iterable[part_spec.HostEntry]) -> list[Fields]:
    return [{"address": each.address, "names": each.names} for each in entries]


def host_entries_from_proto(
    messages: Iterable[part_pb2.HostEntry],
) -> tuple[part_spec.HostEntry, ...]:
    return tuple(
        part_spec.HostEntry(address=each.address, names=tuple(each.names)) for each in messages
    )


def part_spec_fields(value: part_spec.PartSpec) -> Fields:
    return {
        "cluster": value.cluster,
        "cluster_uid": value.cluster_uid,
        "window": window_fields(value.window),
        "workspaces": [_part_workspace_fields(each) for each in value.workspaces],
        "networks": [_part_network_fields(each) for each in value.networks],
        "links": [
            {
                "peer": link.peer,
                "network": link.network,
                "egress_mbit_s": link.egress_mbit_s,
                "ingress_mbit_s": link.ingress_mbit_s,
            }
            for link in value.links
        ],
        "host_entries": _host_entries_fields(value.host_entries),
        "recallable": _recallable_fields(value.recallable) if value.recallable else None,
        "transfers": [
            {
                "digest": each.digest,
                "size_bytes": each.size_bytes,
                "from_site": each.from_site,
                "to_site": each.to_site,
                "mbit_s": each.mbit_s,
                "window": window_fields(each.window),
                "data": each.data,
            }
            for each in value.transfers
        ],
    }


def _recallable_fields(value: part_spec.Recallable) -> Fields:
    return {
        "keep_for": duration_fields(value.keep_for),
        "cancellable": value.cancellable,
        "ran": duration_fields(value.ran),
        "put_aside": value.put_aside,
        "deadline": timestamp_fields(value.deadline) if value.deadline is not None else None,
        "promised": window_fields(value.promised) if value.promised is not None else None,
    }


def _recallable_from_proto(message: part_pb2.Recallable, field: str) -> part_spec.Recallable:
    return part_spec.Recallable(
        keep_for=duration_from_proto(message.keep_for, f"{field}.keep_for"),
        cancellable=message.cancellable,
        ran=duration_from_proto(message.ran, f"{field}.ran"),
        put_aside=message.put_aside,
        deadline=(
            timestamp_from_proto(message.deadline, f"{field}.deadline")
            if message.HasField("deadline")
            else None
        ),
        promised=(
            window_from_proto(message.promised, f"{field}.promised")
            if message.HasField("promised")
            else None
        ),
    )


def part_spec_to_proto(value: part_spec.PartSpec) -> part_pb2.PartSpec:
    return part_pb2.PartSpec(**part_spec_fields(value))


def part_spec_from_proto(message: part_pb2.PartSpec, field: str = "spec") -> part_spec.PartSpec:
    return part_spec.PartSpec(
        cluster=message.cluster,
        cluster_uid=message.cluster_uid,
        window=window_from_proto(message.window, f"{field}.window"),
        workspaces=tuple(
            _part_workspace_from_proto(each, f"{field}.workspaces[{i}]")
            for i, each in enumerate(message.workspaces)
        ),
        networks=tuple(_part_network_from_proto(each) for each in message.networks),
        links=tuple(
            part_spec.LinkReservation(
                peer=link.peer,
                network=link.network,
                egress_mbit_s=link.egress_mbit_s,
                ingress_mbit_s=link.ingress_mbit_s,
            )
            for link in message.links
        ),
        host_entries=host_entries_from_proto(message.host_entries),
        recallable=(
            _recallable_from_proto(message.recallable, f"{field}.recallable")
            if message.HasField("recallable")
            else None
        ),
        transfers=tuple(
            part_spec.Transfer(
                digest=each.digest,
                size_bytes=each.size_bytes,
                from_site=each.from_site,
                to_site=each.to_site,
                mbit_s=each.mbit_s,
                window=window_from_proto(each.window, f"{field}.transfers[{i}].window"),
                data=each.data,
            )
            for i, each in enumerate(message.transfers)
        ),
    )


def _part_workspace_fields(value: part_spec.PartWorkspace) -> Fields:
    return {
        "group": value.group,
        "index": value.index,
        "environment": environment_fields(value.environment),
        "allocation": allocation_fields(value.allocation),
        "nics": [
            {"network": nic.network, "mac": nic.mac, "address": nic.address} for nic in value.nics
        ],
        "max_per_host": value.max_per_host,
        "disks": [_further_disk_fields(each) for each in value.disks],
    }


def _further_disk_fields(value: part_spec.FurtherDisk) -> Fields:
    return {
        "name": value.name,
        "image": value.image,
        "size_mib": value.size_mib,
        "disk": disk_fields(value.disk),
    }


def further_disks_to_proto(
    disks: Iterable[part_spec.FurtherDisk],
) -> list[part_pb2.FurtherDisk]:
    return [part_pb2.FurtherDisk(**_further_disk_fields(each)) for each in disks]


def further_disks_from_proto(
    messages: Iterable[part_pb2.FurtherDisk],
) -> tuple[part_spec.FurtherDisk, ...]:
    return tuple(
        part_spec.FurtherDisk(
            name=each.name,
            image=each.image,
            size_mib=each.size_mib,
            disk=disk_from_proto(each.disk),
        )
        for each in messages
    )


def _part_workspace_from_proto(
    message: part_pb2.PartWorkspace, field: str
) -> part_spec.PartWorkspace:
    return part_spec.PartWorkspace(
        group=message.group,
        index=message.index,
        environment=environment_from_proto(message.environment, f"{field}.environment"),
        allocation=allocation_from_proto(message.allocation, f"{field}.allocation"),
        nics=tuple(
            part_spec.PartNic(network=nic.network, mac=nic.mac, address=nic.address)
            for nic in message.nics
        ),
        max_per_host=message.max_per_host,
        disks=further_disks_from_proto(message.disks),
    )


def _part_network_fields(value: part_spec.PartNetwork) -> Fields:
    return {
        "name": value.name,
        "subnet": value.subnet,
        "members": [
            {
                "workspace": each.workspace,
                "site": each.site,
                "mac": each.mac,
                "address": each.address,
            }
            for each in value.members
        ],
        "pairs": [
            {"a": each.a, "b": each.b, "bandwidth": bandwidth_fields(each.bandwidth)}
            for each in value.pairs
        ],
    }


def _part_network_from_proto(message: part_pb2.PartNetwork) -> part_spec.PartNetwork:
    return part_spec.PartNetwork(
        name=message.name,
        subnet=message.subnet,
        members=tuple(
            part_spec.Member(
                workspace=each.workspace, site=each.site, mac=each.mac, address=each.address
            )
            for each in message.members
        ),
        pairs=tuple(
            part_spec.PairPromise(
                a=each.a, b=each.b, bandwidth=bandwidth_from_proto(each.bandwidth)
            )
            for each in message.pairs
        ),
    )
