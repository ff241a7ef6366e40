"""Attach streams that pass through: what comes in goes to another service's Attach, and back.

gRPC's own flow control is the back-pressure: one message is in hand in each direction, and the
next is read when it has been taken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from intertie.api.types.v1 import attach_pb2
from intertie.common.errors import FieldInvalid
from intertie.common.rpc import request_id
from intertie.common.rpc.errors import to_domain_error


async def opening(requests: AsyncIterator[attach_pb2.AttachRequest]) -> Any:
    """The `AttachRequest.Open` that every stream begins with."""
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("frame") != "open":
        raise FieldInvalid("open", "must be the first message of the stream")
    return first.open


async def relay(
    opened: Any,
    requests: AsyncIterator[attach_pb2.AttachRequest],
    attach: Any,
    *,
    metadata: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[attach_pb2.AttachResponse]:
    """Everything after the opening, both ways, until either end closes.

    `opened` is the opening for the next service, naming the workspace in its words; `attach` is
    the stub's method. The caller's end of sending is passed on as such, the next service's
    refusal is raised as the error that it meant, and cancelling this cancels the other stream.
    """

    async def onward() -> AsyncIterator[attach_pb2.AttachRequest]:
        yield attach_pb2.AttachRequest(open=opened)
        async for request in requests:
            yield request

    call = attach(onward(), metadata=(*request_id.outgoing(), *metadata))
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        meant = to_domain_error(error)
        if meant is None:
            raise
        raise meant from None
    finally:
        call.cancel()
