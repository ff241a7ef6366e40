"""Statements signed by a service's TLS key, which hold beyond the connection they came over.

ECDSA with SHA-256. The certificate travels along; whom it speaks for is judged as in a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from intertie.common.errors import IdentityUnknown
from intertie.common.rpc.identity import Identities, Identity, load_leaf
from intertie.common.rpc.pairs import private_key_of

_ALGORITHM = ec.ECDSA(SHA256())


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature, and the certificate (the leaf alone, PEM) of the key that made it."""

    signature: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, the leaf alone in PEM, and its key."""

    certificate: bytes
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, chain: bytes, key: bytes) -> Pair:
        """Of the PEM files' contents; ValueError where they make none."""
        private = private_key_of(chain, key)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError("an elliptic curve key is needed")
        return cls(load_leaf(chain).public_bytes(Encoding.PEM), private)


class PairFiles(Protocol):
    """As TlsSettings have them."""

    @property
    def certificate(self) -> Path: ...

    @property
    def key(self) -> Path: ...


class Signer:
    """Signs in the name of one service.

    Given a callable, it asks that for the pair each time: one that `Credentials` has made signs
    with the key that is in the file by then.
    """

    def __init__(self, pair: Pair | Callable[[], Pair]) -> None:
        self._of_now: Callable[[], Pair] = pair if callable(pair) else lambda: pair

    @classmethod
    def load(cls, tls: PairFiles) -> Signer:
        """With what the files hold now, for good."""
        return cls(Pair.of(Path(tls.certificate).read_bytes(), Path(tls.key).read_bytes()))

    @property
    def certificate(self) -> bytes:
        """The leaf alone, PEM, as it is now."""
        return self._of_now().certificate

    def sign(self, body: bytes) -> Signed:
        pair = self._of_now()
        return Signed(pair.key.sign(body, _ALGORITHM), pair.certificate)


def verify(
    body: bytes, signature: bytes, certificate: bytes, known: Identities, *, now: datetime
) -> Identity:
    """Who signed exactly this; IdentityUnknown when nobody did whom `known` trusts.

    Certificates must be valid at `now`: the present, or for what is kept and used later, when it
    was signed.
    """
    signer = known.verified(certificate)
    identity, public = signer.at(now), signer.key
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise IdentityUnknown(f"{identity}: its key is of no kind that signs")
    try:
        public.verify(signature, body, _ALGORITHM)
    except InvalidSignature:
        raise IdentityUnknown(f"{identity}: its signature is not valid") from None
    return identity
