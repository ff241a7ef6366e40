"""An event loop in virtual time, and processes in it that can be killed, paused and started again.

Nothing waits: when nothing can run, the clock jumps to the next timer. Threads are run in line. So
the same seed gives the same run, whatever else the machine does.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import base_events
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import Context, ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""What time it truly is when a run begins."""

TASKS_KEPT = 256
_TICK = timedelta(microseconds=1)


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class Killed(BaseException):
    """Unwinds what a process was doing when it was killed. Whatever that still tries goes nowhere:
    no message leaves a dead process, and none of its tasks gets another turn."""


class Process:
    """One program on one machine: its tasks, and its clock, which may be wrong."""

    def __init__(self, loop: VirtualLoop, name: str, *, offset_s: float, seed: object) -> None:
        self.name = name
        self.loop = loop
        self.clock = ProcessClock(loop, offset_s)
        self.random = random.Random(f"{seed}/{name}")
        self.dead = False
        self.closing = False
        """The run is over: what is cancelled may clean up, and reaches nothing."""
        self._paused: asyncio.Future[None] | None = None
        self._parked: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.on_death: list[Callable[[], None]] = []

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = Context()
        context.run(CURRENT.set, self)
        return self.loop.create_task(work, context=context)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Keeps hold of a task, so that none of a dead process is collected before the run ends."""
        self._tasks.append(task)
        if len(self._tasks) > TASKS_KEPT and not self.dead:
            self._tasks = [each for each in self._tasks if not each.done()]

    @property
    def paused(self) -> bool:
        return self._paused is not None

    def pause(self) -> None:
        if self._paused is None and not self.dead:
            self._paused = self.loop.create_future()

    def resume(self) -> None:
        """Goes on with all that it would have done meanwhile, and what it knew."""
        if self._paused is None:
            return
        waiting, self._paused = self._paused, None
        parked, self._parked = self._parked, []
        self.loop.take_back(parked)
        if not waiting.done():
            waiting.set_result(None)

    async def gate(self) -> None:
        """Before anything leaves the process: a turn that had begun when it was paused."""
        while self._paused is not None:
            await asyncio.shield(self._paused)

    def park(self, handle: asyncio.Handle) -> None:
        self._parked.append(handle)

    def kill(self) -> None:
        """Its turns are kept only so that the end of a run can unwind what waits for them."""
        self.dead = True
        for each in self.on_death:
            each()

    def close(self) -> list[asyncio.Task[Any]]:
        """Cancels everything at the end of a run."""
        self.closing, self.dead, self._paused = True, False, None
        parked, self._parked = self._parked, []
        self.loop.take_back(parked)
        left = [each for each in self._tasks if not each.done()]
        for each in left:
            each.cancel()
        self._tasks = []
        return left


CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
"""Whose turn it is; None: the world's own."""


def current() -> Process:
    process = CURRENT.get()
    assert process is not None, "only a process can do this"
    return process


class ProcessClock:
    """See intertie.common.clock.Clock."""

    def __init__(self, loop: VirtualLoop, offset_s: float) -> None:
        self._loop = loop
        self._offset = timedelta(seconds=offset_s)
        self._last = EPOCH - timedelta(days=1)

    def now(self) -> datetime:
        """Never the same twice: programs take time, though not in this world."""
        found = self._loop.true_now() + self._offset
        self._last = max(found, self._last + _TICK)
        return self._last

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await self._loop.sleep(seconds)


class VirtualLoop(base_events.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._moment = 0.0
        self.set_task_factory(_adopted)
        self.world = Context()
        """For timers that are nobody's: messages on their way, etcd's own."""

    def time(self) -> float:
        return self._moment

    def true_now(self) -> datetime:
        return EPOCH + timedelta(seconds=round(self._moment, 6))

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251  # a turn, and no time
            return
        woken = self.create_future()
        timer = self.call_later(seconds, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()

    def later(self, seconds: float, act: Callable[..., object], *given: Any) -> asyncio.TimerHandle:
        """In the world's own time: whoever has asked for it may be dead by then."""
        return self.call_at(self._moment + max(seconds, 0.0), act, *given, context=self.world)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """In line: a thread's end is a moment that no seed could say."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def take_back(self, handles: list[asyncio.Handle]) -> None:
        self._ready.extend(handles)  # type: ignore[attr-defined]

    def _process_events(self, event_list: Any) -> None:
        """There are no files to wait for."""

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            self._pop(timers)
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise Stuck("nothing can happen any more")
            self._moment = max(self._moment, timers[0].when())
        while timers and timers[0].when() <= self._moment:
            ready.append(self._pop(timers))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(CURRENT)
            if process is not None and (process.dead or process.paused):
                process.park(handle)
                continue
            handle._run()

    def _pop(self, timers: list[asyncio.TimerHandle]) -> asyncio.TimerHandle:
        timer: Any = heapq.heappop(timers)
        timer._scheduled = False
        if timer.cancelled():
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        return timer  # type: ignore[no-any-return]


def unwind(loop: VirtualLoop, processes: Iterable[Process]) -> None:
    """Ends a loop, with all that still waits in it: what is only thrown away is unwound whenever
    memory is freed, in the midst of whatever comes then."""
    left = [task for process in processes for task in process.close()]
    loop.later(60.0, lambda: None)
    with suppress(Stuck):
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=30.0))
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
    for task in left:
        if task.done() and not task.cancelled():
            task.exception()
    loop.close()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _adopted(loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    process = CURRENT.get() if context is None else context.get(CURRENT)
    if process is not None:
        process.adopt(task)
    return task
