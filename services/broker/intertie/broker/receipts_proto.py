"""Receipts and decisions between the wire and the domain."""

from intertie.api.broker.v1 import part_pb2
from intertie.api.imagestore.v1 import transfers_pb2
from intertie.broker.domain.decision import Decision, Outcome, Receipt, ReceiptBody
from intertie.broker.domain.networks import Endpoint
from intertie.broker.domain.part import PartState
from intertie.broker.domain.sending import ImageSource
from intertie.common.errors import DecisionInvalid
from intertie.common.rpc.spec_proto import timestamp_from_proto, timestamp_to_proto

_OUTCOMES = {
    part_pb2.Decision.OUTCOME_UNSPECIFIED: Outcome.OPEN,
    part_pb2.Decision.COMMIT: Outcome.COMMIT,
    part_pb2.Decision.ABORT: Outcome.ABORT,
}


def body_to_proto(body: ReceiptBody) -> part_pb2.ReceiptBody:
    return part_pb2.ReceiptBody(
        tx=body.tx,
        digest=body.digest,
        site=body.site,
        part=body.part,
        state=part_pb2.Part.State.Value(body.state.name),
        sign_time=timestamp_to_proto(body.sign_time),
        endpoints=[endpoint_to_proto(each) for each in body.endpoints],
        terms=body.terms,
        sends=[_source_to_proto(each) for each in body.sends],
    )


def _source_to_proto(source: ImageSource) -> part_pb2.ImageSource:
    return part_pb2.ImageSource(
        digest=source.digest,
        to_site=source.to_site,
        store=transfers_pb2.TransferSource(
            site=source.from_site, addresses=source.addresses, server_name=source.server_name
        ),
        grant=transfers_pb2.TransferGrant.FromString(source.grant),
        end_time=timestamp_to_proto(source.end_time),
    )


def _source_from_proto(message: part_pb2.ImageSource) -> ImageSource:
    return ImageSource(
        digest=message.digest,
        from_site=message.store.site,
        to_site=message.to_site,
        addresses=tuple(message.store.addresses),
        server_name=message.store.server_name,
        end_time=timestamp_from_proto(message.end_time, "sends.end_time"),
        grant=message.grant.SerializeToString(deterministic=True),
    )


def body_from_bytes(octets: bytes) -> ReceiptBody:
    try:
        message = part_pb2.ReceiptBody.FromString(octets)
        state = PartState[part_pb2.Part.State.Name(message.state)]
        sign_time = timestamp_from_proto(message.sign_time, "sign_time")
        sends = tuple(_source_from_proto(each) for each in message.sends)
    except Exception as error:  # protobuf raises several kinds for octets that are none
        raise DecisionInvalid(f"a receipt cannot be read: {error}") from None
    return ReceiptBody(
        tx=message.tx,
        digest=message.digest,
        site=message.site,
        part=message.part,
        state=state,
        sign_time=sign_time,
        endpoints=tuple(
            Endpoint(network=each.network, address=each.address, port=each.port, vni=each.vni)
            for each in message.endpoints
        ),
        terms=message.terms,
        sends=sends,
    )


def endpoint_to_proto(endpoint: Endpoint) -> part_pb2.Endpoint:
    return part_pb2.Endpoint(
        network=endpoint.network, address=endpoint.address, port=endpoint.port, vni=endpoint.vni
    )


def receipt_to_proto(receipt: Receipt) -> part_pb2.Receipt:
    return part_pb2.Receipt(
        body=receipt.body, signature=receipt.signature, certificate=receipt.certificate
    )


def decision_from_proto(message: part_pb2.Decision) -> Decision:
    if message.outcome not in _OUTCOMES:
        raise DecisionInvalid(f"outcome {message.outcome} is not known")
    return Decision(
        tx=message.tx,
        outcome=_OUTCOMES[message.outcome],
        digest=message.digest,
        receipts=tuple(
            Receipt(body=each.body, signature=each.signature, certificate=each.certificate)
            for each in message.receipts
        ),
        decided_by=message.decided_by,
        reason=message.reason,
    )
