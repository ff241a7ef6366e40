"""Grants as brokers sign them, read and believed only where their signature is good."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import DecodeError

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import transfers_pb2
from intertie.common.errors import FieldInvalid, IdentityUnknown
from intertie.common.names import ImageName
from intertie.common.rpc.identity import Identities, Role, Trust
from intertie.common.rpc.signing import verify
from intertie.common.rpc.terms_proto import timestamp_from_proto
from intertie.common.rpc.transfer_proto import grant_from_body
from intertie.common.transfer import TransferGrant
from intertie.imagestore.domain.granting import Grant


class SignedGrants:
    """Of the brokers of one site: nobody else's word counts here, whomever the store trusts."""

    def __init__(self, trust: Trust, site: str) -> None:
        self._known = Identities(trust)
        self._site = site

    def open(self, message: pb.SnapshotGrant) -> Grant:
        """IdentityUnknown unless a broker of the site has signed exactly this. The certificate was
        valid then: a snapshot may take longer than its signer's had left."""
        try:
            body = pb.SnapshotGrantBody.FromString(message.body)
            sign_time = timestamp_from_proto(body.sign_time, "sign_time")
            grant = Grant(
                image=ImageName.parse(body.image, "image"),
                host=body.host,
                cluster=body.cluster,
                workspace=body.workspace,
                owner=body.owner,
                sign_time=sign_time,
                expire_time=timestamp_from_proto(body.expire_time, "expire_time"),
            )
        except (DecodeError, FieldInvalid) as error:
            raise IdentityUnknown(f"its grant cannot be read: {error}") from None
        self._check_signed(message, sign_time)
        return grant

    def open_transfer(self, message: transfers_pb2.TransferGrant) -> TransferGrant:
        """Likewise, of a transfer."""
        try:
            grant = grant_from_body(message.body)
        except FieldInvalid as error:
            raise IdentityUnknown(f"its grant cannot be read: {error}") from None
        self._check_signed(message, grant.sign_time)
        return grant

    def _check_signed(
        self, message: pb.SnapshotGrant | transfers_pb2.TransferGrant, sign_time: datetime
    ) -> None:
        signer = verify(
            message.body, message.signature, message.certificate, self._known, now=sign_time
        )
        if signer.role is not Role.BROKER or signer.site != self._site:
            raise IdentityUnknown(f"its grant is signed by {signer}, no broker of {self._site}")
