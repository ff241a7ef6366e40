"""Byte streams into guests: the serial console, and TCP over a network's own bridge."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from intertie.common.errors import ConnectionRefused, ConsoleTaken
from intertie.nodeagent.domain.files import WorkspaceFiles

CHUNK_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0


class Attachment:
    """One open stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.taken = False
        """A later reader has it now."""

    async def received(self) -> AsyncIterator[bytes]:
        """What the guest sends, at most 64 KiB at a time, until it sends no more."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(CHUNK_BYTES):
                yield data

    async def send(self, data: bytes) -> None:
        """Waits while the guest does not take it; what it never takes is lost with the stream."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    def end(self) -> None:
        """Half closes it, where that exists."""
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    def cut(self) -> None:
        """At once, both ways; what was not taken yet is lost."""
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


class Attachments:
    """Opens streams and keeps who has which console."""

    def __init__(self, files: WorkspaceFiles) -> None:
        self._files = files
        self._consoles: dict[str, Attachment] = {}

    @contextlib.asynccontextmanager
    async def console(self, uid: str, workspace: str) -> AsyncIterator[Attachment]:
        """Takes it from whoever has it: that one's stream ends with ConsoleTaken."""
        if before := self._consoles.pop(uid, None):
            before.taken = True
            before.close()
        path = str(self._files.console_socket(uid))
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise ConnectionRefused(workspace, 0) from error
        console = self._consoles[uid] = Attachment(reader, writer)
        try:
            yield console
            if console.taken:
                raise ConsoleTaken(workspace)
        finally:
            console.close()
            if self._consoles.get(uid) is console:
                del self._consoles[uid]

    @contextlib.asynccontextmanager
    async def tcp(
        self, address: str, device: str, port: int, workspace: str
    ) -> AsyncIterator[Attachment]:
        """`address` is a link-local one, `device` the bridge that it is on."""
        try:
            sock = await asyncio.to_thread(_connect, address, device, port)
        except OSError as error:
            raise ConnectionRefused(workspace, port) from error
        reader, writer = await asyncio.open_connection(sock=sock)
        connection = Attachment(reader, writer)
        try:
            yield connection
        finally:
            connection.close()


def _connect(address: str, device: str, port: int) -> socket.socket:
    """The event loop's own connect was seen to leave out the scope of the address."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.settimeout(_CONNECT_TIMEOUT_S)
        sock.connect((address, port, 0, socket.if_nametoindex(device)))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
