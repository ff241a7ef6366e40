"""How records of usage hang together: each one's hash takes in the hash of the one before.

What is hashed of a record is its digest, not the record, so that a tenant can follow the chain
through the records of others without being shown them.
"""

import hashlib

SIGNED = b"intertie usage\0"
"""Before what a checkpoint says: a signature of anything else is none of a checkpoint."""


def digest_of(record: bytes) -> bytes:
    """Of a record as it was written."""
    return _hash(record, b"intertie.record")


def before_first(site: str) -> bytes:
    """What stands in the place of a hash before the first record: no two sites have one chain."""
    return _hash(site.encode(), b"intertie.site")


def link(before: bytes, number: int, digest: bytes) -> bytes:
    """The hash of record `number`, by that of the one before it."""
    return _hash(before + number.to_bytes(8, "big") + digest, b"intertie.link")


def name_of_certificate(pem: bytes) -> str:
    """By which checkpoints name who signed them."""
    return hashlib.blake2b(pem, digest_size=32).hexdigest()


def _hash(octets: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(octets, digest_size=32, person=purpose).digest()
