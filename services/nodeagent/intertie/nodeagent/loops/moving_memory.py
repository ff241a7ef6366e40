"""Writes guests' memory to the host's disk, and reads it back; beside the passes, for it takes as
long as there is memory."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.ports import Hypervisor, Storage

log = structlog.get_logger(__name__)


_AT_ONCE = 2
"""A host's disk is all guests'."""
_ROOM_LEFT_MIB = 256
"""For the disks of others, which grow as they are written to."""


class MovingMemory:
    """A file of its name says how far it is: a memory that was not written to its end is never
    gone on from, nor is one from which a guest may have gone on already."""

    def __init__(self, hypervisor: Hypervisor, storage: Storage, files: WorkspaceFiles) -> None:
        self._hypervisor = hypervisor
        self._storage = storage
        self._files = files
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def moving(self) -> frozenset[str]:
        return frozenset(uid for uid, task in self._tasks.items() if not task.done())

    def save(self, uid: str, memory_mib: int) -> None:
        """Begins to. HostFailure with what went wrong the last time, once."""
        self._begin(uid, self._save(uid, memory_mib))

    def restore(self, uid: str) -> None:
        """Likewise."""
        self._begin(uid, self._restore(uid))

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

    def _begin(self, uid: str, work: Coroutine[Any, Any, None]) -> None:
        before = self._tasks.pop(uid, None)
        if before is not None and (error := before.exception()) is not None:
            work.close()
            raise error
        self._tasks[uid] = asyncio.create_task(work)

    async def _save(self, uid: str, memory_mib: int) -> None:
        async with self._at_once:
            needed_mib = memory_mib + _ROOM_LEFT_MIB
            if (room_mib := self._storage.room_mib()) < needed_mib:
                raise HostFailure(
                    f"its memory has no room in the host's pool: {room_mib} MiB are free, and "
                    f"{needed_mib} needed"
                )
            await self._hypervisor.save(DeviceNames.domain(uid), str(self._files.saving(uid)))
            await self._storage.keep_memory(uid)
        log.info("memory.saved", workspace=uid)

    async def _restore(self, uid: str) -> None:
        async with self._at_once:
            self._storage.take_memory(uid)
            try:
                await self._hypervisor.restore(
                    DeviceNames.domain(uid), str(self._files.restoring(uid))
                )
            except HypervisorSilent:
                raise  # it may run by now, and its disk be newer
            except HostFailure:
                self._storage.put_memory_back(uid)
                raise
            self._storage.discard_memory(uid)
        log.info("memory.restored", workspace=uid)


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
