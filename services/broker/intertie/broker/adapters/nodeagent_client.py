"""The agents of the site's hosts: only streams go to them."""

from collections.abc import AsyncIterator, Callable

import grpc

from intertie.api.nodeagent.v1 import nodeagent_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.broker.usecases.find_workspace import AtHost
from intertie.common.rpc import attach

Dial = Callable[[str, str], grpc.aio.Channel]
"""(address, host) to a channel; the host's name must be in the agent's certificate."""


class GrpcAgents:
    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._channels: dict[tuple[str, str], grpc.aio.Channel] = {}

    async def attach(
        self,
        at: AtHost,
        opened: attach_pb2.AttachRequest.Open,
        requests: AsyncIterator[attach_pb2.AttachRequest],
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        """Relays a stream to a workspace on its host."""
        onward = attach_pb2.AttachRequest.Open()
        onward.CopyFrom(opened)
        onward.workspace = at.workspace
        stub = nodeagent_pb2_grpc.NodeAgentStub(self._channel(at))
        async for each in attach.relay(onward, requests, stub.Attach):
            yield each

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, at: AtHost) -> grpc.aio.Channel:
        """One a host, kept; a new one when its agent moved."""
        key = (at.agent_address, at.host)
        if key not in self._channels:
            self._channels[key] = self._dial(at.agent_address, at.host)
        return self._channels[key]
