"""Images of the site on this host: each fetched once, verified, shared by all that run it."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import structlog
from blake3 import blake3

from intertie.common.names import is_digest
from intertie.nodeagent.adapters.commands import run_json
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import image_file
from intertie.nodeagent.domain.ports import BaseImage, Staging

log = structlog.get_logger(__name__)

_FORMATS = ("qcow2", "raw")
_READ_BYTES = 4 * MIB


class ImageSource(Protocol):
    """Where images come from. Both raise HostFailure."""

    async def size_bytes(self, digest: str, tenant: str) -> int: ...

    def fetch(self, digest: str, tenant: str, offset: int) -> AsyncIterator[bytes]: ...


class ImageCache:
    """Files are named by digest; a broken-off one is gone on with, a whole one is renamed last."""

    def __init__(self, folder: Path, source: ImageSource, *, keep_mib: int) -> None:
        self._folder = folder
        self._source = source
        self._keep_bytes = keep_mib * MIB
        self._ready: dict[str, BaseImage] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Staging] = {}
        self._used: frozenset[str] = frozenset()

    def ready(self, digest: str) -> BaseImage | None:
        return self._ready.get(digest)

    def progress(self, digest: str) -> Staging:
        return self._progress.get(digest, Staging())

    def has_data(self, digest: str) -> bool:
        return self._path(digest).exists()

    def request(self, digest: str, tenant: str, *, data: bool = False) -> None:
        if not is_digest(digest):
            raise HostFailure(f"{digest!r} is no digest of an image", final=True)
        task = self._tasks.get(digest)
        if task is None:
            self._tasks[digest] = asyncio.create_task(self._stage(digest, tenant, data=data))
        elif task.done():
            del self._tasks[digest]
            error = task.exception()
            if isinstance(error, HostFailure):
                raise error
            if error is not None:
                raise HostFailure(f"image {digest}: {error}") from error

    def retain(self, digests: frozenset[str]) -> None:
        """Lets go the longest unused of what is beyond the room for images."""
        self._used = digests
        files = [path for path in self._folder.iterdir() if path.suffix == ".img"]
        files.sort(key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_blocks * 512 for path in files)
        for path in files:
            digest = f"b3:{path.stem}"
            if total <= self._keep_bytes:
                return
            if digest in digests or digest in self._tasks:
                continue
            total -= path.stat().st_blocks * 512
            self._ready.pop(digest, None)
            self._progress.pop(digest, None)
            path.unlink()
            log.info("image.evicted", digest=digest)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _path(self, digest: str) -> Path:
        return self._folder / image_file(digest)

    async def _stage(self, digest: str, tenant: str, *, data: bool) -> None:
        path = self._path(digest)
        if not path.exists():
            await self._fetch(digest, tenant, path)
        image = None if data else await _inspect(path)
        os.utime(path)
        size = path.stat().st_size
        self._progress[digest] = Staging(done_bytes=size, total_bytes=size)
        if image is not None:
            self._ready[digest] = image
        self._tasks.pop(digest, None)

    async def _fetch(self, digest: str, tenant: str, path: Path) -> None:
        total = await self._source.size_bytes(digest, tenant)
        partial = path.with_suffix(".part")
        have = partial.stat().st_size if partial.exists() else 0
        if have > total:
            partial.unlink()
            have = 0
        self._check_room(total - have)
        hasher = blake3()
        if have:
            await asyncio.to_thread(_feed, hasher, partial)
        self._progress[digest] = Staging(done_bytes=have, total_bytes=total)
        with partial.open("ab") as file:
            if have < total:
                async for data in self._source.fetch(digest, tenant, have):
                    await asyncio.to_thread(_append, file.fileno(), hasher, data)
                    have += len(data)
                    self._progress[digest] = Staging(done_bytes=have, total_bytes=total)
            await asyncio.to_thread(os.fsync, file.fileno())
        found = f"b3:{hasher.hexdigest()}"
        if have < total:
            raise HostFailure(f"image {digest}: broken off after {have} of {total} bytes")
        if found != digest:
            partial.unlink()
            raise HostFailure(f"image {digest}: what arrived is {found}")
        partial.chmod(0o444)
        partial.rename(path)
        log.info("image.staged", digest=digest, bytes=total)

    def _check_room(self, needed: int) -> None:
        room = os.statvfs(self._folder)
        free = room.f_bavail * room.f_frsize
        if needed > free:
            raise HostFailure(
                f"no room for the image: {needed // MIB} MiB needed, {free // MIB} free"
            )


def _append(fd: int, hasher: blake3, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    hasher.update(data)


def _feed(hasher: blake3, path: Path) -> None:
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            hasher.update(data)


async def _inspect(path: Path) -> BaseImage:
    """An image comes from a user: one that names other files of the host is refused."""
    info = await run_json("qemu-img", "info", "--output=json", str(path))
    image_format = info["format"]
    if image_format not in _FORMATS:
        raise HostFailure(f"image format {image_format} is not supported", final=True)
    specific = info.get("format-specific", {}).get("data", {})
    if "backing-filename" in info or "data-file" in specific:
        raise HostFailure("the image refers to another file", final=True)
    return BaseImage(
        path=str(path), format=image_format, virtual_size_bytes=int(info["virtual-size"])
    )
