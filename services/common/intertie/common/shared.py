"""One question for many who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Shared(Generic[K, T]):
    """Asks `ask` once for all calls of one key that come while an earlier question is on its way.

    An answer is never older than the call that gets it: a call that comes while a question is on
    its way waits for the next one. What is raised is raised to all who shared it.

    With `linger`, the next one waits for it first, so that more can share it. Who asks alone never
    does.
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[T]],
        linger: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._ask = ask
        self._linger = linger
        self._under_way: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def __call__(self, key: K) -> T:
        task = self._next.get(key)
        if task is None:
            task = asyncio.create_task(self._after(self._under_way.get(key), key))
            task.add_done_callback(_heard)
            self._next[key] = task
        # One who goes away does not take the answer from the others.
        return await asyncio.shield(task)

    async def _after(self, before: asyncio.Task[T] | None, key: K) -> T:
        if before is not None:
            await asyncio.wait({before})
            if self._linger is not None:
                await self._linger()
        task = self._next.pop(key)
        self._under_way[key] = task
        try:
            return await self._ask(key)
        finally:
            if self._under_way.get(key) is task:
                del self._under_way[key]


def _heard(task: asyncio.Task[T]) -> None:
    """An error that all who asked for it have gone from is nobody's."""
    if not task.cancelled():
        task.exception()
