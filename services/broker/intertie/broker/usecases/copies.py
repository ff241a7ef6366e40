"""Copies of one request that this process is at work on at once."""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Copies:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held for what they may do one at a time only."""
    here: int = 0
    known_since: int | None = None
    """The term of the lead since which all copies that there ever were are here, and none has ended
    without an answer; None: there may be others. Of what is handed on."""


class AtWork:
    """What is known of requests, for as long as a copy of them is here."""

    def __init__(self) -> None:
        self._of: dict[Hashable, Copies] = {}

    @contextmanager
    def on(self, request: Hashable) -> Iterator[Copies]:
        copies = self._of.setdefault(request, Copies())
        copies.here += 1
        try:
            yield copies
        finally:
            copies.here -= 1
            if not copies.here:
                del self._of[request]

    def __len__(self) -> int:
        return len(self._of)
