"""A certificate and its key, as files hold them."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def private_key_of(chain: bytes, key: bytes) -> PrivateKeyTypes:
    """The key in `key`. ValueError, saying what is wrong, unless it is PEM without a passphrase
    and belongs to the first certificate in `chain`."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        raise ValueError("the certificate file holds no PEM certificate") from None
    try:
        private = load_pem_private_key(key, password=None)
    except TypeError:
        raise ValueError("the key has a passphrase; give one without") from None
    except ValueError:
        raise ValueError("the key file holds no PEM private key") from None
    if private.public_key() != leaf.public_key():
        raise ValueError("the key is not that of the certificate")
    return private


def end_of(chain: bytes) -> datetime:
    """From when on the first certificate is valid no more."""
    return x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc
