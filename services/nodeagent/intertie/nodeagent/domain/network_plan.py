"""Which links, forwarding entries and filters the wanted networks need on this host."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.wanted import WantedNetwork, WantedPart

VXLAN_PORT = 4789
VXLAN_BYTES = 50
"""IPv4, UDP and VXLAN headers and the inner Ethernet header."""
FLOOD = "00:00:00:00:00:00"
FILTER_TABLE = "intertie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this host is on its underlay and, at a gateway, on the WAN."""

    host: str
    interface: str
    address: str
    wide_interface: str = ""
    wide_address: str = ""
    wide_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgePlan:
    name: str
    mac: str
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanPlan:
    """A tunnel end without learning: everything that it knows is in the forwarding entries."""

    name: str
    bridge: str
    vni: int
    address: str
    interface: str
    port: int
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TapPlan:
    name: str
    bridge: str
    mtu: int
    guest_mac: str


@dataclass(frozen=True, slots=True, order=True)
class FdbEntry:
    """Frames to `mac` (all zero: those to everybody) go to `address`. 0: the device's own."""

    device: str
    mac: str
    address: str
    vni: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    bridges: tuple[BridgePlan, ...] = ()
    vxlans: tuple[VxlanPlan, ...] = ()
    taps: tuple[TapPlan, ...] = ()
    fdb: frozenset[FdbEntry] = field(default_factory=frozenset)
    sent_on: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    """(VXLAN device, MAC): what comes in there for that machine goes out there again."""
    removable: frozenset[str] | None = None
    """Of devices that are not in the plan, those that may go. None: all."""

    @property
    def devices(self) -> frozenset[str]:
        links: tuple[BridgePlan | VxlanPlan | TapPlan, ...]
        links = (*self.bridges, *self.vxlans, *self.taps)
        return frozenset(link.name for link in links)


def plan_networks(parts: Iterable[WantedPart], place: Place) -> NetworkPlan:
    """Everything that has to exist for these parts, and nothing else."""
    bridges: list[BridgePlan] = []
    vxlans: list[VxlanPlan] = []
    taps: list[TapPlan] = []
    fdb: set[FdbEntry] = set()
    sent_on: set[tuple[str, str]] = set()
    for part in parts:
        for network in part.networks:
            bridge = DeviceNames.bridge(network.uid)
            mac = bridge_mac(place.host, network.uid)
            bridges.append(BridgePlan(name=bridge, mac=mac, mtu=network.mtu))
            vxlans.extend(_vxlans(network, bridge, place))
            fdb.update(_fdb(network))
            sent_on.update((DeviceNames.vxlan(network.uid), mac) for mac in network.sent_on)
        for workspace, number, nic in part.taps():
            taps.append(
                TapPlan(
                    name=DeviceNames.tap(workspace.uid, number),
                    bridge=DeviceNames.bridge(nic.network_uid),
                    mtu=part.network(nic.network_uid).mtu,
                    guest_mac=nic.mac,
                )
            )
    return NetworkPlan(
        bridges=tuple(bridges),
        vxlans=tuple(vxlans),
        taps=tuple(taps),
        fdb=frozenset(fdb),
        sent_on=frozenset(sent_on),
    )


def _vxlans(network: WantedNetwork, bridge: str, place: Place) -> Iterator[VxlanPlan]:
    if network.tunnels:
        yield VxlanPlan(
            name=DeviceNames.vxlan(network.uid),
            bridge=bridge,
            vni=network.vni,
            address=place.address,
            interface=place.interface,
            port=VXLAN_PORT,
            mtu=network.mtu,
        )
    if network.wide_tunnels and place.wide_address:
        yield VxlanPlan(
            name=DeviceNames.wide_vxlan(network.uid),
            bridge=bridge,
            vni=network.vni,
            address=place.wide_address,
            interface=place.wide_interface,
            port=place.wide_port,
            mtu=network.mtu,
        )


def _fdb(network: WantedNetwork) -> Iterator[FdbEntry]:
    """A flooding entry a tunnel, and one a machine behind it.

    An entry to another site carries the receiver's id and port, so that no two sites have to
    agree on an id.
    """
    for tunnel in network.tunnels:
        for mac in (FLOOD, *tunnel.macs):
            yield FdbEntry(DeviceNames.vxlan(network.uid), mac, tunnel.address)
    for wide in network.wide_tunnels:
        for mac in (FLOOD, *wide.macs):
            device = DeviceNames.wide_vxlan(network.uid)
            yield FdbEntry(device, mac, wide.address, wide.vni, wide.port)


def bridge_mac(host: str, network_uid: str) -> str:
    """The host's own address on a network: the same always, and on no other host."""
    octets = bytearray(blake2b(f"{host}/{network_uid}".encode(), digest_size=6).digest())
    octets[0] = (octets[0] & 0b1111_1100) | 0b0000_0010
    return ":".join(f"{octet:02x}" for octet in octets)


def link_local(mac: str) -> str:
    """The IPv6 address that a guest makes for itself from its MAC (RFC 4291, appendix A)."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    octets[0] ^= 0b0000_0010
    halves = [*octets[:3], 0xFF, 0xFE, *octets[3:]]
    groups = [f"{high << 8 | low:x}" for high, low in zip(halves[::2], halves[1::2], strict=True)]
    return "fe80::" + ":".join(groups)


def stale_devices(found: Iterable[str], plan: NetworkPlan) -> frozenset[str]:
    """Of the agent's devices that were found, those that the plan wants away."""
    stale = frozenset(found) - plan.devices
    return stale if plan.removable is None else stale & plan.removable


def filter_leave(taps: Iterable[TapPlan]) -> str:
    """Lets guests speak, beside those that may already."""
    return "".join(
        f'add element bridge {FILTER_TABLE} ports {{ "{tap.name}" . {tap.guest_mac} }}\n'
        for tap in taps
    )


def sending_on_rules(sent_on: Iterable[tuple[str, str]]) -> str:
    """The nftables ruleset that sends frames back into the tunnels that they came from: the
    forwarding entries there say where to. The table need not have been there."""
    rules = f"table netdev {FILTER_TABLE}\ndelete table netdev {FILTER_TABLE}\n"
    by_device: dict[str, list[str]] = {}
    for device, mac in sorted(sent_on):
        by_device.setdefault(device, []).append(mac)
    if not by_device:
        return rules
    chains = "".join(
        f"  chain {device} {{\n"
        f'    type filter hook ingress device "{device}" priority 0; policy accept;\n'
        f'    ether daddr {{ {", ".join(macs)} }} fwd to "{device}"\n'
        "  }\n"
        for device, macs in by_device.items()
    )
    return f"{rules}table netdev {FILTER_TABLE} {{\n{chains}}}\n"


def filter_rules(taps: Iterable[TapPlan]) -> str:
    """The nftables ruleset: a guest speaks with its own address only and reaches no service of
    the host.

    What it may send the host: neighbour discovery, and what is no beginning of a TCP connection
    (answers to connections that the host opened to it).
    """
    ports = ", ".join(f'"{tap.name}" . {tap.guest_mac}' for tap in taps)
    elements = f"    elements = {{ {ports} }}\n" if ports else ""
    return f"""\
table bridge {FILTER_TABLE}
delete table bridge {FILTER_TABLE}
table bridge {FILTER_TABLE} {{
  set ports {{
    type ifname . ether_addr
{elements}  }}
  chain from_guests {{
    type filter hook prerouting priority -300; policy accept;
    iifname "it*" iifname . ether saddr != @ports drop
  }}
  chain guarded {{
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, echo-reply }} accept
    ip6 saddr fe80::/10 tcp flags & (syn | ack) != syn accept
    drop
  }}
  chain to_host {{
    type filter hook input priority 0; policy accept;
    iifname "it*" jump guarded
    iifname "iv*" jump guarded
    iifname "iw*" jump guarded
  }}
}}
"""
