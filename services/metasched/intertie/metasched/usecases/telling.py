"""What goes on while nobody waits for it: requests, and telling sites what was decided."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import structlog

from intertie.common.errors import DomainError
from intertie.metasched.domain.cluster import ClusterView
from intertie.metasched.domain.commit import Decision, TxRecord
from intertie.metasched.usecases.coallocate import Coallocate

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Underway:
    """Clusters that a task of this process is at work on: their transactions are not for the
    loops that recover and settle."""

    def __init__(self) -> None:
        self._names: dict[str, int] = {}

    def __contains__(self, cluster: str) -> bool:
        return cluster in self._names

    def add(self, cluster: str) -> None:
        self._names[cluster] = self._names.get(cluster, 0) + 1

    def remove(self, cluster: str) -> None:
        self._names[cluster] -= 1
        if not self._names[cluster]:
            del self._names[cluster]


class NobodyWaits(Exception):
    """All who called have gone."""


class Callers:
    """Who waits for one request."""

    def __init__(self) -> None:
        self._count = 0
        self._looking: asyncio.Future[Any] | None = None
        self._given_up = False

    async def while_there(self, looking: Coroutine[Any, Any, T]) -> T:
        """What it finds; it must be of a kind that leaves nothing behind. Once nobody waits any
        more it is cancelled, and NobodyWaits."""
        task: asyncio.Task[T] = asyncio.ensure_future(looking)
        self._looking = task
        if not self._count:
            self._give_up()
        try:
            return await task
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if not self._given_up or (here is not None and here.cancelling()):
                raise
            raise NobodyWaits from None
        finally:
            self._looking = None

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._give_up()

    def _give_up(self) -> None:
        if self._looking is not None:
            self._given_up = self._looking.cancel()


class Requests:
    """Each is worked on once, whoever asks for it meanwhile, and goes on when its callers go
    away, but for what it does while they are there."""

    def __init__(self, tell: "Telling") -> None:
        self._tell = tell
        self._begun: dict[tuple[str, str], tuple[asyncio.Task[ClusterView | None], Callers]] = {}
        """By request and its digest."""

    async def once(
        self, key: tuple[str, str], work: Callable[[Callers], Coroutine[Any, Any, ClusterView]]
    ) -> ClusterView:
        while True:
            if key not in self._begun:
                callers = Callers()
                task = asyncio.create_task(self._unless_given_up(key, work(callers)))
                self._begun[key] = task, callers
            task, callers = self._begun[key]
            with callers.one_more():
                view = await asyncio.shield(task)
            if view is not None:
                return view
            # It was given up just before this caller came.

    async def _unless_given_up(
        self, key: tuple[str, str], work: Coroutine[Any, Any, ClusterView]
    ) -> ClusterView | None:
        try:
            return await work
        except NobodyWaits:
            log.info("request.given_up")
            return None
        finally:
            # As its last step: who found it given up, and still there, would ask it for ever.
            del self._begun[key]

    def begun(self) -> tuple[asyncio.Task[Any], ...]:
        """What goes on, whether or not its caller still waits."""
        return (*(task for task, _ in self._begun.values()), *self._tell.begun())

    async def drain(self) -> None:
        """Until all that was begun is decided, and the sites that answer were told."""
        while at_work := self.begun():
            await asyncio.gather(*at_work, return_exceptions=True)


class Telling:
    """The caller does not wait for it: what is decided is decided. Where it fails, or this process
    ends first, the loop that settles goes on with it."""

    def __init__(self, coallocate: Coallocate, underway: Underway) -> None:
        self._coallocate = coallocate
        self._underway = underway
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, tx: TxRecord, decision: Decision) -> None:
        self._underway.add(tx.cluster)
        task = asyncio.create_task(self._told(tx, decision))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begun(self) -> tuple[asyncio.Task[None], ...]:
        return tuple(self._tasks)

    async def _told(self, tx: TxRecord, decision: Decision) -> None:
        try:
            await self._coallocate.announce(tx, decision)
        except DomainError as error:
            log.warning("commit.not_announced", tx=tx.tx, problem=str(error))
        finally:
            self._underway.remove(tx.cluster)
