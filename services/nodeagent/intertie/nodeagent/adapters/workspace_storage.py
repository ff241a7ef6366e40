"""Disks and seeds of workspaces on the host's own file system."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from intertie.nodeagent.adapters.coming_file import ComingFile
from intertie.nodeagent.adapters.commands import run
from intertie.nodeagent.adapters.pycdlib_seed import seed_image
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.migrating import Channel
from intertie.nodeagent.domain.ports import BaseImage
from intertie.nodeagent.domain.power import Memory

_QCOW2 = b"QFI\xfb"
_SIZE_AT = 24
"""Where its header has its logical size, 8 bytes, the most significant first."""
_UID = re.compile(r"[0-9a-f]{12}")


class WorkspaceStorage:
    """A qcow2 overlay a workspace over a base that all of its kind share."""

    def __init__(self, files: WorkspaceFiles) -> None:
        self._files = files
        for folder in files.folders:
            folder.mkdir(parents=True, exist_ok=True)

    def has_disk(self, uid: str) -> bool:
        return self._files.disk(uid).exists()

    def has_seed(self, uid: str) -> bool:
        return self._files.seed(uid).exists()

    def uids(self) -> frozenset[str]:
        found = set()
        for folder in (f for f in self._files.folders if f != self._files.cache):
            for path in folder.iterdir():
                if match := _UID.match(path.name):
                    found.add(match.group())
        return frozenset(found)

    def disk_mib(self, uid: str) -> int:
        """From the file's own header, which says it whether its guest runs or not."""
        return _logical_mib(self._files.disk(uid))

    async def grow_disk(self, uid: str, size_mib: int) -> None:
        """qemu-img refuses a disk that is in use."""
        await run(
            "qemu-img", "resize", "-q", "-f", "qcow2", str(self._files.disk(uid)), f"{size_mib}M"
        )

    async def make_disk(self, uid: str, base: BaseImage, size_mib: int) -> None:
        """Published by renaming: a disk that is there is whole."""
        if base.virtual_size_bytes > size_mib * MIB:
            raise HostFailure(
                f"the image needs a disk of {-(-base.virtual_size_bytes // MIB)} MiB, "
                f"the allocation has {size_mib} MiB",
                final=True,
            )
        disk = self._files.disk(uid)
        fresh = disk.with_suffix(".new")
        backing = ("-b", base.path, "-F", base.format)
        await run("qemu-img", "create", "-q", "-f", "qcow2", *backing, str(fresh), f"{size_mib}M")
        fresh.rename(disk)

    def has_volume(self, uid: str, number: int) -> bool:
        return self._files.volume(uid, number).exists()

    async def make_volume(self, uid: str, number: int, size_mib: int) -> None:
        """As a disk, but over nothing."""
        volume = self._files.volume(uid, number)
        fresh = volume.with_suffix(".new")
        await run("qemu-img", "create", "-q", "-f", "qcow2", str(fresh), f"{size_mib}M")
        fresh.rename(volume)

    def memory(self, uid: str) -> Memory:
        if self._files.saving(uid).exists():
            return Memory.SAVING
        if self._files.restoring(uid).exists():
            return Memory.RESTORING
        return Memory.SAVED if self._files.saved(uid).exists() else Memory.NONE

    def memory_bytes(self, uid: str) -> int:
        for path in (self._files.saving, self._files.restoring, self._files.saved):
            with contextlib.suppress(FileNotFoundError):
                return path(uid).stat().st_size
        return 0

    async def keep_memory(self, uid: str) -> None:
        """On the disk itself before it has its name."""
        await asyncio.to_thread(_sync, self._files.saving(uid))
        self._files.saving(uid).replace(self._files.saved(uid))

    def take_memory(self, uid: str) -> None:
        self._files.saved(uid).replace(self._files.restoring(uid))

    def discard_memory(self, uid: str) -> None:
        for path in (self._files.saving, self._files.saved, self._files.restoring):
            path(uid).unlink(missing_ok=True)

    def is_given(self, uid: str) -> bool:
        return self._files.given(uid).exists() and not self.has_disk(uid)

    async def give(self, uid: str) -> None:
        disk = self._files.disk(uid)
        if disk.exists():
            disk.replace(self._files.given(uid))
        await asyncio.to_thread(_sync, self._files.disks)

    @contextlib.asynccontextmanager
    async def coming(
        self, uid: str, channel: Channel, size_bytes: int, base: BaseImage
    ) -> AsyncIterator[ComingFile]:
        path = self._files.coming(uid, channel)

        async def whole() -> None:
            if channel is Channel.DISK_FILE:
                over = ("-u", "-f", "qcow2", "-F", base.format, "-b", base.path)
                await run("qemu-img", "rebase", "-q", *over, str(path))
            await asyncio.to_thread(_sync, path)
            path.replace(self._files.come(uid, channel))
            await asyncio.to_thread(_sync, self._files.disks)

        with path.open("wb") as file:
            if channel is Channel.MEMORY_FILE:
                os.fchmod(file.fileno(), 0o600)  # as libvirt had it
            yield ComingFile(file, size_bytes, whole)

    def coming_bytes(self, uid: str, channel: Channel) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._files.coming(uid, channel).stat().st_size
        return 0

    def has_come(self, uid: str) -> bool:
        return self._files.come(uid, Channel.DISK_FILE).exists()

    async def take_in(self, uid: str) -> None:
        """The disk last: with it all of it is here."""
        memory = self._files.come(uid, Channel.MEMORY_FILE)
        if memory.exists():
            memory.replace(self._files.saved(uid))
            await asyncio.to_thread(_sync, self._files.disks)
        self._files.come(uid, Channel.DISK_FILE).replace(self._files.disk(uid))
        await asyncio.to_thread(_sync, self._files.disks)

    async def make_seed(self, uid: str, files: Mapping[str, bytes]) -> None:
        seed = self._files.seed(uid)
        fresh = seed.with_suffix(".new")
        fresh.write_bytes(await asyncio.to_thread(seed_image, files))
        fresh.chmod(0o644)
        fresh.rename(seed)

    async def remove(self, uid: str) -> None:
        for folder in (f for f in self._files.folders if f != self._files.cache):
            for path in folder.glob(f"{uid}.*"):
                path.unlink(missing_ok=True)

    def room_mib(self) -> int:
        return self._room_bytes() // MIB

    def free_mib(self) -> int:
        """What guests could use: free now, and what those that are here take already. Memories and
        copies of disks count as well: they come and go, and what a host has for guests, whose
        leases are booked for later by that, does not. A copy gives way to a guest that waits for
        room."""
        used = sum(path.stat().st_blocks * 512 for path in _files(self._files.disks))
        cached = sum(path.stat().st_blocks * 512 for path in _files(self._files.cache))
        return (self._room_bytes() + used + cached) // MIB

    def owed_mib(self) -> int:
        return sum(_owed_mib(path) for path in _files(self._files.disks))

    def _room_bytes(self) -> int:
        room = os.statvfs(self._files.data)
        return room.f_bavail * room.f_frsize

    def disk_cache(self) -> str:
        """`none` where the file system can bypass its cache, so that a cap meets the disk."""
        probe = self._files.disks / ".o_direct"
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600))
        except OSError:
            return "writeback"
        finally:
            probe.unlink(missing_ok=True)
        return "none"


def _owed_mib(path: Path) -> int:
    """Of a root disk or a volume."""
    if path.suffix != ".qcow2":
        return 0
    with contextlib.suppress(HostFailure, OSError):  # it may be given up just now
        return max(_logical_mib(path) - path.stat().st_blocks * 512 // MIB, 0)
    return 0


def _logical_mib(path: Path) -> int:
    with path.open("rb") as file:
        header = file.read(_SIZE_AT + 8)
    if not header.startswith(_QCOW2) or len(header) < _SIZE_AT + 8:
        raise HostFailure(f"the disk of {path.name.partition('.')[0]} is no qcow2 file")
    return int.from_bytes(header[_SIZE_AT:], "big") // MIB


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]
