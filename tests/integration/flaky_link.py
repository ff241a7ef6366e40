"""A link between a client and a server that never holds for long."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FlakyLink:
    """Passes bytes on between unix sockets. Each connection has a number of bytes after which it
    ends, in the middle of whatever is on its way, in one direction or the other: half of them are
    cut, the others fall silent for a while first. Some are refused from the start."""

    to: str
    at: str
    draw: random.Random
    bytes_each: int
    """That a connection carries, in the mean."""
    silence_s: float
    """The longest that one says nothing before it ends."""
    connections: int = 0
    cut: int = 0
    _live: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"unix:{self.at}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._live.add(task)
        self.connections += 1
        others: list[asyncio.StreamWriter] = []
        try:
            if self.draw.random() < 0.05:
                return
            onward_reader, onward_writer = await asyncio.open_unix_connection(self.to)
            others.append(onward_writer)
            both = [
                asyncio.create_task(self._pass(reader, onward_writer)),
                asyncio.create_task(self._pass(onward_reader, writer)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            self._live.discard(task)
            for end in (writer, *others):
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        left = int(self.draw.expovariate(1 / self.bytes_each)) + 1
        with contextlib.suppress(ConnectionError):
            while octets := await source.read(65536):
                to.write(octets[:left])
                await to.drain()
                left -= len(octets)
                if left <= 0:
                    self.cut += 1
                    if self.draw.random() < 0.5:
                        await asyncio.sleep(self.draw.uniform(0, self.silence_s))
                    return

    async def end(self) -> None:
        for each in [*self._live]:
            each.cancel()
        await asyncio.gather(*self._live, return_exceptions=True)


@asynccontextmanager
async def flaky_link(
    to: str, at: Path, *, seed: int, bytes_each: int = 10_000, silence_s: float = 0.5
) -> AsyncIterator[FlakyLink]:
    """To `unix:/path`, at a socket of its own."""
    link = FlakyLink(
        to=to.removeprefix("unix:"),
        at=str(at),
        draw=random.Random(seed),
        bytes_each=bytes_each,
        silence_s=silence_s,
    )
    server = await asyncio.start_unix_server(link._connected, link.at)
    try:
        yield link
    finally:
        server.close()
        await link.end()
