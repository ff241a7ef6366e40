"""A link between a client and a server that never holds for long."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class FlakyLink:
    """Passes bytes on. Each connection has a number of bytes, or a time, after which it ends, in
    the middle of whatever is on its way, in one direction or the other: half of them are cut, the
    others fall silent for a while first. Some are refused from the start."""

    to: str
    """`unix:/path`, or `127.0.0.1:port`."""
    draw: random.Random
    bytes_each: float
    """That a connection carries, in the mean."""
    seconds_each: float
    """That one lasts, in the mean."""
    silence_s: float
    """The longest that one says nothing before it ends."""
    connections: int = 0
    cut: int = 0
    address: str = ""
    """Its own, of the same kind."""
    _live: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self, at: Path) -> asyncio.Server:
        if self.to.startswith("unix:"):
            server = await asyncio.start_unix_server(self._connected, str(at))
            self.address = f"unix:{at}"
        else:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _onward(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        kind, _, rest = self.to.rpartition(":")
        if kind == "unix":
            return await asyncio.open_unix_connection(rest)
        return await asyncio.open_connection(kind, int(rest))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._live.add(task)
        self.connections += 1
        others: list[asyncio.StreamWriter] = []
        try:
            if self.draw.random() < 0.05:
                return
            onward_reader, onward_writer = await self._onward()
            others.append(onward_writer)
            both = [
                asyncio.create_task(self._pass(reader, onward_writer)),
                asyncio.create_task(self._pass(onward_reader, writer)),
            ]
            try:
                lasts = self._seconds()
                done, _ = await asyncio.wait(
                    both, timeout=lasts, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    self.cut += 1
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            self._live.discard(task)
            for end in (writer, *others):
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        left = self._bytes()
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

    def _seconds(self) -> float | None:
        if math.isinf(self.seconds_each):
            return None
        return self.draw.expovariate(1 / self.seconds_each)

    def _bytes(self) -> int:
        if math.isinf(self.bytes_each):
            return sys.maxsize
        return int(self.draw.expovariate(1 / self.bytes_each)) + 1

    async def end(self) -> None:
        for each in [*self._live]:
            each.cancel()
        await asyncio.gather(*self._live, return_exceptions=True)


@asynccontextmanager
async def flaky_link(
    to: str,
    at: Path,
    *,
    seed: int,
    bytes_each: float = 10_000,
    seconds_each: float = math.inf,
    silence_s: float = 0.5,
) -> AsyncIterator[FlakyLink]:
    """`at`: where its socket is, if that is one of a path."""
    draw = random.Random(seed)
    link = FlakyLink(
        to=to, draw=draw, bytes_each=bytes_each, seconds_each=seconds_each, silence_s=silence_s
    )
    server = await link.open(at)
    try:
        yield link
    finally:
        server.close()
        await link.end()
