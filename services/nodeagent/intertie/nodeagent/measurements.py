"""Readings of the host's counters, for those who compare them with what was promised."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.common.names import DeviceNames
from intertie.common.rpc.spec_proto import timestamp_to_proto
from intertie.nodeagent.domain.class_keys import link_key
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.ports import ClassCounters, DomainCounters, Hypervisor, Traffic
from intertie.nodeagent.domain.wanted import WantedPart

Kind = pb.Measurement
DISK = "vda"


class Measurements:
    """Reads libvirt once and the classes of each device once."""

    def __init__(self, hypervisor: Hypervisor, traffic: Traffic, place: Place) -> None:
        self._hypervisor = hypervisor
        self._traffic = traffic
        self._place = place

    async def read(self, parts: Iterable[WantedPart], now: datetime) -> list[pb.Measurement]:
        chosen = tuple(parts)
        stamp = timestamp_to_proto(now)
        found = [each async for each in self._network(chosen)]
        counters = await self._hypervisor.counters()
        for part in chosen:
            for workspace in part.workspaces:
                domain = counters.get(DeviceNames.domain(workspace.uid))
                if domain is not None:
                    found += _guest(part.name, workspace.name, domain)
        for each in found:
            each.read_time.CopyFrom(stamp)
        return found

    async def _network(self, parts: tuple[WantedPart, ...]) -> AsyncIterator[pb.Measurement]:
        uplink = await self._traffic.device_counters(self._place.interface)
        wide = {}
        if self._place.wide_interface:
            wide = dict(await self._traffic.device_counters(self._place.wide_interface))
        for part in parts:
            owner = {}
            for workspace, number, nic in part.taps():
                owner[nic.mac] = workspace.name
                for kind, device in (
                    (Kind.NIC_TO_GUEST, DeviceNames.tap(workspace.uid, number)),
                    (Kind.NIC_FROM_GUEST, DeviceNames.ifb(workspace.uid, number)),
                ):
                    counters = await self._traffic.nic_counters(device)
                    yield _flow(part.name, workspace.name, kind, nic.mac, counters)
            for network in part.networks:
                for key, counters in uplink.items():
                    kind_of, uid, *rest = key.split("/")
                    if kind_of == "pair" and uid == network.uid:
                        name = owner.get(rest[1], "")
                        yield _flow(part.name, name, Kind.PAIR_OUT, rest[2], counters)
                for tunnel in network.wide_tunnels:
                    counted = wide.get(link_key(network, tunnel))
                    if counted is not None:
                        yield _flow(part.name, "", Kind.LINK_OUT, tunnel.site, counted)


def _flow(
    part: str,
    workspace: str,
    kind: pb.Measurement.Kind.ValueType,
    subject: str,
    counters: ClassCounters,
) -> pb.Measurement:
    return pb.Measurement(
        part=part,
        workspace=workspace,
        kind=kind,
        subject=subject,
        bytes=counters.bytes,
        operations=counters.packets,
        overlimits=counters.overlimits,
        drops=counters.drops,
    )


def _guest(part: str, workspace: str, counters: DomainCounters) -> list[pb.Measurement]:
    return [
        pb.Measurement(
            part=part,
            workspace=workspace,
            kind=Kind.DISK_READ,
            subject=DISK,
            bytes=counters.read_bytes,
            operations=counters.read_operations,
        ),
        pb.Measurement(
            part=part,
            workspace=workspace,
            kind=Kind.DISK_WRITE,
            subject=DISK,
            bytes=counters.write_bytes,
            operations=counters.write_operations,
        ),
        pb.Measurement(
            part=part, workspace=workspace, kind=Kind.CPU, cpu_time_ns=counters.cpu_time_ns
        ),
    ]
