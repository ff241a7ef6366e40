"""The one interceptor around every handler: identity, access, request id, deadline, errors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, IdentityUnknown
from intertie.common.rpc import delegation, request_id
from intertie.common.rpc.access import check_role, check_tenant
from intertie.common.rpc.errors import to_rpc_status
from intertie.common.rpc.identity import Identities, Identity, Role, Trust, set_current_identity

log = structlog.get_logger(__name__)

UNARY_DEADLINE_S = 60.0
"""For a unary call whose caller set no deadline, or a later one."""

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
            "request_deserializer": handler.request_deserializer,
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
            async with self._guard(method, context), _bounded(context):
                self._admit(method, context, request)
                return await behaviour(request, context)

        return guarded

    def _unary_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._guard(method, context):
                self._admit(method, context, request)
                async with aclosing(_answers(behaviour(request, context))) as answers:
                    async for answer in answers:
                        yield answer

        return guarded

    def _stream_unary(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(requests: Any, context: Context) -> Any:
            async with self._guard(method, context):
                requests = await self._admit_stream(method, context, requests)
                return await behaviour(requests, context)

        return guarded

    def _stream_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        async def guarded(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with self._guard(method, context):
                requests = await self._admit_stream(method, context, requests)
                async with aclosing(_answers(behaviour(requests, context))) as answers:
                    async for answer in answers:
                        yield answer

        return guarded

    @asynccontextmanager
    async def _guard(self, method: str, context: Context) -> AsyncGenerator[None, None]:
        """Binds the request id and turns what is raised within into a status."""
        known_as = request_id.received(context.invocation_metadata())
        request_id.set_current_request_id(known_as)
        # Every call is a task of its own: what is bound here ends with it.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=known_as, method=method)
        echo = (request_id.METADATA_KEY, known_as)
        context.set_trailing_metadata((echo,))
        try:
            yield
        except DomainError as error:
            log.info("call.refused", reason=error.reason, problem=str(error))
            status = to_rpc_status(error)
            await context.abort(status.code, status.details, (*status.trailing_metadata, echo))
        except _DeadlineOver:
            log.warning("call.deadline_over")
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED, f"not done within {UNARY_DEADLINE_S:.0f} s"
            )
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception:
            log.exception("call.failed")
            await context.abort(grpc.StatusCode.INTERNAL, f"internal error, request {known_as}")

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
        check_tenant(method, identity, request)

    async def _admit_stream(
        self, method: str, context: Context, requests: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Judges a stream by its first message, which is then handed on with the rest."""
        rest = aiter(requests)
        first = await anext(rest, None)
        self._admit(method, context, first)
        return _chained(first, rest)


class _DeadlineOver(Exception):
    """The call took longer than the server allows."""


@asynccontextmanager
async def _bounded(context: Context) -> AsyncGenerator[None, None]:
    remaining = context.time_remaining()
    if remaining is not None and remaining <= UNARY_DEADLINE_S:
        yield  # gRPC itself cancels the handler then.
        return
    bound = asyncio.timeout(UNARY_DEADLINE_S)
    try:
        async with bound:
            yield
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
            yield each


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
