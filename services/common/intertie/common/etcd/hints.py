"""When a level-triggered loop should look again: on a watch's hint, and now and then anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from typing import TypeAlias

from intertie.common.clock import Clock
from intertie.common.tasks import first_of

Touched: TypeAlias = frozenset[str] | None
"""What may have changed; None: anything may have."""


class Bell:
    """Hints for many loops of one process, from one watch and from what it writes itself."""

    def __init__(self) -> None:
        self._listeners: dict[_Listener, None] = {}
        """Rung in the order in which they began to listen."""

    def ring(self, names: Collection[str] = ()) -> None:
        """That these may have changed; without any: that anything may have."""
        for listener in self._listeners:
            listener.hear(names)

    async def passes(
        self, clock: Clock, *, period_s: float, rest_s: float = 0.0, deaf: bool = False
    ) -> AsyncGenerator[Touched, None]:
        """Yields None at once, and at the latest each period; between, what was touched, whenever
        something was. What comes while the loop is at work, or within `rest_s` after the first,
        is merged into one pass. A `deaf` loop has its periods alone."""
        listener = _Listener()
        if not deaf:
            self._listeners[listener] = None
        try:
            while True:
                listener.take()
                yield None
                until = clock.monotonic() + period_s
                while (left_s := until - clock.monotonic()) > 0:
                    await first_of(clock.sleep(left_s), listener.heard.wait())
                    if not listener.heard.is_set():
                        break
                    if rest_s:
                        await clock.sleep(rest_s)
                    touched = listener.take()
                    if touched is None:
                        break
                    yield touched
        finally:
            self._listeners.pop(listener, None)


class _Listener:
    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self._names: set[str] = set()
        self._anything = False

    def hear(self, names: Collection[str]) -> None:
        self._names.update(names)
        self._anything = self._anything or not names
        self.heard.set()

    def take(self) -> Touched:
        names, anything = frozenset(self._names), self._anything
        self._names, self._anything = set(), False
        self.heard.clear()
        return None if anything else names
