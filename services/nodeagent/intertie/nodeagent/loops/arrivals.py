"""Guests that come to this host from others, by their agents' word within the site's."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import ConnectionRefused, NotFound, WorkspaceNotRunning
from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.domain.domain_xml import MIB
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.migrating import FILES, Bearing, Channel, Role
from intertie.nodeagent.domain.ports import ArrivalSockets, Hypervisor, Images, Storage, Stream
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.listening import Listening
from intertie.nodeagent.loops.pool_room import PoolRoom
from intertie.nodeagent.loops.room import Room

log = structlog.get_logger(__name__)

_LOOK_S = 3.0
"""How often it is looked whether what a tunnel is for still is the site's word."""
_STREAMS = 2
"""Of each kind at the same time: libvirt and QEMU use one, and may come again."""


class Arrivals:
    """Serves the agent of the host that sends, for a workspace that this host is told to take by
    the same number from there, and for no other."""

    def __init__(
        self,
        clock: Clock,
        knowledge: Knowledge,
        hypervisor: Hypervisor,
        storage: Storage,
        listening: Listening,
        room: Room,
        pool: PoolRoom,
        images: Images,
        sockets: ArrivalSockets,
        check_network: Callable[[WantedWorkspace], None],
    ) -> None:
        """`check_network`: HostFailure where a guest would not be held to what it may send."""
        self._clock = clock
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._storage = storage
        self._listening = listening
        self._room = room
        self._pool = pool
        self._images = images
        self._sockets = sockets
        self._check_network = check_network
        self._begun: dict[str, int] = {}
        """By uid, the number that it comes by."""
        self._streams: Counter[tuple[str, int, Channel]] = Counter()

    async def begin(self, uid: str, number: int, host: str, bearing: Bearing) -> None:
        """NotFound; WorkspaceNotRunning where it cannot come; HostFailure."""
        part, workspace = self._expected(uid, number, host)
        aside = _comes_aside(workspace)
        if not self._knowledge.may_start:
            raise WorkspaceNotRunning(workspace.name, "to come to a host that may start nothing")
        below = self._images.ready(workspace.environment.image) if aside else None
        if not (self._storage.has_seed(uid) and (below or self._storage.has_disk(uid))):
            raise WorkspaceNotRunning(workspace.name, "to come to a host that is not ready for it")
        is_there = aside and self._storage.has_disk(uid)
        if is_there or DeviceNames.domain(uid) in await self._hypervisor.states():
            raise WorkspaceNotRunning(workspace.name, "here already, as it came before")
        note = replace(
            self._knowledge.parts[part.uid].note(uid),
            was_ready=bearing.ready_time,
            frozen=bearing.frozen,
        )
        if aside:
            note = replace(note, boots=bearing.boots, powered_off=bearing.powered_off)
        else:
            self._check_network(workspace)
            self._room.look_again()
            await self._room.take(uid, workspace.allocation.memory_mib)
            # Whoever finds it standing still later lets it go on.
            note = replace(note, boots=workspace.switched.boots, paused=True)
        # Before anything of it comes.
        self._knowledge.remember(part.uid, uid, note)
        if not self._knowledge.may_start:
            raise WorkspaceNotRunning(workspace.name, "to come to a host that notes nothing")
        self._begun[uid] = number
        log.info("guest.coming", workspace=uid, host=host, number=number)

    @contextlib.asynccontextmanager
    async def tunnel(
        self, uid: str, number: int, host: str, channel: Channel, size_bytes: int
    ) -> AsyncIterator[Stream]:
        """For what was begun, and as long as the site's record says so: NotFound before and
        after. ConnectionRefused where nothing listens, or enough are open. `size_bytes`: of a
        file."""
        _, workspace = self._expected(uid, number, host)
        if _comes_aside(workspace) is not (channel in FILES):
            raise NotFound(f"{channel.name} of workspace {uid}")
        if self._begun.get(uid) != number:
            raise NotFound(f"workspace {uid}, begun to come from {host} by number {number}")
        key = uid, number, channel
        if self._streams[key] >= (1 if channel in FILES else _STREAMS):
            raise ConnectionRefused(uid, 0)
        self._streams[key] += 1
        try:
            async with self._opened(workspace, channel, size_bytes) as stream:
                watch = asyncio.create_task(self._cut_when_over(uid, number, host, stream))
                try:
                    yield stream
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
            self._expected(uid, number, host)
        finally:
            self._streams[key] -= 1
            self._streams += Counter()  # without what has none

    @contextlib.asynccontextmanager
    async def _opened(
        self, workspace: WantedWorkspace, channel: Channel, size_bytes: int
    ) -> AsyncIterator[Stream]:
        """HostFailure where a file has no room."""
        uid = workspace.uid
        if channel not in FILES:
            async with self._sockets.open(uid, channel) as stream:
                yield stream
            return
        base = self._images.ready(workspace.environment.image)
        if base is None or self._storage.has_disk(uid):
            raise HostFailure(f"{workspace.name} cannot come to a host that is not ready for it")
        mib = -(-size_bytes // MIB)
        with self._pool.writing(
            "a workspace that comes", mib, lambda: self._storage.coming_bytes(uid, channel) // MIB
        ):
            async with self._storage.coming(uid, channel, size_bytes, base) as stream:
                yield stream

    async def _cut_when_over(self, uid: str, number: int, host: str, stream: Stream) -> None:
        while True:
            await self._clock.sleep(_LOOK_S)
            try:
                self._expected(uid, number, host)
            except NotFound:
                log.info("tunnel.cut", workspace=uid, host=host, number=number)
                stream.cut()
                return

    async def take_over(self, uid: str, number: int, host: str) -> None:
        """The source has given it up. NotFound, WorkspaceNotRunning, HostFailure."""
        part, workspace = self._expected(uid, number, host)
        if _comes_aside(workspace):
            await self._take_in(workspace, host)
            return
        name = DeviceNames.domain(uid)
        state = (await self._hypervisor.states()).get(name)
        if state is DomainState.RUNNING:
            return
        if state is not DomainState.PAUSED or not self._knowledge.may_start:
            raise WorkspaceNotRunning(workspace.name, state.name if state else "not there")
        await self._hypervisor.resume(name)
        note = replace(self._knowledge.parts[part.uid].note(uid), paused=False)
        self._knowledge.remember(part.uid, uid, note)
        self._listening.started(uid)
        log.info("guest.taken_over", workspace=uid, host=host)

    async def _take_in(self, workspace: WantedWorkspace, host: str) -> None:
        """What a pass does too, once the site says that it is this host's."""
        uid = workspace.uid
        if self._storage.has_come(uid):
            await self._storage.take_in(uid)
            log.info("guest.taken_in", workspace=uid, host=host)
        elif not self._storage.has_disk(uid):
            raise WorkspaceNotRunning(workspace.name, "not there")

    def _expected(self, uid: str, number: int, host: str) -> tuple[WantedPart, WantedWorkspace]:
        for part in self._knowledge.parts.values():
            for workspace in part.wanted.workspaces:
                found = workspace.migration
                if workspace.uid != uid or found is None or not part.present:
                    continue
                if (found.role, found.number, found.host) == (Role.TAKE, number, host):
                    return part.wanted, workspace
        raise NotFound(f"workspace {uid}, on its way from {host} by number {number}")


def _comes_aside(workspace: WantedWorkspace) -> bool:
    return workspace.migration is not None and workspace.migration.aside
