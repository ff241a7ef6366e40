"""Records that brokers and agents exchange through etcd, as serialized protobuf messages."""

from datetime import timedelta

import structlog
from google.protobuf.message import DecodeError

from intertie.api.broker.v1 import site_pb2
from intertie.api.imagestore.v1 import images_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import used_pb2
from intertie.broker.domain.counted import Used
from intertie.broker.domain.fleet import (
    Growth,
    HostFacts,
    HostWay,
    MemoryMove,
    MigrationOutcome,
    SeenMigration,
    SeenPart,
    SeenSnapshot,
    SeenWorkspace,
    WorkspaceState,
)
from intertie.broker.domain.guarantees import MeasuredDirection, MeasuredPart
from intertie.broker.domain.lost_hosts import HostRecord, HostState
from intertie.broker.domain.wanted import (
    Migration,
    SnapshotOrder,
    WantedNetwork,
    WantedPart,
    WantedWorkspace,
)
from intertie.common.errors import FieldInvalid
from intertie.common.quantities import Vector
from intertie.common.rpc.snapshot_proto import snapshot_from_proto
from intertie.common.rpc.spec_proto import (
    allocation_to_proto,
    bandwidth_to_proto,
    duration_from_proto,
    environment_to_proto,
    further_disks_to_proto,
    host_entries_to_proto,
    timestamp_from_proto,
    timestamp_to_proto,
    window_to_proto,
)

log = structlog.get_logger(__name__)

SCHEMA = 1
_NO_TIME = timedelta()


def wanted_to_bytes(wanted: WantedPart) -> bytes:
    message = records_pb2.WantedPart(
        schema=SCHEMA,
        part=wanted.part,
        part_uid=wanted.part_uid,
        generation=wanted.generation,
        window=window_to_proto(wanted.window),
        gone=wanted.gone,
        workspaces=[_workspace(each) for each in wanted.workspaces],
        networks=[_network(each) for each in wanted.networks],
        host_entries=host_entries_to_proto(wanted.host_entries),
        cluster=wanted.cluster,
        keep_until=timestamp_to_proto(wanted.keep_until) if wanted.keep_until else None,
    )
    return message.SerializeToString(deterministic=True)


_HOLDS = {
    HostState.FENCING: records_pb2.WantedHost.HELD,
    HostState.FENCED: records_pb2.WantedHost.FENCED,
}


def standing_to_bytes(record: HostRecord) -> bytes:
    """What the host is told of itself."""
    message = records_pb2.WantedHost(
        schema=SCHEMA,
        epoch=record.epoch,
        hold=_HOLDS.get(record.state, records_pb2.WantedHost.NONE),
        reserved=[
            records_pb2.LinkReservation(
                site=each.site, mbit_s=each.mbit_s, window=window_to_proto(each.window)
            )
            for each in record.reserved
        ],
    )
    return message.SerializeToString(deterministic=True)


def generation_of(wanted: bytes) -> int:
    """0 where it cannot be read."""
    try:
        return records_pb2.WantedPart.FromString(wanted).generation
    except DecodeError:
        return 0


def _workspace(wanted: WantedWorkspace) -> records_pb2.WantedWorkspace:
    return records_pb2.WantedWorkspace(
        name=wanted.name,
        uid=wanted.uid,
        environment=environment_to_proto(wanted.environment),
        allocation=allocation_to_proto(wanted.allocation),
        nics=[
            records_pb2.WantedNic(
                network_uid=nic.network_uid,
                mac=nic.mac,
                address=nic.address,
                bandwidth=bandwidth_to_proto(nic.bandwidth),
            )
            for nic in wanted.nics
        ],
        nonce=wanted.nonce,
        power=records_pb2.WantedWorkspace.Power.Value(wanted.switched.power.name),
        boots=wanted.switched.boots,
        snapshot=_order(wanted.snapshot),
        migration=_migration(wanted.migration) if wanted.migration is not None else None,
        disks=further_disks_to_proto(wanted.disks),
    )


def _migration(wanted: Migration) -> records_pb2.Migration:
    return records_pb2.Migration(
        number=wanted.number,
        role=records_pb2.Migration.Role.Value(wanted.role.name),
        host=wanted.host,
        agent_address=wanted.agent_address,
        aside=wanted.aside,
    )


def _order(order: SnapshotOrder | None) -> records_pb2.SnapshotOrder | None:
    if order is None:
        return None
    grant = images_pb2.SnapshotGrant.FromString(order.grant)
    return records_pb2.SnapshotOrder(id=order.id, image_id=order.image_id, grant=grant)


def _network(wanted: WantedNetwork) -> records_pb2.WantedNetwork:
    return records_pb2.WantedNetwork(
        uid=wanted.uid,
        name=wanted.name,
        vni=wanted.vni,
        mtu=wanted.mtu,
        tunnels=[
            records_pb2.Tunnel(host=each.host, address=each.address, macs=each.macs)
            for each in wanted.tunnels
        ],
        pairs=[
            records_pb2.WantedPair(
                local_mac=each.local_mac,
                remote_mac=each.remote_mac,
                bandwidth=bandwidth_to_proto(each.bandwidth),
            )
            for each in wanted.pairs
        ],
        uplink_guarantee_mbit_s=wanted.uplink_guarantee_mbit_s,
        uplink_cap_mbit_s=wanted.uplink_cap_mbit_s,
        wide_tunnels=[
            records_pb2.WideTunnel(
                site=each.site,
                address=each.address,
                port=each.port,
                vni=each.vni,
                macs=each.macs,
                guarantee_mbit_s=each.guarantee_mbit_s,
                cap_mbit_s=each.cap_mbit_s,
            )
            for each in wanted.wide_tunnels
        ],
    )


def facts_from_bytes(octets: bytes, host: str, revision: int = 0) -> HostFacts | None:
    """`host` is the key's: an agent speaks for its own host only. None when unreadable."""
    try:
        message = records_pb2.HostFacts.FromString(octets)
    except DecodeError:
        log.warning("facts.unreadable", host=host)
        return None
    if message.schema != SCHEMA:
        log.warning("facts.unknown_schema", host=host, schema=message.schema)
        return None
    try:
        report_time = timestamp_from_proto(message.report_time, "report_time")
        fence_after = duration_from_proto(message.fence_after, "fence_after")
        ways = tuple(_way(each) for each in message.ways)
    except FieldInvalid as error:
        log.warning("facts.unreadable", host=host, problem=str(error))
        return None
    return HostFacts(
        host=host,
        capacity=capacity_from_proto(message.capacity),
        address=message.address,
        agent_address=message.agent_address,
        gateway=message.gateway,
        wide_address=message.wide_address,
        wide_port=message.wide_port,
        hypervisors=tuple(message.hypervisors),
        architecture=message.architecture,
        missing=tuple(message.missing),
        growth=growth_from_proto(message.growth) if message.HasField("growth") else None,
        report_time=report_time,
        mtu=message.mtu,
        wide_mtu=message.wide_mtu,
        fenced_epoch=message.fenced_epoch,
        fence_after=fence_after,
        migrates=message.migrates,
        migrates_aside=message.migrates_aside,
        cpu=message.cpu,
        ways=ways,
        revision=revision,
    )


def _way(message: records_pb2.Way) -> HostWay:
    took = duration_from_proto(message.round_trip, "round_trip")
    return HostWay(
        address=message.address,
        round_trip=took if message.HasField("round_trip") and took >= _NO_TIME else None,
        lost_since=(
            timestamp_from_proto(message.lost_since, "lost_since")
            if message.HasField("lost_since")
            else None
        ),
    )


def growth_from_proto(message: site_pb2.Growth) -> Growth:
    return Growth(memory=message.memory, vcpus=message.vcpus)


def capacity_from_proto(message: site_pb2.Capacity) -> Vector:
    return Vector(
        vcpus=message.vcpus,
        memory_mib=message.memory_mib,
        disk_mib=message.disk_mib,
        iops=message.iops,
        throughput_mib_s=message.throughput_mib_s,
        uplink_mbit_s=message.uplink_mbit_s,
    ).at_least_zero()


def seen_from_bytes(octets: bytes, host: str) -> SeenPart | None:
    """None when unreadable: as if the host had said nothing."""
    try:
        message = records_pb2.SeenPart.FromString(octets)
    except DecodeError:
        log.warning("seen.unreadable", host=host)
        return None
    if message.schema != SCHEMA:
        log.warning("seen.unknown_schema", host=host, schema=message.schema)
        return None
    try:
        workspaces = tuple(_seen_workspace(each) for each in message.workspaces)
    except FieldInvalid as error:
        log.warning("seen.unreadable", host=host, problem=str(error))
        return None
    return SeenPart(
        host=host,
        part_uid=message.part_uid,
        generation=message.generation,
        workspaces=workspaces,
        gone=message.gone,
        message=message.message,
        obeyed_generation=message.obeyed_generation,
        cleared_generation=message.cleared_generation,
    )


def _seen_workspace(message: records_pb2.SeenWorkspace) -> SeenWorkspace:
    known = message.state in set(WorkspaceState)
    return SeenWorkspace(
        name=message.name,
        state=WorkspaceState(message.state) if known else WorkspaceState.STATE_UNSPECIFIED,
        message=message.message,
        ready=message.ready,
        ready_time=(
            timestamp_from_proto(message.ready_time, "ready_time")
            if message.HasField("ready_time")
            else None
        ),
        staging_done_bytes=message.staging_done_bytes,
        staging_total_bytes=message.staging_total_bytes,
        pending=message.pending,
        saved=_move(message.saved) if message.HasField("saved") else None,
        restored=_move(message.restored) if message.HasField("restored") else None,
        used=_used(message.used) if message.HasField("used") else None,
        snapshot=_snapshot(message.snapshot) if message.HasField("snapshot") else None,
        migration=_seen_migration(message) if message.HasField("migration") else None,
    )


_OUTCOMES = {records_pb2.SeenMigration.State.Value(each.name): each for each in MigrationOutcome}


def _seen_migration(message: records_pb2.SeenWorkspace) -> SeenMigration | None:
    """None for what this broker does not know: as if nothing had been said."""
    outcome = _OUTCOMES.get(message.migration.state)
    if outcome is None:
        return None
    said = message.migration
    return SeenMigration(number=said.number, outcome=outcome, message=said.message)


def _snapshot(message: records_pb2.SeenSnapshot) -> SeenSnapshot:
    return SeenSnapshot(id=message.id, shown=snapshot_from_proto(message.snapshot))


def _move(message: records_pb2.MemoryMove) -> MemoryMove:
    return MemoryMove(
        octets=message.bytes, duration=duration_from_proto(message.duration, "duration")
    )


def _used(message: used_pb2.Used) -> Used:
    """Whatever a host tells: less than nothing of it nobody has used."""
    return Used(
        read_time=timestamp_from_proto(message.read_time, "used.read_time"),
        cpu_ns=max(message.cpu_time.ToNanoseconds(), 0),
        disk_operations=max(message.disk_operations, 0),
        disk_bytes=max(message.disk_bytes, 0),
        sent_bytes=max(message.sent_bytes, 0),
        received_bytes=max(message.received_bytes, 0),
        suspended_us=max(message.suspended_time.ToMicroseconds(), 0),
    )


def measured_from_bytes(octets: bytes, host: str) -> dict[str, MeasuredPart]:
    """By part uid; nothing when unreadable."""
    try:
        message = records_pb2.HostMeasured.FromString(octets)
        if message.schema != SCHEMA:
            log.warning("measured.unknown_schema", host=host, schema=message.schema)
            return {}
        at = timestamp_from_proto(message.measured_time, "measured_time")
        return {
            part.part_uid: MeasuredPart(at=at, directions=tuple(map(_direction, part.directions)))
            for part in message.parts
        }
    except (DecodeError, FieldInvalid) as error:
        log.warning("measured.unreadable", host=host, problem=str(error))
        return {}


def _direction(message: records_pb2.MeasuredDirection) -> MeasuredDirection:
    return MeasuredDirection(
        kind=message.kind,
        network=message.network,
        source=message.source,
        target=message.target,
        value=message.value,
        backlogged=message.backlogged,
        below_since=(
            timestamp_from_proto(message.below_since, "below_since")
            if message.HasField("below_since")
            else None
        ),
    )
