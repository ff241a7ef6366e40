"""Grants for transfers between the octets that a broker signs and the value."""

from google.protobuf.message import DecodeError

from intertie.api.imagestore.v1 import transfers_pb2 as pb
from intertie.common.errors import FieldInvalid
from intertie.common.rpc.terms_proto import timestamp_from_proto, timestamp_to_proto
from intertie.common.transfer import TransferGrant


def grant_to_body(grant: TransferGrant) -> bytes:
    return pb.TransferGrantBody(
        digest=grant.digest,
        source_site=grant.source_site,
        target_site=grant.target_site,
        mbit_s=grant.mbit_s,
        begin_time=timestamp_to_proto(grant.begin_time),
        end_time=timestamp_to_proto(grant.end_time),
        sign_time=timestamp_to_proto(grant.sign_time),
        tenant=grant.tenant,
        tx=grant.tx,
    ).SerializeToString(deterministic=True)


def grant_from_body(octets: bytes) -> TransferGrant:
    """FieldInvalid for octets that are none, or that grant nothing. Says nothing of who signed."""
    try:
        body = pb.TransferGrantBody.FromString(octets)
    except DecodeError:
        raise FieldInvalid("grant.body", "must be a serialized TransferGrantBody") from None
    grant = TransferGrant(
        digest=body.digest,
        source_site=body.source_site,
        target_site=body.target_site,
        mbit_s=body.mbit_s,
        begin_time=timestamp_from_proto(body.begin_time, "grant.body.begin_time"),
        end_time=timestamp_from_proto(body.end_time, "grant.body.end_time"),
        sign_time=timestamp_from_proto(body.sign_time, "grant.body.sign_time"),
        tenant=body.tenant,
        tx=body.tx,
    )
    if grant.mbit_s < 1:
        raise FieldInvalid("grant.body.mbit_s", "must be 1 or more")
    if grant.begin_time >= grant.end_time:
        raise FieldInvalid("grant.body.end_time", "must be after begin_time")
    return grant
