"""Several requests in one call: what may be in it, and the answer of each."""

import structlog

from intertie.api.broker.v1 import parts_pb2
from intertie.common.errors import (
    DomainError,
    EtcdUnavailable,
    FieldInvalid,
    LedgerFull,
    NoCapacity,
    NotLeading,
)
from intertie.common.rpc.errors import sentence, to_status
from intertie.common.rpc.limits import MAX_MESSAGE_BYTES

log = structlog.get_logger(__name__)

MAX_HOLDS = 64
MAX_HOLDS_BYTES = MAX_MESSAGE_BYTES // 4
"""An answer repeats what was asked for, with names, defaults and a receipt: all of them must fit
into one message, for who cannot be answered has been given something none the less."""
SHORTFALLS_TOLD = 8
"""Of one refusal, for the same reason."""


def check_holds(request: parts_pb2.BatchHoldPartsRequest) -> None:
    """FieldInvalid for more than one call takes, and for two that cannot both be had."""
    count, size = len(request.requests), request.ByteSize()
    if not 1 <= count <= MAX_HOLDS:
        raise FieldInvalid(
            "requests", f"has {count}; give 1 to {MAX_HOLDS}, and more in several calls"
        )
    if size > MAX_HOLDS_BYTES:
        raise FieldInvalid(
            "requests",
            f"takes {size >> 10} KiB, at most {MAX_HOLDS_BYTES >> 10} are allowed; "
            "ask in several calls",
        )
    ids: set[str] = set()
    parts: set[tuple[str, str]] = set()
    for position, each in enumerate(request.requests):
        part = each.parent.rpartition("/")[2], each.part_id  # `-` stands for this site too
        if each.request_id in ids:
            raise FieldInvalid(f"requests[{position}].request_id", "is there already")
        if part in parts:
            raise FieldInvalid(f"requests[{position}].part_id", "is there already")
        ids.add(each.request_id)
        parts.add(part)


def hold_result(
    answer: parts_pb2.HoldPartResponse | BaseException,
) -> parts_pb2.HoldPartResult:
    """What one of them came to. Raises what is no answer to it: that this replica cannot write, or
    that something failed; then the call is to be made again, whole."""
    match answer:
        case parts_pb2.HoldPartResponse():
            return parts_pb2.HoldPartResult(held=answer)
        case NotLeading():
            raise answer
        case EtcdUnavailable() if not isinstance(answer, LedgerFull):
            raise answer
        case DomainError():
            log.info("hold.refused", reason=answer.reason, problem=sentence(answer))
            if isinstance(answer, NoCapacity):
                answer = NoCapacity(answer.shortfalls[:SHORTFALLS_TOLD])
            return parts_pb2.HoldPartResult(refusal=to_status(answer))
        case _:
            raise answer
