"""A service's gRPC server: mutual TLS, the interceptor, health, reflection, a graceful end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from intertie.common.clock import Clock
from intertie.common.rpc.calls import CallInterceptor
from intertie.common.rpc.credentials import Credentials, Papers
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
    # The same for pings that measure bandwidth: while one is under way, no other is sent, and by
    # itself gRPC waits a minute for it.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A connection takes about 65 KiB and a file for as long as it stands. How many there are is not
    # bounded here: gRPC's `max_allowed_incoming_connections`, once reached, was seen to refuse new
    # ones after old ones had gone. Who connects and says nothing is not waited for, for gRPC's two
    # minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Without any call for so long; who comes back is connected again within its next call.
    ("grpc.max_connection_idle_ms", 15 * 60_000),
]

ADMISSIONS = "intertie.admissions"
"""For the health service: NOT_SERVING while nothing new is taken and all else goes on."""

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
    """Serves from `start` on; may be used once. Every handshake is made with what the files of
    `credentials` hold by then; connections that stand are not touched, but their calls are judged
    by the roots of now. Without credentials it makes some of its settings."""

    def __init__(
        self,
        settings: ServerSettings,
        clock: Clock,
        servicers: Sequence[Registration],
        credentials: Credentials | None = None,
    ) -> None:
        self._addresses = settings.listen.addresses
        self._credentials = credentials or Credentials(settings.tls, settings.trust, clock)
        self._clock = clock
        self._servicers = servicers
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self.ports: tuple[int, ...] = ()
        """One for each listening address, in order; of a unix socket 1."""

    async def start(self) -> None:
        own, trust = self._credentials.identity, self._credentials.trust
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
        self.ports = tuple(
            _listen(server, address, _following(self._credentials)) for address in self._addresses
        )
        await server.start()
        self._server = server
        for name in ("", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("server.started", addresses=self._addresses, identity=str(own))

    async def taking(self, *, new: bool) -> None:
        """Says by the health service's name ADMISSIONS whether anything new is taken."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(ADMISSIONS, status.SERVING if new else status.NOT_SERVING)

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


def _following(credentials: Credentials) -> grpc.ServerCredentials:
    """For one address: gRPC keeps what it was last given for each by itself."""
    given = credentials.papers(at_once=True)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Asked at every handshake, in a thread of gRPC's own; None: as before."""
        nonlocal given
        found = credentials.papers(at_once=True)
        if found is given:
            return None
        given = found
        log.info("server.certificates_changed")
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type]  # the stubs do not know of None
        require_client_authentication=True,
    )


def _configuration(papers: Papers) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(papers.own.key, papers.own.chain)], root_certificates=papers.trust.pem()
    )


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ListenFailed(f"{address}: cannot be listened on: {error}") from None
