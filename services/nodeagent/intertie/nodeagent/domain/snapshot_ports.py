"""What a host needs for images of its guests' disks, beside its hypervisor."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotOrder


class DiskCopies(Protocol):
    """Copies of workspaces' disks on this host, on their way to becoming images."""

    async def needed_bytes(self, uid: str) -> int:
        """The most that a copy takes now, whether its guest runs or not."""
        ...

    async def prepare(self, uid: str) -> None:
        """An empty one, as large as its guest sees the disk, that is not whole."""
        ...

    async def copy(self, uid: str, done: Callable[[int], None]) -> None:
        """Into what was prepared, of a disk that nobody has open. Ends at once when it is
        cancelled."""
        ...

    async def finish(self, uid: str) -> tuple[str, int]:
        """What was prepared is whole from here on: its digest and size in bytes."""
        ...

    def is_there(self, uid: str) -> bool:
        """Whole or not."""
        ...

    def is_whole(self, uid: str) -> bool: ...

    def written_bytes(self, uid: str) -> int:
        """Of one that is not whole, what it takes of the pool so far."""
        ...

    def discard(self, uid: str) -> None: ...


class SnapshotStore(Protocol):
    async def put(
        self,
        order: SnapshotOrder,
        tenant: str,
        path: Path,
        note: SnapshotNote,
        done: Callable[[int], None],
    ) -> None:
        """The image is in the site's store once this returns. Goes on where an earlier one was
        broken off. HostFailure, final where the store will not have it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshotting:
    """What images of disks are made with."""

    copies: DiskCopies
    store: SnapshotStore
