"""Taking in an image: bytes in order, verified, published last."""

from __future__ import annotations

from collections.abc import AsyncIterator

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import (
    DigestMismatch,
    FieldInvalid,
    NameTaken,
    OffsetMismatch,
    PutInProgress,
    StoreFull,
)
from intertie.common.points import reach
from intertie.common.tasks import uninterrupted
from intertie.imagestore.domain.image import Announcement, Image, check_announcement
from intertie.imagestore.domain.inspection import HEAD_BYTES, inspect
from intertie.imagestore.domain.ports import ImageFiles, UploadFile
from intertie.imagestore.usecases.shelf import Shelf

log = structlog.get_logger(__name__)


class PutImage:
    def __init__(self, files: ImageFiles, shelf: Shelf, clock: Clock, *, max_bytes: int) -> None:
        self._files = files
        self._shelf = shelf
        self._clock = clock
        self._max_bytes = max_bytes
        self._awaited_bytes: dict[tuple[str, str], int] = {}
        """Still to come of every upload that goes on: space that is not free."""

    async def __call__(
        self, said: Announcement, offset: int, blocks: AsyncIterator[bytes]
    ) -> Image:
        """The published image. Broken off at any point, the bytes that came are kept."""
        self.check(said, within="header.")
        if offset < 0:
            raise FieldInvalid("header.offset", "must not be negative")
        self._shelf.check_name(said)
        key = (said.tenant, said.digest)
        if key in self._shelf.busy:
            raise PutInProgress(said.digest)
        self._shelf.busy.add(key)
        try:
            if await self._shelf.holds(said):
                return await self._shelf.publish(said)
            return await self._receive(said, offset, blocks)
        finally:
            self._shelf.busy.discard(key)
            self._awaited_bytes.pop(key, None)
            await self._shelf.drop_if_unused(said.digest)

    def check(self, said: Announcement, *, within: str = "") -> None:
        """FieldInvalid for what this store never takes."""
        check_announcement(said, max_bytes=self._max_bytes, within=within)

    async def check_room(self, said: Announcement) -> None:
        """StoreFull when there is no room for it now."""
        before = await self._files.find_upload(said.tenant, said.digest)
        await self._needed_bytes(said, before.uploaded_bytes if before else 0)

    async def _receive(
        self, said: Announcement, offset: int, blocks: AsyncIterator[bytes]
    ) -> Image:
        before = await self._files.find_upload(said.tenant, said.digest)
        if before is not None and before.announcement.size_bytes != said.size_bytes:
            await self._files.forget_upload(said.tenant, said.digest)
            before = None
        # Before anything is written: for want of room nothing is lost that came earlier.
        await self._reserve(said, before.uploaded_bytes if before else 0)
        upload = await self._files.open_upload(said, now=self._clock.now())
        keep = True
        try:
            if offset != upload.uploaded_bytes:
                raise OffsetMismatch(offset, upload.uploaded_bytes)
            await self._append(said, upload, blocks)
            if upload.uploaded_bytes < said.size_bytes:
                # The caller ended early; nothing was published, and it should know where it is.
                raise OffsetMismatch(said.size_bytes, upload.uploaded_bytes)
            if (found := upload.digest()) != said.digest:
                raise DigestMismatch(said.digest, found)
            reach("imagestore.received")
            return await uninterrupted(self._conclude(said, upload))
        except (DigestMismatch, FieldInvalid, NameTaken, StoreFull) as error:
            keep = False
            log.info("upload.discarded", digest=said.digest, reason=error.reason)
            raise
        finally:
            await uninterrupted(_leave(upload, keep=keep))

    async def _reserve(self, said: Announcement, here_bytes: int) -> None:
        needed = await self._needed_bytes(said, here_bytes)
        self._awaited_bytes[said.tenant, said.digest] = needed

    async def _needed_bytes(self, said: Announcement, here_bytes: int) -> int:
        needed = said.size_bytes - here_bytes
        free = await self._files.free_bytes() - sum(self._awaited_bytes.values())
        if needed > free:
            raise StoreFull(needed, max(free, 0))
        return needed

    async def _append(
        self, said: Announcement, upload: UploadFile, blocks: AsyncIterator[bytes]
    ) -> None:
        key = (said.tenant, said.digest)
        inspected = False
        async for block in blocks:
            if upload.uploaded_bytes + len(block) > said.size_bytes:
                raise DigestMismatch(said.digest, f"of more than {said.size_bytes} bytes")
            await upload.write(block)
            left = said.size_bytes - upload.uploaded_bytes
            self._awaited_bytes[key] = left
            if not (inspected or said.data) and (upload.uploaded_bytes >= HEAD_BYTES or not left):
                # What is no image is refused before all of it has come.
                inspect(await upload.head(), said.size_bytes)
                inspected = True

    async def _conclude(self, said: Announcement, upload: UploadFile) -> Image:
        await upload.finish()
        image = await self._shelf.publish(said)
        await self._files.forget_upload(said.tenant, said.digest)
        return image


async def _leave(upload: UploadFile, *, keep: bool) -> None:
    if not keep or not upload.uploaded_bytes:
        await upload.discard()
    await upload.close()
