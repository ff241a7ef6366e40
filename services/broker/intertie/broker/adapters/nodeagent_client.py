"""The agents of the site's hosts: only streams go to them."""

from collections.abc import AsyncIterator

from intertie.api.nodeagent.v1 import nodeagent_pb2_grpc
from intertie.api.types.v1 import attach_pb2
from intertie.broker.adapters.lines import Lines
from intertie.broker.domain.ports import AtHost
from intertie.common.rpc import attach
from intertie.common.rpc.identity import agent_server_name


class GrpcAgents:
    """Each must show the certificate of its host."""

    def __init__(self, lines: Lines, site: str) -> None:
        self._lines = lines
        self._site = site

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
        line = self._lines.to(at.agent_address, agent_server_name(at.host, self._site))
        stub = nodeagent_pb2_grpc.NodeAgentStub(line)
        async for each in attach.relay(onward, requests, stub.Attach):
            yield each
