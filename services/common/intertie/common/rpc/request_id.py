"""One id a request, from the first service that sees it to the last, in logs and answers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any

METADATA_KEY = "intertie-request-id"
_SHAPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """Of the call that is being handled; empty outside of calls."""
    return _current.get()


def set_current_request_id(request_id: str) -> None:
    _current.set(request_id)


def draw() -> str:
    return secrets.token_hex(8)


def received(metadata: Iterable[tuple[str, Any]] | None) -> str:
    """The caller's, when it looks like one; else a new one."""
    for key, value in metadata or ():
        if key == METADATA_KEY and isinstance(value, str) and _SHAPE.fullmatch(value):
            return value
    return draw()


def outgoing() -> tuple[tuple[str, str], ...]:
    """Metadata for a call that is made on behalf of the one being handled."""
    return ((METADATA_KEY, _current.get() or draw()),)
