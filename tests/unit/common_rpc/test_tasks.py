"""Work that goes on to its end although its caller was cancelled."""

import asyncio

import pytest

from intertie.common.tasks import uninterrupted


async def test_gives_the_result_and_raises_the_error() -> None:
    async def work(error: Exception | None) -> int:
        if error:
            raise error
        return 1

    assert await uninterrupted(work(None)) == 1
    with pytest.raises(KeyError):
        await uninterrupted(work(KeyError("x")))


async def test_a_cancelled_caller_waits_for_the_end_however_often_it_is_cancelled() -> None:
    go_on, steps = asyncio.Event(), []

    async def work() -> None:
        steps.append("begun")
        await go_on.wait()
        steps.append("ended")

    async def call() -> None:
        try:
            await uninterrupted(work())
        finally:
            steps.append("left")

    caller = asyncio.create_task(call())
    for _ in range(2):
        await _turn()
        await _turn()
        caller.cancel()
    await _turn()
    assert steps == ["begun"]
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert steps == ["begun", "ended", "left"]


async def _turn() -> None:
    """Lets the other tasks run once."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    turn.get_loop().call_soon(turn.set_result, None)
    await turn
