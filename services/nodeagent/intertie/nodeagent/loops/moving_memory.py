"""Writes guests' memory to the host's disk, and reads it back; beside the passes, for it takes as
long as there is memory."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from intertie.common.names import DeviceNames
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.ports import Hypervisor, Storage

log = structlog.get_logger(__name__)


class MovingMemory:
    """A file of its name says how far it is: a memory that was not written to its end is never
    gone on from, nor is one from which a guest may have gone on already."""

    def __init__(self, hypervisor: Hypervisor, storage: Storage, files: WorkspaceFiles) -> None:
        self._hypervisor = hypervisor
        self._storage = storage
        self._files = files
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def moving(self, uid: str) -> bool:
        task = self._tasks.get(uid)
        return task is not None and not task.done()

    def save(self, uid: str) -> None:
        """Begins to. HostFailure with what went wrong the last time, once."""
        self._begin(uid, self._save(uid))

    def restore(self, uid: str) -> None:
        """Likewise."""
        self._begin(uid, self._restore(uid))

    async def keep(self, uid: str) -> None:
        """Of one that was begun to be written by an agent that is no more."""
        if await self._hypervisor.is_whole(str(self._files.saving(uid))):
            self._storage.keep_memory(uid)
        else:
            self._storage.discard_memory(uid)
            log.warning("memory.lost", workspace=uid)

    def forget(self, uid: str) -> None:
        """It is wanted no more; what is on its way comes to nothing with the guest."""
        if (task := self._tasks.pop(uid, None)) is not None:
            task.add_done_callback(_heard)

    def _begin(self, uid: str, work: Coroutine[Any, Any, None]) -> None:
        before = self._tasks.pop(uid, None)
        if before is not None and (error := before.exception()) is not None:
            work.close()
            raise error
        self._tasks[uid] = asyncio.create_task(work)

    async def _save(self, uid: str) -> None:
        await self._hypervisor.save(DeviceNames.domain(uid), str(self._files.saving(uid)))
        self._storage.keep_memory(uid)
        log.info("memory.saved", workspace=uid)

    async def _restore(self, uid: str) -> None:
        self._storage.take_memory(uid)
        try:
            await self._hypervisor.restore(DeviceNames.domain(uid), str(self._files.restoring(uid)))
        except HostFailure:
            self._storage.put_memory_back(uid)
            raise
        self._storage.discard_memory(uid)
        log.info("memory.restored", workspace=uid)


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
