"""Hints: nothing is missed, much is merged, and everything is looked at in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from intertie.common.etcd.hints import Bell, Touched
from tests.fakes.clock import FakeClock


class Loop:
    """A loop that takes note of what it was told, and when."""

    def __init__(self, bell: Bell, clock: FakeClock, **options: float) -> None:
        self.passes: list[tuple[float, Touched]] = []
        self._hints = bell.passes(clock, period_s=10, **options)  # type: ignore[arg-type]
        self._clock = clock

    async def run(self) -> None:
        async for touched in self._hints:
            self.passes.append((self._clock.monotonic(), touched))


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def bell() -> Bell:
    return Bell()


async def running(loop: Loop, clock: FakeClock) -> AsyncIterator[None]:
    task = asyncio.create_task(loop.run())
    await clock.settle()
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_loop_looks_at_everything_at_once_and_each_period(
    bell: Bell, clock: FakeClock
) -> None:
    loop = Loop(bell, clock)
    async for _ in running(loop, clock):
        for _ in range(9):
            bell.ring({"a"})
            await clock.advance(3)
    everything = [moment for moment, touched in loop.passes if touched is None]
    assert everything == [0, 10, 20], "hints do not put the period off"


async def test_what_is_rung_within_the_rest_is_one_pass(bell: Bell, clock: FakeClock) -> None:
    loop = Loop(bell, clock, rest_s=1)
    async for _ in running(loop, clock):
        bell.ring({"a"})
        await clock.advance(0.5)
        bell.ring({"b"})
        await clock.advance(1)
        bell.ring({"c"})
        await clock.advance(1)
    assert [touched for _, touched in loop.passes] == [None, {"a", "b"}, {"c"}]


async def test_a_bell_without_a_name_means_everything(bell: Bell, clock: FakeClock) -> None:
    loop = Loop(bell, clock)
    async for _ in running(loop, clock):
        bell.ring({"a"})
        bell.ring()
        await clock.advance(1)
    assert [touched for _, touched in loop.passes] == [None, None]


async def test_a_deaf_loop_has_its_periods_alone(bell: Bell, clock: FakeClock) -> None:
    loop = Loop(bell, clock, deaf=True)
    async for _ in running(loop, clock):
        bell.ring({"a"})
        await clock.advance(25)
    assert loop.passes == [(0, None), (10, None), (20, None)]
