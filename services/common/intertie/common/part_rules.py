"""What a site may be asked to hold: rules of a PartSpec, which comes from another trust domain.

Names and addresses in it end up in device configuration and in guests' files, so a site
takes nothing in it for well-formed, whoever coordinates.
"""

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError

from intertie.common.errors import FieldInvalid
from intertie.common.names import ClusterName, check_label, is_digest
from intertie.common.part_spec import HostEntry, PartNetwork, PartSpec, PartWorkspace
from intertie.common.spec_rules import MAX_NICS, MAX_WORKSPACES
from intertie.common.term_rules import (
    MAX_MBIT_S,
    check_allocation,
    check_bandwidth,
    check_environment,
    check_range,
)

MAX_PART_NETWORKS = 64
"""Each takes a VXLAN id of the site, and all are taken in one transaction of its store."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_UID = re.compile(r"[0-9a-z-]{1,63}")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")

Addresses = Mapping[tuple[str, str], tuple[str, str]]
"""Network and workspace to MAC and address."""


def validate_part(spec: PartSpec, field: str = "spec") -> None:
    """Refuses, with FieldInvalid, a part that no site could hold as it is written."""
    ClusterName.parse(spec.cluster, f"{field}.cluster")
    if not _UID.fullmatch(spec.cluster_uid):
        raise FieldInvalid(f"{field}.cluster_uid", "must be 1 to 63 of a-z, 0-9 and -")
    for name, size, most in (
        ("workspaces", len(spec.workspaces), MAX_WORKSPACES),
        ("networks", len(spec.networks), MAX_PART_NETWORKS),
    ):
        if size > most:
            raise FieldInvalid(f"{field}.{name}", f"has {size}; at most {most} are allowed")
    members: dict[tuple[str, str], tuple[str, str]] = {}
    seen: set[str] = set()
    for position, network in enumerate(spec.networks):
        _unseen(network.name, seen, f"{field}.networks[{position}].name")
        _network(network, members, f"{field}.networks[{position}]")
    labels: set[str] = set()
    for position, workspace in enumerate(spec.workspaces):
        at = f"{field}.workspaces[{position}]"
        _workspace(workspace, members, at)
        _unseen(workspace.label, labels, at)
    for position, link in enumerate(spec.links):
        at = f"{field}.links[{position}]"
        check_label(link.peer, f"{at}.peer")
        if link.network not in seen:
            raise FieldInvalid(f"{at}.network", f"{link.network!r} is no network of the part")
        check_range(link.egress_mbit_s, 0, MAX_MBIT_S, f"{at}.egress_mbit_s", "Mbit/s")
        check_range(link.ingress_mbit_s, 0, MAX_MBIT_S, f"{at}.ingress_mbit_s", "Mbit/s")
    for position, entry in enumerate(spec.host_entries):
        check_host_entry(entry, f"{field}.host_entries[{position}]")


def _network(
    network: PartNetwork, members: dict[tuple[str, str], tuple[str, str]], field: str
) -> None:
    """Members have MACs and addresses of their own, the latter in the network's subnet."""
    check_label(network.name, f"{field}.name")
    try:
        subnet = IPv4Network(network.subnet)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise FieldInvalid(f"{field}.subnet", f"{network.subnet!r} is no IPv4 subnet") from None
    macs: set[str] = set()
    addresses: set[str] = set()
    for position, member in enumerate(network.members):
        at = f"{field}.members[{position}]"
        check_label(member.workspace, f"{at}.workspace")
        check_label(member.site, f"{at}.site")
        _mac(member.mac, f"{at}.mac")
        if _interface(member.address, f"{at}.address").network != subnet:
            raise FieldInvalid(f"{at}.address", f"{member.address!r} is not in {subnet}")
        _unseen(member.mac, macs, f"{at}.mac")
        _unseen(member.address, addresses, f"{at}.address")
        if (network.name, member.workspace) in members:
            raise FieldInvalid(f"{at}.workspace", f"{member.workspace!r} is there already")
        members[network.name, member.workspace] = member.mac, member.address
    for position, pair in enumerate(network.pairs):
        at = f"{field}.pairs[{position}]"
        for name, end in (("a", pair.a), ("b", pair.b)):
            if (network.name, end) not in members:
                raise FieldInvalid(f"{at}.{name}", f"{end!r} is no member of the network")
        if pair.a == pair.b:
            raise FieldInvalid(f"{at}.b", "is the same workspace as a")
        check_bandwidth(pair.bandwidth, f"{at}.bandwidth")


def _workspace(workspace: PartWorkspace, members: Addresses, field: str) -> None:
    check_label(workspace.group, f"{field}.group")
    check_range(workspace.index, 0, MAX_WORKSPACES - 1, f"{field}.index", "")
    check_label(workspace.label, f"{field}.group")
    check_environment(workspace.environment, f"{field}.environment")
    if not is_digest(workspace.environment.image):
        raise FieldInvalid(
            f"{field}.environment.image", "must be a digest: `b3:` and 64 hexadecimal digits"
        )
    check_allocation(workspace.allocation, f"{field}.allocation")
    check_range(workspace.max_per_host, 0, MAX_WORKSPACES, f"{field}.max_per_host", "")
    if len(workspace.nics) > MAX_NICS:
        raise FieldInvalid(f"{field}.nics", f"has {len(workspace.nics)}; at most {MAX_NICS}")
    seen: set[str] = set()
    for position, nic in enumerate(workspace.nics):
        at = f"{field}.nics[{position}]"
        _unseen(nic.network, seen, f"{at}.network")
        if members.get((nic.network, workspace.label)) != (nic.mac, nic.address):
            raise FieldInvalid(at, f"is not what network {nic.network!r} says of the workspace")


def check_host_entry(entry: HostEntry, field: str) -> None:
    """Its names are host names: nothing in them is a line of its own in a guest's /etc/hosts."""
    try:
        IPv4Address(entry.address)
    except AddressValueError:
        raise FieldInvalid(f"{field}.address", f"{entry.address!r} is no IPv4 address") from None
    if not entry.names:
        raise FieldInvalid(f"{field}.names", "is empty")
    for position, name in enumerate(entry.names):
        if not _HOST_NAME.fullmatch(name):
            raise FieldInvalid(f"{field}.names[{position}]", f"{name!r} is no host name")


def _mac(text: str, field: str) -> None:
    """Locally administered and of one station, lower-case."""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 0b11 != 0b10:
        raise FieldInvalid(field, f"{text!r} is no locally administered unicast MAC address")


def _interface(text: str, field: str) -> IPv4Interface:
    try:
        if "/" not in text:
            raise ValueError
        return IPv4Interface(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        raise FieldInvalid(field, f"{text!r} is no address with prefix length") from None


def _unseen(name: str, seen: set[str], field: str) -> None:
    if name in seen:
        raise FieldInvalid(field, f"{name!r} is there already")
    seen.add(name)
