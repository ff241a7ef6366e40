"""The NodeAgent service: facts, what was seen, counters, and streams into guests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.api.nodeagent.v1 import nodeagent_pb2_grpc as rpc
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import attach_pb2
from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid, NotFound, SiteUnreachable, WorkspaceNotRunning
from intertie.common.names import DeviceNames, split_workspace
from intertie.common.rpc.attach import opening
from intertie.nodeagent.convert import facts_to_proto, seen_to_proto
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.network_plan import link_local
from intertie.nodeagent.domain.ports import Stream, Streams
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.domain.report import HostFacts
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.reconcile import Reconciler
from intertie.nodeagent.measurements import Measurements

Open = attach_pb2.AttachRequest.Open


class NodeAgentServicer(rpc.NodeAgentServicer):
    """Reads; it changes nothing on the host."""

    def __init__(
        self,
        *,
        site: str,
        reconciler: Reconciler,
        streams: Streams,
        measurements: Measurements,
        clock: Clock,
        facts: Callable[[], Awaitable[HostFacts]],
    ) -> None:
        self._site = site
        self._reconciler = reconciler
        self._streams = streams
        self._measurements = measurements
        self._clock = clock
        self._facts = facts

    async def GetFacts(self, request: pb.GetFactsRequest, context: Any) -> records_pb2.HostFacts:
        return facts_to_proto(await self._facts(), now=self._clock.now())

    async def ListWorkspaces(
        self, request: pb.ListWorkspacesRequest, context: Any
    ) -> pb.ListWorkspacesResponse:
        now = self._clock.now()
        report = self._reconciler.report or ()
        return pb.ListWorkspacesResponse(parts=[seen_to_proto(part, now=now) for part in report])

    async def ListMeasurements(
        self, request: pb.ListMeasurementsRequest, context: Any
    ) -> pb.ListMeasurementsResponse:
        parts = [
            part.wanted
            for part in self._reconciler.known.values()
            if request.part in ("", part.wanted.name)
        ]
        try:
            found = await self._measurements.read(parts, self._clock.now())
        except HostFailure as error:
            raise SiteUnreachable(self._site, str(error)) from error
        return pb.ListMeasurementsResponse(measurements=found)

    async def Attach(
        self, request_iterator: AsyncIterator[attach_pb2.AttachRequest], context: Any
    ) -> AsyncIterator[attach_pb2.AttachResponse]:
        opened = await opening(request_iterator)
        async with self._open(opened) as stream:
            yield attach_pb2.AttachResponse(opened=True)
            sending = asyncio.create_task(_send(request_iterator, stream))
            try:
                async for data in stream.received():
                    yield attach_pb2.AttachResponse(data=data)
                if not stream.taken:
                    yield attach_pb2.AttachResponse(end=True)
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending

    def _open(self, opened: Open) -> AbstractAsyncContextManager[Stream]:
        workspace = self._running(opened.workspace)
        if opened.channel == Open.CONSOLE:
            return self._streams.console(workspace.uid, opened.workspace)
        if opened.channel != Open.TCP:
            raise FieldInvalid("open.channel", "must be CONSOLE or TCP")
        if not 1 <= opened.port <= 65_535:
            raise FieldInvalid("open.port", f"{opened.port} is not between 1 and 65535")
        if not workspace.nics:
            raise FieldInvalid("open.channel", "TCP needs a workspace with a network")
        nic = workspace.nics[0]
        return self._streams.tcp(
            link_local(nic.mac), DeviceNames.bridge(nic.network_uid), opened.port, opened.workspace
        )

    def _running(self, name: str) -> WantedWorkspace:
        part_name, label = split_workspace(name, "open.workspace")
        for part in self._reconciler.known.values():
            if part.wanted.name != part_name:
                continue
            for workspace in part.wanted.workspaces:
                if workspace.name == label:
                    state = self._reconciler.domains.get(DeviceNames.domain(workspace.uid))
                    if state is not DomainState.RUNNING:
                        shown = state.value if state else "not there"
                        raise WorkspaceNotRunning(name, shown)
                    return workspace
        raise NotFound(name)


async def _send(requests: AsyncIterator[attach_pb2.AttachRequest], stream: Stream) -> None:
    async for request in requests:
        if request.WhichOneof("frame") == "data":
            await stream.send(request.data)
        elif request.end:
            stream.end()
