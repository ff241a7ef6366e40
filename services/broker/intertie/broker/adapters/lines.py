"""Channels to other services, one each, kept for as long as the broker runs."""

import grpc

from intertie.common.rpc.client import channel
from intertie.common.rpc.identity import Trust
from intertie.common.settings import TlsSettings


class Lines:
    def __init__(self, tls: TlsSettings, trust: Trust) -> None:
        self._tls = tls
        self._trust = trust
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    def to(self, address: str, server_name: str) -> grpc.aio.Channel:
        """`server_name` must be in the certificate of who answers there."""
        key = (address, server_name)
        if key not in self._channels:
            self._channels[key] = channel(address, self._tls, self._trust, server_name)
        return self._channels[key]

    async def close(self) -> None:
        for each in self._channels.values():
            await each.close()
