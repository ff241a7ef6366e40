"""Receipts and decisions between the wire and the domain, signed and checked."""

from intertie.api.broker.v1 import part_pb2
from intertie.broker.domain.decision import (
    Decision,
    OpenedReceipt,
    Outcome,
    Receipt,
    ReceiptBody,
)
from intertie.broker.domain.part import Endpoint, PartState
from intertie.common.clock import Clock
from intertie.common.errors import DecisionInvalid, IdentityUnknown
from intertie.common.rpc.identity import Role, Trust
from intertie.common.rpc.signing import Signer, verify
from intertie.common.rpc.spec_proto import timestamp_from_proto, timestamp_to_proto

_OUTCOMES = {
    part_pb2.Decision.OUTCOME_UNSPECIFIED: Outcome.OPEN,
    part_pb2.Decision.COMMIT: Outcome.COMMIT,
    part_pb2.Decision.ABORT: Outcome.ABORT,
}


class SigningNotary:
    """See domain.ports.Notary: signs with the broker's TLS key."""

    def __init__(self, signer: Signer, trust: Trust, clock: Clock) -> None:
        self._signer = signer
        self._trust = trust
        self._clock = clock

    def sign(self, body: ReceiptBody) -> Receipt:
        octets = body_to_proto(body).SerializeToString(deterministic=True)
        signature = self._signer.sign(octets)
        return Receipt(body=octets, signature=signature, certificate=self._signer.certificate)

    def open(self, receipt: Receipt) -> OpenedReceipt:
        """Good only when signed by a broker, whose site then is the signer."""
        try:
            identity = verify(
                receipt.body,
                receipt.signature,
                receipt.certificate,
                self._trust,
                now=self._clock.now(),
            )
        except IdentityUnknown as error:
            raise DecisionInvalid(f"a receipt is not good: {error.problem}") from None
        signer = identity.site if identity.role is Role.BROKER else ""
        return OpenedReceipt(signer=signer, body=body_from_bytes(receipt.body))


def body_to_proto(body: ReceiptBody) -> part_pb2.ReceiptBody:
    return part_pb2.ReceiptBody(
        tx=body.tx,
        digest=body.digest,
        site=body.site,
        part=body.part,
        state=part_pb2.Part.State.Value(body.state.name),
        sign_time=timestamp_to_proto(body.sign_time),
        endpoints=[endpoint_to_proto(each) for each in body.endpoints],
    )


def body_from_bytes(octets: bytes) -> ReceiptBody:
    try:
        message = part_pb2.ReceiptBody.FromString(octets)
        state = PartState[part_pb2.Part.State.Name(message.state)]
    except Exception as error:  # protobuf raises several kinds for octets that are none
        raise DecisionInvalid(f"a receipt cannot be read: {error}") from None
    return ReceiptBody(
        tx=message.tx,
        digest=message.digest,
        site=message.site,
        part=message.part,
        state=state,
        sign_time=timestamp_from_proto(message.sign_time, "sign_time"),
        endpoints=tuple(
            Endpoint(network=each.network, address=each.address, port=each.port, vni=each.vni)
            for each in message.endpoints
        ),
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
