"""A process ends in order: drained, loops cancelled, a dead loop not hidden."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from intertie.common.process import LoopEnded, run_until_signalled


class FakeServer:
    def __init__(self, steps: list[str], *, drained: asyncio.Event | None = None) -> None:
        self._steps = steps
        self._drained = drained
        self.started = asyncio.Event()

    async def start(self) -> None:
        self._steps.append("started")
        self.started.set()

    async def stop(self, grace_s: float) -> None:
        self._steps.append(f"stop {grace_s:g}")
        if grace_s and self._drained:
            await self._drained.wait()
        if self._drained:
            self._drained.set()


async def endless(steps: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        steps.append("loop cancelled")


async def test_drains_first_and_cancels_loops_then() -> None:
    steps: list[str] = []
    server: Any = FakeServer(steps)
    running = asyncio.create_task(run_until_signalled(server, [endless(steps)]))
    await server.started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert steps == ["started", "stop 5", "loop cancelled"]


async def test_what_would_not_end_by_itself_is_ended_before_calls_are_drained() -> None:
    steps: list[str] = []
    server: Any = FakeServer(steps)

    async def ending() -> None:
        steps.append("streams ended")

    running = asyncio.create_task(run_until_signalled(server, ending=ending))
    await server.started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert steps == ["started", "streams ended", "stop 5"]


async def test_a_second_signal_cuts_the_draining_short() -> None:
    steps: list[str] = []
    server: Any = FakeServer(steps, drained=asyncio.Event())
    running = asyncio.create_task(run_until_signalled(server))
    await server.started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        while "stop 5" not in steps:
            await _turn()
        os.kill(os.getpid(), signal.SIGINT)
        await running
    assert steps == ["started", "stop 5", "stop 0"]


async def test_a_loop_that_dies_takes_the_process_with_it() -> None:
    async def dying() -> None:
        raise KeyError("bug")

    steps: list[str] = []
    server: Any = FakeServer(steps)
    with pytest.raises(LoopEnded) as caught:
        await run_until_signalled(server, [dying(), endless(steps)])
    assert isinstance(caught.value.__cause__, KeyError)
    assert steps[-2:] == ["stop 5", "loop cancelled"]


async def _turn() -> None:
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    turn.get_loop().call_soon(turn.set_result, None)
    await turn
