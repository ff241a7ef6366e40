"""Sends images of disks to the site's image store, by the grant of the site's broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

import grpc

from intertie.api.imagestore.v1 import images_pb2 as pb
from intertie.api.imagestore.v1 import images_pb2_grpc as rpc
from intertie.common.clock import Clock
from intertie.common.errors import (
    DigestMismatch,
    DomainError,
    IdentityUnknown,
    NotFound,
    OffsetMismatch,
    PutInProgress,
)
from intertie.common.rpc import request_id
from intertie.common.rpc.client import to_domain_error
from intertie.common.rpc.terms_proto import timestamp_to_proto
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.pace import Pace
from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotOrder

_TIMEOUT_S = 10.0
_BLOCK_BYTES = 256 * 1024
"""Small, so that a slow pace is an even one."""
_TRIES = 3
"""Each from where the store says that it is."""
_ACCEPTED = "intertie-accepted"
"""Initial metadata of Put, once the store wants the bytes."""


class SnapshotUploads:
    """See domain.snapshot_ports.SnapshotStore. Over a channel that whoever made it closes."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock, *, mbit_s: int) -> None:
        self._images: rpc.ImagesAsyncStub = rpc.ImagesStub(channel)
        self._clock = clock
        self._bytes_per_s = mbit_s * 125_000

    async def put(
        self,
        order: SnapshotOrder,
        tenant: str,
        path: Path,
        note: SnapshotNote,
        done: Callable[[int], None],
    ) -> None:
        assert note.taken_time is not None
        header = pb.PutImageRequest.Header(
            parent=f"-/tenants/{tenant}",
            image_id=order.image_id,
            digest=note.digest,
            size_bytes=note.size_bytes,
            grant=pb.SnapshotGrant.FromString(order.grant),
            taken_time=timestamp_to_proto(note.taken_time),
            quiesced=note.quiesced,
        )
        try:
            header.offset = await self._arrived(tenant, note)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        for _ in range(_TRIES):
            try:
                return await self._send(self._frames(path, header, done))
            except grpc.aio.AioRpcError as error:
                failure, meant = self._failure(error), to_domain_error(error)
            if isinstance(meant, OffsetMismatch):
                # What another tenant has of these bytes, say, is not this one's.
                header.offset = meant.expected
            elif isinstance(meant, DigestMismatch):
                # What the store had of it before may be what is wrong; it has nothing any more.
                header.offset = 0
            else:
                break
        raise failure

    async def _arrived(self, tenant: str, note: SnapshotNote) -> int:
        """How many of its bytes the store has, of this tenant or of any."""
        request = pb.StatImageRequest(name=f"sites/-/tenants/{tenant}/images/{note.digest}")
        try:
            image = await self._images.Stat(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if isinstance(to_domain_error(error), NotFound):
                return 0
            raise
        uploading = image.state == pb.Image.UPLOADING
        return int(image.uploaded_bytes if uploading else image.size_bytes)

    async def _send(self, frames: AsyncGenerator[pb.PutImageRequest, None]) -> None:
        """No bytes before the store has said that it wants them, see Images.Put."""
        call = self._images.Put(metadata=tuple(request_id.outgoing()))
        try:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(await anext(frames))
                if _ACCEPTED in dict(await call.initial_metadata()):
                    async for frame in frames:
                        await call.write(frame)
                    await call.done_writing()
            await call
        finally:
            call.cancel()
            await frames.aclose()

    async def _frames(
        self, path: Path, header: pb.PutImageRequest.Header, done: Callable[[int], None]
    ) -> AsyncGenerator[pb.PutImageRequest, None]:
        yield pb.PutImageRequest(header=header)
        pace, sent = Pace(self._bytes_per_s), header.offset
        with path.open("rb") as file:
            file.seek(sent)
            while data := await asyncio.to_thread(file.read, _BLOCK_BYTES):
                done(sent)
                yield pb.PutImageRequest(data=data)
                sent += len(data)
                await self._clock.sleep(pace.wait_s(len(data), now=self._clock.monotonic()))
        done(sent)

    def _failure(self, error: grpc.aio.AioRpcError) -> HostFailure:
        meant = to_domain_error(error)
        if isinstance(meant, OffsetMismatch | PutInProgress | IdentityUnknown):
            # Certificates and roots are renewed, on either side.
            return HostFailure(f"image store: {meant}")
        if isinstance(meant, DomainError):
            return HostFailure(f"image store: {meant}", final=True)
        return HostFailure(f"image store: {error.code().name}: {error.details()}")
