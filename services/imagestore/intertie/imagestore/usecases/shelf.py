"""What is published, in memory and on disk, and the one place where either changes."""

from __future__ import annotations

import asyncio

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import (
    DigestMismatch,
    EtagStale,
    FieldInvalid,
    NameTaken,
    NotFound,
)
from intertie.common.names import ImageName, is_digest
from intertie.common.points import reach
from intertie.common.tasks import uninterrupted
from intertie.imagestore.domain.catalogue import Catalogue
from intertie.imagestore.domain.image import Announcement, Format, Image, check_newer
from intertie.imagestore.domain.inspection import HEAD_BYTES, Disk, inspect
from intertie.imagestore.domain.ports import BlobReader, ImageFiles

log = structlog.get_logger(__name__)


class Shelf:
    """Publishing and withdrawing exclude one another; finding waits for nothing.

    A change that has begun is carried through, whatever becomes of the call that asked for it.
    """

    def __init__(self, files: ImageFiles, clock: Clock, *, site: str) -> None:
        self._files = files
        self._clock = clock
        self._site = site
        self._catalogue = Catalogue()
        self._changing = asyncio.Lock()
        self._damaged: set[str] = set()
        self.busy: set[tuple[str, str]] = set()
        """Tenant and digest of every upload that goes on: it and its blob are left alone."""

    async def load(self) -> None:
        """Reads all names, ends what a killed process had begun, drops what nothing points to."""
        self._catalogue = Catalogue(await self._files.names())
        for upload in await self._files.uploads():
            if upload.verified:
                said = upload.announcement
                try:
                    await self._files.settle_upload(said.tenant, said.digest)
                    await self.publish(said)
                except DigestMismatch as error:
                    log.warning("shelf.upload_lost", digest=said.digest, found=error.found)
                except NameTaken as error:
                    log.warning("shelf.upload_late", digest=said.digest, problem=str(error))
                await self._files.forget_upload(said.tenant, said.digest)
        for digest in await self._files.blobs():
            await self.drop_if_unused(digest)

    def find(self, name: ImageName, *, any_tenant: bool = False) -> Image:
        """NotFound unless the tenant has it; with `any_tenant` by digest whosever it is."""
        self.check_site(name.site, str(name))
        image = self._catalogue.find(name.tenant, name.image_id)
        if image is None and any_tenant and is_digest(name.image_id):
            image = self._catalogue.find_anywhere(name.image_id)
        if image is None:
            raise NotFound(str(name))
        return image

    def check_site(self, site: str, name: str) -> None:
        if site not in ("-", self._site):
            raise NotFound(name)

    def of_tenant(self, tenant: str) -> list[Image]:
        return self._catalogue.of_tenant(tenant)

    async def open_blob(self, image: Image) -> BlobReader:
        """DigestMismatch when the bytes are not there in full, or are known to be damaged."""
        if image.digest in self._damaged:
            raise DigestMismatch(image.digest, "damaged in the store")
        reader = await self._files.open_blob(image.digest)
        if reader.size_bytes != image.size_bytes:
            await reader.close()
            raise DigestMismatch(
                image.digest, f"of {reader.size_bytes} bytes instead of {image.size_bytes}"
            )
        return reader

    def note_damage(self, image: Image, found: str) -> None:
        """No one gets these bytes any more, until somebody puts them again."""
        log.error("image.damaged", digest=image.digest, found=found)
        self._damaged.add(image.digest)

    async def holds(self, said: Announcement) -> bool:
        """Whether this tenant has these bytes, intact. Others' bytes are nobody else's proof."""
        image = self._catalogue.find(said.tenant, said.digest)
        if image is None or image.size_bytes != said.size_bytes:
            return False
        return await self.is_intact(image)

    async def is_intact(self, image: Image) -> bool:
        """As far as is known without reading it."""
        try:
            reader = await self.open_blob(image)
        except DigestMismatch:
            return False
        await reader.close()
        return True

    def check_name(self, said: Announcement) -> None:
        """NameTaken where a snapshot comes too late for its name, or it may not be replaced."""
        current = self._catalogue.find(said.tenant, said.image_id)
        name = str(ImageName(self._site, said.tenant, said.image_id))
        check_newer(said, current, name=name)

    async def publish(self, said: Announcement) -> Image:
        """The announced name points to the announced bytes from now on. Idempotent.

        The bytes must be there; DigestMismatch when they have gone in the meantime. NameTaken as
        in `check_name`.
        """
        return await uninterrupted(self._publish(said))

    async def withdraw(self, name: ImageName, *, etag: str) -> Image:
        """Takes the name away, then the bytes if it was the last name for them."""
        self.check_site(name.site, str(name))
        if is_digest(name.image_id):
            raise FieldInvalid("name", "must be an image's name; bytes go with their last name")
        return await uninterrupted(self._withdraw(name, etag))

    async def drop_if_unused(self, digest: str) -> None:
        await uninterrupted(self._drop_if_unused_alone(digest))

    async def _publish(self, said: Announcement) -> Image:
        async with self._changing:
            self._damaged.discard(said.digest)
            current = self._catalogue.find(said.tenant, said.image_id)
            if current is not None and current.digest == said.digest:
                return current
            self.check_name(said)
            disk = await self._inspect(said)
            image = Image(
                tenant=said.tenant,
                image_id=said.image_id,
                digest=said.digest,
                size_bytes=said.size_bytes,
                virtual_size_bytes=disk.virtual_size_bytes,
                format=disk.format,
                create_time=self._clock.now(),
                owner=said.owner,
                source=said.source,
            )
            await self._files.put_name(image)
            reach("imagestore.published")
            before = self._catalogue.add(image)
            if before is not None:
                await self._drop_if_unused(before.digest)
        log.info("image.published", tenant=said.tenant, image=said.image_id, digest=said.digest)
        return image

    async def _withdraw(self, name: ImageName, etag: str) -> Image:
        async with self._changing:
            image = self._catalogue.find(name.tenant, name.image_id)
            if image is None:
                raise NotFound(str(name))
            if etag and etag != image.etag:
                raise EtagStale(str(name))
            await self._files.remove_name(image.tenant, image.image_id)
            self._catalogue.remove(image.tenant, image.image_id)
            await self._drop_if_unused(image.digest)
        log.info("image.withdrawn", tenant=image.tenant, image=image.image_id, digest=image.digest)
        return image

    async def _drop_if_unused_alone(self, digest: str) -> None:
        async with self._changing:
            await self._drop_if_unused(digest)

    async def _drop_if_unused(self, digest: str) -> None:
        uploading = any(digest == each for _, each in self.busy)
        if not uploading and not self._catalogue.is_referenced(digest):
            await self._files.remove_blob(digest)

    async def _inspect(self, said: Announcement) -> Disk:
        if said.data:
            return Disk(format=Format.RAW, virtual_size_bytes=said.size_bytes)
        reader = await self._files.open_blob(said.digest)
        try:
            return inspect(await reader.read(0, HEAD_BYTES), said.size_bytes)
        finally:
            await reader.close()
