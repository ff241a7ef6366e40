"""How far the image of a workspace's disk is that its owner has asked for."""

from datetime import datetime, timedelta
from enum import Enum

from intertie.common.values import Struct

GRANT_LASTS = timedelta(hours=24)
"""A host that has not sent an image by then may send it no more; a grant for longer is none."""


class SnapshotState(Enum):
    """As intertie.api.types.v1.Snapshot.State, by name."""

    WAITING = "WAITING"
    COPYING = "COPYING"
    UPLOADING = "UPLOADING"
    READY = "READY"
    FAILED = "FAILED"


class Snapshot(Struct, frozen=True, kw_only=True):
    image: str
    """Full name."""
    state: SnapshotState = SnapshotState.WAITING
    message: str = ""
    taken_time: datetime | None = None
    """Of what moment the disk is; None: it is not copied yet."""
    quiesced: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    digest: str = ""
    """Of the image, once it is there."""

    @property
    def over(self) -> bool:
        return self.state in (SnapshotState.READY, SnapshotState.FAILED)
