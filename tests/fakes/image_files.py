"""`ImageFiles` in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from blake3 import blake3

from intertie.common.errors import DigestMismatch, StoreFull
from intertie.common.values import replace
from intertie.imagestore.domain.image import Announcement, Image, Upload
from intertie.imagestore.domain.inspection import HEAD_BYTES


class MemoryHasher:
    def __init__(self) -> None:
        self._octets = bytearray()

    def update(self, data: bytes) -> None:
        self._octets += data

    def digest(self) -> str:
        return f"b3:{blake3(bytes(self._octets)).hexdigest()}"


class MemoryBlobReader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.size_bytes = len(octets)

    async def read(self, offset: int, length: int) -> bytes:
        return self._octets[offset : offset + length]

    async def close(self) -> None:
        pass


@dataclass
class _Stored:
    upload: Upload
    octets: bytearray


class MemoryUpload:
    def __init__(self, files: MemoryImageFiles, key: tuple[str, str]) -> None:
        self._files = files
        self._key = key
        self._octets = files.stored[key].octets

    @property
    def uploaded_bytes(self) -> int:
        return len(self._octets)

    async def write(self, data: bytes) -> None:
        if len(data) > await self._files.free_bytes():
            raise StoreFull(len(data), 0)
        self._octets += data

    async def head(self) -> bytes:
        return bytes(self._octets[:HEAD_BYTES])

    def digest(self) -> str:
        return f"b3:{blake3(bytes(self._octets)).hexdigest()}"

    async def finish(self) -> None:
        stored = self._files.stored[self._key]
        stored.upload = replace(stored.upload, verified=True)
        await self._files.settle_upload(*self._key)

    async def discard(self) -> None:
        await self._files.forget_upload(*self._key)

    async def close(self) -> None:
        pass


class MemoryImageFiles:
    """`capacity_bytes` bounds blobs and uploads together."""

    def __init__(self, capacity_bytes: int = 1 << 30) -> None:
        self.capacity_bytes = capacity_bytes
        self.blob_octets: dict[str, bytes] = {}
        self.stored: dict[tuple[str, str], _Stored] = {}
        self._names: dict[tuple[str, str], Image] = {}

    def hasher(self) -> MemoryHasher:
        return MemoryHasher()

    async def names(self) -> list[Image]:
        return list(self._names.values())

    async def put_name(self, image: Image) -> None:
        self._names[image.tenant, image.image_id] = image

    async def remove_name(self, tenant: str, image_id: str) -> None:
        self._names.pop((tenant, image_id), None)

    async def blobs(self) -> list[str]:
        return list(self.blob_octets)

    async def open_blob(self, digest: str) -> MemoryBlobReader:
        if digest not in self.blob_octets:
            raise DigestMismatch(digest, "missing")
        return MemoryBlobReader(self.blob_octets[digest])

    async def remove_blob(self, digest: str) -> None:
        self.blob_octets.pop(digest, None)

    async def uploads(self) -> list[Upload]:
        found = [await self.find_upload(*key) for key in self.stored]
        return [upload for upload in found if upload is not None]

    async def find_upload(self, tenant: str, digest: str) -> Upload | None:
        stored = self.stored.get((tenant, digest))
        if stored is None:
            return None
        if stored.upload.verified and not stored.octets:
            return replace(stored.upload, uploaded_bytes=stored.upload.announcement.size_bytes)
        return replace(stored.upload, uploaded_bytes=len(stored.octets))

    async def open_upload(self, announcement: Announcement, *, now: datetime) -> MemoryUpload:
        key = (announcement.tenant, announcement.digest)
        octets = self.stored[key].octets if key in self.stored else bytearray()
        upload = Upload(announcement=announcement, uploaded_bytes=0, touch_time=now)
        self.stored[key] = _Stored(upload, octets)
        return MemoryUpload(self, key)

    async def settle_upload(self, tenant: str, digest: str) -> None:
        octets = self.stored[tenant, digest].octets
        if octets:
            self.blob_octets[digest] = bytes(octets)
            octets.clear()

    async def forget_upload(self, tenant: str, digest: str) -> None:
        self.stored.pop((tenant, digest), None)

    async def free_bytes(self) -> int:
        taken = sum(len(octets) for octets in self.blob_octets.values())
        return self.capacity_bytes - taken - sum(len(s.octets) for s in self.stored.values())
