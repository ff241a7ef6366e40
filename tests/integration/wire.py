"""A wire between a client and a server, which a test cuts or holds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from intertie.common.tasks import first_of


class Wire:
    """Passes on what it gets, both ways, on loopback."""

    def __init__(self) -> None:
        self.address = ""
        self.standing = 0
        """Connections that are up."""
        self.ended = asyncio.Event()
        """One has ended."""
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """As a machine that loses power and is there again: connections are reset."""
        for each in self._writers:
            peer = each.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.transport.abort()

    def hold(self) -> None:
        """As a network that is gone: nothing comes through, and nobody is told."""
        self._flows.clear()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while octets := await source.read(65536):
                await self._flows.wait()
                to.write(octets)
                await to.drain()
        to.close()


@asynccontextmanager
async def wire_to(address: str) -> AsyncIterator[Wire]:
    wire = Wire()
    host, _, port = address.rpartition(":")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
        both = {writer, onward_writer}
        wire._writers |= both
        wire.standing += 1
        try:
            await first_of(wire._pass(reader, onward_writer), wire._pass(onward_reader, writer))
        finally:
            wire.standing -= 1
            wire.ended.set()
            wire._writers -= both
            for each in both:
                each.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        wire.cut()
