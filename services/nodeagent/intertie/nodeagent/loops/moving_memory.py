"""Writes guests' memory to the host's disk, and reads it back; beside the passes, for it takes as
long as there is memory."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import structlog

from intertie.common.clock import Clock
from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.ports import Hypervisor, Storage
from intertie.nodeagent.domain.power import MemoryMove
from intertie.nodeagent.loops.pool_room import PoolRoom

log = structlog.get_logger(__name__)

Moved = Callable[[MemoryMove], None]

_AT_ONCE = 2
"""A host's disk is all guests'."""


class MovingMemory:
    """A file of its name says how far it is: a memory that was not written to its end is never
    gone on from, nor is one from which a guest may have gone on already."""

    def __init__(
        self,
        clock: Clock,
        hypervisor: Hypervisor,
        storage: Storage,
        room: PoolRoom,
        files: WorkspaceFiles,
        ended: Callable[[], None],
    ) -> None:
        """`ended` is called after each one, whatever came of it."""
        self._clock = clock
        self._hypervisor = hypervisor
        self._storage = storage
        self._room = room
        self._files = files
        self._ended = ended
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._mib: dict[str, int] = {}
        """Of each of them."""
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def moving(self) -> Mapping[str, int]:
        """MiB of memory that each takes on the host, by uid."""
        return {uid: self._mib[uid] for uid, task in self._tasks.items() if not task.done()}

    def save(self, uid: str, memory_mib: int, moved: Moved) -> None:
        """Begins to, and tells `moved` of it. HostFailure with what went wrong the last time,
        once."""
        self._begin(uid, memory_mib, self._save(uid, memory_mib, moved))

    def restore(self, uid: str, memory_mib: int, moved: Moved) -> None:
        """Likewise."""
        self._begin(uid, memory_mib, self._restore(uid, moved))

    async def keep(self, uid: str) -> None:
        """Of one that was begun to be written by an agent that is no more."""
        if await self._hypervisor.is_whole(str(self._files.saving(uid))):
            await self._storage.keep_memory(uid)
        else:
            self._storage.discard_memory(uid)
            log.warning("memory.lost", workspace=uid)

    def forget(self, uid: str) -> None:
        """It is wanted no more, or nothing is to be moved: what went wrong concerns nobody. What
        is on its way goes on to its end, which comes with that of its guest."""
        task = self._tasks.get(uid)
        if task is not None and task.done():
            del self._tasks[uid]
            _heard(task)

    def _begin(self, uid: str, memory_mib: int, work: Coroutine[Any, Any, None]) -> None:
        before = self._tasks.pop(uid, None)
        if before is not None and (error := before.exception()) is not None:
            work.close()
            raise error
        self._mib[uid] = memory_mib
        self._tasks[uid] = task = asyncio.create_task(work)
        task.add_done_callback(lambda _task: self._ended())

    async def _save(self, uid: str, memory_mib: int, moved: Moved) -> None:
        async with self._at_once:
            began = self._clock.monotonic()
            with self._room.writing("its memory", memory_mib, lambda: self._written_mib(uid)):
                await self._hypervisor.save(DeviceNames.domain(uid), str(self._files.saving(uid)))
                await self._storage.keep_memory(uid)
            moved(self._move(self._storage.memory_bytes(uid), began))
        log.info("memory.saved", workspace=uid)

    def _written_mib(self, uid: str) -> int:
        return self._storage.memory_bytes(uid) // MIB

    async def _restore(self, uid: str, moved: Moved) -> None:
        async with self._at_once:
            began, size = self._clock.monotonic(), self._storage.memory_bytes(uid)
            await self._hypervisor.restore(DeviceNames.domain(uid), str(self._files.saved(uid)))
            # From here on it may run, and its disk be newer.
            self._storage.take_memory(uid)
            await self._hypervisor.resume(DeviceNames.domain(uid))
            moved(self._move(size, began))
            self._storage.discard_memory(uid)
        log.info("memory.restored", workspace=uid)

    def _move(self, size: int, began: float) -> MemoryMove:
        took = timedelta(seconds=self._clock.monotonic() - began)
        return MemoryMove(bytes=size, duration=took)


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
