"""Statements signed by a service's TLS key, which hold beyond the connection they came over.

ECDSA with SHA-256. The certificate travels along; whom it speaks for is judged as in a call.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.identity import Identity, Trust, identity_of, load_leaf
from intertie.common.settings import TlsSettings

_ALGORITHM = ec.ECDSA(SHA256())


class Signer:
    """Signs in the name of one certificate."""

    def __init__(self, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        """The leaf alone, PEM."""
        self._key = key

    @classmethod
    def load(cls, tls: TlsSettings) -> Signer:
        key = load_pem_private_key(Path(tls.key).read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{tls.key}: an elliptic curve key is needed")
        leaf = load_leaf(Path(tls.certificate).read_bytes())
        return cls(leaf.public_bytes(Encoding.PEM), key)

    def sign(self, body: bytes) -> bytes:
        return self._key.sign(body, _ALGORITHM)


def verify(
    body: bytes, signature: bytes, certificate: bytes, trust: Trust, *, now: datetime
) -> Identity:
    """Who signed exactly this; IdentityUnknown when nobody did whom `trust` knows.

    Certificates must be valid at `now`: the present, or for what is kept and used later, when it
    was signed.
    """
    leaf = load_leaf(certificate)
    identity = identity_of(leaf, trust, now=now)
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise IdentityUnknown(f"{identity}: its key is of no kind that signs")
    try:
        public.verify(signature, body, _ALGORITHM)
    except InvalidSignature:
        raise IdentityUnknown(f"{identity}: its signature is not valid") from None
    return identity
