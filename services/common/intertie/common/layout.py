"""Who has which address in a cluster: fixed by its specification and its counts alone."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from intertie.common.errors import FieldInvalid
from intertie.common.names import mac_of, workspace_label
from intertie.common.part_spec import HostEntry, Member, PairPromise, PartNic
from intertie.common.terms import ClusterSpec, Group, Network
from intertie.common.values import Struct

FIRST_HOST = 10
"""Host number of the first workspace in each subnet; lower ones are the owner's to use."""


Numbers = Mapping[str, Mapping[str, int]]
"""Host numbers in a subnet: by network, then by workspace."""


class Layout(Struct, frozen=True, kw_only=True):
    """Every NIC of a cluster and every line of its /etc/hosts."""

    members: Mapping[str, tuple[Member, ...]]
    """By network; in the order of groups in the specification, then of indices."""
    host_entries: tuple[HostEntry, ...]
    nics: Mapping[str, tuple[PartNic, ...]]
    """By workspace, in the order of its group's networks."""
    pairs: Mapping[str, tuple[PairPromise, ...]]
    """By network: every promised pair of workspaces."""


def layout(
    cluster_uid: str,
    spec: ClusterSpec,
    counts: Mapping[str, int],
    site_of: Mapping[str, str],
    cluster: str = "",
    numbers: Numbers | None = None,
) -> Layout:
    """The cluster's NICs, names and promised pairs, once it is known how many go where.

    `spec` is normalised; `counts` goes from group to number, `site_of` from workspace
    (`worker-0`) to site; `cluster` is its id, for the long names in /etc/hosts. The same
    arguments give the same addresses wherever this is computed. `numbers` are given already: who
    has one keeps it, and nobody else gets it, whether its owner is still there or not.
    """
    numbers = numbers or {}
    members: dict[str, tuple[Member, ...]] = {}
    for position, network in enumerate(spec.networks):
        wanted = sum(counts[group.name] for group in spec.groups if network.name in group.networks)
        check_room(network.subnet, wanted, f"spec.networks[{position}].subnet")
        members[network.name] = tuple(
            _members(
                cluster_uid,
                spec,
                network,
                counts,
                site_of,
                numbers.get(network.name, {}),
                f"spec.networks[{position}].subnet",
            )
        )
    of = {(name, each.workspace): each for name, all_of in members.items() for each in all_of}
    nics = {
        label: tuple(
            PartNic(network=name, mac=of[name, label].mac, address=of[name, label].address)
            for name in group.networks
        )
        for group, label in _workspaces(spec, counts)
    }
    return Layout(
        members=members,
        host_entries=tuple(_host_entries(nics, cluster)),
        nics=nics,
        pairs={
            network.name: tuple(_pairs(spec, network.name, counts)) for network in spec.networks
        },
    )


@lru_cache(maxsize=1024)
def room(subnet: str) -> int:
    """How many workspaces a subnet has addresses for."""
    return max(0, network_of(subnet).num_addresses - FIRST_HOST - 1)


@lru_cache(maxsize=1024)
def network_of(subnet: str) -> IPv4Network:
    return IPv4Network(subnet)


@lru_cache(maxsize=1 << 14)
def _address(subnet: str, number: int) -> str:
    """With prefix length. Kept: clusters use the same few subnets again and again."""
    within = network_of(subnet)
    return f"{within.network_address + number}/{within.prefixlen}"


def check_room(subnet: str, wanted: int, field: str) -> None:
    """A subnet has an address for every workspace on it, the first nine not counted."""
    if wanted > room(subnet):
        raise FieldInvalid(
            field,
            f"{subnet} has addresses for {room(subnet)} workspaces (from host number "
            f"{FIRST_HOST} on), {wanted} are wanted; give a larger subnet",
        )


def _workspaces(spec: ClusterSpec, counts: Mapping[str, int]) -> Iterator[tuple[Group, str]]:
    for group in spec.groups:
        for index in range(counts[group.name]):
            yield group, workspace_label(group.name, index)


def _members(
    cluster_uid: str,
    spec: ClusterSpec,
    network: Network,
    counts: Mapping[str, int],
    site_of: Mapping[str, str],
    numbers: Mapping[str, int],
    field: str,
) -> Iterator[Member]:
    free = _free_numbers(network.subnet, frozenset(numbers.values()))
    for group in spec.groups:
        if network.name not in group.networks:
            continue
        for index in range(counts[group.name]):
            label = workspace_label(group.name, index)
            number = numbers[label] if label in numbers else next(free, None)
            if number is None:
                raise FieldInvalid(
                    field,
                    f"no address of {network.subnet} is free for {label} while those of workspaces "
                    "that are being taken away are not; ask again when they are gone",
                )
            yield Member(
                workspace=label,
                site=site_of[label],
                mac=mac_of(cluster_uid, network.name, group.name, index),
                address=_address(network.subnet, number),
            )


def _free_numbers(subnet: str, taken: frozenset[int]) -> Iterator[int]:
    return (
        number for number in range(FIRST_HOST, FIRST_HOST + room(subnet)) if number not in taken
    )


def number_in(subnet: str, address: str) -> int:
    """The host number of an address with prefix length, as layouts say them."""
    return int(IPv4Address(address.partition("/")[0])) - int(network_of(subnet).network_address)


def _host_entries(nics: Mapping[str, tuple[PartNic, ...]], cluster: str) -> Iterator[HostEntry]:
    """A workspace's own name is its address on its first network; on the others it is
    called `{workspace}.{network}`."""
    for label, all_of in nics.items():
        for position, nic in enumerate(all_of):
            name = label if position == 0 else f"{label}.{nic.network}"
            names = (f"{name}.{cluster}", name) if cluster else (name,)
            yield HostEntry(address=nic.address.partition("/")[0], names=names)


def _pairs(spec: ClusterSpec, network: str, counts: Mapping[str, int]) -> Iterator[PairPromise]:
    """Every workspace of a group with every one of the group its term names, each pair once."""
    for group in spec.groups:
        for term in group.allocation.pairs:
            if term.network != network:
                continue
            for ours in range(counts[group.name]):
                first = ours + 1 if term.group == group.name else 0
                for theirs in range(first, counts[term.group]):
                    yield PairPromise(
                        a=workspace_label(group.name, ours),
                        b=workspace_label(term.group, theirs),
                        bandwidth=term.bandwidth,
                    )
