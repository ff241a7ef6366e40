"""Channels to other services, and what their failures mean.

A channel trusts the roots of the one domain that the server's name lies in, so that no other
domain can pass off a server as that one's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from intertie.common.rpc import request_id
from intertie.common.rpc.errors import to_domain_error
from intertie.common.rpc.identity import Trust
from intertie.common.rpc.limits import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES
from intertie.common.settings import TlsSettings

__all__ = ["DEFAULT_TIMEOUT_S", "channel", "to_domain_error"]

DEFAULT_TIMEOUT_S = 30.0
"""Of a unary call for which the caller gives none: nothing waits for ever."""

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.enable_http_proxy", 0),
    # A peer that was away is found again within a second, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A peer that stands still is noticed by its silence.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def channel(address: str, tls: TlsSettings, trust: Trust, server_name: str) -> grpc.aio.Channel:
    """To `10.201.0.2:7400` or `unix:/path`, where `server_name` must be in the certificate.

    Lazy: connects with the first call. Unary calls pass on the request id by themselves and have
    a deadline; streams are given `request_id.outgoing()` as metadata.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=trust.pem(trust.domain_of(server_name)),
        private_key=Path(tls.key).read_bytes(),
        certificate_chain=Path(tls.certificate).read_bytes(),
    )
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", server_name)]
    return grpc.aio.secure_channel(
        address, credentials, options=options, interceptors=[_UnaryDefaults()]
    )


class _UnaryDefaults(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        given = client_call_details
        metadata = grpc.aio.Metadata(*(given.metadata or ()))
        if metadata.get(request_id.METADATA_KEY) is None:
            for key, value in request_id.outgoing():
                metadata.add(key, value)
        details = grpc.aio.ClientCallDetails(
            method=given.method,
            timeout=DEFAULT_TIMEOUT_S if given.timeout is None else given.timeout,
            metadata=metadata,
            credentials=given.credentials,
            wait_for_ready=given.wait_for_ready,
        )
        return await continuation(details, request)
