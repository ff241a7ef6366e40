"""What a record must look like before anything on the host is named by it."""

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Interface

from intertie.common.disk_rules import check_disks_of_workspace
from intertie.common.errors import FieldInvalid
from intertie.common.names import PartName, check_label
from intertie.common.part_rules import check_host_entry
from intertie.nodeagent.domain.wanted import WantedNetwork, WantedPart, WantedWorkspace

_UID = re.compile(r"[0-9a-f]{12}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAX_VNI = 2**24 - 1
MAX_NICS = 16


def check_part(part: WantedPart) -> None:
    """FieldInvalid unless every name, address and number of the record is well-formed."""
    PartName.parse(part.name, "part")
    _uid(part.uid, "part_uid")
    networks = {network.uid for network in part.networks}
    for network in part.networks:
        _check_network(network, f"networks.{network.name}")
    for number, entry in enumerate(part.host_entries):
        check_host_entry(entry, f"host_entries[{number}]")
    for workspace in part.workspaces:
        _check_workspace(workspace, networks, f"workspaces.{workspace.name}")


def _check_network(network: WantedNetwork, field: str) -> None:
    _uid(network.uid, f"{field}.uid")
    _between(network.vni, 1, _MAX_VNI, f"{field}.vni")
    _between(network.mtu, 576, 65_000, f"{field}.mtu")
    for tunnel in network.tunnels:
        _ipv4(tunnel.address, f"{field}.tunnels.address")
        for mac in tunnel.macs:
            _mac(mac, f"{field}.tunnels.macs")
    for wide in network.wide_tunnels:
        _ipv4(wide.address, f"{field}.wide_tunnels.address")
        _between(wide.port, 1, 65_535, f"{field}.wide_tunnels.port")
        _between(wide.vni, 1, _MAX_VNI, f"{field}.wide_tunnels.vni")
        for mac in wide.macs:
            _mac(mac, f"{field}.wide_tunnels.macs")
    for pair in network.pairs:
        _mac(pair.local_mac, f"{field}.pairs.local_mac")
        _mac(pair.remote_mac, f"{field}.pairs.remote_mac")


def _check_workspace(workspace: WantedWorkspace, networks: set[str], field: str) -> None:
    check_label(workspace.name, f"{field}.name")
    _uid(workspace.uid, f"{field}.uid")
    if workspace.snapshot is not None:
        check_label(workspace.snapshot.image_id, f"{field}.snapshot.image_id")
    allocation = workspace.allocation
    for name, amount in (
        ("vcpus", allocation.vcpus),
        ("memory_mib", allocation.memory_mib),
        ("disk_mib", allocation.disk_mib),
    ):
        _between(amount, 1, 2**40, f"{field}.allocation.{name}")
    check_disks_of_workspace(workspace.disks, f"{field}.disks")
    if workspace.migration is not None:
        check_label(workspace.migration.host, f"{field}.migration.host")
        _between(workspace.migration.number, 1, 2**62, f"{field}.migration.number")
    if len(workspace.nics) > MAX_NICS:
        raise FieldInvalid(f"{field}.nics", f"are {len(workspace.nics)}; at most {MAX_NICS}")
    for number, nic in enumerate(workspace.nics):
        at = f"{field}.nics[{number}]"
        _mac(nic.mac, f"{at}.mac")
        if nic.network_uid not in networks:
            raise FieldInvalid(f"{at}.network_uid", "is no network of this part")
        try:
            IPv4Interface(nic.address)
        except ValueError:
            raise FieldInvalid(f"{at}.address", f"{nic.address!r} is no address") from None


def _uid(text: str, field: str) -> None:
    if not _UID.fullmatch(text):
        raise FieldInvalid(field, f"{text!r} is not 12 hexadecimal digits")


def _mac(text: str, field: str) -> None:
    if not _MAC.fullmatch(text):
        raise FieldInvalid(field, f"{text!r} is no MAC address in lower case")


def _ipv4(text: str, field: str) -> None:
    try:
        IPv4Address(text)
    except AddressValueError:
        raise FieldInvalid(field, f"{text!r} is no IPv4 address") from None


def _between(number: int, least: int, most: int, field: str) -> None:
    if not least <= number <= most:
        raise FieldInvalid(field, f"{number} is not between {least} and {most}")
