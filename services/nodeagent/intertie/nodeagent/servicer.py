"""The NodeAgent service: facts, what was seen, counters, and streams into guests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.api.nodeagent.v1 import nodeagent_pb2_grpc as rpc
from intertie.api.nodeagent.v1 import records_pb2
from intertie.api.types.v1 import attach_pb2
from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid, NotFound, SiteUnreachable, WorkspaceNotRunning
from intertie.common.names import DeviceNames, split_workspace
from intertie.common.rpc.attach import opening
from intertie.common.rpc.identity import current_identity
from intertie.common.rpc.spec_proto import timestamp_from_proto
from intertie.nodeagent.convert import facts_to_proto, seen_to_proto
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.migrating import Bearing, Channel
from intertie.nodeagent.domain.network_plan import link_local
from intertie.nodeagent.domain.ports import Stream, Streams
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.domain.report import HostFacts
from intertie.nodeagent.domain.wanted import WantedWorkspace
from intertie.nodeagent.loops.arrivals import Arrivals
from intertie.nodeagent.loops.reconcile import Reconciler
from intertie.nodeagent.measurements import Measurements

Open = attach_pb2.AttachRequest.Open


_CHANNELS = {pb.TunnelRequest.Channel.Value(each.name): each for each in Channel}


class NodeAgentServicer(rpc.NodeAgentServicer):
    """Reads; it changes nothing on the host, but for what comes from another one by the site's
    word: its files, and that it goes on here."""

    def __init__(
        self,
        *,
        site: str,
        reconciler: Reconciler,
        streams: Streams,
        measurements: Measurements,
        clock: Clock,
        facts: Callable[[], Awaitable[HostFacts]],
        arrivals: Arrivals,
        files: WorkspaceFiles,
    ) -> None:
        self._site = site
        self._reconciler = reconciler
        self._streams = streams
        self._measurements = measurements
        self._clock = clock
        self._facts = facts
        self._arrivals = arrivals
        self._files = files

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
            async with _meanwhile(_send(request_iterator, stream)):
                async for data in stream.received():
                    yield attach_pb2.AttachResponse(data=data)
                if not stream.taken:
                    yield attach_pb2.AttachResponse(end=True)

    async def BeginMigration(
        self, request: pb.BeginMigrationRequest, context: Any
    ) -> pb.BeginMigrationResponse:
        ready = request.ready_time if request.HasField("ready_time") else None
        bearing = Bearing(
            ready_time=timestamp_from_proto(ready, "ready_time") if ready is not None else None,
            boots=request.boots,
            powered_off=request.powered_off,
            frozen=request.frozen,
        )
        uid = request.workspace_uid
        try:
            await self._arrivals.begin(uid, request.number, current_identity().name, bearing)
        except HostFailure as error:
            raise WorkspaceNotRunning(uid, f"to come, and cannot: {error}") from error
        return pb.BeginMigrationResponse(data=str(self._files.data))

    async def Tunnel(
        self, request_iterator: AsyncIterator[pb.TunnelRequest], context: Any
    ) -> AsyncIterator[pb.TunnelResponse]:
        first = await anext(request_iterator, pb.TunnelRequest())
        opened = first.open
        channel = _CHANNELS.get(opened.channel)
        if channel is None:
            known = ", ".join(each.name for each in Channel)
            raise FieldInvalid("open.channel", f"must be one of {known}")
        host = current_identity().name
        tunnel = self._arrivals.tunnel(
            opened.workspace_uid, opened.number, host, channel, opened.size_bytes
        )
        try:
            async with tunnel as stream, _meanwhile(_pass_on(request_iterator, stream)):
                async for data in stream.received():
                    yield pb.TunnelResponse(data=data)
        except HostFailure as error:
            raise SiteUnreachable(self._site, str(error)) from error

    async def TakeOver(self, request: pb.TakeOverRequest, context: Any) -> pb.TakeOverResponse:
        host = current_identity().name
        try:
            await self._arrivals.take_over(request.workspace_uid, request.number, host)
        except HostFailure as error:
            raise SiteUnreachable(self._site, str(error)) from error
        return pb.TakeOverResponse()

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


@asynccontextmanager
async def _meanwhile(sending: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Beside what comes back, and no longer than that."""
    task = asyncio.create_task(sending)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _pass_on(requests: AsyncIterator[pb.TunnelRequest], stream: Stream) -> None:
    async for request in requests:
        await stream.send(request.data)
    stream.end()


async def _send(requests: AsyncIterator[attach_pb2.AttachRequest], stream: Stream) -> None:
    async for request in requests:
        if request.WhichOneof("frame") == "data":
            await stream.send(request.data)
        elif request.end:
            stream.end()
