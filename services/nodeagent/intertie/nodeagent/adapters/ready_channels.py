"""The host's ends of the guests' ready channels."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

import structlog

from intertie.common.clock import Clock
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.guest import ReadyLines

log = structlog.get_logger(__name__)

_READ_BYTES = 4096
_RETRY_S = 1.0
_REST_S = 0.05
"""Between two reads of one guest: one that never stops writing does not occupy the host."""


class ReadyChannels:
    """A task a guest that has not said yet that it is ready."""

    def __init__(self, files: WorkspaceFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._heard: dict[str, datetime] = {}
        self._news = asyncio.Event()

    def listen(self, uid: str, nonce: str) -> None:
        if uid not in self._tasks:
            self._tasks[uid] = asyncio.create_task(self._listen(uid, nonce))

    def close(self, uid: str) -> None:
        self._heard.pop(uid, None)
        if task := self._tasks.pop(uid, None):
            task.cancel()

    def heard(self) -> Mapping[str, datetime]:
        heard, self._heard = self._heard, {}
        return heard

    def listening(self) -> frozenset[str]:
        return frozenset(self._tasks)

    async def news(self) -> None:
        await self._news.wait()
        self._news.clear()

    async def _listen(self, uid: str, nonce: str) -> None:
        while True:
            try:
                if await self._read(uid, nonce):
                    self._heard[uid] = self._clock.now()
                    self._news.set()
                    log.info("guest.ready", workspace=uid)
                    return
            except OSError as error:
                log.debug("guest.channel", workspace=uid, problem=str(error))
            await self._clock.sleep(_RETRY_S)

    async def _read(self, uid: str, nonce: str) -> bool:
        """Until the guest is ready, or its end is closed."""
        path = str(self._files.ready_socket(uid))
        reader, writer = await asyncio.open_unix_connection(path, limit=_READ_BYTES)
        lines = ReadyLines(nonce)
        try:
            while data := await reader.read(_READ_BYTES):
                if lines.feed(data):
                    return True
                await self._clock.sleep(_REST_S)
            return False
        finally:
            writer.close()
