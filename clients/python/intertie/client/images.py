"""Images in the store of one site. A put that breaks off goes on where it stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

import grpc
from blake3 import blake3

from intertie.api.imagestore.v1 import images_pb2_grpc
from intertie.api.imagestore.v1.images_pb2 import (
    DeleteImageRequest,
    Image,
    ListImagesRequest,
    PutImageRequest,
    StatImageRequest,
)
from intertie.client.connection import Connection, is_passing
from intertie.client.errors import FileChanged
from intertie.common.errors import DigestMismatch, NotFound, OffsetMismatch, PutInProgress
from intertie.common.names import ImageName, check_label, is_digest

CHUNK_BYTES = 1_000_000
ACCEPTED = "intertie-accepted"
"""Initial metadata of Put, once the store wants the bytes."""
_BROKE_OFF = "Internal error from Core"
"""What gRPC says when a call ended under a write: how the call ended is then not known."""
MAX_TRIES = 8
"""In a row, without one more byte having arrived."""
WAIT_S = 0.5

Progress = Callable[[int, int], None]
"""Told of bytes that were handed over, of how many in all."""


class Images:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(images_pb2_grpc.ImagesStub)

    @property
    def site(self) -> str:
        """The endpoint's name, by which the user knows the store."""
        return self._connection.endpoint.name

    def full_name(self, name: str) -> str:
        if "/" in name:
            return str(ImageName.parse(name))
        if not is_digest(name):
            check_label(name, "image")
        return f"{self._connection.endpoint.parent}/images/{name}"

    async def stat(self, name: str) -> Image:
        """By name or digest."""
        request = StatImageRequest(name=self.full_name(name))
        image: Image = await self._connection.call(self._stub.Stat, request)
        return image

    async def list(self) -> list[Image]:
        found: list[Image] = []
        request = ListImagesRequest(parent=self._connection.endpoint.parent)
        while True:
            page = await self._connection.call(self._stub.List, request)
            found.extend(page.images)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def delete(self, name: str, *, etag: str = "") -> Image:
        request = DeleteImageRequest(name=self.full_name(name), etag=etag)
        image: Image = await self._connection.call(self._stub.Delete, request)
        return image

    async def put(
        self, path: Path, image_id: str, *, data: bool = False, progress: Progress | None = None
    ) -> Image:
        """The published image. What the store has of these bytes already is not sent again.

        `data`: it need be no disk image, and is for clusters' data sets.
        """
        check_label(image_id, "image")
        digest, size = await asyncio.to_thread(digest_of, path)
        header = PutImageRequest.Header(
            parent=self._connection.endpoint.parent,
            image_id=image_id,
            digest=digest,
            size_bytes=size,
            offset=await self._arrived(digest),
            data=data,
        )
        tries = 0
        while True:
            begun_at = header.offset
            try:
                return await self._send(_frames(path, header, progress))
            except grpc.aio.AioRpcError as error:
                broke_off = error.details() == _BROKE_OFF
                raised = self._connection.error(error)
            if isinstance(raised, DigestMismatch) and (await _changed(path, digest)):
                raise FileChanged(path) from None
            if isinstance(raised, OffsetMismatch):
                header.offset = raised.expected
            elif isinstance(raised, PutInProgress) or is_passing(raised) or broke_off:
                await self._connection.clock.sleep(WAIT_S)
                header.offset = await self._arrived(digest)
            else:
                raise raised from None
            tries = 0 if header.offset > begun_at else tries + 1
            if tries == MAX_TRIES:
                raise raised from None

    async def _send(self, frames: AsyncGenerator[PutImageRequest, None]) -> Image:
        """No bytes before the store has said that it wants them: a refusal that meets bytes under
        way would reach the caller as a broken connection."""
        call = self._stub.Put()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(await anext(frames))
            if ACCEPTED in dict(await call.initial_metadata()):
                async for frame in frames:
                    await call.write(frame)
                await call.done_writing()
        await frames.aclose()
        image: Image = await call
        return image

    async def _arrived(self, digest: str) -> int:
        """How many of its bytes the store has."""
        try:
            image = await self.stat(digest)
        except NotFound:
            return 0
        return image.uploaded_bytes if image.state == Image.UPLOADING else image.size_bytes


async def _frames(
    path: Path, header: PutImageRequest.Header, progress: Progress | None
) -> AsyncGenerator[PutImageRequest, None]:
    yield PutImageRequest(header=header)
    sent = header.offset
    if progress:
        progress(sent, header.size_bytes)
    with path.open("rb") as file:
        file.seek(sent)
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield PutImageRequest(data=data)
            sent += len(data)
            if progress:
                progress(sent, header.size_bytes)


def digest_of(path: Path) -> tuple[str, int]:
    """BLAKE3 of a file in the form that names images, and its size."""
    digest, size = blake3(), 0
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
            size += len(data)
    return f"b3:{digest.hexdigest()}", size


async def _changed(path: Path, digest: str) -> bool:
    now, _ = await asyncio.to_thread(digest_of, path)
    return now != digest
