"""What the image store's refusals of a snapshot mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.common import errors
from intertie.common.rpc.errors import to_rpc_status
from intertie.nodeagent.adapters.snapshot_uploads import SnapshotUploads
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotOrder
from tests.fakes.clock import FakeClock
from tests.unit.nodeagent.parts import DIGEST, NOW

ORDER = SnapshotOrder(id="s1", image_id="before", grant=b"")
NOTE = SnapshotNote(id="s1", taken_time=NOW, digest=DIGEST, size_bytes=1)


class Refusing:
    """A channel to a store that refuses each call."""

    def __init__(self, error: errors.DomainError) -> None:
        self._error = error

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        async def call(*_: Any, **__: Any) -> None:
            status = to_rpc_status(self._error)
            trailing = grpc.aio.Metadata(*status.trailing_metadata)
            raise grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailing, status.details)

        return call

    unary_stream = stream_unary = unary_unary


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (errors.IdentityUnknown("its certificate is not valid"), False),
        (errors.PutInProgress(DIGEST), False),
        (errors.StoreFull(2, 1), True),
        (errors.RoleDenied("n1", "Put", "its grant has run out"), True),
    ],
)
async def test_one_whose_certificate_is_being_renewed_is_not_given_up(
    error: errors.DomainError, *, final: bool
) -> None:
    channel: Any = Refusing(error)
    uploads = SnapshotUploads(channel, FakeClock(NOW), mbit_s=1000)
    with pytest.raises(HostFailure, match="image store") as refused:
        await uploads.put(ORDER, "demo", Path("none"), NOTE, lambda _: None)
    assert refused.value.final is final
