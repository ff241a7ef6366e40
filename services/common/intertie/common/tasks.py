"""Tasks that are not left behind: neither half done nor running on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def first_of(*each_of: Awaitable[Any]) -> None:
    """Until one of them is over, however it ended. The others are cancelled then, as all are with
    the caller, and none runs any more."""
    tasks = [asyncio.ensure_future(each) for each in each_of]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def uninterrupted(work: Awaitable[T]) -> T:
    """Runs `work` to its end. A cancellation of the caller is raised when it is through.

    For steps that belong together, and for threads, which cannot be stopped: to return while one
    still writes would let the next caller write to the same place.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await _end_of(task)
        raise


async def _end_of(task: asyncio.Future[Any]) -> None:
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
