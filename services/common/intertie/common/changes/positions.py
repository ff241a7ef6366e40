"""Where a reader of changes is, and the token that says so to whoever goes on with it."""

import base64
import binascii
import hashlib
import struct

from intertie.common.errors import FieldInvalid
from intertie.common.values import Struct

_VERSION = 1
_HEAD = struct.Struct(">BQQ")
_CHECK = 8
_MOST = 1024
"""Characters of a token: a name has 63 at most."""


class Position(Struct, frozen=True, order=True):
    """Behind all revisions before this one and, of this one, behind what concerns names up to
    `name`, in the order of names."""

    revision: int
    name: str = ""

    @classmethod
    def behind(cls, revision: int) -> "Position":
        """All of the revision."""
        return cls(revision + 1)


class Mark(Struct, frozen=True):
    """A position in the history of one store."""

    store: int
    position: Position


def encode(mark: Mark, scope: str) -> str:
    """`scope` is whose changes these are: a token of one is none of another."""
    at = mark.position
    octets = _HEAD.pack(_VERSION, mark.store, at.revision) + at.name.encode()
    return base64.urlsafe_b64encode(_check(octets, scope) + octets).decode().rstrip("=")


def decode(token: str, scope: str) -> Mark:
    """FieldInvalid unless it was made for this scope. Who makes one up that passes has named
    another revision, which is of no use: what it gets is what the scope may see."""
    try:
        if len(token) <= _MOST:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            octets = raw[_CHECK:]
            if raw[:_CHECK] == _check(octets, scope):
                version, store, revision = _HEAD.unpack_from(octets)
                if version == _VERSION and 0 < revision < 1 << 63:
                    return Mark(store, Position(revision, octets[_HEAD.size :].decode()))
    except (binascii.Error, UnicodeDecodeError, ValueError, struct.error):
        pass
    raise FieldInvalid(
        "resume_token",
        "is not one of this watch: not whole, or of another service or tenant; leave it out to"
        " begin with a snapshot",
    )


def _check(octets: bytes, scope: str) -> bytes:
    key = hashlib.blake2b(b"changes\0" + scope.encode()).digest()
    return hashlib.blake2b(octets, digest_size=_CHECK, key=key).digest()
