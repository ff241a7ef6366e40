"""Which counters of a host tell what becomes of a promise.

A direction of a pair passes up to three classes on its way: on the sender's ifb, on the underlay
and, at the gateway, on the WAN. What has passed the last of them on this host is what came
through, and what waits at any of them is waiting.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from intertie.common.guarantees import GuaranteeKind
from intertie.common.names import DeviceNames
from intertie.common.terms import DiskTerm
from intertie.nodeagent.domain.class_keys import (
    pair_key,
    rest_key,
    sent_key,
    to_key,
    wide_pair_key,
    wide_rest_key,
)
from intertie.nodeagent.domain.domain_xml import further_device
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.traffic_plan import on_tap, on_uplink
from intertie.nodeagent.domain.wanted import WantedNetwork, WantedPair, WantedPart, WantedWorkspace

WHOLE = ""
"""Key of all that a device sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One direction of one promise; `source` and `target` as in MeasuredDirection."""

    part_uid: str
    kind: GuaranteeKind
    network: str = ""
    source: str = ""
    target: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Queue:
    """A class of traffic on a device of this host."""

    device: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A class that several promises are kept in together, and the sum of them."""

    queue: Queue
    mbit_s: int
    kbit_per_gbit: int
    beside: tuple[Queue, ...] = ()
    """The same towards hosts whose downlinks are full; there only while they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMeter:
    promise: Promise
    mbit_s: int
    """What is promised, in payload."""
    kbit_per_gbit: int
    """kbit/s of full-sized frames, as `counted` counts them, for 1000 Mbit/s of payload."""
    counted: tuple[Queue, ...]
    """What came through is the sum of these."""
    waits: tuple[Queue, ...]
    """Where that which did not come through yet would be."""
    shared: Shared | None = None
    """Where it can be held back together with others, from whom nothing tells it apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskMeter:
    part_uid: str
    workspace: str
    domain: str
    """libvirt's name of the guest."""
    term: DiskTerm
    disk: str = ""
    """Of a data set or a volume, its name; empty: the root disk."""
    device: str = ""
    """Likewise."""

    @property
    def counted(self) -> str:
        """Key of its counters in a reading."""
        return of_device(self.domain, self.device) if self.device else self.domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Meters:
    flows: tuple[FlowMeter, ...] = ()
    disks: tuple[DiskMeter, ...] = ()


def meters_of(parts: Iterable[WantedPart], place: Place) -> Meters:
    """One for each direction of each promise that is more than nothing and is kept here."""
    flows: list[FlowMeter] = []
    disks: list[DiskMeter] = []
    for part in parts:
        for network in part.networks:
            flows.extend(_pairs(part, network, place))
            flows.extend(_links(part, network, place))
        flows.extend(_nics(part, place))
        for workspace in part.workspaces:
            found = _disks(part, workspace)
            disks.extend(each for each in found if _is_promised(each.term))
    return Meters(flows=tuple(flows), disks=tuple(disks))


def _pairs(part: WantedPart, network: WantedNetwork, place: Place) -> Iterator[FlowMeter]:
    ifb_of = {
        nic.mac: DeviceNames.ifb(workspace.uid, number) for workspace, number, nic in part.taps()
    }
    behind = {mac for tunnel in network.tunnels for mac in tunnel.macs}
    for pair in network.pairs:
        on_way = []
        per_gbit = on_tap(1000, network.mtu)
        if ifb := ifb_of.get(pair.local_mac):
            on_way.append(Queue(ifb, sent_key(network, pair)))
        if pair.remote_mac in behind:
            on_way.append(Queue(place.interface, pair_key(network, pair)))
        on_way.extend(_on_wan(network, pair, place))
        if not (pair.bandwidth.guarantee_mbit_s and on_way):
            continue
        if on_way[-1].device != ifb:
            per_gbit = on_uplink(1000, network.mtu)
        yield FlowMeter(
            promise=Promise(
                part_uid=part.uid,
                kind=GuaranteeKind.PAIR_BANDWIDTH,
                network=network.name,
                source=pair.local_mac,
                target=pair.remote_mac,
            ),
            mbit_s=pair.bandwidth.guarantee_mbit_s,
            kbit_per_gbit=per_gbit,
            counted=(on_way[-1],),
            waits=tuple(on_way),
        )


def _on_wan(network: WantedNetwork, pair: WantedPair, place: Place) -> Iterator[Queue]:
    for wide in network.wide_tunnels if place.wide_interface else ():
        if pair.remote_mac in wide.macs:
            yield Queue(place.wide_interface, wide_pair_key(network, wide, pair))


def _links(part: WantedPart, network: WantedNetwork, place: Place) -> Iterator[FlowMeter]:
    """The classes inside that of a reservation, for nothing waits in one that holds others."""
    for wide in network.wide_tunnels if place.wide_interface else ():
        if not wide.guarantee_mbit_s:
            continue
        keys = [
            wide_pair_key(network, wide, pair)
            for pair in network.pairs
            if pair.remote_mac in wide.macs and pair.bandwidth.guarantee_mbit_s
        ]
        inside = tuple(
            Queue(place.wide_interface, key) for key in (*keys, wide_rest_key(network, wide))
        )
        yield FlowMeter(
            promise=Promise(
                part_uid=part.uid,
                kind=GuaranteeKind.LINK_BANDWIDTH,
                network=network.name,
                target=wide.site,
            ),
            mbit_s=wide.guarantee_mbit_s,
            kbit_per_gbit=on_uplink(1000, network.mtu),
            counted=inside,
            waits=inside,
        )


def _nics(part: WantedPart, place: Place) -> Iterator[FlowMeter]:
    """Both directions. What a NIC is promised it can lose on the underlay only, on its way out:
    there all NICs of a network are in one class. What comes in is counted; who holds it back is
    another host, which cannot say on whose account."""
    sums: dict[str, int] = {}
    for _, _, nic in part.taps():
        sums[nic.network_uid] = sums.get(nic.network_uid, 0) + nic.bandwidth.guarantee_mbit_s
    for workspace, number, nic in part.taps():
        if not nic.bandwidth.guarantee_mbit_s:
            continue
        network = part.network(nic.network_uid)
        shared = Shared(
            queue=Queue(place.interface, rest_key(network)),
            beside=tuple(Queue(place.interface, to_key(network, t)) for t in network.tunnels),
            mbit_s=sums[network.uid],
            kbit_per_gbit=on_uplink(1000, network.mtu),
        )
        sent, taken = (
            Queue(DeviceNames.ifb(workspace.uid, number), WHOLE),
            Queue(DeviceNames.tap(workspace.uid, number), WHOLE),
        )
        for source, target, queue in ((nic.mac, "", sent), ("", nic.mac, taken)):
            yield FlowMeter(
                promise=Promise(
                    part_uid=part.uid,
                    kind=GuaranteeKind.NIC_BANDWIDTH,
                    network=network.name,
                    source=source,
                    target=target,
                ),
                mbit_s=nic.bandwidth.guarantee_mbit_s,
                kbit_per_gbit=on_tap(1000, network.mtu),
                counted=(queue,),
                waits=(queue,),
                shared=shared if queue is sent and network.tunnels else None,
            )


def _is_promised(term: DiskTerm) -> bool:
    return bool(term.guarantee_iops or term.guarantee_mib_s)


def of_device(domain: str, device: str) -> str:
    """Key of what is counted of a disk beside the root disk."""
    return f"{domain}/{device}"


def _disks(part: WantedPart, workspace: WantedWorkspace) -> Iterator[DiskMeter]:
    domain, name = DeviceNames.domain(workspace.uid), workspace.name
    term = workspace.allocation.disk
    yield DiskMeter(part_uid=part.uid, workspace=name, domain=domain, term=term)
    for number, each in enumerate(workspace.disks):
        yield DiskMeter(
            part_uid=part.uid,
            workspace=name,
            domain=domain,
            term=each.disk,
            disk=each.name,
            device=further_device(number),
        )
