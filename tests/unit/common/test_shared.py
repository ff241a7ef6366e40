"""One answer for many, and never one that is older than the question."""

from __future__ import annotations

import asyncio

import pytest

from intertie.common.shared import Shared
from tests.fakes.clock import FakeClock


class Oracle:
    """Answers with the number of the question once it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.broken = False

    async def __call__(self, key: str) -> int:
        self.asked.append(key)
        number = len(self.asked)
        await self.may_answer.wait()
        if self.broken:
            raise RuntimeError("broken for a test")
        return number


async def test_those_who_ask_together_get_one_answer() -> None:
    oracle = Oracle()
    ask = Shared(oracle)
    calls = [asyncio.create_task(ask("a")) for _ in range(5)]
    oracle.may_answer.set()
    assert await asyncio.gather(*calls) == [1] * 5


async def test_who_asks_while_a_question_is_on_its_way_gets_the_next_answer() -> None:
    oracle, clock = Oracle(), FakeClock()
    ask = Shared(oracle)
    first = asyncio.create_task(ask("a"))
    await clock.settle()
    later = [asyncio.create_task(ask("a")) for _ in range(3)]
    await clock.settle()
    assert oracle.asked == ["a"]
    oracle.may_answer.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2, 2, 2]


async def test_a_question_lingers_after_another_so_that_more_can_share_it() -> None:
    oracle, clock = Oracle(), FakeClock()
    ask = Shared(oracle, linger=lambda: clock.sleep(1.0))
    first = asyncio.create_task(ask("a"))
    await clock.settle()
    assert oracle.asked == ["a"]  # who asks alone does not wait
    second = asyncio.create_task(ask("a"))
    oracle.may_answer.set()
    assert await first == 1
    await clock.advance(0.5)
    third = asyncio.create_task(ask("a"))
    await clock.settle()
    assert oracle.asked == ["a"]
    await clock.advance(0.5)
    assert [await second, await third] == [2, 2]
    assert await ask("a") == 3


async def test_keys_do_not_wait_for_each_other() -> None:
    oracle, clock = Oracle(), FakeClock()
    ask = Shared(oracle)
    calls = [asyncio.create_task(ask(key)) for key in "ab"]
    await clock.settle()
    assert oracle.asked == ["a", "b"]
    oracle.may_answer.set()
    await asyncio.gather(*calls)


async def test_an_error_is_everybodys_and_the_next_question_is_asked_anew() -> None:
    oracle = Oracle()
    oracle.broken = True
    oracle.may_answer.set()
    ask = Shared(oracle)
    answers = await asyncio.gather(ask("a"), ask("a"), return_exceptions=True)
    assert [type(each) for each in answers] == [RuntimeError, RuntimeError]
    oracle.broken = False
    assert await ask("a") == 2


async def test_one_who_goes_away_leaves_the_answer_to_the_others() -> None:
    oracle, clock = Oracle(), FakeClock()
    ask = Shared(oracle)
    gone, stays = asyncio.create_task(ask("a")), asyncio.create_task(ask("a"))
    await clock.settle()
    gone.cancel()
    oracle.may_answer.set()
    assert await stays == 1
    with pytest.raises(asyncio.CancelledError):
        await gone
