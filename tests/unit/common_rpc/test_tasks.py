"""Tasks that are not left behind: through when their caller goes on."""

import asyncio

import pytest

from intertie.common.tasks import first_of, uninterrupted


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


class Waiting:
    """Until it is told to end. It takes a turn to be cancelled."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.ended = ""

    async def __call__(self) -> None:
        try:
            await self.told.wait()
            self.ended = "by itself"
        except asyncio.CancelledError:
            await _turn()
            self.ended = "cancelled"
            raise


async def test_once_one_is_over_none_of_the_others_runs() -> None:
    one, other = Waiting(), Waiting()
    task = asyncio.create_task(first_of(one(), other()))
    await _turn()
    await _turn()
    assert not task.done()
    other.told.set()
    await task
    assert (one.ended, other.ended) == ("cancelled", "by itself")


async def test_one_that_fails_is_over_too() -> None:
    async def fails() -> None:
        raise OSError

    other = Waiting()
    await first_of(other(), fails())
    assert other.ended == "cancelled"


async def test_with_the_caller_of_several_all_are_cancelled() -> None:
    one, other = Waiting(), Waiting()
    task = asyncio.create_task(first_of(one(), other()))
    await _turn()
    await _turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (one.ended, other.ended) == ("cancelled", "cancelled")


async def _turn() -> None:
    """Lets the other tasks run once."""
    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    turn.get_loop().call_soon(turn.set_result, None)
    await turn
