"""Records of usage between the wire and the domain."""

from datetime import datetime

from google.protobuf.message import DecodeError

from intertie.api.broker.v1 import usage_pb2
from intertie.api.types.v1 import price_pb2, refund_pb2, used_pb2
from intertie.broker.capacity_proto import capacity_to_proto
from intertie.broker.domain.account import Checkpoint, UsageHead
from intertie.broker.domain.counted import Used
from intertie.broker.domain.usage import Usage, charge_during
from intertie.common.errors import FieldInvalid
from intertie.common.intervals import Window
from intertie.common.rpc.price_proto import price_fields
from intertie.common.rpc.refund_proto import refund_fields
from intertie.common.rpc.terms_proto import timestamp_to_proto, window_from_proto, window_to_proto
from intertie.common.usage_chain import name_of_certificate


def record_to_bytes(usage: Usage, *, salt: bytes) -> bytes:
    """What is kept, and never made anew: the chain is over these very octets."""
    part, name = usage.part, usage.part.path
    charge = charge_during(part, usage.period)
    taken = charge.reserved
    price, refund = price_fields(usage.price), refund_fields(usage.refunds)
    message = usage_pb2.UsageRecord(
        number=usage.number,
        site=name.site,
        tenant=name.tenant,
        part=part.name,
        part_uid=part.uid,
        owner=part.owner,
        cluster=part.spec.cluster,
        cluster_uid=part.spec.cluster_uid,
        period=window_to_proto(usage.period),
        reserved=usage_pb2.UsageAmounts(
            hosts=capacity_to_proto(taken.hosts),
            links=[
                usage_pb2.UsageLink(peer=peer, egress_mbit_s=egress, ingress_mbit_s=ingress)
                for peer, egress, ingress in taken.links
            ],
        ),
        workspaces=[
            usage_pb2.UsageWorkspaces(
                group=each.group,
                indices=each.indices,
                each=capacity_to_proto(each.each),
                image=each.image,
            )
            for each in charge.workspaces
        ],
        final=usage.final,
        end_reason=part.end_reason if usage.final and usage.period.end < part.window.end else "",
        salt=salt,
        used=[
            usage_pb2.UsedWorkspace(
                workspace=each.workspace,
                used=_used(each.used) if each.used else None,
                unknown=each.unknown,
            )
            for each in usage.used
        ],
        price=price_pb2.Price(**price) if price else None,
        refund=refund_pb2.Refund(**refund) if refund else None,
    )
    return message.SerializeToString(deterministic=True)


def _used(used: Used) -> used_pb2.Used:
    message = used_pb2.Used(
        read_time=timestamp_to_proto(used.read_time),
        disk_operations=used.disk_operations,
        disk_bytes=used.disk_bytes,
        sent_bytes=used.sent_bytes,
        received_bytes=used.received_bytes,
    )
    message.cpu_time.FromNanoseconds(used.cpu_ns)
    message.suspended_time.FromMicroseconds(used.suspended_us)
    return message


def record_from_bytes(number: int, body: bytes) -> usage_pb2.UsageRecord:
    """With nothing but its number where it is damaged or gone: the list goes on, and whoever
    verifies is told."""
    try:
        if body:
            return usage_pb2.UsageRecord.FromString(body)
    except DecodeError:
        pass
    return usage_pb2.UsageRecord(number=number)


def period_of(body: bytes) -> Window | None:
    """None where it is damaged."""
    try:
        return window_from_proto(usage_pb2.UsageRecord.FromString(body).period, "period")
    except (DecodeError, FieldInvalid):
        return None


def checkpoint_body(site: str, head: UsageHead, now: datetime) -> bytes:
    message = usage_pb2.UsageCheckpointBody(
        site=site, number=head.number, hash=head.hash, sign_time=timestamp_to_proto(now)
    )
    return message.SerializeToString(deterministic=True)


def checkpoint_to_proto(checkpoint: Checkpoint) -> usage_pb2.UsageCheckpoint:
    return usage_pb2.UsageCheckpoint(
        body=checkpoint.body,
        signature=checkpoint.signature,
        certificate=name_of_certificate(checkpoint.certificate),
    )
