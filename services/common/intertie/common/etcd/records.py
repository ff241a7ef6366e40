"""Records as etcd stores them: JSON of a value, with the version of its schema.

Fields that a reader does not know are passed over and fields that are missing take the
value's defaults, so an additive change keeps the version. Any other change takes a new one.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from intertie.common.errors import FieldInvalid

T = TypeVar("T")

SCHEMA = 1


MAX_BYTES = 1_400_000
"""Of what is written together; etcd takes 1.5 MiB."""


def check_size(values: Iterable[bytes], *, spare: int = 0) -> None:
    """FieldInvalid where a request would lead to more than can be written together, with `spare`
    octets that come to it later. It is what was asked for that is too large: to ask again later
    does not help."""
    size = sum(map(len, values)) + spare
    if size > MAX_BYTES:
        raise FieldInvalid(
            "spec",
            f"takes {size // 1000} kB in a ledger, at most {MAX_BYTES // 1000} are allowed; "
            "ask for fewer workspaces a cluster, or give them less user data",
        )


class RecordUnreadable(Exception):
    """What is stored is not what this release can read: newer, or damaged."""


class _Version(msgspec.Struct):
    schema: int = 0


_VERSION = msgspec.json.Decoder(_Version)
_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def encode(record: Any) -> bytes:
    """`record` is a value made of what JSON has, of moments, spans, bytes, enums and values."""
    body = msgspec.json.encode(record)
    head = b'{"schema":%d' % SCHEMA
    return head + (b"," if len(body) > 2 else b"") + body[1:]


def decode(kind: type[T], octets: bytes) -> T:
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        version = _VERSION.decode(octets).schema
        if version != SCHEMA:
            raise RecordUnreadable(f"{kind.__name__}: schema {version}, {SCHEMA} is known")
        record: T = decoder.decode(octets)
        return record
    except msgspec.MsgspecError as error:
        raise RecordUnreadable(f"{kind.__name__}: {error}") from error
