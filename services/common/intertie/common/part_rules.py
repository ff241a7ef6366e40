"""What a site may be asked to hold: rules of a PartSpec, which comes from another trust domain.

Names and addresses in it end up in device configuration and in guests' files, so a site
takes nothing in it for well-formed, whoever coordinates.
"""

import re
from collections.abc import Container, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, NetmaskValueError

from intertie.common.disk_rules import check_disks_of_workspace
from intertie.common.errors import DomainError, FieldInvalid, NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import ClusterName, check_label, is_digest
from intertie.common.part_spec import (
    PROMISED,
    HostEntry,
    PartNetwork,
    PartSpec,
    PartWorkspace,
    Recallable,
    Transfer,
)
from intertie.common.spec_rules import LONGEST_SUBNET, MAX_NICS, MAX_SPAN, MAX_WORKSPACES
from intertie.common.term_rules import (
    MAX_MBIT_S,
    check_allocation,
    check_bandwidth,
    check_environment,
    check_range,
)
from intertie.common.terms import BandwidthTerm, DiskTerm
from intertie.common.values import field_names, replace

MAX_PART_NETWORKS = 64
"""Each takes a VXLAN id of the site, and all are taken in one transaction of its store."""

MAX_TRANSFERS = 64
MAX_TRANSFER_BYTES = 1 << 50

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
    if spec.recallable is not None:
        _recallable(spec.recallable, spec.window, f"{field}.recallable")
    _transfers(spec, f"{field}.transfers")


def for_promise_alone(refusal: DomainError) -> bool:
    """A site has room for the part, and none for what was to be promised to it."""
    if not isinstance(refusal, NoCapacity):
        return False
    return bool(refusal.shortfalls) and all(each.field == PROMISED for each in refusal.shortfalls)


def within(new: PartSpec, old: PartSpec) -> bool:
    """Whether the new terms take nothing beyond the old ones, of anything, at any moment: what
    sites need not be asked for. What is not known to be less counts as more."""
    same = (new.cluster, new.cluster_uid, new.window.start)
    if same != (old.cluster, old.cluster_uid, old.window.start) or new.window.end > old.window.end:
        return False
    there = {each.label: each for each in old.workspaces}
    networks = {each.name: each for each in old.networks}
    links = {(each.peer, each.network): each for each in old.links}
    return (
        all(each.label in there and _less(each, there[each.label]) for each in new.workspaces)
        and all(
            each.name in networks and _part_of(each, networks[each.name]) for each in new.networks
        )
        and all(
            (had := links.get((each.peer, each.network))) is not None
            and each.egress_mbit_s <= had.egress_mbit_s
            and each.ingress_mbit_s <= had.ingress_mbit_s
            for each in new.links
        )
        and set(new.host_entries) <= set(old.host_entries)
        and set(new.transfers) <= set(old.transfers)
        and _only_put_aside(new, old)
    )


def _only_put_aside(new: PartSpec, old: PartSpec) -> bool:
    """What is kept of it after its window, its site has agreed to keep when it held it, or more."""
    gets, had = new.recallable, old.recallable
    if gets is None or had is None:
        return gets is had
    return (
        replace(gets, put_aside=had.put_aside, keep_for=had.keep_for) == had
        and gets.put_aside >= had.put_aside
        and gets.keep_for <= had.keep_for
    )


def _less(new: PartWorkspace, old: PartWorkspace) -> bool:
    """Of a disk the same, since none gets smaller; of promised pairs their networks speak."""
    gets, had = new.allocation, old.allocation
    alike = replace(
        new,
        allocation=replace(
            had,
            vcpus=gets.vcpus,
            memory_mib=gets.memory_mib,
            disk=gets.disk,
            nic=gets.nic,
            pairs=gets.pairs,
        ),
    )
    return (
        new == alike
        and replace(new, allocation=had) == old
        and gets.vcpus <= had.vcpus
        and gets.memory_mib <= had.memory_mib
        and all(
            _no_more(getattr(gets.disk, each), getattr(had.disk, each))
            for each in field_names(DiskTerm)
        )
        and _less_bandwidth(gets.nic, had.nic)
    )


def _less_bandwidth(gets: BandwidthTerm, had: BandwidthTerm) -> bool:
    return gets.guarantee_mbit_s <= had.guarantee_mbit_s and _no_more(
        gets.cap_mbit_s or gets.guarantee_mbit_s, had.cap_mbit_s or had.guarantee_mbit_s
    )


def _no_more(gets: int, had: int) -> bool:
    """A cap that is not said is the site's to say: it is no less and no more than any other."""
    return gets == had or 0 < gets < had


def _part_of(new: PartNetwork, old: PartNetwork) -> bool:
    pairs = {(each.a, each.b): each.bandwidth for each in old.pairs}
    return (
        new.subnet == old.subnet
        and set(new.members) <= set(old.members)
        and all(
            (each.a, each.b) in pairs and _less_bandwidth(each.bandwidth, pairs[each.a, each.b])
            for each in new.pairs
        )
    )


def _network(
    network: PartNetwork, members: dict[tuple[str, str], tuple[str, str]], field: str
) -> None:
    """Members have MACs and addresses of their own, the latter in the network's subnet."""
    check_label(network.name, f"{field}.name")
    subnet = _subnet(network.subnet) if len(network.subnet) <= LONGEST_SUBNET else ""
    if not subnet:
        raise FieldInvalid(f"{field}.subnet", f"{network.subnet!r} is no IPv4 subnet")
    macs: set[str] = set()
    addresses: set[str] = set()
    for position, member in enumerate(network.members):
        at = f"{field}.members[{position}]"
        check_label(member.workspace, f"{at}.workspace")
        check_label(member.site, f"{at}.site")
        _mac(member.mac, f"{at}.mac")
        address = member.address
        within = _subnet_around(address) if len(address) <= LONGEST_SUBNET else ""
        if not within:
            raise FieldInvalid(
                f"{at}.address", f"{member.address!r} is no address with prefix length"
            )
        if within != subnet:
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
    check_disks_of_workspace(workspace.disks, f"{field}.disks")
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


def _recallable(terms: Recallable, window: Window, field: str) -> None:
    for name, span in (("keep_for", terms.keep_for), ("ran", terms.ran)):
        if not timedelta() <= span <= MAX_SPAN:
            raise FieldInvalid(f"{field}.{name}", "must be from 0 s to 366 days")
    if terms.cancellable and terms.put_aside:
        raise FieldInvalid(
            f"{field}.put_aside", "does not go with cancellable, of which nothing is kept"
        )
    if terms.deadline is None:
        if terms.promised is not None:
            raise FieldInvalid(f"{field}.promised", "goes only with a deadline; leave it out")
        return
    if terms.cancellable:
        raise FieldInvalid(f"{field}.cancellable", "does not go with a deadline; leave it out")
    if terms.put_aside and terms.promised is None:
        raise FieldInvalid(f"{field}.put_aside", "of what has a deadline goes only with promised")
    last = terms.promised or window
    if last.end > terms.deadline:
        raise FieldInvalid(f"{field}.deadline", "is before the end of what is asked for")
    if terms.promised is not None and terms.promised.start < window.end:
        raise FieldInvalid(f"{field}.promised", "begins before the window is over")


def _transfers(spec: PartSpec, field: str) -> None:
    if len(spec.transfers) > MAX_TRANSFERS:
        raise FieldInvalid(field, f"has {len(spec.transfers)}; at most {MAX_TRANSFERS} are allowed")
    if spec.transfers and spec.recallable is not None:
        raise FieldInvalid(field, "do not go with recallable; leave them out")
    brought: set[str] = set()
    for position, each in enumerate(spec.transfers):
        _transfer(each, f"{field}[{position}]")
        _unseen(f"{each.digest} at {each.to_site}", brought, f"{field}[{position}]")


def check_over_by(
    spec: PartSpec, new: Container[Transfer], by: datetime, what: str, field: str = "spec.transfers"
) -> None:
    """FieldInvalid where one of the new transfers lasts longer; `what` begins or ends then."""
    for position, each in enumerate(spec.transfers):
        if each in new and each.window.end > by:
            raise FieldInvalid(f"{field}[{position}].window", f"is not over by {what}")


def _transfer(transfer: Transfer, field: str) -> None:
    if not is_digest(transfer.digest):
        raise FieldInvalid(f"{field}.digest", "must be a digest: `b3:` and 64 hexadecimal digits")
    check_label(transfer.from_site, f"{field}.from_site")
    check_label(transfer.to_site, f"{field}.to_site")
    if transfer.from_site == transfer.to_site:
        raise FieldInvalid(f"{field}.to_site", "is the site that it comes from")
    check_range(transfer.size_bytes, 1, MAX_TRANSFER_BYTES, f"{field}.size_bytes", "bytes")
    check_range(transfer.mbit_s, 1, MAX_MBIT_S, f"{field}.mbit_s", "Mbit/s")
    if transfer.carries_bytes < transfer.size_bytes:
        raise FieldInvalid(
            f"{field}.mbit_s",
            f"carries {transfer.carries_bytes} of {transfer.size_bytes} bytes in its window",
        )


def _mac(text: str, field: str) -> None:
    """Locally administered and of one station, lower-case."""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 0b11 != 0b10:
        raise FieldInvalid(field, f"{text!r} is no locally administered unicast MAC address")


@lru_cache(maxsize=1024)
def _subnet(text: str) -> str:
    """As it is written; empty where it is none. Kept, as are the addresses: clusters use the same
    few again and again, and none of these texts is long."""
    try:
        return str(IPv4Network(text))
    except (AddressValueError, NetmaskValueError, ValueError):
        return ""


@lru_cache(maxsize=1 << 14)
def _subnet_around(text: str) -> str:
    """The subnet that an address with prefix length is in; empty where it is none."""
    try:
        return str(IPv4Interface(text).network) if "/" in text else ""
    except (AddressValueError, NetmaskValueError, ValueError):
        return ""


def _unseen(name: str, seen: set[str], field: str) -> None:
    if name in seen:
        raise FieldInvalid(field, f"{name!r} is there already")
    seen.add(name)
