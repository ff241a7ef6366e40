"""What is asked for of a workspace's disk, and what has to be remembered of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class SnapshotState(Enum):
    """As intertie.api.types.v1.Snapshot.State, by name."""

    WAITING = 1
    COPYING = 2
    UPLOADING = 3
    READY = 4
    FAILED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOrder:
    id: str
    image_id: str
    grant: bytes
    """What the image store takes it for."""
    asked_time: datetime | None = None
    """By the grant; None where that does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotNote:
    """Of the order that was begun last. Without `taken_time` there is no copy yet, whatever file
    is there; with an `outcome` there is nothing left to do."""

    id: str
    taken_time: datetime | None = None
    quiesced: bool = False
    digest: str = ""
    size_bytes: int = 0
    outcome: SnapshotState | None = None
    """READY or FAILED."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSnapshot:
    """As it is told."""

    id: str
    state: SnapshotState
    message: str = ""
    taken_time: datetime | None = None
    quiesced: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    digest: str = ""
