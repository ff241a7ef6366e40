"""Records of usage as octets, and checkpoints signed by this broker's key."""

import secrets
from datetime import datetime

from intertie.broker.domain.account import Checkpoint, UsageHead
from intertie.broker.domain.usage import Usage
from intertie.broker.usage_proto import checkpoint_body, record_to_bytes
from intertie.common.rpc.signing import Signer
from intertie.common.usage_chain import SIGNED

_SALT_OCTETS = 16


class SigningScribe:
    """See domain.ports.Scribe."""

    def __init__(self, site: str, signer: Signer) -> None:
        self._site = site
        self._signer = signer

    def write(self, usage: Usage) -> bytes:
        return record_to_bytes(usage, salt=secrets.token_bytes(_SALT_OCTETS))

    def sign(self, head: UsageHead, *, now: datetime) -> Checkpoint:
        body = checkpoint_body(self._site, head, now)
        signed = self._signer.sign(SIGNED + body)
        return Checkpoint(
            number=head.number,
            body=body,
            signature=signed.signature,
            certificate=signed.certificate,
        )
