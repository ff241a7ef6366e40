"""The one table between errors of the domain and gRPC, read in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from intertie.api.types.v1 import explanation_pb2, resources_pb2
from intertie.common import errors
from intertie.common.rpc.explanation_proto import explanation_from_proto, explanation_to_proto
from intertie.common.rpc.shortfalls_proto import shortfall_from_proto, shortfall_to_proto

DOMAIN = "intertie"
_MESSAGE_CHARACTERS = 1000
_SHORTFALL_CHARACTERS = 250
"""Of each of its texts."""
_SHORTFALLS = 64
_SHORTFALLS_EXPLAINED = 40
"""Details travel as trailing metadata, which gRPC bounds: the first ones say enough. Fewer where
there is an explanation beside them."""

CODES: dict[type[errors.DomainError], grpc.StatusCode] = {
    errors.FieldInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.RequestIdReuse: grpc.StatusCode.ALREADY_EXISTS,
    errors.NoCapacity: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.PlanStale: grpc.StatusCode.ABORTED,
    errors.ImageNotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ClockSkew: grpc.StatusCode.FAILED_PRECONDITION,
    errors.HoldExpired: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PartOver: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DecisionPending: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DecisionInvalid: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EtagStale: grpc.StatusCode.ABORTED,
    errors.ClusterOver: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LeaseEnding: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ActionIllegal: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AmendPending: grpc.StatusCode.ABORTED,
    errors.TermsStale: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StaleWrite: grpc.StatusCode.ABORTED,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.NotLeading: grpc.StatusCode.UNAVAILABLE,
    errors.EtcdUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.LedgerFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SiteUnreachable: grpc.StatusCode.UNAVAILABLE,
    errors.SolverFailed: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.IdentityUnknown: grpc.StatusCode.UNAUTHENTICATED,
    errors.RoleDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.WorkspaceNotRunning: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConnectionRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConsoleTaken: grpc.StatusCode.ABORTED,
    errors.DigestMismatch: grpc.StatusCode.DATA_LOSS,
    errors.OffsetMismatch: grpc.StatusCode.OUT_OF_RANGE,
    errors.PutInProgress: grpc.StatusCode.ABORTED,
    errors.StoreFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
}

_FIELDS: dict[type[errors.DomainError], tuple[str, ...]] = {
    errors.NotFound: ("name",),
    errors.NameTaken: ("name",),
    errors.RequestIdReuse: ("request_id",),
    errors.PlanStale: ("problem",),
    errors.ImageNotReady: ("image", "site", "field"),
    errors.HoldExpired: ("part",),
    errors.PartOver: ("part", "state"),
    errors.DecisionPending: ("part",),
    errors.DecisionInvalid: ("problem",),
    errors.EtagStale: ("name",),
    errors.ClusterOver: ("name",),
    errors.LeaseEnding: ("name", "end_time"),
    errors.ActionIllegal: ("action", "workspace", "state", "legal"),
    errors.AmendPending: ("name",),
    errors.StaleWrite: ("key",),
    errors.Aborted: ("tx", "why"),
    errors.NotLeading: ("leader", "asked"),
    errors.EtcdUnavailable: ("problem",),
    errors.LedgerFull: ("problem",),
    errors.SiteUnreachable: ("site", "problem"),
    errors.SolverFailed: ("problem",),
    errors.IdentityUnknown: ("problem",),
    errors.RoleDenied: ("identity", "method", "problem"),
    errors.WorkspaceNotRunning: ("workspace", "state"),
    errors.ConsoleTaken: ("workspace",),
    errors.DigestMismatch: ("wanted", "found"),
    errors.PutInProgress: ("digest",),
}
"""Errors whose fields are text: they travel in ErrorInfo's metadata under their own names."""

_NUMBERS: dict[type[errors.DomainError], Callable[[dict[str, str]], errors.DomainError]] = {
    errors.ClockSkew: lambda at: errors.ClockSkew(timedelta(seconds=float(at["offset"]))),
    errors.ConnectionRefused: lambda at: errors.ConnectionRefused(at["workspace"], int(at["port"])),
    errors.TermsStale: lambda at: errors.TermsStale(
        at["part"], int(at["replaces"]), int(at["terms"])
    ),
    errors.OffsetMismatch: lambda at: errors.OffsetMismatch(int(at["offset"]), int(at["expected"])),
    errors.StoreFull: lambda at: errors.StoreFull(int(at["needed"]), int(at["free"])),
}


def to_status(error: errors.DomainError) -> status_pb2.Status:
    """Code, reason, fields and details. Pure."""
    status = status_pb2.Status(code=CODES[type(error)].value[0], message=sentence(error))
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata=_metadata(error)
    )
    status.details.add().Pack(info)
    if (extra := _detail(error)) is not None:
        status.details.add().Pack(extra)
    if isinstance(error, errors.NoCapacity) and error.explanation:
        status.details.add().Pack(_explained(error))
    return status


def to_rpc_status(error: errors.DomainError) -> Any:
    """As `grpc.Status`, for `ServicerContext.abort_with_status`."""
    return rpc_status.to_status(to_status(error))


def from_status(status: status_pb2.Status) -> errors.DomainError | None:
    """The error that `to_status` was given; None when the status is not one of ours."""
    info = error_details_pb2.ErrorInfo()
    if not any(each.Unpack(info) for each in status.details) or info.domain != DOMAIN:
        return None
    kind = _BY_REASON.get(info.reason)
    if kind is None:
        return None
    try:
        return _rebuild(kind, dict(info.metadata), status)
    except (KeyError, ValueError, TypeError):
        return None


def to_domain_error(error: grpc.RpcError) -> errors.DomainError | None:
    """What the peer's service meant by an RPC's failure; None when it did not say."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                return None
    return None


def sentence(error: errors.DomainError) -> str:
    """For a person, however much of what the caller sent it repeats."""
    return _cut(str(error))


def _cut(text: str, most: int = _MESSAGE_CHARACTERS) -> str:
    """Out of the middle: what is wrong stands at the beginning, what would be right at the end."""
    if len(text) <= most:
        return text
    after = most // 3
    return f"{text[: most - after - 1]}…{text[-after:]}"


def _cut_shortfall(short: errors.Shortfall) -> errors.Shortfall:
    message, site = _cut(str(short), _SHORTFALL_CHARACTERS), _cut(short.site, _SHORTFALL_CHARACTERS)
    return replace(short, message=message if short.message else "", site=site)


def _metadata(error: errors.DomainError) -> dict[str, str]:
    return {name: _cut(text) for name, text in _fields(error).items()}


def _fields(error: errors.DomainError) -> dict[str, str]:
    match error:
        case errors.ClockSkew(offset=offset):
            return {"offset": repr(offset.total_seconds())}
        case errors.ConnectionRefused(workspace=workspace, port=port):
            return {"workspace": workspace, "port": str(port)}
        case errors.TermsStale(part=part, replaces=replaces, terms=terms):
            return {"part": part, "replaces": str(replaces), "terms": str(terms)}
        case errors.OffsetMismatch(offset=begin, expected=expected):
            return {"offset": str(begin), "expected": str(expected)}
        case errors.StoreFull(needed=needed, free=free):
            return {"needed": str(needed), "free": str(free)}
        case _:
            return {field: getattr(error, field) for field in _FIELDS.get(type(error), ())}


def _detail(error: errors.DomainError) -> Message | None:
    match error:
        case errors.FieldInvalid(field=field, problem=problem):
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=_cut(field), description=_cut(problem)
            )
            bad: Message = error_details_pb2.BadRequest(field_violations=[violation])
            return bad
        case errors.NoCapacity(shortfalls=shortfalls, explanation=explanation):
            return _short(shortfalls, _SHORTFALLS_EXPLAINED if explanation else _SHORTFALLS)
        case errors.PlanStale(shortfalls=shortfalls) if shortfalls:
            return _short(shortfalls, _SHORTFALLS)
        case errors.ImageNotReady(image=image):
            return _unmet(error, image)
        case errors.WorkspaceNotRunning(workspace=workspace):
            return _unmet(error, workspace)
        case errors.NotFound(name=name) | errors.NameTaken(name=name):
            resource: Message = error_details_pb2.ResourceInfo(resource_name=_cut(name))
            return resource
        case _:
            return None


def _short(shortfalls: tuple[errors.Shortfall, ...], most: int) -> Message:
    told = [_cut_shortfall(each) for each in shortfalls[:most]]
    return resources_pb2.Shortfalls(shortfalls=map(shortfall_to_proto, told))


def _explained(error: errors.NoCapacity) -> Message:
    return explanation_to_proto(
        error.explanation, cut=lambda text: _cut(text, _SHORTFALL_CHARACTERS)
    )


def _unmet(error: errors.DomainError, subject: str) -> Message:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.reason, subject=_cut(subject), description=sentence(error)
    )
    unmet: Message = error_details_pb2.PreconditionFailure(violations=[violation])
    return unmet


def _rebuild(
    kind: type[errors.DomainError], at: dict[str, str], status: status_pb2.Status
) -> errors.DomainError | None:
    if kind is errors.FieldInvalid:
        bad = error_details_pb2.BadRequest()
        if any(each.Unpack(bad) for each in status.details) and bad.field_violations:
            first = bad.field_violations[0]
            return errors.FieldInvalid(first.field, first.description)
        return errors.FieldInvalid("", status.message)
    if kind is errors.NoCapacity:
        why = explanation_pb2.Explanation()
        any(each.Unpack(why) for each in status.details)
        return errors.NoCapacity(_shortfalls(status), explanation_from_proto(why))
    if kind is errors.PlanStale:
        return errors.PlanStale(at["problem"], _shortfalls(status))
    if kind in _NUMBERS:
        return _NUMBERS[kind](at)
    if kind is errors.ImageNotReady:
        return errors.ImageNotReady(at["image"], at["site"], at.get("field", ""))
    arguments: Any = [at[field] for field in _FIELDS[kind]]
    return kind(*arguments)


def _shortfalls(status: status_pb2.Status) -> tuple[errors.Shortfall, ...]:
    short = resources_pb2.Shortfalls()
    any(each.Unpack(short) for each in status.details)
    return tuple(shortfall_from_proto(each) for each in short.shortfalls)


_BY_REASON = {kind.reason: kind for kind in CODES}
