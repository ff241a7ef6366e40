"""Incast: several hosts send one host more than its downlink carries.

A sender's classes keep what it has promised on its own uplink; where the uplinks of several meet,
no class does. So the receiver says how much each class of the others may send it beyond what that
class is promised: one number for all, as RCP has a router do it. It counts what arrives, lowers the
number while the downlink is full, and raises it while there is room, until nobody is held back by
it. What was promised is not touched.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from intertie.nodeagent.domain.traffic_plan import IncastShare, on_uplink, uplink_promise_kbit
from intertie.nodeagent.domain.wanted import WantedPart

FULL_SHARE = 0.95
"""Of the downlink: where so much arrives, more may have been lost on the way."""
TARGET_SHARE = 0.90
"""Of the downlink: what is aimed at, so that what is promised always finds room."""
LEAST_SHARE = 1 / 512
"""Of the downlink, for each class: the others are slowed, never stopped, and are back soon."""
MOST_FACTOR = 2.0
"""A share is doubled at most, so that those who come back find it as it is."""
STALE_S = 10.0
"""A share that was not written again for so long does not count: its host may be gone."""
WIRE_BYTES = 24
"""A frame takes so much more of the wire than counters say: checksum, preamble, gap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """What an interface has received since it came up."""

    seconds: float
    """Of a clock that nobody sets."""
    bytes: int
    packets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What a receiver knows of its own downlink."""

    share_kbit: float | None = None
    """None: nobody is held back."""
    settling: bool = False
    """The share was just changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downlink:
    capacity_kbit: int
    promised_kbit: int
    """Of what may come in."""


def arrived_kbit_s(before: Arrivals, after: Arrivals) -> float | None:
    """On the wire. None where the two readings do not tell: the interface was made anew."""
    seconds = after.seconds - before.seconds
    if seconds <= 0 or after.bytes < before.bytes or after.packets < before.packets:
        return None
    octets = after.bytes - before.bytes + WIRE_BYTES * (after.packets - before.packets)
    return octets * 8 / 1000 / seconds


def judge(crowd: Crowd, arrived_kbit: float, downlink: Downlink) -> Crowd:
    """The next share, after one more interval in which so much arrived.

    Where nothing is promised nobody is held back: flows may sort that out among themselves. Half
    of what is not promised to begin with, since it takes two to fill a downlink that either alone
    could not; halved again while the downlink is full, since what was lost on the way to it cannot
    be counted here. Else the share is scaled by what is missing to the target: that cannot
    overshoot, for what is promised is not scaled with it. After each change one interval is passed
    over, since part of what arrived in it was sent by the share before.
    """
    capacity, share = downlink.capacity_kbit, crowd.share_kbit
    if not downlink.promised_kbit:
        return Crowd()
    if crowd.settling:
        return Crowd(share_kbit=share)
    full = arrived_kbit >= FULL_SHARE * capacity
    if share is None and not full:
        return crowd
    if share is None:
        wanted = (TARGET_SHARE * capacity - downlink.promised_kbit) / 2
    elif full:
        wanted = share / 2
    else:
        wanted = share * min(TARGET_SHARE * capacity / max(arrived_kbit, 1.0), MOST_FACTOR)
    if wanted >= capacity:
        return Crowd()
    return Crowd(share_kbit=max(wanted, capacity * LEAST_SHARE), settling=True)


def promised_in_kbit(parts: Iterable[WantedPart]) -> int:
    """What may come in by the underlay by promise: as much as goes out, for a pair has its promise
    each way, and a NIC too."""
    return sum(
        on_uplink(network.uplink_guarantee_mbit_s, network.mtu)
        for part in parts
        for network in part.networks
        if network.tunnels
    )


def asked_of_senders(crowd: Crowd, parts: Iterable[WantedPart]) -> IncastShare | None:
    """None: nothing is. What NICs are promised counts once, however many send to them, so each
    host on the network gets its equal part of it as a floor."""
    if crowd.share_kbit is None:
        return None
    floors = {}
    for part in parts:
        for network in part.networks:
            _, rest_kbit = uplink_promise_kbit(network)
            if network.tunnels and rest_kbit:
                floors[network.uid] = rest_kbit // len(network.tunnels)
    return IncastShare(share_kbit=round(crowd.share_kbit), floors=floors)


def material(told: IncastShare | None, asked: IncastShare | None) -> bool:
    """Whether it is worth a write before its time."""
    if told is None or asked is None:
        return told != asked
    change = abs(told.share_kbit - asked.share_kbit)
    return told.floors != asked.floors or change > 0.02 * told.share_kbit


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A share, and when this host first saw it as it stands now."""

    share: IncastShare
    written: int
    """Another one each time it is written, whatever is in it."""
    since: float


def heard(
    known: Mapping[str, Heard], read: Mapping[str, tuple[int, IncastShare]], *, now: float
) -> dict[str, Heard]:
    """By receiver. Ages are told by this host's own clock: receivers' are not to be trusted."""
    found = {}
    for host, (written, share) in read.items():
        before = known.get(host)
        if before is None or before.written != written:
            before = Heard(share=share, written=written, since=now)
        found[host] = before
    return found


def in_force(known: Mapping[str, Heard], *, now: float) -> dict[str, IncastShare]:
    """Without those whose host has ceased to say so."""
    return {host: each.share for host, each in known.items() if now - each.since < STALE_S}
