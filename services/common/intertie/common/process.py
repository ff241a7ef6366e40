"""The life of a service's process: it serves until it is told to end, then ends in order."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from intertie.common.rpc.server import Server

log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class LoopEnded(Exception):
    """A background loop that never ends did: a bug, and the process ends with it."""


def collect_gently() -> None:
    """For a process whose memory is mostly records that stay: a full collection walks all of them
    and finds nothing, and whoever calls meanwhile waits."""
    gc.set_threshold(50_000, 20, 100)


def switch_often() -> None:
    """For a process that has long work in threads, such as to pack large problems for others to
    solve: whenever its event loop is to go on, it waits for each of them that runs Python to give
    up its turn. Python lets them have 5 ms; a call that goes back and forth a few times would take
    a tenth of a second."""
    sys.setswitchinterval(0.0005)


async def run_until_signalled(
    server: Server,
    loops: Sequence[Coroutine[Any, Any, None]] = (),
    *,
    ending: Callable[[], Awaitable[None]] | None = None,
    grace_s: float = 5.0,
) -> None:
    """Serves and runs `loops` until SIGTERM or SIGINT; then drains calls, then cancels the loops.
    `ending` is done first: it ends the calls that would not end by themselves.

    A loop that ends by itself, by error or not, ends the process the same way, and its error is
    raised. A second signal cuts the draining short.
    """
    told = asyncio.Event()
    again = asyncio.Event()

    def on_signal() -> None:
        (again if told.is_set() else told).set()

    events = asyncio.get_running_loop()
    for each in _SIGNALS:
        events.add_signal_handler(each, on_signal)
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        await server.start()
        waiting = asyncio.create_task(told.wait())
        await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        log.info("process.ending", told=told.is_set())
        if ending is not None:
            await ending()
        draining = asyncio.create_task(server.stop(grace_s))
        impatient = asyncio.create_task(again.wait())
        await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await server.stop(0)
        await draining
        impatient.cancel()
        for task in tasks:
            if task.done() and not task.cancelled():
                raise LoopEnded("a background loop ended") from task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in _SIGNALS:
            events.remove_signal_handler(each)
