"""Pages of lists: opaque tokens that hold where the next page begins and whose list it is."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from intertie.common.errors import FieldInvalid
from intertie.common.rpc.limits import MAX_MESSAGE_BYTES

DEFAULT_SIZE = 100
MAX_SIZE = 1000
MAX_PAGE_BYTES = 3 * MAX_MESSAGE_BYTES // 4
_CHECK = 8

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def size_of(requested: int) -> int:
    """What a request gets: 0 asks for the default, more than MAX_SIZE for MAX_SIZE."""
    if requested < 0:
        raise FieldInvalid("page_size", "must not be negative; 0 asks for the default of 100")
    return min(requested, MAX_SIZE) or DEFAULT_SIZE


def encode(after: str, scope: str) -> str:
    """A token for what comes after the key `after` in the list named by `scope`."""
    octets = after.encode()
    return base64.urlsafe_b64encode(_check(octets, scope) + octets).decode().rstrip("=")


def decode(token: str, scope: str) -> str:
    """The key in a token, empty for no token. FieldInvalid unless it was made for this list."""
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        octets = raw[_CHECK:]
        if raw[:_CHECK] == _check(octets, scope):
            return octets.decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        pass
    raise FieldInvalid("page_token", "is not one of this list; start from page one, without it")


def page_of(
    items: Iterable[T], key: Callable[[T], str], *, size: int, token: str, scope: str
) -> tuple[list[T], str]:
    """One page of `items` in the order of their keys, and the token of the next, empty at the end.

    Stable under changes: what stays in the list between two pages is seen exactly once.
    """
    wanted, after = size_of(size), decode(token, scope)
    rest = sorted((each for each in items if key(each) > after), key=key)
    page = rest[:wanted]
    more = len(rest) > wanted
    return page, encode(key(page[-1]), scope) if more else ""


def fitting(page: Iterable[tuple[str, M]], following: str, *, scope: str) -> tuple[list[M], str]:
    """As many of a page's messages, given with their keys, as one answer has room for, one at
    least, and the token of the page after them."""
    found: list[M] = []
    size, last = 0, ""
    for key, message in page:
        size += message.ByteSize()
        if found and size > MAX_PAGE_BYTES:
            return found, encode(last, scope)
        found.append(message)
        last = key
    return found, following


def _check(octets: bytes, scope: str) -> bytes:
    return hashlib.blake2b(
        octets, digest_size=_CHECK, key=hashlib.blake2b(scope.encode()).digest()
    ).digest()
