"""A clock that stands still until a test moves it."""

import asyncio
import heapq
import itertools
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

TURNS = 50
"""Of the event loop, after each sleeper that is woken: enough for what it does without I/O."""


class FakeClock:
    """`advance` wakes sleepers one by one, each at its own moment, then sets the new time."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._passed = timedelta()
        self._order = itertools.count()
        self._sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._start + self._passed

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        until = self._passed + timedelta(seconds=max(seconds, 0))
        heapq.heappush(self._sleepers, (until, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Also lets whatever can run, run: before, between and after."""
        target = self._passed + timedelta(seconds=seconds)
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            until, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self._passed = max(self._passed, until)
            woken.set_result(None)
            await self.settle()
        self._passed = target
        await self.settle()

    async def advance_to(self, moment: datetime) -> None:
        await self.advance((moment - self.now()).total_seconds())

    async def settle(self) -> None:
        """Lets tasks run that wait for nothing but their turn."""
        await turns(TURNS)

    @property
    def sleepers(self) -> int:
        return sum(not woken.done() for _, _, woken in self._sleepers)


async def turns(count: int) -> None:
    """So many of the event loop."""
    for _ in range(count):
        await _Turn()


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield
