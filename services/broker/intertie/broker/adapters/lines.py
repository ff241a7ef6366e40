"""Channels to other services, one each, kept for as long as the broker runs."""

import grpc

from intertie.common.clock import Clock
from intertie.common.rpc.client import following_channel, replica_channel
from intertie.common.rpc.credentials import Credentials
from intertie.common.rpc.replicas import FAIL_OVER_S


class Lines:
    """They follow the broker's certificate and roots."""

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._channels: dict[tuple[tuple[str, ...], str], grpc.aio.Channel] = {}

    def to(self, address: str, server_name: str) -> grpc.aio.Channel:
        """`server_name` must be in the certificate of who answers there."""
        key = ((address,), server_name)
        if key not in self._channels:
            self._channels[key] = following_channel(address, self._credentials, server_name)
        return self._channels[key]

    def to_replicas(self, addresses: tuple[str, ...], server_name: str) -> grpc.aio.Channel:
        """Likewise, of every replica of a service. Calls wait for one that leads."""
        key = (addresses, server_name)
        if key not in self._channels:
            self._channels[key] = replica_channel(
                addresses, self._credentials, server_name, self._clock, patience_s=FAIL_OVER_S
            )
        return self._channels[key]

    async def close(self) -> None:
        for each in self._channels.values():
            await each.close()
