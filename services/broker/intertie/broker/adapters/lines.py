"""Channels to other services, one each, kept for as long as the broker runs."""

import grpc

from intertie.common.rpc.client import following_channel
from intertie.common.rpc.credentials import Credentials


class Lines:
    """They follow the broker's certificate and roots."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    def to(self, address: str, server_name: str) -> grpc.aio.Channel:
        """`server_name` must be in the certificate of who answers there."""
        key = (address, server_name)
        if key not in self._channels:
            self._channels[key] = following_channel(address, self._credentials, server_name)
        return self._channels[key]

    async def close(self) -> None:
        for each in self._channels.values():
            await each.close()
