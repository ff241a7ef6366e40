"""A service's gRPC server: mutual TLS, the interceptor, health, reflection, a graceful end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from intertie.common.clock import Clock
from intertie.common.rpc.calls import CallInterceptor
from intertie.common.rpc.identity import Identity, Trust, identity_of, load_leaf
from intertie.common.rpc.limits import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES
from intertie.common.settings import ListenSettings, TlsSettings, TrustSettings

log = structlog.get_logger(__name__)

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # A second process on the same port is an error, not a second server.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
]

Registration = tuple[Callable[[Any, Any], None], Any, ServiceDescriptor]
"""`add_XServicer_to_server`, the servicer, and its service's descriptor."""


class ServerSettings(Protocol):
    """What a service's settings must have for it to serve."""

    @property
    def listen(self) -> ListenSettings: ...
    @property
    def tls(self) -> TlsSettings: ...
    @property
    def trust(self) -> tuple[TrustSettings, ...]: ...


class ListenFailed(Exception):
    """An address cannot be listened on: taken, or not of this machine."""


class Server:
    """Reads its certificates when made, serves from `start` on; may be used once."""

    def __init__(
        self, settings: ServerSettings, clock: Clock, servicers: Sequence[Registration]
    ) -> None:
        tls = settings.tls
        self._addresses = settings.listen.addresses
        self._chain, self._key = Path(tls.certificate).read_bytes(), Path(tls.key).read_bytes()
        self._trust = Trust.load(settings.trust)
        self._clock = clock
        self._servicers = servicers
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self.ports: tuple[int, ...] = ()
        """One for each listening address, in order; of a unix socket 1."""

    async def start(self) -> None:
        trust = self._trust
        own: Identity = identity_of(load_leaf(self._chain), trust, now=self._clock.now())
        credentials = grpc.ssl_server_credentials(
            [(self._key, self._chain)], root_certificates=trust.pem(), require_client_auth=True
        )
        server = grpc.aio.server(
            interceptors=[CallInterceptor(own, trust, self._clock)], options=_OPTIONS
        )
        for add, servicer, _ in self._servicers:
            add(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [descriptor.full_name for _, _, descriptor in self._servicers]
        reflection.enable_server_reflection(
            [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        self.ports = tuple(_listen(server, address, credentials) for address in self._addresses)
        await server.start()
        self._server = server
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("server.started", addresses=self._addresses, identity=str(own))

    async def wait(self) -> None:
        """Until `stop` is through."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Says NOT_SERVING, takes no more calls, lets those at work end within `grace_s`."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        log.info("server.stopped")


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ListenFailed(f"{address}: cannot be listened on: {error}") from None
