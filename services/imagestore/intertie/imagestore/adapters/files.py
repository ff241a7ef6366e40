"""Images on a local file system, by content, with BLAKE3.

    blobs/b3/ab/{hex}             whole, verified bytes
    uploads/{tenant}/{hex}.part   bytes that have arrived
    uploads/{tenant}/{hex}.json   what was announced
    names/{tenant}/{image}.json   a name, written last

Everything is written beside its place, synced, then renamed into it. One process owns a folder.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from intertie.common.errors import DigestMismatch, StoreFull
from intertie.common.tasks import uninterrupted
from intertie.imagestore.domain.image import Announcement, Format, Image, Source, Upload
from intertie.imagestore.domain.inspection import HEAD_BYTES

T = TypeVar("T")

_READ_BYTES = 4 * 1024 * 1024


class FolderTaken(Exception):
    """Another process owns the folder."""


class FolderDamaged(Exception):
    """A file in the folder is none that this store wrote; the message names it."""


class Blake3Hasher:
    def __init__(self) -> None:
        self._hash = blake3()

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def digest(self) -> str:
        return f"b3:{self._hash.hexdigest()}"


class FileImageFiles:
    """`ImageFiles` in a folder. Nothing blocks the event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = -1

    def claim(self) -> None:
        """Makes the folder this process's own until it ends, or FolderTaken."""
        for part in ("blobs/b3", "uploads", "names"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise FolderTaken(
                f"{self._folder}: another image store uses this folder; end it, or set `data`"
            ) from None
        for path in self._folder.glob("*/*/*.new"):
            path.unlink()

    def release(self) -> None:
        os.close(self._lock)

    def hasher(self) -> Blake3Hasher:
        return Blake3Hasher()

    async def names(self) -> list[Image]:
        return await _in_thread(
            lambda: [_image_from(path) for path in sorted(self._folder.glob("names/*/*.json"))]
        )

    async def put_name(self, image: Image) -> None:
        path = self._name_path(image.tenant, image.image_id)
        values = asdict(image) | {
            "format": image.format.value,
            "create_time": image.create_time.isoformat(),
            "source": _source_entry(image.source),
        }
        await _in_thread(lambda: _write_json(path, values))

    async def remove_name(self, tenant: str, image_id: str) -> None:
        await _in_thread(lambda: _remove(self._name_path(tenant, image_id)))

    async def blobs(self) -> list[str]:
        return await _in_thread(
            lambda: [f"b3:{path.name}" for path in self._folder.glob("blobs/b3/*/*")]
        )

    async def open_blob(self, digest: str) -> FileBlobReader:
        path = self._blob_path(digest)

        def open_it() -> FileBlobReader:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise DigestMismatch(digest, "missing") from None
            return FileBlobReader(digest, descriptor, os.fstat(descriptor).st_size)

        return await _in_thread(open_it)

    async def remove_blob(self, digest: str) -> None:
        await _in_thread(lambda: _remove(self._blob_path(digest)))

    async def uploads(self) -> list[Upload]:
        return await _in_thread(lambda: list(self._uploads()))

    async def find_upload(self, tenant: str, digest: str) -> Upload | None:
        return await _in_thread(lambda: self._upload_of(self._upload_path(tenant, digest)))

    async def open_upload(self, announcement: Announcement, *, now: datetime) -> FileUpload:
        part = self._upload_path(announcement.tenant, announcement.digest)

        def open_it() -> FileUpload:
            said = asdict(announcement) | {"source": _source_entry(announcement.source)}
            _write_json(part.with_suffix(".json"), said | {"verified": False})
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.utime(descriptor, (now.timestamp(), now.timestamp()))
            return FileUpload(descriptor, part, self._blob_path(announcement.digest))

        upload = await _in_thread(open_it, needed=announcement.size_bytes)
        try:
            await _in_thread(upload.catch_up)
        except BaseException:
            await upload.close()
            raise
        return upload

    async def settle_upload(self, tenant: str, digest: str) -> None:
        part, blob = self._upload_path(tenant, digest), self._blob_path(digest)
        await _in_thread(lambda: _settle(part, blob))

    async def forget_upload(self, tenant: str, digest: str) -> None:
        part = self._upload_path(tenant, digest)

        def forget() -> None:
            _remove(part)
            _remove(part.with_suffix(".json"))

        await _in_thread(forget)

    async def free_bytes(self) -> int:
        def ask() -> int:
            found = os.statvfs(self._folder)
            return found.f_bavail * found.f_frsize

        return await _in_thread(ask)

    def _uploads(self) -> Iterator[Upload]:
        for path in sorted(self._folder.glob("uploads/*/*.json")):
            if upload := self._upload_of(path.with_suffix(".part")):
                yield upload

    def _upload_of(self, part: Path) -> Upload | None:
        record = part.with_suffix(".json")
        try:
            values = _read_json(record)
            touched = record.stat().st_mtime
        except FileNotFoundError:
            return None
        verified = bool(values.pop("verified", False))
        said = Announcement(**values | {"source": _source(values.get("source"))})
        size = said.size_bytes if verified else 0
        with suppress(FileNotFoundError):
            found = part.stat()
            size, touched = found.st_size, found.st_mtime
        return Upload(
            announcement=said,
            uploaded_bytes=size,
            touch_time=datetime.fromtimestamp(touched, UTC),
            verified=verified,
        )

    def _blob_path(self, digest: str) -> Path:
        octets = digest.removeprefix("b3:")
        return self._folder / "blobs" / "b3" / octets[:2] / octets

    def _upload_path(self, tenant: str, digest: str) -> Path:
        return self._folder / "uploads" / tenant / f"{digest.removeprefix('b3:')}.part"

    def _name_path(self, tenant: str, image_id: str) -> Path:
        return self._folder / "names" / tenant / f"{image_id}.json"


class FileBlobReader:
    def __init__(self, digest: str, descriptor: int, size_bytes: int) -> None:
        self._digest = digest
        self._descriptor = descriptor
        self.size_bytes = size_bytes

    async def read(self, offset: int, length: int) -> bytes:
        try:
            return await _in_thread(lambda: os.pread(self._descriptor, length, offset))
        except OSError as error:
            raise DigestMismatch(self._digest, f"unreadable: {error.strerror}") from error

    async def close(self) -> None:
        os.close(self._descriptor)


class FileUpload:
    """Appends to one `.part` file and hashes what passes."""

    def __init__(self, descriptor: int, part: Path, blob: Path) -> None:
        self._descriptor = descriptor
        self._part = part
        self._blob = blob
        self._hasher = Blake3Hasher()
        self.uploaded_bytes = 0

    def catch_up(self) -> None:
        """Hashes what is there already. Blocks."""
        while data := os.pread(self._descriptor, _READ_BYTES, self.uploaded_bytes):
            self._hasher.update(data)
            self.uploaded_bytes += len(data)

    async def write(self, data: bytes) -> None:
        await _in_thread(lambda: self._write(data), needed=len(data))

    async def head(self) -> bytes:
        return await _in_thread(lambda: os.pread(self._descriptor, HEAD_BYTES, 0))

    def digest(self) -> str:
        return self._hasher.digest()

    async def finish(self) -> None:
        def finish() -> None:
            os.fsync(self._descriptor)
            record = self._part.with_suffix(".json")
            _write_json(record, _read_json(record) | {"verified": True})
            _settle(self._part, self._blob)

        await _in_thread(finish)

    async def discard(self) -> None:
        def forget() -> None:
            _remove(self._part)
            _remove(self._part.with_suffix(".json"))

        await _in_thread(forget)

    async def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self.uploaded_bytes)
            self._hasher.update(bytes(rest[:written]))
            self.uploaded_bytes += written
            rest = rest[written:]


async def _in_thread(work: Callable[[], T], *, needed: int = 0) -> T:
    """StoreFull when the disk is, whatever `work` was about to write."""
    try:
        return await uninterrupted(asyncio.to_thread(work))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(needed, 0) from error
        raise


def _image_from(path: Path) -> Image:
    values = _read_json(path)
    try:
        return Image(
            **values
            | {
                "format": Format(values["format"]),
                "create_time": datetime.fromisoformat(values["create_time"]),
                "source": _source(values.get("source")),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FolderDamaged(f"{path}: {error}") from error


def _source_entry(source: Source | None) -> dict[str, Any] | None:
    if source is None:
        return None
    return asdict(source) | {
        "taken_time": source.taken_time.isoformat(),
        "asked_time": source.asked_time.isoformat(),
    }


def _source(entry: dict[str, Any] | None) -> Source | None:
    """None: it was put, or by a release that knew of nothing else."""
    if not entry:
        return None
    return Source(
        **entry
        | {
            "taken_time": datetime.fromisoformat(entry["taken_time"]),
            "asked_time": datetime.fromisoformat(entry["asked_time"]),
        }
    )


def _settle(part: Path, blob: Path) -> None:
    """Moves verified bytes to their place. Again is no harm."""
    if part.exists():
        _make_folder(blob.parent)
        os.replace(part, blob)
        _sync_folder(blob.parent)
        _sync_folder(part.parent)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise FolderDamaged(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise FolderDamaged(f"{path}: is no record")
    return values


def _write_json(path: Path, values: dict[str, Any]) -> None:
    _make_folder(path.parent)
    beside = path.with_suffix(".new")
    with beside.open("w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    _sync_folder(path.parent)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
