"""The fake clock keeps what it promises: other tests lean on it."""

import asyncio
from datetime import timedelta

from intertie.common.clock import Clock, SystemClock
from tests.fakes.clock import START, FakeClock


async def test_wakes_sleepers_in_order_each_at_its_own_moment() -> None:
    clock = FakeClock()
    seen: list[tuple[str, float]] = []

    async def tick(name: str, period: float) -> None:
        while True:
            await clock.sleep(period)
            seen.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(tick("three", 3)), asyncio.create_task(tick("two", 2))]
    await clock.advance(6.5)
    assert seen == [("two", 2), ("three", 3), ("two", 4), ("three", 6), ("two", 6)]
    assert clock.now() == START + timedelta(seconds=6.5)
    for task in tasks:
        task.cancel()


async def test_does_not_wake_a_moment_before() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.advance(9.999)
    assert not task.done()
    await clock.advance(0.001)
    assert task.done()


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.settle()
    assert clock.sleepers == 1
    task.cancel()
    await clock.settle()
    assert clock.sleepers == 0
    await clock.advance(20)


def test_the_system_clock_is_aware() -> None:
    clock: Clock = SystemClock()
    assert clock.now().utcoffset() == timedelta()
    assert clock.monotonic() <= clock.monotonic()
