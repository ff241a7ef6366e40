"""Records and API messages between the wire and the domain."""

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.message import DecodeError

from intertie.api.broker.v1 import site_pb2
from intertie.api.imagestore.v1 import images_pb2
from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.api.types.v1 import snapshot_pb2, used_pb2
from intertie.common.actions import Power, Switched
from intertie.common.errors import FieldInvalid
from intertie.common.rpc.spec_proto import (
    allocation_from_proto,
    allocation_to_proto,
    bandwidth_from_proto,
    bandwidth_to_proto,
    duration_to_proto,
    environment_from_proto,
    environment_to_proto,
    further_disks_from_proto,
    further_disks_to_proto,
    host_entries_from_proto,
    host_entries_to_proto,
    timestamp_from_proto,
    timestamp_to_proto,
    window_from_proto,
    window_to_proto,
)
from intertie.nodeagent.domain.measured import Measured
from intertie.nodeagent.domain.meters import Promise
from intertie.nodeagent.domain.migrating import Migration, Role
from intertie.nodeagent.domain.power import MemoryMove
from intertie.nodeagent.domain.record_rules import check_part
from intertie.nodeagent.domain.report import HostFacts, SeenPart, SeenWay, SeenWorkspace
from intertie.nodeagent.domain.snapshot_note import SeenSnapshot, SnapshotOrder
from intertie.nodeagent.domain.standing import Hold, LinkReservation, Standing
from intertie.nodeagent.domain.traffic_plan import IncastShare
from intertie.nodeagent.domain.used import Tally
from intertie.nodeagent.domain.wanted import (
    Tunnel,
    WantedNetwork,
    WantedNic,
    WantedPair,
    WantedPart,
    WantedWorkspace,
    WideTunnel,
)

SCHEMA = 1


def part_from_proto(message: pb.WantedPart) -> WantedPart:
    """FieldInvalid when this agent does not understand the record."""
    if message.schema != SCHEMA:
        raise FieldInvalid("schema", f"{message.schema} is not known to this agent")
    part = WantedPart(
        name=message.part,
        uid=message.part_uid,
        generation=message.generation,
        window=window_from_proto(message.window, "window"),
        gone=message.gone,
        workspaces=tuple(_workspace(each) for each in message.workspaces),
        networks=tuple(_network(each) for each in message.networks),
        host_entries=host_entries_from_proto(message.host_entries),
        cluster=message.cluster,
        keep_until=_keep_until(message),
    )
    check_part(part)
    return part


def _keep_until(message: pb.WantedPart) -> datetime | None:
    if not message.HasField("keep_until"):
        return None
    return timestamp_from_proto(message.keep_until, "keep_until")


_HOLDS = {pb.WantedHost.Hold.Value(each.name): each for each in Hold}


def standing_from_proto(message: pb.WantedHost) -> Standing:
    """FieldInvalid when this agent does not understand the record."""
    if message.schema != SCHEMA:
        raise FieldInvalid("schema", f"{message.schema} is not known to this agent")
    hold = _HOLDS.get(message.hold)
    if hold is None:
        raise FieldInvalid("hold", f"{message.hold} is not known to this agent")
    reserved = tuple(
        LinkReservation(
            site=each.site,
            mbit_s=each.mbit_s,
            window=window_from_proto(each.window, f"reserved[{position}].window"),
        )
        for position, each in enumerate(message.reserved)
    )
    return Standing(epoch=message.epoch, hold=hold, reserved=reserved)


def _workspace(message: pb.WantedWorkspace) -> WantedWorkspace:
    field = f"workspaces.{message.name}"
    return WantedWorkspace(
        name=message.name,
        uid=message.uid,
        environment=environment_from_proto(message.environment, f"{field}.environment"),
        allocation=allocation_from_proto(message.allocation, f"{field}.allocation"),
        nics=tuple(
            WantedNic(
                network_uid=nic.network_uid,
                mac=nic.mac,
                address=nic.address,
                bandwidth=bandwidth_from_proto(nic.bandwidth),
            )
            for nic in message.nics
        ),
        nonce=message.nonce,
        switched=Switched(power=_power(message.power, field), boots=message.boots),
        snapshot=_snapshot_order(message) if message.HasField("snapshot") else None,
        migration=_migration(message.migration, field) if message.HasField("migration") else None,
        disks=further_disks_from_proto(message.disks),
    )


_ROLES = {pb.Migration.Role.Value(each.name): each for each in Role}


def _migration(message: pb.Migration, field: str) -> Migration:
    role = _ROLES.get(message.role)
    if role is None:
        raise FieldInvalid(f"{field}.migration.role", f"{message.role} is not known here")
    return Migration(
        number=message.number,
        role=role,
        host=message.host,
        agent_address=message.agent_address,
        aside=message.aside,
    )


def _migration_to_proto(migration: Migration | None) -> pb.Migration | None:
    if migration is None:
        return None
    return pb.Migration(
        number=migration.number,
        role=pb.Migration.Role.Value(migration.role.name),
        host=migration.host,
        agent_address=migration.agent_address,
        aside=migration.aside,
    )


def _snapshot_order(message: pb.WantedWorkspace) -> SnapshotOrder:
    order = message.snapshot
    grant = order.grant.SerializeToString(deterministic=True)
    return SnapshotOrder(
        id=order.id, image_id=order.image_id, grant=grant, asked_time=_asked_time(order.grant)
    )


def _asked_time(grant: images_pb2.SnapshotGrant) -> datetime | None:
    """What is wrong with a grant is the image store's to say."""
    try:
        body = images_pb2.SnapshotGrantBody.FromString(grant.body)
        return timestamp_from_proto(body.sign_time, "sign_time") if body.sign_time.seconds else None
    except (DecodeError, FieldInvalid):
        return None


def _snapshot_order_to_proto(order: SnapshotOrder | None) -> pb.SnapshotOrder | None:
    if order is None:
        return None
    grant = images_pb2.SnapshotGrant.FromString(order.grant)
    return pb.SnapshotOrder(id=order.id, image_id=order.image_id, grant=grant)


def _power(number: "pb.WantedWorkspace.Power.ValueType", field: str) -> Power:
    if number == pb.WantedWorkspace.POWER_UNSPECIFIED:
        return Power.ON
    for each in Power:
        if pb.WantedWorkspace.Power.Value(each.name) == number:
            return each
    raise FieldInvalid(f"{field}.power", f"{number} is not known here")


def _network(message: pb.WantedNetwork) -> WantedNetwork:
    return WantedNetwork(
        uid=message.uid,
        name=message.name,
        vni=message.vni,
        mtu=message.mtu,
        tunnels=tuple(
            Tunnel(address=each.address, macs=tuple(each.macs), host=each.host)
            for each in message.tunnels
        ),
        pairs=tuple(
            WantedPair(
                local_mac=each.local_mac,
                remote_mac=each.remote_mac,
                bandwidth=bandwidth_from_proto(each.bandwidth),
            )
            for each in message.pairs
        ),
        uplink_guarantee_mbit_s=message.uplink_guarantee_mbit_s,
        uplink_cap_mbit_s=message.uplink_cap_mbit_s,
        wide_tunnels=tuple(
            WideTunnel(
                site=each.site,
                address=each.address,
                port=each.port,
                vni=each.vni,
                macs=tuple(each.macs),
                guarantee_mbit_s=each.guarantee_mbit_s,
                cap_mbit_s=each.cap_mbit_s,
            )
            for each in message.wide_tunnels
        ),
    )


def seen_to_proto(part: SeenPart, *, now: datetime) -> pb.SeenPart:
    return pb.SeenPart(
        schema=SCHEMA,
        part=part.name,
        part_uid=part.uid,
        generation=part.generation,
        workspaces=[_seen_workspace(each) for each in part.workspaces],
        gone=part.gone,
        message=part.message,
        report_time=timestamp_to_proto(now),
        obeyed_generation=part.obeyed_generation,
        cleared_generation=part.cleared_generation,
    )


def _seen_workspace(seen: SeenWorkspace) -> pb.SeenWorkspace:
    message = pb.SeenWorkspace(
        name=seen.name,
        uid=seen.uid,
        state=seen.state.value,
        message=seen.message,
        ready=seen.ready_time is not None,
        staging_done_bytes=seen.staging_done_bytes,
        staging_total_bytes=seen.staging_total_bytes,
        pending=seen.pending,
        saved=_move_to_proto(seen.saved),
        restored=_move_to_proto(seen.restored),
        snapshot=_seen_snapshot(seen.snapshot),
    )
    if seen.ready_time is not None:
        message.ready_time.CopyFrom(timestamp_to_proto(seen.ready_time))
    if (found := seen.migration) is not None:
        message.migration.number = found.number
        message.migration.state = pb.SeenMigration.State.Value(found.outcome.name)
        message.migration.message = found.message
    if seen.used is not None:
        message.used.CopyFrom(_used(seen.used))
    return message


def _seen_snapshot(seen: SeenSnapshot | None) -> pb.SeenSnapshot | None:
    if seen is None:
        return None
    message = snapshot_pb2.Snapshot(
        message=seen.message,
        quiesced=seen.quiesced,
        done_bytes=seen.done_bytes,
        total_bytes=seen.total_bytes,
        digest=seen.digest,
    )
    message.state = snapshot_pb2.Snapshot.State.Value(seen.state.name)
    if seen.taken_time is not None:
        message.taken_time.CopyFrom(timestamp_to_proto(seen.taken_time))
    return pb.SeenSnapshot(id=seen.id, snapshot=message)


def _used(tally: Tally) -> used_pb2.Used:
    message = used_pb2.Used(
        read_time=timestamp_to_proto(tally.read_time),
        disk_operations=tally.disk_operations,
        disk_bytes=tally.disk_bytes,
        sent_bytes=tally.sent_bytes,
        received_bytes=tally.received_bytes,
    )
    message.cpu_time.FromNanoseconds(tally.cpu_ns)
    message.suspended_time.FromTimedelta(tally.suspended)
    return message


def _move_to_proto(move: MemoryMove | None) -> pb.MemoryMove | None:
    if move is None:
        return None
    return pb.MemoryMove(bytes=move.bytes, duration=duration_to_proto(move.duration))


def facts_to_proto(facts: HostFacts, *, now: datetime) -> pb.HostFacts:
    capacity = facts.capacity
    return pb.HostFacts(
        schema=SCHEMA,
        host=facts.host,
        capacity=site_pb2.Capacity(
            vcpus=capacity.vcpus,
            memory_mib=capacity.memory_mib,
            disk_mib=capacity.disk_mib,
            iops=capacity.iops,
            throughput_mib_s=capacity.throughput_mib_s,
            uplink_mbit_s=capacity.uplink_mbit_s,
        ),
        address=facts.address,
        agent_address=facts.agent_address,
        gateway=bool(facts.wide_address),
        wide_address=facts.wide_address,
        wide_port=facts.wide_port,
        hypervisors=facts.hypervisors,
        architecture=facts.architecture,
        missing=facts.missing,
        growth=site_pb2.Growth(memory=facts.growth.memory, vcpus=facts.growth.vcpus),
        report_time=timestamp_to_proto(now),
        mtu=facts.mtu,
        wide_mtu=facts.wide_mtu,
        fenced_epoch=facts.fenced_epoch,
        migrates=True,
        migrates_aside=True,
        cpu=facts.cpu,
        fence_after=duration_to_proto(facts.fence_after) if facts.fence_after else None,
        ways=[_way(each) for each in facts.ways],
    )


def _way(seen: SeenWay) -> pb.Way:
    took, since = seen.round_trip, seen.lost_since
    return pb.Way(
        address=seen.address,
        round_trip=duration_to_proto(took) if took is not None else None,
        lost_since=timestamp_to_proto(since) if since is not None else None,
    )


def measured_to_proto(
    host: str, found: Mapping[Promise, Measured], *, at: datetime
) -> pb.HostMeasured:
    message = pb.HostMeasured(schema=SCHEMA, host=host, measured_time=timestamp_to_proto(at))
    parts: dict[str, pb.MeasuredPart] = {}
    for promise, measured in found.items():
        if promise.part_uid not in parts:
            parts[promise.part_uid] = message.parts.add(part_uid=promise.part_uid)
        since = measured.below_since
        parts[promise.part_uid].directions.add(
            kind=promise.kind,
            network=promise.network,
            source=promise.source,
            target=promise.target,
            value=measured.value,
            backlogged=measured.backlogged,
            below_since=timestamp_to_proto(since) if since else None,
        )
    return message


def share_to_proto(host: str, share: IncastShare, *, at: datetime) -> pb.IncastShare:
    return pb.IncastShare(
        schema=SCHEMA,
        host=host,
        share_kbit=share.share_kbit,
        floors=[
            pb.IncastFloor(network_uid=uid, kbit=kbit) for uid, kbit in sorted(share.floors.items())
        ],
        report_time=timestamp_to_proto(at),
    )


def share_from_proto(message: pb.IncastShare) -> IncastShare:
    """FieldInvalid for one of another schema, or with an amount that is none."""
    if message.schema != SCHEMA:
        raise FieldInvalid("schema", f"{message.schema} is not known here")
    if message.share_kbit < 1 or any(each.kbit < 0 for each in message.floors):
        raise FieldInvalid("share_kbit", "must be 1 or more, and no floor below 0")
    return IncastShare(
        share_kbit=message.share_kbit,
        floors={each.network_uid: each.kbit for each in message.floors},
    )


def part_to_proto(part: WantedPart) -> pb.WantedPart:
    """The record again, as the agent keeps it on its own disk."""
    return pb.WantedPart(
        schema=SCHEMA,
        part=part.name,
        part_uid=part.uid,
        generation=part.generation,
        window=window_to_proto(part.window),
        gone=part.gone,
        workspaces=[
            pb.WantedWorkspace(
                name=each.name,
                uid=each.uid,
                environment=environment_to_proto(each.environment),
                allocation=allocation_to_proto(each.allocation),
                nics=[
                    pb.WantedNic(
                        network_uid=nic.network_uid,
                        mac=nic.mac,
                        address=nic.address,
                        bandwidth=bandwidth_to_proto(nic.bandwidth),
                    )
                    for nic in each.nics
                ],
                nonce=each.nonce,
                power=pb.WantedWorkspace.Power.Value(each.switched.power.name),
                boots=each.switched.boots,
                snapshot=_snapshot_order_to_proto(each.snapshot),
                migration=_migration_to_proto(each.migration),
                disks=further_disks_to_proto(each.disks),
            )
            for each in part.workspaces
        ],
        networks=[_network_to_proto(each) for each in part.networks],
        host_entries=host_entries_to_proto(part.host_entries),
        cluster=part.cluster,
        keep_until=timestamp_to_proto(part.keep_until) if part.keep_until else None,
    )


def _network_to_proto(network: WantedNetwork) -> pb.WantedNetwork:
    return pb.WantedNetwork(
        uid=network.uid,
        name=network.name,
        vni=network.vni,
        mtu=network.mtu,
        tunnels=[
            pb.Tunnel(address=each.address, macs=each.macs, host=each.host)
            for each in network.tunnels
        ],
        pairs=[
            pb.WantedPair(
                local_mac=each.local_mac,
                remote_mac=each.remote_mac,
                bandwidth=bandwidth_to_proto(each.bandwidth),
            )
            for each in network.pairs
        ],
        uplink_guarantee_mbit_s=network.uplink_guarantee_mbit_s,
        uplink_cap_mbit_s=network.uplink_cap_mbit_s,
        wide_tunnels=[
            pb.WideTunnel(
                site=each.site,
                address=each.address,
                port=each.port,
                vni=each.vni,
                macs=each.macs,
                guarantee_mbit_s=each.guarantee_mbit_s,
                cap_mbit_s=each.cap_mbit_s,
            )
            for each in network.wide_tunnels
        ],
    )
