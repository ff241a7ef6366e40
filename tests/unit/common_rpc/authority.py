"""Certificates in memory, for tests that touch no file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from intertie.common.rpc.identity import Trust
from intertie.common.rpc.signing import Pair, Signer

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class MemoryAuthority:
    """A root, valid from a day before NOW to a day after, unless told otherwise."""

    def __init__(self, domain: str, *, lasts: timedelta = timedelta(1)) -> None:
        self.domain = domain
        self._key = ec.generate_private_key(ec.SECP256R1())
        # All roots have the same name: only the signature tells them apart.
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        self.root = self._sign(
            self._name, self._key.public_key(), [], NOW - timedelta(1), NOW + lasts
        )

    def issue(
        self,
        *uris: str,
        begins: datetime = NOW - timedelta(hours=1),
        ends: datetime = NOW + timedelta(hours=1),
    ) -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        leaf = self._sign(subject, key.public_key(), names, begins, ends)
        return Signer(Pair(leaf.public_bytes(Encoding.PEM), key))

    def _sign(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        names: list[x509.GeneralName],
        begins: datetime,
        ends: datetime,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )
        if names:
            san = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(san, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def trust_in(*authorities: MemoryAuthority) -> Trust:
    return Trust({each.domain: (each.root,) for each in authorities})
