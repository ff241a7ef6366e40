"""When a level-triggered loop should look again: on a watch's hint, and now and then anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection

import structlog

from intertie.common.clock import Clock
from intertie.common.etcd.client import Etcd

log = structlog.get_logger(__name__)

_REWATCH_S = 1.0


async def passes(
    etcd: Etcd, prefix: str, clock: Clock, *, period_s: float
) -> AsyncGenerator[None, None]:
    """Yields at once, then whenever something under `prefix` changed, at the latest each period.

    Changes that come while the loop is at work are merged into one pass. Needs no etcd to go on.
    """
    changed = asyncio.Event()
    watching = asyncio.create_task(_watch(etcd, prefix, clock, changed))
    try:
        while True:
            changed.clear()
            yield
            await _set_within(changed, clock, period_s)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(etcd: Etcd, prefix: str, clock: Clock, changed: asyncio.Event) -> None:
    while True:
        async for _ in etcd.watch(prefix):
            changed.set()
        changed.set()
        await clock.sleep(_REWATCH_S)


class Bell:
    """Hints for many loops of one process, from one watch and from what it writes itself."""

    def __init__(self) -> None:
        self._listeners: dict[asyncio.Event, Callable[[str], bool]] = {}

    def ring(self, keys: Collection[str] = ()) -> None:
        """That these keys may have changed; without any: that anything may have."""
        for changed, concerns in self._listeners.items():
            if not changed.is_set() and (not keys or any(map(concerns, keys))):
                changed.set()

    async def passes(
        self,
        clock: Clock,
        *,
        period_s: float,
        rest_s: float = 0.0,
        concerns: Callable[[str], bool] = lambda key: True,
    ) -> AsyncGenerator[None, None]:
        """Yields at once, then whenever a key that `concerns` the loop changed, at the latest each
        period. Changes that come while the loop is at work, or within `rest_s` after the first,
        are merged into one pass."""
        changed = asyncio.Event()
        self._listeners[changed] = concerns
        try:
            while True:
                changed.clear()
                yield
                if await _set_within(changed, clock, period_s) and rest_s:
                    await clock.sleep(rest_s)
        finally:
            del self._listeners[changed]


async def _set_within(changed: asyncio.Event, clock: Clock, period_s: float) -> bool:
    timer = asyncio.ensure_future(clock.sleep(period_s))
    hint = asyncio.ensure_future(changed.wait())
    try:
        await asyncio.wait({timer, hint}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        hint.cancel()
        await asyncio.gather(timer, hint, return_exceptions=True)
    return changed.is_set()
