"""What an image is: bytes known by their digest, and names of tenants that point to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from intertie.common.errors import FieldInvalid, NameTaken, OffsetMismatch
from intertie.common.names import ImageName, is_digest

BLOCK_BYTES = 1_000_000
"""Most of one message."""


class Format(Enum):
    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which workspace's disk an image was made of."""

    cluster: str
    workspace: str
    taken_time: datetime
    """Of what moment the disk is, by its host's clock."""
    quiesced: bool
    """Its file systems were written out then."""
    asked_time: datetime
    """It does not take the place of what was put under its name since, nor of one that was asked
    for later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a caller says it is about to send, checked before a byte is taken."""

    tenant: str
    image_id: str
    digest: str
    size_bytes: int
    owner: str
    """SPIFFE name of the caller; of a snapshot, of who asked for it."""
    source: Source | None = None
    """Only of a snapshot."""
    replaces: bool = True
    """An image of the same name; else that is NameTaken."""
    data: bool = False
    """Whatever it looks like, it is what it is: nothing is asked of its format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload that has not ended, as its bytes on disk tell."""

    announcement: Announcement
    uploaded_bytes: int
    touch_time: datetime
    """When bytes last arrived."""
    verified: bool = False
    """All bytes are there and match; only the name has still to be published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A name and what it points to. Published whole or not at all."""

    tenant: str
    image_id: str
    digest: str
    size_bytes: int
    virtual_size_bytes: int
    format: Format
    create_time: datetime
    owner: str
    source: Source | None = None

    @property
    def etag(self) -> str:
        text = f"{self.digest} {self.create_time.isoformat()} {self.owner}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def name_at(self, site: str) -> str:
        return str(ImageName(site, self.tenant, self.image_id))


def check_announcement(said: Announcement, *, max_bytes: int, within: str) -> None:
    """FieldInvalid unless the digest is one and the size is possible here. `within` stands before
    the fields' names."""
    if not is_digest(said.digest):
        raise FieldInvalid(f"{within}digest", "must read b3: and 64 hexadecimal digits (BLAKE3)")
    if said.size_bytes < 1:
        raise FieldInvalid(f"{within}size_bytes", "must be the image's size in bytes, 1 or more")
    if said.size_bytes > max_bytes:
        raise FieldInvalid(
            f"{within}size_bytes", f"is {said.size_bytes}; this store takes at most {max_bytes}"
        )


def check_newer(said: Announcement, current: Image | None, *, name: str) -> None:
    """NameTaken for a snapshot that would replace what was put, or another one that was asked for,
    after it was asked for: its host is late, and the owner has decided otherwise since. A snapshot
    counts from when it was asked for, not from when it came. One grant is good for one image.
    NameTaken too for what is not to replace anything."""
    if current is None or current.digest == said.digest:
        return
    if not said.replaces:
        raise NameTaken(name)
    if said.source is None:
        return
    asked_time, before = said.source.asked_time, current.source
    late = before.asked_time >= asked_time if before else current.create_time > asked_time
    if late:
        raise NameTaken(name)


def check_range(offset: int, length: int, size_bytes: int) -> int:
    """How many bytes a fetch gets; a range that reaches behind the end is cut there."""
    if offset < 0:
        raise FieldInvalid("offset", "must not be negative")
    if length < 0:
        raise FieldInvalid("length", "must not be negative; 0 asks for all up to the end")
    if offset > size_bytes:
        raise OffsetMismatch(offset, size_bytes)
    return min(length or size_bytes, size_bytes - offset)
