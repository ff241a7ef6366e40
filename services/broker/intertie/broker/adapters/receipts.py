"""Receipts, signed by this broker's key and checked against their signers' trust domains."""

from intertie.broker.domain.decision import OpenedReceipt, Receipt, ReceiptBody
from intertie.broker.receipts_proto import body_from_bytes, body_to_proto
from intertie.common.clock import Clock
from intertie.common.errors import MAX_SKEW, DecisionInvalid, IdentityUnknown
from intertie.common.rpc.identity import Identities, Role, Trust
from intertie.common.rpc.signing import Signer, verify


class SigningNotary:
    """See domain.ports.Notary: signs with the broker's TLS key."""

    def __init__(self, signer: Signer, trust: Trust, clock: Clock) -> None:
        self._signer = signer
        self._known = Identities(trust)
        self._clock = clock

    def sign(self, body: ReceiptBody) -> Receipt:
        octets = body_to_proto(body).SerializeToString(deterministic=True)
        signed = self._signer.sign(octets)
        return Receipt(body=octets, signature=signed.signature, certificate=signed.certificate)

    def open(self, receipt: Receipt) -> OpenedReceipt:
        """Good only when signed by a broker, whose site then is the signer.

        A decision may be applied long after it was made: certificates must have been valid when
        the receipt was signed, not now.
        """
        body = body_from_bytes(receipt.body)
        if body.sign_time > self._clock.now() + MAX_SKEW:
            raise DecisionInvalid(
                f"a receipt is not good: it says that it is signed at {body.sign_time:%FT%TZ}, "
                "which is yet to come"
            )
        try:
            identity = verify(
                receipt.body,
                receipt.signature,
                receipt.certificate,
                self._known,
                now=body.sign_time,
            )
        except IdentityUnknown as error:
            raise DecisionInvalid(f"a receipt is not good: {error.problem}") from None
        signer = identity.site if identity.role is Role.BROKER else ""
        return OpenedReceipt(signer=signer, body=body)
