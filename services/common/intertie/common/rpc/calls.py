"""The one interceptor around every handler: identity, access, request id, deadline, errors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, FieldInvalid, IdentityUnknown
from intertie.common.rpc import delegation, request_id
from intertie.common.rpc.access import check_role, check_tenant
from intertie.common.rpc.errors import sentence, to_rpc_status
from intertie.common.rpc.identity import Identities, Identity, Role, Trust, set_current_identity

log = structlog.get_logger(__name__)

UNARY_DEADLINE_S = 60.0
"""For a unary call whose caller set no deadline, or a later one."""
_ROUNDED_S = 1.0
"""A deadline is sent as a span, rounded up: one as long as is allowed looks a little longer."""

Context = Any
Behaviour = Callable[[Any, Context], Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Stands around every handler of one server, whose own identity is `own`."""

    def __init__(self, own: Identity, trust: Trust, clock: Clock) -> None:
        self._own = own
        self._trust = trust
        self._identities = Identities(trust)
        self._clock = clock
        self._guarded: dict[str, tuple[Any, Any]] = {}
        """By method: its handler, and the one that stands around it."""

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        known = self._guarded.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        guarded = self._around(method, handler)
        self._guarded[method] = handler, guarded
        return guarded

    def _around(self, method: str, handler: Any) -> Any:
        wire = {
            "request_deserializer": _reading(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            behaviour = self._unary_unary(method, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(behaviour, **wire)
        if handler.unary_stream:
            behaviour = self._unary_stream(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(behaviour, **wire)
        if handler.stream_unary:
            behaviour = self._stream_unary(method, handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(behaviour, **wire)
        behaviour = self._stream_stream(method, handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(behaviour, **wire)

    def _unary_unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(request: Any, context: Context) -> Any:
            async with _Guard(method, context):
                self._admit(method, context, request)
                return await _bounded(behaviour(request, context), context)

        return guarded

    def _unary_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            async with _Guard(method, context):
                self._admit(method, context, request)
                async with aclosing(_answers(behaviour(request, context))) as answers:
                    async for answer in answers:
                        yield answer

        return guarded

    def _stream_unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(requests: Any, context: Context) -> Any:
            async with _Guard(method, context):
                requests = await self._admit_stream(method, context, requests)
                return await behaviour(requests, context)

        return guarded

    def _stream_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with _Guard(method, context):
                requests = await self._admit_stream(method, context, requests)
                async with aclosing(_answers(behaviour(requests, context))) as answers:
                    async for answer in answers:
                        yield answer

        return guarded

    def _admit(self, method: str, context: Context, request: Any) -> None:
        """Sets the call's identity, or raises why it may not be."""
        now = self._clock.now()
        identity = self._identities.of(_leaf_of(context), now=now)
        token = _token_in(context.invocation_metadata())
        # Only a meta-scheduler takes what brokers hand on: one hop, and no more.
        if token and identity.role is Role.BROKER and self._own.role is Role.METASCHED:
            behalf = delegation.vouched_for(
                token,
                request,
                broker=identity,
                audience=self._own.trust_domain,
                trust=self._trust,
                now=now,
            )
            delegation.check_bound(behalf, method)
            identity = replace(identity, on_behalf_of=behalf)
        elif token:
            raise IdentityUnknown(f"{identity} may hand on nothing to {self._own}")
        set_current_identity(identity)
        structlog.contextvars.bind_contextvars(caller=identity.caller)
        check_role(method, identity, self._own.trust_domain)
        _check_read(request)
        check_tenant(method, identity, request)

    async def _admit_stream(
        self, method: str, context: Context, requests: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Judges a stream by its first message, which is then handed on with the rest."""
        rest = aiter(requests)
        first = await anext(rest, None)
        self._admit(method, context, first)
        return _chained(first, rest)


class _Guard:
    """Around one call: binds its request id, and turns what is raised within into a status. No
    generator: every call enters it."""

    __slots__ = ("_context", "_known_as", "_method")

    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context
        self._known_as = request_id.received(context.invocation_metadata())

    @property
    def _echo(self) -> tuple[str, str]:
        return request_id.METADATA_KEY, self._known_as

    async def __aenter__(self) -> None:
        request_id.set_current_request_id(self._known_as)
        # Every call is a task of its own: what is bound here ends with it.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._known_as, method=self._method)
        self._context.set_trailing_metadata((self._echo,))

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        """Ends the call with a status, or lets pass what is none of its own."""
        abort = self._context.abort
        match error:
            case grpc.aio.AbortError() | grpc.aio.UsageError():
                pass
            case DomainError():
                log.info("call.refused", reason=error.reason, problem=sentence(error))
                status = to_rpc_status(error)
                metadata = (*status.trailing_metadata, self._echo)
                await abort(status.code, status.details, metadata)
            case _DeadlineOver():
                log.warning("call.deadline_over")
                within = f"not done within {UNARY_DEADLINE_S:.0f} s"
                await abort(grpc.StatusCode.DEADLINE_EXCEEDED, within)
            case Exception():
                log.error("call.failed", exc_info=error)
                said = f"internal error, request {self._known_as}"
                await abort(grpc.StatusCode.INTERNAL, said)


class _DeadlineOver(Exception):
    """The call took longer than the server allows."""


async def _bounded(answer: Awaitable[Any], context: Context) -> Any:
    remaining = context.time_remaining()
    if remaining is not None and remaining <= UNARY_DEADLINE_S + _ROUNDED_S:
        return await answer  # gRPC itself cancels the handler then.
    bound = asyncio.timeout(UNARY_DEADLINE_S)
    try:
        async with bound:
            return await answer
    except TimeoutError:
        if bound.expired():
            raise _DeadlineOver from None
        raise


async def _answers(result: Any) -> AsyncGenerator[Any, None]:
    """Of a handler that yields; one that writes to its context itself is awaited."""
    if inspect.isawaitable(result):
        await result
        return
    async with aclosing(result):
        async for answer in result:
            yield answer


async def _chained(first: Any, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    if first is not None:
        yield first
        async for each in rest:
            _check_read(each)
            yield each


class _Unread:
    """In the place of a message whose bytes are none. gRPC itself would answer UNKNOWN, with the
    name of an exception, before anybody had asked who calls."""


def _reading(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(octets: bytes) -> Any:
        try:
            return deserializer(octets)
        except DecodeError:
            return _Unread()

    return read


def _check_read(message: Any) -> None:
    if isinstance(message, _Unread):
        raise FieldInvalid(
            "", "the message cannot be read; send what the proto of this method says"
        )


def _leaf_of(context: Context) -> bytes:
    leaves: Iterable[bytes] = context.auth_context().get("x509_pem_cert", ())
    for leaf in leaves:
        return leaf
    raise IdentityUnknown("it showed no certificate")


def _token_in(metadata: Iterable[tuple[str, Any]] | None) -> str:
    for key, value in metadata or ():
        if key == delegation.METADATA_KEY:
            return str(value)
    return ""
