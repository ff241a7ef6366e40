"""Readers that have read all there is, until there is more for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from intertie.common.changes.history import Event, first_positions
from intertie.common.changes.positions import Position

Heard = tuple[Position, bool]
"""From where to look on, and whether nothing has happened until then."""


class Waiting:
    """By tenant, so that a change wakes only those that it concerns."""

    def __init__(self) -> None:
        self._until: dict[str, dict[asyncio.Future[Heard], float]] = {}

    async def wait(self, tenant: str, until: float) -> Heard:
        """`tenant` is empty for who reads of all; `until` is monotonic."""
        heard: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        waiting = self._until.setdefault(tenant, {})
        waiting[heard] = until
        try:
            return await heard
        finally:
            waiting.pop(heard, None)
            if not waiting and self._until.get(tenant) is waiting:
                del self._until[tenant]

    def wake(self, events: Sequence[Event]) -> None:
        for tenant, position in first_positions(events).items():
            for heard in self._until.pop(tenant, {}):
                if not heard.done():
                    heard.set_result((position, False))

    def look_again(self) -> None:
        """All of them, from where they are."""
        for heard in self._all():
            heard.set_result((Position(0), False))

    def nothing_until(self, now: float, end: Position) -> None:
        """Those whose time is over hear that up to `end` there was nothing for them."""
        for heard in self._all(now):
            heard.set_result((end, True))

    def fail(self, error: Callable[[], Exception]) -> None:
        """An error of its own for each."""
        for heard in self._all():
            heard.set_exception(error())

    def _all(self, now: float = float("inf")) -> Iterator[asyncio.Future[Heard]]:
        for waiting in list(self._until.values()):
            for heard, until in list(waiting.items()):
                if until <= now and not heard.done():
                    yield heard
