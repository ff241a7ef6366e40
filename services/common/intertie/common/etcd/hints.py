"""When a level-triggered loop should look again: on a watch's hint, and now and then anyway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

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
            timer = asyncio.ensure_future(clock.sleep(period_s))
            hint = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({timer, hint}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                hint.cancel()
                await asyncio.gather(timer, hint, return_exceptions=True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(etcd: Etcd, prefix: str, clock: Clock, changed: asyncio.Event) -> None:
    while True:
        async for _ in etcd.watch(prefix):
            changed.set()
        changed.set()
        await clock.sleep(_REWATCH_S)
