"""Which resource a part takes how much of, where it is placed:

- `host/{host}/{vcpus,memory_mib,disk_mib,iops,throughput_mib_s,uplink_mbit_s}`
- `link/{peer}/{egress,ingress}`
- `tenant/...`: see `quotas`
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from intertie.broker.domain.part import Standing
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.quotas import quota_shortfall
from intertie.common.errors import Shortfall
from intertie.common.part_spec import FurtherDisk, PartSpec, PartWorkspace
from intertie.common.quantities import DIMENSIONS, RESOURCE_OF, UNIT_OF, Vector
from intertie.common.spec import Allocation, demand_of_disk
from intertie.common.values import replace


def host_key(host: str, dimension: str) -> str:
    return f"host/{host}/{dimension}"


@lru_cache(maxsize=1 << 14)
def host_keys(host: str) -> tuple[str, ...]:
    """In the order of DIMENSIONS."""
    return tuple(host_key(host, each) for each in DIMENSIONS)


def link_key(peer: str, direction: str) -> str:
    return f"link/{peer}/{direction}"


def shortfall_of(site: str, resource: str, wanted: int, available: int) -> Shortfall:
    """`wanted`: beyond what there is already."""
    match resource.split("/"):
        case ["host", host, dimension]:
            return Shortfall(
                site=site,
                host=host,
                resource=RESOURCE_OF[dimension],
                wanted=wanted,
                available=available,
                unit=UNIT_OF[dimension],
            )
        case ["tenant", tenant, dimension]:
            return quota_shortfall(site, tenant, dimension, wanted, available)
        case [_, peer, direction]:
            return Shortfall(
                site=site,
                peer=peer,
                resource=f"link_{direction}",
                wanted=wanted,
                available=available,
                unit="Mbit/s",
            )
    raise ValueError(resource)


def fixed_amounts(workspace: PartWorkspace) -> Vector:
    """What a workspace takes of its host wherever the others are; of the uplink, what its NICs
    are guaranteed."""
    return amounts_alone(workspace.allocation, len(workspace.nics), workspace.disks)


def amounts_alone(allocation: Allocation, nics: int, disks: Iterable[FurtherDisk] = ()) -> Vector:
    """Likewise of any workspace with that many NICs, and these disks beside its root disk."""
    alone = Vector(
        vcpus=allocation.vcpus,
        memory_mib=allocation.memory_mib,
        disk_mib=allocation.disk_mib,
        iops=allocation.disk.cap_iops,
        throughput_mib_s=allocation.disk.cap_mib_s,
        uplink_mbit_s=allocation.nic.guarantee_mbit_s * nics,
    )
    return sum(map(demand_of_disk, disks), start=alone)


def keyed(host: str, amounts: Vector) -> dict[str, int]:
    """What a demand on that host says."""
    return {host_key(host, dimension): amount for dimension, amount in amounts.items()}


def pair_mbit_s(spec: PartSpec) -> dict[str, dict[str, int]]:
    """For each workspace of this site, what it is guaranteed towards each other workspace."""
    table: dict[str, dict[str, int]] = {each.label: {} for each in spec.workspaces}
    for network in spec.networks:
        for pair in network.pairs:
            for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
                if one in table:
                    towards = table[one]
                    towards[other] = towards.get(other, 0) + pair.bandwidth.guarantee_mbit_s
    return table


def gateway_mbit_s(spec: PartSpec) -> int:
    """What reservations on links take of the gateway's uplink. An uplink has its capacity in
    each direction, so the larger direction counts."""
    return (
        max(
            sum(link.egress_mbit_s for link in spec.links),
            sum(link.ingress_mbit_s for link in spec.links),
        )
        if spec.links
        else 0
    )


def takes_of(
    spec: PartSpec, host_of: Mapping[str, str], gateway: str
) -> Iterator[tuple[str, str, int]]:
    """(workspace, resource, amount): everything that a placed part takes. What is no workspace's
    own stands under an empty name.

    Promised pairs take uplink only where their ends are on different hosts. A workspace that has
    no host yet takes nothing, and what is promised towards it counts.
    """
    pairs = pair_mbit_s(spec)
    for workspace in spec.workspaces:
        label = workspace.label
        host = host_of.get(label)
        if host is None:
            continue
        for dimension, amount in fixed_amounts(workspace).items():
            if amount:
                yield label, host_key(host, dimension), amount
        for other, mbit_s in pairs[label].items():
            if mbit_s and host_of.get(other) != host:
                yield label, host_key(host, "uplink_mbit_s"), mbit_s
    if gateway and (mbit_s := gateway_mbit_s(spec)):
        yield "", host_key(gateway, "uplink_mbit_s"), mbit_s
    for link in spec.links:
        if link.egress_mbit_s:
            yield "", link_key(link.peer, "egress"), link.egress_mbit_s
        if link.ingress_mbit_s:
            yield "", link_key(link.peer, "ingress"), link.ingress_mbit_s


def amounts_of(spec: PartSpec, host_of: Mapping[str, str], gateway: str) -> dict[str, int]:
    """All of that together, by resource."""
    amounts: dict[str, int] = {}
    for _, key, amount in takes_of(spec, host_of, gateway):
        amounts[key] = amounts.get(key, 0) + amount
    return amounts


Takes = dict[tuple[str, str], int]
"""How much each workspace takes of each resource."""


def takes_by_workspace(terms: Standing) -> Takes:
    takes: Takes = {}
    for label, key, amount in takes_of(terms.spec, hosts_of(terms.placed), terms.gateway):
        takes[label, key] = takes.get((label, key), 0) + amount
    return takes


def larger(all_of: Iterable[Takes]) -> Takes:
    """Of each workspace and resource the most that any of them takes."""
    most: Takes = {}
    for takes in all_of:
        for key, amount in takes.items():
            if amount > most.get(key, 0):
                most[key] = amount
    return most


def with_room_for_memory(spec: PartSpec, mib_s: int) -> PartSpec:
    """With as much more disk for each workspace as it has memory, and the throughput to move that
    there. A guest whose memory is moved does not use its disk, so the larger of the two counts."""

    def roomy(each: PartWorkspace) -> PartWorkspace:
        has = each.allocation
        disk = replace(has.disk, cap_mib_s=max(has.disk.cap_mib_s, mib_s))
        allocation = replace(has, disk_mib=has.disk_mib + has.memory_mib, disk=disk)
        return replace(each, allocation=allocation)

    return replace(spec, workspaces=tuple(roomy(each) for each in spec.workspaces))
