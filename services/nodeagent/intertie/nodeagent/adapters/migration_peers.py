"""Agents of other hosts, as one that sends a guest there sees them, and the tunnels to them.

Hypervisors of two hosts reach one another through sockets of their own host alone; between the
hosts all of it is within the agents' mutual TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import structlog

from intertie.api.nodeagent.v1 import nodeagent_pb2 as pb
from intertie.api.nodeagent.v1 import nodeagent_pb2_grpc as rpc
from intertie.common.clock import Clock
from intertie.common.errors import ConnectionRefused, NotFound
from intertie.common.rpc import request_id
from intertie.common.rpc.client import to_domain_error
from intertie.common.rpc.spec_proto import timestamp_to_proto
from intertie.nodeagent.adapters.attachments import Attachment
from intertie.nodeagent.adapters.coming_file import DIGEST_BYTES
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration, Route
from intertie.nodeagent.domain.pace import Pace
from intertie.nodeagent.domain.ports import Deliver

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 256 * 1024
_TIMEOUT_S = 10.0

Connect = Callable[[str, str], grpc.aio.Channel]
"""(address, host)"""


class MigrationSockets:
    """Names of the sockets on which hypervisors send and take guests."""

    def __init__(self, libvirt: Path, folder: Path) -> None:
        """`libvirt`: where this host's listens; `folder`: QEMU may make sockets in it, and it is of
        the same name on all hosts of the site."""
        self._libvirt = libvirt
        self._folder = folder

    def path(self, uid: str, channel: Channel) -> Path:
        if channel is Channel.LIBVIRT:
            return self._libvirt
        return self._folder / f"it-{uid}.{channel.value.lower()}"

    @contextlib.asynccontextmanager
    async def open(self, uid: str, channel: Channel) -> AsyncIterator[Attachment]:
        """To what takes a guest on this host."""
        path = str(self.path(uid, channel))
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=_CHUNK_BYTES)
        except OSError as error:
            raise ConnectionRefused(uid, 0) from error
        stream = Attachment(reader, writer)
        try:
            yield stream
        finally:
            stream.close()


class GrpcPeers:
    """A channel a migration, as there are few of them."""

    def __init__(
        self,
        connect: Connect,
        files: WorkspaceFiles,
        sockets: MigrationSockets,
        clock: Clock,
        *,
        mib_s: int,
    ) -> None:
        self._clock = clock
        self._connect = connect
        self._files = files
        self._sockets = sockets
        self._mib_s = mib_s
        self._open: dict[str, rpc.NodeAgentAsyncStub] = {}
        """By uid: its route is open."""

    @contextlib.asynccontextmanager
    async def route(self, uid: str, migration: Migration, bearing: Bearing) -> AsyncIterator[Route]:
        async with (
            self._begun(uid, migration, bearing) as (stub, answer),
            contextlib.AsyncExitStack() as open_ones,
        ):
            route = Route(
                libvirt=self._files.peer_socket(uid),
                memory=self._sockets.path(uid, Channel.MEMORY),
                disk=self._sockets.path(uid, Channel.DISK),
                here=self._files.data,
                there=Path(answer.data),
                mib_s=self._mib_s,
            )
            for channel, path in (
                (Channel.LIBVIRT, route.libvirt),
                (Channel.MEMORY, route.memory),
                (Channel.DISK, route.disk),
            ):
                opened = pb.TunnelRequest.Open(
                    workspace_uid=uid,
                    number=migration.number,
                    channel=pb.TunnelRequest.Channel.Value(channel.name),
                )
                await open_ones.enter_async_context(_listening(path, partial(_relay, stub, opened)))
            yield route

    @contextlib.asynccontextmanager
    async def delivery(
        self, uid: str, migration: Migration, bearing: Bearing
    ) -> AsyncIterator[Deliver]:
        async with self._begun(uid, migration, bearing) as (stub, _):

            async def deliver(channel: Channel) -> None:
                is_disk = channel is Channel.DISK_FILE
                path = self._files.disk(uid) if is_disk else self._files.saved(uid)
                opened = pb.TunnelRequest.Open(
                    workspace_uid=uid,
                    number=migration.number,
                    channel=pb.TunnelRequest.Channel.Value(channel.name),
                    size_bytes=path.stat().st_size,
                )
                with _failing(migration.host):
                    await self._deliver(stub, opened, path)

            yield deliver

    async def _deliver(
        self, stub: rpc.NodeAgentAsyncStub, opened: pb.TunnelRequest.Open, path: Path
    ) -> None:
        """HostFailure where the other host does not have the same in the end."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

        async def sent() -> AsyncIterator[pb.TunnelRequest]:
            yield pb.TunnelRequest(open=opened)
            pace = Pace(self._mib_s * MIB)
            with path.open("rb") as file:
                while data := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                    digest.update(data)
                    yield pb.TunnelRequest(data=data)
                    await self._clock.sleep(pace.wait_s(len(data), now=self._clock.monotonic()))

        call = stub.Tunnel(sent(), metadata=tuple(request_id.outgoing()))
        heard = b""
        try:
            async for response in call:
                heard += response.data
        finally:
            call.cancel()
        if heard != digest.digest():
            raise HostFailure(f"{path.name} is not the same on the other host")

    @contextlib.asynccontextmanager
    async def _begun(
        self, uid: str, migration: Migration, bearing: Bearing
    ) -> AsyncIterator[tuple[rpc.NodeAgentAsyncStub, pb.BeginMigrationResponse]]:
        request = pb.BeginMigrationRequest(
            workspace_uid=uid,
            number=migration.number,
            boots=bearing.boots,
            powered_off=bearing.powered_off,
            frozen=bearing.frozen,
        )
        if bearing.ready_time is not None:
            request.ready_time.CopyFrom(timestamp_to_proto(bearing.ready_time))
        async with self._stub(migration) as stub:
            with _failing(migration.host):
                answer = await stub.BeginMigration(request, timeout=_TIMEOUT_S)
            self._open[uid] = stub
            try:
                yield stub, answer
            finally:
                del self._open[uid]

    async def take_over(self, uid: str, migration: Migration) -> None:
        request = pb.TakeOverRequest(workspace_uid=uid, number=migration.number)
        async with contextlib.AsyncExitStack() as closing:
            stub = self._open.get(uid)
            if stub is None:
                stub = await closing.enter_async_context(self._stub(migration))
            with _failing(migration.host):
                try:
                    await stub.TakeOver(request, timeout=_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    meant = to_domain_error(error)
                    if isinstance(meant, NotFound):
                        raise meant from error
                    raise

    @contextlib.asynccontextmanager
    async def _stub(self, migration: Migration) -> AsyncIterator[rpc.NodeAgentAsyncStub]:
        line = self._connect(migration.agent_address, migration.host)
        try:
            yield rpc.NodeAgentStub(line)
        finally:
            await line.close()


@contextlib.contextmanager
def _failing(host: str) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        meant = to_domain_error(error)
        said = str(meant) if meant is not None else f"{error.code().name}: {error.details()}"
        raise HostFailure(f"the agent of host {host}: {said}") from error


@contextlib.asynccontextmanager
async def _listening(
    path: Path,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """For whoever may write into its folder; nothing is left of it afterwards."""
    _clear(path)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_unix_server(accept, str(path), limit=_CHUNK_BYTES)
    try:
        _hand_over(path)
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _clear(path)


def _clear(path: Path) -> None:
    path.unlink(missing_ok=True)


def _hand_over(path: Path) -> None:
    folder = path.parent.stat()
    path.chmod(0o600)
    os.chown(path, folder.st_uid, folder.st_gid)


async def _relay(
    stub: rpc.NodeAgentAsyncStub,
    opened: pb.TunnelRequest.Open,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Until the other end has sent all that it will."""

    async def sent() -> AsyncIterator[pb.TunnelRequest]:
        yield pb.TunnelRequest(open=opened)
        while data := await reader.read(_CHUNK_BYTES):
            yield pb.TunnelRequest(data=data)

    call = stub.Tunnel(sent(), metadata=tuple(request_id.outgoing()))
    try:
        async for response in call:
            writer.write(response.data)
            await writer.drain()
    except (grpc.aio.AioRpcError, ConnectionError) as error:
        log.warning("tunnel.broken", channel=opened.channel, problem=str(error))
    finally:
        call.cancel()
        writer.close()
