"""Classes of traffic: what every flow is promised, and the most that it may use.

A promise counts the payload of TCP in full-sized frames, because that is what a guest can
measure; rates of classes are higher by the headers that a device sees.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType

from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.class_keys import (
    link_key,
    pair_key,
    rest_key,
    sent_key,
    site_key,
    to_key,
    wide_pair_key,
    wide_rest_key,
)
from intertie.nodeagent.domain.network_plan import VXLAN_BYTES, VXLAN_PORT, Place
from intertie.nodeagent.domain.wanted import (
    Tunnel,
    WantedNetwork,
    WantedNic,
    WantedPair,
    WantedPart,
    WideTunnel,
)

_ETHERNET_BYTES = 14
_TCP_BYTES = 52
"""IPv4 header, TCP header, time stamps."""
DEFAULT_CLASS = 2
"""Minor id of the class of everything that nothing was promised to: management above all."""
ROOT_CLASS = 1
_FIRST_FREE_CLASS = 16
_MAX_CLASS = 0x4FFF
_SHAPED_SHARE = 0.98
"""Of an uplink: what is queued must be queued here, where the classes are."""
_DEFAULT_FLOOR_KBIT = 5_000
_STORES_MTU = 1_500
"""Of what is sent between image stores: smaller frames take more of a link."""
_SMALL_KBIT = 64
"""Rate of a class that is promised nothing: HTB knows no zero."""


@dataclass(frozen=True, slots=True, order=True)
class Word:
    """A 32-bit word of the packet at `offset` from its IP header."""

    value: int
    mask: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPlan:
    """One HTB class. `key` names it for good; `match` selects its packets, earlier classes first.

    A class without `match` takes what falls through (the default class) or only holds others.
    """

    key: str
    parent: str = ""
    """Key of the class that it borrows from; empty: the root class."""
    rate_kbit: int
    ceil_kbit: int
    match: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    device: str
    capacity_kbit: int
    default_kbit: int
    classes: tuple[ClassPlan, ...] = ()
    """Parents before children, the more special match before the more general."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicPlan:
    """Both directions of one NIC: `tap` towards the guest, `sent` for what comes from it.

    Alone on its device, a class is promised all that it may use: what is guaranteed to the NIC
    can only be lost on the uplink, and is kept there. What the guest sends has a class for each
    promised pair as well, wherever the other end is: so a pair's cap holds within a host too.
    """

    tap: str
    cap_kbit: int
    sent: DevicePlan

    @property
    def ifb(self) -> str:
        return self.sent.device


def on_tap(mbit_s: int, mtu: int) -> int:
    """kbit/s on a tap, headers included, for so many Mbit/s of payload."""
    return round(mbit_s * 1000 * (mtu + _ETHERNET_BYTES) / (mtu - _TCP_BYTES))


def on_uplink(mbit_s: int, mtu: int) -> int:
    """kbit/s on an uplink, encapsulation included, for so many Mbit/s of payload."""
    frame = mtu + _ETHERNET_BYTES + VXLAN_BYTES
    return round(mbit_s * 1000 * frame / (mtu - _TCP_BYTES))


def promisable_mbit_s(capacity_mbit_s: int, mtu: int) -> int:
    """How much payload an uplink of this capacity carries beside the default class."""
    guest_mtu = mtu - VXLAN_BYTES
    free_kbit = shaped_kbit(capacity_mbit_s) - _default_floor(capacity_mbit_s)
    return free_kbit * 1000 // on_uplink(1000, guest_mtu)


def shaped_kbit(capacity_mbit_s: int) -> int:
    return int(capacity_mbit_s * 1000 * _SHAPED_SHARE)


def _default_floor(capacity_mbit_s: int) -> int:
    return min(_DEFAULT_FLOOR_KBIT, capacity_mbit_s * 1000 // 20)


def plan_nics(parts: Iterable[WantedPart], uplink_mbit_s: int) -> tuple[NicPlan, ...]:
    return tuple(
        _nic(part, workspace.uid, number, nic, uplink_mbit_s)
        for part in parts
        for workspace, number, nic in part.taps()
    )


def _nic(part: WantedPart, uid: str, number: int, nic: WantedNic, uplink: int) -> NicPlan:
    network = part.network(nic.network_uid)
    term = nic.bandwidth
    cap_kbit = on_tap(max(term.cap_mbit_s, term.guarantee_mbit_s) or uplink, network.mtu)
    pairs = tuple(_sent_pairs(network, nic.mac, cap_kbit))
    promised = sum(pair.rate_kbit for pair in pairs)
    return NicPlan(
        tap=DeviceNames.tap(uid, number),
        cap_kbit=cap_kbit,
        sent=DevicePlan(
            device=DeviceNames.ifb(uid, number),
            capacity_kbit=cap_kbit,
            default_kbit=max(cap_kbit - promised, _SMALL_KBIT),
            classes=pairs,
        ),
    )


def _sent_pairs(network: WantedNetwork, mac: str, cap_kbit: int) -> Iterator[ClassPlan]:
    for pair in network.pairs:
        term = pair.bandwidth
        if pair.local_mac != mac or not (term.guarantee_mbit_s or term.cap_mbit_s):
            continue
        rate = min(max(on_tap(term.guarantee_mbit_s, network.mtu), _SMALL_KBIT), cap_kbit)
        ceil = on_tap(term.cap_mbit_s or term.guarantee_mbit_s, network.mtu)
        yield ClassPlan(
            key=sent_key(network, pair),
            rate_kbit=rate,
            ceil_kbit=max(min(ceil, cap_kbit), rate),
            match=_frame_to(pair.remote_mac),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IncastShare:
    """What a receiver asks of those that send to it."""

    share_kbit: int
    """The most that a class may send it beyond what it is promised."""
    floors: Mapping[str, int] = field(default_factory=dict)
    """kbit/s that a host may send to the NICs of a network there in any case, by its uid."""


def uplink_promise_kbit(network: WantedNetwork) -> tuple[int, int]:
    """What the underlay carries of the network by promise: of pairs, and of all else, its NICs."""
    behind = {mac for tunnel in network.tunnels for mac in tunnel.macs}
    pairs = sum(
        _pair_kbit(pair, network.mtu, 0)[0] for pair in network.pairs if _is_on_uplink(pair, behind)
    )
    return pairs, max(on_uplink(network.uplink_guarantee_mbit_s, network.mtu) - pairs, 0)


def plan_uplink(
    parts: Iterable[WantedPart],
    place: Place,
    capacity_mbit_s: int,
    shares: Mapping[str, IncastShare] = MappingProxyType({}),
) -> DevicePlan:
    """The underlay: a class a network, inside it one a promised pair and one for the rest.

    `shares` are of hosts whose downlinks are full. What goes to one of them and belongs to no
    promised pair has a class of its own then, beside the rest; its ceiling, and that of pairs which
    end there, is what they are promised and the share.
    """
    capacity = shaped_kbit(capacity_mbit_s)
    pairs: list[ClassPlan] = []
    rests: list[ClassPlan] = []
    holders: list[ClassPlan] = []
    for part in parts:
        for network in part.networks:
            if not network.tunnels:
                continue
            crowded = {t: shares[t.host] for t in network.tunnels if t.host in shares}
            own = tuple(_pairs(network, capacity, crowded))
            promised, rest_kbit = uplink_promise_kbit(network)
            rate = promised + rest_kbit
            cap = on_uplink(network.uplink_cap_mbit_s, network.mtu) or capacity
            ceil = max(min(cap, capacity), rate, _SMALL_KBIT)
            holder = f"net/{network.uid}"
            holders.append(ClassPlan(key=holder, rate_kbit=max(rate, _SMALL_KBIT), ceil_kbit=ceil))
            pairs.extend(own)
            way = _vxlan_words(VXLAN_PORT, network.vni)
            for tunnel, asked in crowded.items():
                floor = asked.floors.get(network.uid, 0) + _passing_kbit(network, tunnel)
                floor = min(floor, rest_kbit)
                rests.append(
                    ClassPlan(
                        key=to_key(network, tunnel),
                        parent=holder,
                        rate_kbit=_SMALL_KBIT,
                        ceil_kbit=min(max(floor + asked.share_kbit, _SMALL_KBIT), ceil),
                        match=(*way, Word(_ipv4(tunnel.address), 0xFFFFFFFF, 16)),
                    )
                )
            rests.append(
                ClassPlan(
                    key=rest_key(network),
                    parent=holder,
                    rate_kbit=max(rest_kbit, _SMALL_KBIT),
                    ceil_kbit=ceil,
                    match=way,
                )
            )
    return DevicePlan(
        device=place.interface,
        capacity_kbit=capacity,
        default_kbit=_default_floor(capacity_mbit_s),
        classes=(*holders, *pairs, *rests),
    )


def _passing_kbit(network: WantedNetwork, tunnel: Tunnel) -> int:
    """At a gateway: what is promised to machines behind the tunnel by pairs with other sites, which
    have no class of their own on this way in."""
    return sum(
        on_uplink(pair.bandwidth.guarantee_mbit_s, network.mtu)
        for pair in network.pairs
        if pair.local_mac in tunnel.macs
    )


def _is_on_uplink(pair: WantedPair, behind: Set[str]) -> bool:
    """Only pairs whose other end is reached over the underlay. What passes the gateway from
    other hosts is not sent over its underlay again."""
    term = pair.bandwidth
    return pair.remote_mac in behind and bool(term.guarantee_mbit_s or term.cap_mbit_s)


def _pairs(
    network: WantedNetwork, capacity: int, crowded: Mapping[Tunnel, IncastShare]
) -> Iterator[ClassPlan]:
    shares = {mac: asked.share_kbit for t, asked in crowded.items() for mac in t.macs}
    behind = {mac for tunnel in network.tunnels for mac in tunnel.macs}
    for pair in network.pairs:
        if not _is_on_uplink(pair, behind):
            continue
        rate, ceil = _pair_kbit(pair, network.mtu, capacity)
        if pair.remote_mac in shares:
            ceil = min(ceil, rate + shares[pair.remote_mac])
        yield ClassPlan(
            key=pair_key(network, pair),
            parent=f"net/{network.uid}",
            rate_kbit=rate,
            ceil_kbit=ceil,
            match=(
                *_vxlan_words(VXLAN_PORT, network.vni),
                *_mac_words(source=pair.local_mac, target=pair.remote_mac),
            ),
        )


def plan_wide(
    parts: Iterable[WantedPart],
    place: Place,
    capacity_mbit_s: int,
    reserved: Mapping[str, int] = MappingProxyType({}),
) -> DevicePlan:
    """The WAN at a gateway: a class a site; in it one a reservation, which is one network towards
    that site, and inside that one a promised pair and one for the rest.

    `reserved`: by site, Mbit/s of the link that are not for networks. They do not pass this device,
    but what its classes borrow from one another would be taken from them.
    """
    capacity = shaped_kbit(capacity_mbit_s)
    links: dict[str, tuple[int, int]] = {}
    """By site: what is promised over the link in all, and what it carries."""
    holders: list[ClassPlan] = []
    pairs: list[ClassPlan] = []
    rests: list[ClassPlan] = []
    for part in parts:
        for network in part.networks:
            for wide in network.wide_tunnels:
                rate = max(on_uplink(wide.guarantee_mbit_s, network.mtu), _SMALL_KBIT)
                cap = on_uplink(wide.cap_mbit_s or wide.guarantee_mbit_s, network.mtu) or capacity
                ceil = max(min(cap, capacity), rate)
                way = (
                    *_vxlan_words(wide.port, wide.vni),
                    Word(_ipv4(wide.address), 0xFFFFFFFF, 16),
                )
                own = tuple(_wide_pairs(network, wide, way, ceil))
                promised = sum(pair.rate_kbit for pair in own)
                holder = link_key(network, wide)
                rate = max(rate, promised)
                holders.append(
                    ClassPlan(
                        key=holder, parent=site_key(wide.site), rate_kbit=rate, ceil_kbit=ceil
                    )
                )
                before, carries = links.get(wide.site, (0, 0))
                links[wide.site] = before + rate, max(carries, ceil)
                pairs.extend(own)
                rests.append(
                    ClassPlan(
                        key=wide_rest_key(network, wide),
                        parent=holder,
                        rate_kbit=max(rate - promised, _SMALL_KBIT),
                        ceil_kbit=ceil,
                        match=way,
                    )
                )
    sites = [
        ClassPlan(
            key=site_key(site),
            rate_kbit=rate,
            ceil_kbit=max(carries - on_tap(reserved.get(site, 0), _STORES_MTU), rate),
        )
        for site, (rate, carries) in links.items()
    ]
    return DevicePlan(
        device=place.wide_interface,
        capacity_kbit=capacity,
        default_kbit=_default_floor(capacity_mbit_s),
        classes=(*sites, *holders, *pairs, *rests),
    )


def _wide_pairs(
    network: WantedNetwork, wide: WideTunnel, way: tuple[Word, ...], ceil_kbit: int
) -> Iterator[ClassPlan]:
    for pair in network.pairs:
        if pair.remote_mac not in wide.macs or not pair.bandwidth.guarantee_mbit_s:
            continue
        rate, ceil = _pair_kbit(pair, network.mtu, ceil_kbit)
        yield ClassPlan(
            key=wide_pair_key(network, wide, pair),
            parent=link_key(network, wide),
            rate_kbit=rate,
            ceil_kbit=ceil,
            match=(*way, *_mac_words(source=pair.local_mac, target=pair.remote_mac)),
        )


def _pair_kbit(pair: WantedPair, mtu: int, capacity_kbit: int) -> tuple[int, int]:
    """Rate and ceiling of a promised pair where it is encapsulated."""
    term = pair.bandwidth
    rate = max(on_uplink(term.guarantee_mbit_s, mtu), _SMALL_KBIT)
    return rate, max(min(on_uplink(term.cap_mbit_s, mtu), capacity_kbit), rate)


def _ipv4(address: str) -> int:
    return int.from_bytes(bytes(int(octet) for octet in address.split(".")), "big")


def _vxlan_words(port: int, vni: int) -> tuple[Word, ...]:
    """UDP to `port` with this VXLAN id, behind an IPv4 header of 20 bytes."""
    return (
        Word(17 << 16, 0x00FF0000, 8),
        Word(port, 0x0000FFFF, 20),
        Word(vni << 8, 0xFFFFFF00, 32),
    )


def _frame_to(mac: str) -> tuple[Word, ...]:
    """A frame's target address, which lies before its IP header; words are at multiples of 4."""
    octets = bytes(int(octet, 16) for octet in mac.split(":"))
    return (
        Word(int.from_bytes(octets[:2], "big"), 0x0000FFFF, -16),
        Word(int.from_bytes(octets[2:], "big"), 0xFFFFFFFF, -12),
    )


def _mac_words(*, source: str, target: str) -> tuple[Word, ...]:
    """The encapsulated frame's addresses; the target comes first on the wire."""
    octets = bytes(int(octet, 16) for mac in (target, source) for octet in mac.split(":"))
    return tuple(
        Word(int.from_bytes(octets[at : at + 4], "big"), 0xFFFFFFFF, 36 + at) for at in (0, 4, 8)
    )


def allot(keys: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """A class id for every key: the one that it has, or the lowest that nobody has or had last:
    the filters of a class are told by its id, so it must not change hands in one step."""
    kept = {key: known[key] for key in keys if key in known}
    taken = set(known.values())
    free = (number for number in count(_FIRST_FREE_CLASS) if number not in taken)
    ids = {key: kept[key] if key in kept else next(free) for key in keys}
    if ids and max(ids.values()) > _MAX_CLASS:
        raise ValueError(f"more than {_MAX_CLASS} classes on one device")
    return ids
