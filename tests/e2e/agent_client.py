"""A client of one node agent, as its broker, and a way to run commands on a guest's console."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.api.nodeagent.v1 import nodeagent_pb2_grpc as rpc
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import attach_pb2
from intertie.common.rpc.client import channel
from intertie.common.rpc.identity import Trust
from intertie.common.settings import TlsSettings, TrustSettings
from testbed.bed import Testbed
from testbed.domains import site_domain
from testbed.services import service_socket

T = TypeVar("T")
Request = attach_pb2.AttachRequest
Open = attach_pb2.AttachRequest.Open


@dataclass(frozen=True, slots=True)
class AgentClient:
    """Every method makes a connection of its own: an agent may be killed between two."""

    testbed: Testbed
    site: str
    host: str

    def facts(self) -> records_pb2.HostFacts:
        async def ask(stub: Any) -> records_pb2.HostFacts:
            found: records_pb2.HostFacts = await stub.GetFacts(pb.GetFactsRequest())
            return found

        return asyncio.run(self._with_stub(ask))

    def parts(self) -> list[records_pb2.SeenPart]:
        """With the workspaces of each, as the agent last saw them."""

        async def ask(stub: Any) -> list[records_pb2.SeenPart]:
            answer = await stub.ListWorkspaces(pb.ListWorkspacesRequest())
            return list(answer.parts)

        return asyncio.run(self._with_stub(ask))

    def measurements(self) -> list[pb.Measurement]:
        async def ask(stub: Any) -> list[pb.Measurement]:
            answer = await stub.ListMeasurements(pb.ListMeasurementsRequest())
            return list(answer.measurements)

        return asyncio.run(self._with_stub(ask))

    def on_console(self, workspace: str, command: str, *, within_s: float = 150) -> str:
        """What the command writes on the guest's serial console."""
        mark = uuid4().hex[:8]
        # Quotes in the middle: the echo of the line is not mistaken for the marks.
        line = f"echo BEG''IN{mark}; {command}; echo EN''D{mark}\n"
        pattern = re.compile(rf"BEGIN{mark}\r?\n(.*?)END{mark}", re.S)

        async def talk(stub: Any) -> str:
            call = stub.Attach(typing(Open(workspace=workspace, channel=Open.CONSOLE), line))
            heard = ""
            async for response in call:
                heard += response.data.decode(errors="replace")
                if found := pattern.search(heard):
                    call.cancel()
                    return found.group(1)
            raise AssertionError(f"the console ended: {heard[-500:]!r}")

        return asyncio.run(asyncio.wait_for(self._with_stub(talk), within_s))

    def banner(self, workspace: str, port: int) -> bytes:
        """The first bytes that a server in the guest sends over TCP."""

        async def greet(stub: Any) -> bytes:
            opened = Open(workspace=workspace, channel=Open.TCP, port=port)
            call = stub.Attach(typing(opened, ""))
            async for response in call:
                if response.data:
                    call.cancel()
                    return bytes(response.data)
            raise AssertionError("nothing was sent")

        return asyncio.run(asyncio.wait_for(self._with_stub(greet), 60))

    async def _with_stub(self, use: Callable[[Any], Awaitable[T]]) -> T:
        domain = site_domain(self.testbed.places, self.site)
        credential = domain.service_credential("broker")
        tls = TlsSettings(certificate=credential.certificate, key=credential.key)
        trust = Trust.load((TrustSettings(domain=domain.name, roots=domain.roots),))
        socket = service_socket(self.testbed.places, f"{self.site}/{self.host}/nodeagent")
        name = f"{self.host}.agent.{domain.name}"
        async with channel(f"unix:{socket}", tls, trust, name) as connection:
            return await use(rpc.NodeAgentStub(connection))


async def typing(opened: Open, text: str) -> AsyncIterator[Request]:
    """Opens the stream, sends the text, and leaves the stream open."""
    yield Request(open=opened)
    if text:
        yield Request(data=text.encode())
    await asyncio.Event().wait()
