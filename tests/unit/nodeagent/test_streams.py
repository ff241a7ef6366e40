"""Byte streams to guests: both ways at once, and no half outlives the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.api.types.v1 import attach_pb2
from intertie.common.rpc.identity import parse_spiffe, set_current_identity
from intertie.nodeagent.domain.reconcile import Listing
from intertie.nodeagent.servicer import NodeAgentServicer
from tests.fakes.clock import turns
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import DIGEST, PART

CONSOLE = attach_pb2.AttachRequest.Open(
    workspace=f"{PART.name}/workspaces/a-0", channel=attach_pb2.AttachRequest.Open.CONSOLE
)


class Echo:
    """Answers what it is sent, until it has heard `end`; as stream and as what opens them."""

    taken = False

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.broken = False
        self.left = False

    @contextlib.asynccontextmanager
    async def opened(self, *_: Any) -> AsyncIterator[Any]:
        yield self
        self.left = True

    console = tunnel = opened

    async def received(self) -> AsyncIterator[bytes]:
        while data := await self.queue.get():
            yield data

    async def send(self, data: bytes) -> None:
        if self.broken:
            raise ConnectionResetError
        await self.queue.put(data)

    def end(self) -> None:
        self.queue.put_nowait(b"")


class Caller:
    """Sends what it is told to; `reading` while somebody waits for more of it."""

    def __init__(self, *first: Any) -> None:
        self.sends: asyncio.Queue[Any] = asyncio.Queue()
        self.reading = False
        for each in first:
            self.sends.put_nowait(each)

    async def requests(self) -> AsyncIterator[Any]:
        self.reading = True
        try:
            while (each := await self.sends.get()) is not None:
                yield each
        finally:
            self.reading = False


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def agent(echo: Echo) -> Any:
    host = Host()
    host.records.listing = Listing(parts=(PART,))
    host.images.here.add(DIGEST)
    for _ in range(3):
        await host.agent.sweep()
    rest: Any = None
    fake: Any = echo
    set_current_identity(parse_spiffe("spiffe://north.site.intertie/agent/n2"))
    return NodeAgentServicer(
        site="north", reconciler=host.agent, streams=fake, measurements=rest, clock=host.clock,
        facts=rest, arrivals=fake, files=rest,
    )  # fmt: skip


OPENINGS = {
    "Attach": attach_pb2.AttachRequest(open=CONSOLE),
    "Tunnel": pb.TunnelRequest(open=pb.TunnelRequest.Open(channel=pb.TunnelRequest.Channel.MEMORY)),
}


@pytest.mark.parametrize("method", OPENINGS)
async def test_what_is_sent_ends_with_what_comes_back(agent: Any, echo: Echo, method: str) -> None:
    opening = OPENINGS[method]
    caller = Caller(opening, type(opening)(data=b"a"))
    responses = getattr(agent, method)(caller.requests(), None)
    got = [each.data async for each in _until(responses, b"a")]
    assert got[-1] == b"a"
    echo.end()
    assert [each.data async for each in responses] == ([b""] if method == "Attach" else [])
    await turns(5)
    assert (caller.reading, echo.left) == (False, True)


@pytest.mark.parametrize("method", OPENINGS)
async def test_it_ends_with_a_caller_that_goes_away(agent: Any, method: str) -> None:
    opening = OPENINGS[method]
    caller = Caller(opening, type(opening)(data=b"a"))
    responses = getattr(agent, method)(caller.requests(), None)

    async def call() -> None:
        async for _ in responses:
            pass

    task = asyncio.create_task(call())
    await turns(5)
    assert caller.reading
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns(5)
    assert not caller.reading


@pytest.mark.parametrize("method", OPENINGS)
async def test_what_cannot_be_sent_is_told_once_nothing_comes_back(
    agent: Any, echo: Echo, method: str
) -> None:
    opening = OPENINGS[method]
    echo.broken = True
    responses = getattr(agent, method)(Caller(opening, type(opening)(data=b"a")).requests(), None)
    with pytest.raises(ConnectionResetError):
        async for _ in _ending(responses, echo):
            pass


async def _until(responses: AsyncIterator[Any], data: bytes) -> AsyncIterator[Any]:
    async for each in responses:
        yield each
        if each.data == data:
            return


async def _ending(responses: AsyncIterator[Any], echo: Echo) -> AsyncIterator[Any]:
    """The guest ends once the call has begun and its first bytes were tried to be sent."""

    async def end() -> None:
        await turns(5)
        echo.end()

    ending = asyncio.create_task(end())
    async for each in responses:
        yield each
    await ending
