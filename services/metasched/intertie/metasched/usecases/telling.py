"""What goes on while nobody waits for it: requests, and telling sites what was decided."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from intertie.common.errors import DomainError
from intertie.metasched.domain.cluster import ClusterView
from intertie.metasched.domain.commit import Decision, TxRecord
from intertie.metasched.usecases.coallocate import Coallocate

log = structlog.get_logger(__name__)


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


class Requests:
    """Each is worked on once, whoever asks for it meanwhile, and goes on when its callers go
    away."""

    def __init__(self, tell: "Telling") -> None:
        self._tell = tell
        self._tasks: dict[tuple[str, str], asyncio.Task[ClusterView]] = {}
        """By request and its digest."""

    async def once(
        self, key: tuple[str, str], work: Callable[[], Coroutine[Any, Any, ClusterView]]
    ) -> ClusterView:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return await asyncio.shield(task)

    def begun(self) -> tuple[asyncio.Task[Any], ...]:
        """What goes on, whether or not its caller still waits."""
        return (*self._tasks.values(), *self._tell.begun())

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
