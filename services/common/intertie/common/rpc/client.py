"""Channels to other services, and what their failures mean.

A channel trusts the roots of the one domain that the server's name lies in, so that no other
domain can pass off a server as that one's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from intertie.common.clock import Clock
from intertie.common.rpc import request_id
from intertie.common.rpc.credentials import Credentials, Papers
from intertie.common.rpc.errors import to_domain_error
from intertie.common.rpc.following import FollowingChannel
from intertie.common.rpc.identity import Trust
from intertie.common.rpc.limits import MAX_MESSAGE_BYTES, MAX_METADATA_BYTES
from intertie.common.rpc.replicas import DEFAULT_TIMEOUT_S, ReplicaChannel
from intertie.common.settings import TlsSettings

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "channel",
    "following_channel",
    "replica_channel",
    "to_domain_error",
]

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
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def following_channel(address: str, credentials: Credentials, server_name: str) -> grpc.aio.Channel:
    """As `channel`; and each call shows the certificate, and believes the roots, that the files
    of `credentials` hold when it begins, or held a second before. No call fails for a renewal:
    see `FollowingChannel` for what is promised."""

    def made(papers: Papers) -> grpc.aio.Channel:
        return _channel(address, papers.own.chain, papers.own.key, papers.trust, server_name)

    return FollowingChannel(credentials.papers, made, _unary_defaults)


def replica_channel(
    addresses: Iterable[str],
    credentials: Credentials,
    server_name: str,
    clock: Clock,
    *,
    patience_s: float,
) -> grpc.aio.Channel:
    """As `following_channel`, to all replicas of a service: see `ReplicaChannel`. Each must show a
    certificate in the same name."""
    channels = {each: following_channel(each, credentials, server_name) for each in addresses}
    return ReplicaChannel(channels, clock, patience_s=patience_s)


def channel(address: str, tls: TlsSettings, trust: Trust, server_name: str) -> grpc.aio.Channel:
    """To `10.201.0.2:7400` or `unix:/path`, where `server_name` must be in the certificate.

    Lazy: connects with the first call. Unary calls pass on the request id by themselves and have
    a deadline; streams are given `request_id.outgoing()` as metadata. Shows for good what the
    files hold now.
    """
    chain, key = Path(tls.certificate).read_bytes(), Path(tls.key).read_bytes()
    return _channel(address, chain, key, trust, server_name, _UnaryDefaults())


def _channel(
    address: str,
    chain: bytes,
    key: bytes,
    trust: Trust,
    server_name: str,
    *interceptors: grpc.aio.ClientInterceptor,
) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(
        root_certificates=trust.pem(trust.domain_of(server_name)),
        private_key=key,
        certificate_chain=chain,
    )
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", server_name)]
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)


def _unary_defaults(options: dict[str, Any]) -> None:
    """A deadline, and the request id of what it is done for."""
    if options.get("timeout") is None:
        options["timeout"] = DEFAULT_TIMEOUT_S
    given = tuple(options.get("metadata") or ())
    if all(key != request_id.METADATA_KEY for key, _ in given):
        options["metadata"] = (*given, *request_id.outgoing())


class _UnaryDefaults(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        given = client_call_details
        options: dict[str, Any] = {"timeout": given.timeout, "metadata": given.metadata}
        _unary_defaults(options)
        details = grpc.aio.ClientCallDetails(
            method=given.method,
            timeout=options["timeout"],
            metadata=grpc.aio.Metadata(*(options["metadata"] or ())),
            credentials=given.credentials,
            wait_for_ready=given.wait_for_ready,
        )
        return await continuation(details, request)
