"""Grants that image stores take: hosts' for snapshots, and other sites' stores' for transfers."""

from intertie.api.imagestore.v1 import images_pb2, transfers_pb2
from intertie.broker.domain.snapshots import Grant
from intertie.common.rpc.signing import Signer
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.common.rpc.transfer_proto import grant_to_body
from intertie.common.transfer import TransferGrant


class SignedGrants:
    """See domain.ports.Grants: signs with the broker's TLS key."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def sign(self, grant: Grant) -> bytes:
        body = images_pb2.SnapshotGrantBody(
            image=grant.image,
            host=grant.host,
            cluster=grant.cluster,
            workspace=grant.workspace,
            owner=grant.owner,
            sign_time=timestamp_to_proto(grant.sign_time),
            expire_time=timestamp_to_proto(grant.expire_time),
        ).SerializeToString(deterministic=True)
        return self._signed(images_pb2.SnapshotGrant, body)

    def sign_transfer(self, grant: TransferGrant) -> bytes:
        return self._signed(transfers_pb2.TransferGrant, grant_to_body(grant))

    def _signed(
        self, kind: type[images_pb2.SnapshotGrant] | type[transfers_pb2.TransferGrant], body: bytes
    ) -> bytes:
        by = self._signer.sign(body)
        grant = kind(body=body, signature=by.signature, certificate=by.certificate)
        return grant.SerializeToString(deterministic=True)
