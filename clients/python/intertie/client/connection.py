"""One channel to one service and all its replicas: mutual TLS, deadlines, retries that take nothing
twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc

from intertie.client.config import Endpoint
from intertie.client.errors import (
    CertificateUnreadable,
    ConnectionClosed,
    NoImageStore,
    StreamSilent,
    Unreachable,
    to_error,
)
from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, NotLeading
from intertie.common.followed import Followed
from intertie.common.rpc.following import FollowingChannel
from intertie.common.rpc.pairs import end_of, private_key_of
from intertie.common.rpc.replicas import FAIL_OVER_S, ReplicaChannel

MAX_MESSAGE_BYTES = 1024 * 1024
CALL_S = 60.0
RETRY_DELAYS_S = (0.2, 0.4, 0.8)
LASTING_DELAYS_S = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Halved at random: who was cut off together does not come back together."""
_ENDED = {grpc.StatusCode.CANCELLED}
"""How a stream ends at a replica that stops."""
PATIENCE_S = 1.5 * FAIL_OVER_S
"""So long a call waits for a replica that leads."""

_Stub = TypeVar("_Stub")


class Connection:
    """Every method that goes through `call` is idempotent: reads, deletes, and creates that carry
    a request id. So a call that may not have arrived is simply made again."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        endpoint: Endpoint,
        addresses: Sequence[str],
        clock: Clock,
    ) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self._channel = channel
        self._addresses = addresses

    def stub(self, of: Callable[[grpc.aio.Channel], _Stub]) -> _Stub:
        return of(self._channel)

    def error(self, error: grpc.aio.AioRpcError) -> Exception:
        return to_error(error, endpoint=self.endpoint.name, addresses=self._addresses)

    async def call(
        self, method: Callable[..., Any], request: Any, *, timeout_s: float = CALL_S
    ) -> Any:
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                return await method(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raised = self.error(error)
                # Of a replica that leads, the channel has waited for long enough.
                if delay_s is None or isinstance(raised, NotLeading) or not is_passing(raised):
                    raise raised from None
            await self.clock.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")

    async def stream(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any]:
        """Every message of a stream that tells the present state: taken up again when it breaks."""
        failures = 0
        while True:
            try:
                async for message in method(request):
                    failures = 0
                    yield message
                return
            except grpc.aio.AioRpcError as error:
                raised = self.error(error)
                if failures == len(RETRY_DELAYS_S) or not is_passing(raised):
                    raise raised from None
            await self.clock.sleep(RETRY_DELAYS_S[failures])
            failures += 1

    async def lasting_stream(
        self,
        method: Callable[..., Any],
        request: Callable[[], Any],
        *,
        silence_s: float,
        patience_s: float,
    ) -> AsyncGenerator[Any]:
        """Every message of a stream that goes on for ever: taken up again, at whichever replica
        answers, by what `request` makes then. One that says nothing for `silence_s` counts as
        broken. What broke it is raised once no message has come for `patience_s`, and at once
        where it is no passing trouble."""
        heard_s, failures = self.clock.monotonic(), 0
        while True:
            stream = method(request())
            raised: Exception
            try:
                messages = aiter(stream)
                while True:
                    async with asyncio.timeout(silence_s):
                        message = await anext(messages)
                    failures = 0
                    yield message
                    heard_s = self.clock.monotonic()  # whoever was told may have taken its time
            except TimeoutError:
                raised = StreamSilent(self.endpoint.name, silence_s)
            except StopAsyncIteration:
                raised = ConnectionClosed(self.endpoint.name, ", ".join(self._addresses))
            except grpc.aio.AioRpcError as error:
                raised = self.error(error)
                if not is_passing(raised) and error.code() not in _ENDED:
                    raise raised from None
            finally:
                stream.cancel()
            if self.clock.monotonic() - heard_s >= patience_s:
                raise raised
            delay_s = LASTING_DELAYS_S[min(failures, len(LASTING_DELAYS_S) - 1)]
            await self.clock.sleep(delay_s * random.uniform(0.5, 1.0))
            failures += 1

    async def close(self) -> None:
        await self._channel.close()


def is_passing(error: Exception) -> bool:
    """Whether the same call may well succeed a moment later."""
    return isinstance(error, Unreachable | ConnectionClosed | NotLeading | EtcdUnavailable)


def open_connection(endpoint: Endpoint, clock: Clock) -> Connection:
    """To all replicas of the endpoint itself. Dials with the first call only."""
    dial = _dialling(endpoint, endpoint.server_name, clock)
    channels = {each: dial(each) for each in endpoint.addresses}
    channel = ReplicaChannel(channels, clock, patience_s=PATIENCE_S)
    return Connection(channel, endpoint=endpoint, addresses=endpoint.addresses, clock=clock)


def open_image_store(endpoint: Endpoint, clock: Clock) -> Connection:
    if not endpoint.images_address:
        raise NoImageStore(endpoint.name)
    server_name = endpoint.images_server_name or endpoint.server_name
    channel = _dialling(endpoint, server_name, clock)(endpoint.images_address)
    addresses = (endpoint.images_address,)
    return Connection(channel, endpoint=endpoint, addresses=addresses, clock=clock)


def _dialling(
    endpoint: Endpoint, server_name: str, clock: Clock
) -> Callable[[str], grpc.aio.Channel]:
    """Channels that follow certificate, key and roots: a program that runs for long needs no new
    client when they are renewed. A call that has begun is not touched by it."""
    options = [
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.default_authority", server_name),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 15_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),
        ("grpc.enable_http_proxy", 0),
        # One that was away is found again within a second; one that says nothing costs two.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    followed = _followed(endpoint, clock)

    def dial(address: str) -> grpc.aio.Channel:
        def made(files: tuple[bytes, ...]) -> grpc.aio.Channel:
            roots, key, certificate = files
            credentials = grpc.ssl_channel_credentials(roots, key, certificate)
            return grpc.aio.secure_channel(address, credentials, options=options)

        return FollowingChannel(followed.now, made)

    return dial


def _followed(endpoint: Endpoint, clock: Clock) -> Followed[tuple[bytes, ...]]:
    def checked(files: tuple[bytes, ...]) -> tuple[bytes, ...]:
        roots, key, certificate = files
        private_key_of(certificate, key)
        ended = end_of(certificate)
        if ended <= clock.now():
            raise ValueError(f"it ended at {ended:%FT%TZ}; get a new one")
        if not roots.strip():
            raise ValueError(f"{endpoint.roots}: it is empty")
        return files

    try:
        return Followed((endpoint.roots, endpoint.key, endpoint.certificate), checked, clock)
    except OSError as error:
        path = Path(error.filename or endpoint.certificate)
        raise CertificateUnreadable(path, (error.strerror or str(error)).lower()) from None
    except ValueError as error:
        raise CertificateUnreadable(endpoint.certificate, str(error)) from None
