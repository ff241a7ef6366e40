"""Sites' answers on the wire as values of the domain, and decisions both ways."""

from intertie.api.broker.v1 import part_pb2
from intertie.api.imagestore.v1 import transfers_pb2
from intertie.common.guarantees import GuaranteeKind, Measured
from intertie.common.quantities import Vector
from intertie.common.rpc.price_proto import price_from_proto
from intertie.common.rpc.refund_proto import refund_from_proto
from intertie.common.rpc.snapshot_proto import snapshot_from_proto
from intertie.common.rpc.terms_proto import (
    duration_from_proto,
    timestamp_from_proto,
    timestamp_to_proto,
)
from intertie.common.tariff import RATES, Rates
from intertie.common.ways import Way
from intertie.metasched.domain.cluster import PartSeen, WorkspaceSeen, WorkspaceState
from intertie.metasched.domain.commit import Decision, Outcome, Receipt
from intertie.metasched.domain.data import Arrival
from intertie.metasched.domain.problem import HostRoom, ImageFound, LinkRoom, Offer

_MIB = 1024 * 1024
_OVER = frozenset({part_pb2.Part.ENDED, part_pb2.Part.RELEASED, part_pb2.Part.EXPIRED})
_WORKSPACE_STATES = dict(enumerate(WorkspaceState, start=1))
"""By number, as in intertie.api.cluster.v1.Workspace.State."""


def offer_from_proto(message: part_pb2.Offer) -> Offer:
    return Offer(
        hosts=tuple(
            HostRoom(
                free=Vector(
                    vcpus=host.vcpus,
                    memory_mib=host.memory_mib,
                    disk_mib=host.disk_mib,
                    iops=host.iops,
                    throughput_mib_s=host.throughput_mib_s,
                    uplink_mbit_s=host.uplink_mbit_s,
                ),
                hypervisors=frozenset(host.hypervisors),
                architecture=host.architecture,
            )
            for host in message.hosts
        ),
        links={
            link.peer: LinkRoom(
                egress_mbit_s=link.egress_mbit_s,
                ingress_mbit_s=link.ingress_mbit_s,
                latency=duration_from_proto(link.latency, "links.latency"),
            )
            for link in message.links
        },
        images={
            image.image: ImageFound(
                digest=image.digest,
                size_bytes=image.size_bytes,
                virtual_mib=-(-image.virtual_size_bytes // _MIB),
            )
            for image in message.images
            if image.digest
        },
        rates=_rates(message.tariff),
        kinds={kind: _rates(tariff) for kind, tariff in message.kind_tariffs.items()},
        default_iops=message.default_disk_cap_iops,
        default_mib_s=message.default_disk_cap_mib_s,
        room_from=tuple(timestamp_from_proto(each, "room_from") for each in message.room_from),
        free_together=(
            Vector(vcpus=message.free_together.vcpus, memory_mib=message.free_together.memory_mib)
            if message.HasField("free_together")
            else None
        ),
    )


def _rates(message: part_pb2.Tariff) -> Rates:
    return Rates(**{name: getattr(message, name) for name in RATES})


def part_from_proto(message: part_pb2.Part) -> PartSeen:
    return PartSeen(
        over=message.state in _OVER,
        end_reason=message.end_reason,
        end_message=message.end_message,
        ending=message.HasField("end_requested_time"),
        workspaces=tuple(
            WorkspaceSeen(
                label=each.name.rpartition("/")[2],
                host=each.host,
                state=_WORKSPACE_STATES.get(each.state, WorkspaceState.PLANNED),
                message=each.message,
                ready=each.ready,
                ready_time=(
                    timestamp_from_proto(each.ready_time, "ready_time")
                    if each.HasField("ready_time")
                    else None
                ),
                staging_done_bytes=each.staging_done_bytes,
                staging_total_bytes=each.staging_total_bytes,
                pending=each.pending,
                restarts=each.restarts,
                snapshot=(
                    snapshot_from_proto(each.snapshot) if each.HasField("snapshot") else None
                ),
                migrating_to=each.migrating_to,
            )
            for each in message.workspaces
        ),
        measured=tuple(
            _measured(each) for each in message.measured if each.kind in set(GuaranteeKind)
        ),
        arrivals=tuple(
            Arrival(
                item=each.digest,
                done_bytes=each.done_bytes,
                done=each.state == transfers_pb2.Transfer.DONE,
                message=each.message,
            )
            for each in message.arrivals
        ),
        ways=tuple(_way(each) for each in message.ways),
        price=price_from_proto(message.price),
        refunds=refund_from_proto(message.refund),
        recalled_end=(
            timestamp_from_proto(message.recalled_end, "recalled_end")
            if message.HasField("recalled_end")
            else None
        ),
        keep_until=(
            timestamp_from_proto(message.keep_until, "keep_until")
            if message.HasField("keep_until")
            else None
        ),
        restore=duration_from_proto(message.restore_time, "restore_time"),
    )


def _way(message: part_pb2.Way) -> Way:
    return Way(
        site=message.site,
        round_trip=(
            duration_from_proto(message.round_trip, "ways.round_trip")
            if message.HasField("round_trip")
            else None
        ),
        lost_since=(
            timestamp_from_proto(message.lost_since, "ways.lost_since")
            if message.HasField("lost_since")
            else None
        ),
    )


def _measured(message: part_pb2.MeasuredPromise) -> Measured:
    said = message.measured
    return Measured(
        kind=GuaranteeKind(message.kind),
        network=message.network,
        source=getattr(said, "from"),
        target=said.to,
        value=said.value,
        at=timestamp_from_proto(said.measured_time, "measured_time"),
        backlogged=said.backlogged,
        below_since=(
            timestamp_from_proto(said.below_since, "below_since")
            if said.HasField("below_since")
            else None
        ),
    )


def receipt_from_proto(message: part_pb2.Receipt) -> Receipt:
    return Receipt(body=message.body, signature=message.signature, certificate=message.certificate)


def decision_to_proto(decision: Decision) -> part_pb2.Decision:
    return part_pb2.Decision(
        tx=decision.tx,
        outcome=_OUTCOMES[decision.outcome],
        digest=decision.digest,
        receipts=[
            part_pb2.Receipt(body=each.body, signature=each.signature, certificate=each.certificate)
            for each in decision.receipts
        ],
        decide_time=timestamp_to_proto(decision.decide_time),
        decided_by=decision.decided_by,
        reason=decision.reason,
    )


_OUTCOMES = {Outcome.COMMIT: part_pb2.Decision.COMMIT, Outcome.ABORT: part_pb2.Decision.ABORT}
