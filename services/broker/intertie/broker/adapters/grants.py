"""Grants for snapshots, as hosts carry them to the image store."""

from intertie.api.imagestore.v1 import images_pb2
from intertie.broker.domain.snapshots import Grant
from intertie.common.rpc.signing import Signer
from intertie.common.rpc.terms_proto import timestamp_to_proto


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
        signed = self._signer.sign(body)
        return images_pb2.SnapshotGrant(
            body=body, signature=signed.signature, certificate=signed.certificate
        ).SerializeToString(deterministic=True)
