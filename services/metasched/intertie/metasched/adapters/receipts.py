"""Receipts of sites: whose signature is believed, and what is read from them."""

from google.protobuf.message import DecodeError

from intertie.api.broker.v1 import part_pb2
from intertie.common.clock import Clock
from intertie.common.errors import DecisionInvalid, IdentityUnknown
from intertie.common.rpc.identity import Identities, Role, Trust
from intertie.common.rpc.signing import verify
from intertie.metasched.domain.commit import Receipt, ReceiptFacts


class SignedReceipts:
    def __init__(self, trust: Trust, clock: Clock) -> None:
        self._known = Identities(trust)
        self._clock = clock

    def read(self, receipt: Receipt, site: str) -> ReceiptFacts:
        """What the broker of `site` has signed: its certificate must be of the site's own trust
        domain, so that no site can speak for another."""
        try:
            signer = verify(
                receipt.body,
                receipt.signature,
                receipt.certificate,
                self._known,
                now=self._clock.now(),
            )
        except IdentityUnknown as error:
            raise DecisionInvalid(error.problem) from None
        if signer.role is not Role.BROKER or signer.site != site:
            raise DecisionInvalid(f"it is signed by {signer}, not by the broker of {site}")
        try:
            body = part_pb2.ReceiptBody.FromString(receipt.body)
        except DecodeError:
            raise DecisionInvalid("it cannot be read") from None
        return ReceiptFacts(
            tx=body.tx,
            digest=body.digest,
            site=body.site,
            part=body.part,
            prepared=body.state == part_pb2.Part.PREPARED,
            terms=body.terms,
        )
