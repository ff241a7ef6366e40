"""The connection to etcd: mutual TLS with files that are followed, and every member in its turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import structlog

from intertie.common.clock import Clock
from intertie.common.followed import Followed
from intertie.common.rpc.following import FollowingChannel
from intertie.common.rpc.pairs import private_key_of
from intertie.common.settings import EtcdSettings, SettingsInvalid

log = structlog.get_logger(__name__)

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


async def channel_to(settings: EtcdSettings, clock: Clock) -> grpc.aio.Channel:
    """See Etcd.connect."""
    kind = "dns:///" if settings.by_name else "ipv4:"
    target = kind + ",".join(settings.endpoints)
    if not settings.ca:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    options = list(_OPTIONS)
    if settings.server_name:
        options.append(("grpc.ssl_target_name_override", settings.server_name))

    def made(files: tuple[bytes, ...]) -> grpc.aio.Channel:
        ca, certificate, key = files
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return grpc.aio.secure_channel(target, credentials, options=options)

    files = await asyncio.to_thread(_followed, settings, clock)
    return FollowingChannel(files.now, made)


def _followed(settings: EtcdSettings, clock: Clock) -> Followed[tuple[bytes, ...]]:
    files = [Path(each) for each in (settings.ca, settings.certificate, settings.key) if each]

    def checked(contents: tuple[bytes, ...]) -> tuple[bytes, ...]:
        ca, certificate, key = contents
        private_key_of(certificate, key)
        if not ca.strip():
            raise ValueError("the authority's file is empty")
        return contents

    def refused(problem: Exception) -> None:
        log.warning("etcd.credentials_kept", problem=str(problem))

    try:
        return Followed(files, checked, clock, refused=refused)
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"etcd: {error}") from None
