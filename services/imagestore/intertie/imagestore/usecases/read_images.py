"""Looking at images: one, a page of them, their bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from intertie.common.errors import DigestMismatch, NotFound
from intertie.common.names import ImageName, Parent, is_digest
from intertie.common.points import reach
from intertie.imagestore.domain.image import BLOCK_BYTES, Image, Upload, check_range
from intertie.imagestore.domain.ports import BlobReader, ImageFiles
from intertie.imagestore.usecases.shelf import Shelf


class StatImage:
    def __init__(self, files: ImageFiles, shelf: Shelf) -> None:
        self._files = files
        self._shelf = shelf

    async def __call__(self, name: ImageName, *, any_tenant: bool) -> Image | Upload:
        """What is published; else, by digest, the tenant's upload that has not ended."""
        try:
            image = self._shelf.find(name, any_tenant=any_tenant)
            reach("imagestore.found")
            return image
        except NotFound:
            if not is_digest(name.image_id):
                raise
            self._shelf.check_site(name.site, str(name))
            upload = await self._files.find_upload(name.tenant, name.image_id)
            if upload is None:
                raise
            return upload


class ListImages:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def __call__(self, parent: Parent) -> list[Image]:
        """In no order that means anything."""
        self._shelf.check_site(parent.site or parent.authority, str(parent))
        return self._shelf.of_tenant(parent.tenant)


class FetchImage:
    def __init__(self, files: ImageFiles, shelf: Shelf) -> None:
        self._files = files
        self._shelf = shelf

    async def __call__(
        self,
        name: ImageName,
        *,
        offset: int,
        length: int,
        any_tenant: bool,
        block_bytes: int = BLOCK_BYTES,
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Blocks with their offsets.

        A fetch of the whole is verified on the way: damaged bytes never arrive complete.
        """
        image = self._shelf.find(name, any_tenant=any_tenant)
        wanted = check_range(offset, length, image.size_bytes)
        reader = await self._shelf.open_blob(image)
        try:
            hasher = self._files.hasher() if wanted == image.size_bytes else None
            end = offset + wanted
            while offset < end:
                data = await self._read(image, reader, offset, min(block_bytes, end - offset))
                if hasher is not None:
                    hasher.update(data)
                    if offset + len(data) == end and hasher.digest() != image.digest:
                        self._shelf.note_damage(image, hasher.digest())
                        raise DigestMismatch(image.digest, hasher.digest())
                reach("imagestore.sending")
                yield offset, data
                offset += len(data)
        finally:
            await reader.close()

    async def _read(self, image: Image, reader: BlobReader, offset: int, length: int) -> bytes:
        try:
            data = await reader.read(offset, length)
        except DigestMismatch as error:
            self._shelf.note_damage(image, error.found)
            raise
        if not data:
            self._shelf.note_damage(image, f"cut at {offset}")
            raise DigestMismatch(image.digest, f"cut at byte {offset}")
        return data
