"""Snapshots on the wire, and what is asked of one."""

from collections.abc import Collection
from typing import Any

from intertie.api.types.v1 import snapshot_pb2
from intertie.common.actions import Action
from intertie.common.errors import FieldInvalid
from intertie.common.names import check_label
from intertie.common.rpc.terms_proto import timestamp_fields, timestamp_from_proto
from intertie.common.snapshot import Snapshot, SnapshotState

_STATES = {snapshot_pb2.Snapshot.State.Value(each.name): each for each in SnapshotState}


def image_asked_for(action: Action, image: str, workspaces: Collection[str]) -> str:
    """What a SNAPSHOT is to be called; empty of another action. FieldInvalid unless both go
    together, and of one workspace: several disks are of several moments."""
    if action is not Action.SNAPSHOT:
        if image:
            raise FieldInvalid("image", "is for SNAPSHOT alone; leave it out")
        return ""
    if len(workspaces) != 1:
        raise FieldInvalid("workspaces", "must name the one workspace that the image is made of")
    return check_label(image, "image")


def snapshot_fields(snapshot: Snapshot | None) -> dict[str, Any] | None:
    """None where none was asked for."""
    if snapshot is None:
        return None
    taken = snapshot.taken_time
    return {
        "image": snapshot.image,
        "state": snapshot.state.name,
        "message": snapshot.message,
        "taken_time": timestamp_fields(taken) if taken is not None else None,
        "quiesced": snapshot.quiesced,
        "done_bytes": snapshot.done_bytes,
        "total_bytes": snapshot.total_bytes,
        "digest": snapshot.digest,
    }


def snapshot_from_proto(message: snapshot_pb2.Snapshot) -> Snapshot:
    """One in a state that is not known here waits."""
    return Snapshot(
        image=message.image,
        state=_STATES.get(message.state, SnapshotState.WAITING),
        message=message.message,
        taken_time=(
            timestamp_from_proto(message.taken_time, "snapshot.taken_time")
            if message.HasField("taken_time")
            else None
        ),
        quiesced=message.quiesced,
        done_bytes=message.done_bytes,
        total_bytes=message.total_bytes,
        digest=message.digest,
    )
