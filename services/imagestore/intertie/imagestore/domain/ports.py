"""What the store asks of the disk under it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Protocol

from intertie.imagestore.domain.image import Announcement, Image, Upload
from intertie.imagestore.domain.transfers import PeerStore


class UploadFile(Protocol):
    """The bytes of one upload, open for more. One at a time for a tenant and digest."""

    @property
    def uploaded_bytes(self) -> int: ...

    async def write(self, data: bytes) -> None:
        """Appends. StoreFull when the disk is."""
        ...

    async def head(self) -> bytes:
        """The first bytes, enough to inspect."""
        ...

    def digest(self) -> str:
        """`b3:…` of everything so far, what earlier processes wrote included."""
        ...

    async def finish(self) -> None:
        """Notes that the bytes are verified and makes them the blob of their digest.

        Replaces one that is there. The upload stays, verified, until it is forgotten.
        """
        ...

    async def discard(self) -> None:
        """Forgets the upload, its bytes included."""
        ...

    async def close(self) -> None:
        """What is not finished or discarded stays, and may be gone on with."""
        ...


class BlobReader(Protocol):
    """Stays readable when the blob is removed."""

    @property
    def size_bytes(self) -> int: ...

    async def read(self, offset: int, length: int) -> bytes: ...

    async def close(self) -> None: ...


class Hasher(Protocol):
    def update(self, data: bytes) -> None: ...

    def digest(self) -> str: ...


class ImageFiles(Protocol):
    """Names, blobs and uploads on disk. Every change is durable when its call returns."""

    async def names(self) -> list[Image]: ...

    async def put_name(self, image: Image) -> None: ...

    async def remove_name(self, tenant: str, image_id: str) -> None: ...

    async def blobs(self) -> list[str]:
        """Digests."""
        ...

    async def open_blob(self, digest: str) -> BlobReader:
        """DigestMismatch when the bytes are not there."""
        ...

    async def remove_blob(self, digest: str) -> None:
        """Without complaint when there is none."""
        ...

    async def uploads(self) -> list[Upload]: ...

    async def find_upload(self, tenant: str, digest: str) -> Upload | None: ...

    async def open_upload(self, announcement: Announcement, *, now: datetime) -> UploadFile:
        """Goes on with what is there, or begins."""
        ...

    async def settle_upload(self, tenant: str, digest: str) -> None:
        """What `UploadFile.finish` of a verified upload had still to do. Idempotent."""
        ...

    async def forget_upload(self, tenant: str, digest: str) -> None: ...

    async def free_bytes(self) -> int: ...

    def hasher(self) -> Hasher: ...


class PeerStores(Protocol):
    """The image stores of other sites."""

    def check(self, store: PeerStore) -> None:
        """FieldInvalid where nobody is trusted to speak for its name."""
        ...

    def fetch(
        self, store: PeerStore, signed: bytes, offset: int, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """What the grant is for, from `offset` on. What the store answered when it refuses or
        breaks off; SiteUnreachable where it says nothing, or not in time."""
        ...
