"""Work that a cancelled caller does not leave half done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


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
