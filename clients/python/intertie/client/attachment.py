"""A byte stream to a workspace: its console, or one TCP port of it."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import grpc

from intertie.api.types.v1.attach_pb2 import AttachRequest
from intertie.client.connection import Connection

CHUNK_BYTES = 64 * 1024
OPEN_S = 30.0


class Attachment:
    """Use as `async with`. Leaving it closes the channel; the guest goes on."""

    def __init__(self, connection: Connection, call: Any, workspace: str) -> None:
        self.workspace = workspace
        self._connection = connection
        self._call = call

    async def open(self, port: int | None) -> None:
        """Raises what the service says against it: not running, nothing listens, no such one."""
        kind = AttachRequest.Open.CONSOLE if port is None else AttachRequest.Open.TCP
        first = AttachRequest.Open(workspace=self.workspace, channel=kind, port=port or 0)
        try:
            async with asyncio.timeout(OPEN_S):
                await self._send(AttachRequest(open=first))
                answer = await self._receive()
        except TimeoutError:
            self._call.cancel()
            raise
        if answer is None or answer.WhichOneof("frame") != "opened":
            raise ConnectionError(f"{self.workspace}: the stream ended before it was open")

    async def read(self) -> bytes:
        """What the guest sent next; nothing once it sends no more."""
        while (frame := await self._receive()) is not None:
            match frame.WhichOneof("frame"):
                case "data" if frame.data:
                    return bytes(frame.data)
                case "end":
                    return b""
        return b""

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK_BYTES):
            await self._send(AttachRequest(data=data[start : start + CHUNK_BYTES]))

    async def end(self) -> None:
        """This side sends no more; the guest may go on sending."""
        await self._send(AttachRequest(end=True))

    async def _send(self, request: AttachRequest) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._connection.error(error) from None
        except asyncio.InvalidStateError:
            await self._raise_ending()

    async def _receive(self) -> Any:
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._connection.error(error) from None
        if frame is not grpc.aio.EOF:
            return frame
        await self._raise_ending()
        return None

    async def _raise_ending(self) -> None:
        """The call is over: with an error, or in peace."""
        if await self._call.code() is not grpc.StatusCode.OK:
            error = grpc.aio.AioRpcError(
                await self._call.code(),
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                await self._call.details(),
            )
            raise self._connection.error(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
