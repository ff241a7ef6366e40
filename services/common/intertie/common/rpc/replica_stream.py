"""A stream to whichever replica of a service can be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Protocol

import grpc

CONNECT_S = 3.0
"""So long one replica is waited for before the next one is looked at."""


class Replicas(Protocol):
    async def reachable(self) -> int:
        """Index of the replica that a stream goes to."""
        ...

    def broke(self, number: int, error: BaseException) -> None:
        """What began at that replica ended so."""
        ...


async def connects(channel: grpc.aio.Channel) -> bool:
    """Whether the replica can be reached, as far as gRPC knows or finds out now."""
    waiting = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
    try:
        async with asyncio.timeout(CONNECT_S):
            while (state := channel.get_state(try_to_connect=True)) in waiting:
                await channel.wait_for_state_change(state)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY


class ReplicaStream:
    """A stream's call, which begins once it is known which replica can be reached. It breaks with
    that replica; whoever takes it up again is led to another."""

    def __init__(
        self,
        owner: Replicas,
        methods: Sequence[Any],
        args: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        self._owner = owner
        self._number = 0
        self._beginning = asyncio.ensure_future(self._begin(methods, args, options))

    async def _begin(
        self, methods: Sequence[Any], args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        self._number = await self._owner.reachable()
        return methods[self._number](*args, **options)

    async def _call(self) -> Any:
        return await asyncio.shield(self._beginning)

    async def _told(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except grpc.aio.AioRpcError as error:
            self._owner.broke(self._number, error)
            raise

    async def __aiter__(self) -> AsyncIterator[Any]:
        messages = aiter(await self._call())
        while True:
            try:
                message = await self._told(anext(messages))
            except StopAsyncIteration:
                return
            yield message

    async def read(self) -> Any:
        return await self._told((await self._call()).read())

    async def write(self, request: Any) -> None:
        await self._told((await self._call()).write(request))

    async def done_writing(self) -> None:
        await (await self._call()).done_writing()

    async def initial_metadata(self) -> Any:
        return await (await self._call()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await (await self._call()).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await (await self._call()).code()
        return code

    async def details(self) -> Any:
        return await (await self._call()).details()

    def cancel(self) -> bool:
        if not self._beginning.done():
            return self._beginning.cancel()
        if self._beginning.cancelled() or self._beginning.exception() is not None:
            return False
        return bool(self._beginning.result().cancel())
