"""A file that comes from another host, as a stream that is written to it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO

from intertie.nodeagent.domain.failures import HostFailure

DIGEST_BYTES = 32


class ComingFile:
    """See domain.ports.Stream: what is sent is written, and what is received, once that was ended,
    is the BLAKE2b digest of it."""

    taken = False

    def __init__(
        self, file: BinaryIO, size_bytes: int, whole: Callable[[], Awaitable[None]]
    ) -> None:
        """`whole` is called once all of it is written, before its digest is told."""
        self._file = file
        self._size_bytes = size_bytes
        self._whole = whole
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._written = 0
        self._problem = ""
        self._over = asyncio.Event()

    async def received(self) -> AsyncIterator[bytes]:
        """HostFailure where it is not whole."""
        await self._over.wait()
        if not self._problem and self._written != self._size_bytes:
            self._problem = f"{self._written} of {self._size_bytes} bytes came"
        if self._problem:
            raise HostFailure(self._problem)
        try:
            await asyncio.to_thread(self._file.flush)
            await self._whole()
        except OSError as error:
            raise HostFailure(error.strerror or repr(error)) from error
        yield self._digest.digest()

    async def send(self, data: bytes) -> None:
        """What cannot be written is told to whoever receives."""
        if self._over.is_set():
            return
        self._written += len(data)
        if self._written > self._size_bytes:
            self._end(f"more than {self._size_bytes} bytes came")
            return
        self._digest.update(data)
        try:
            await asyncio.to_thread(self._file.write, data)
        except OSError as error:
            self._end(error.strerror or repr(error))

    def end(self) -> None:
        self._end("")

    def cut(self) -> None:
        self._end("it is not to come any more")

    def _end(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._over.set()
