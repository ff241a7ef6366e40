"""Guests that come to this host from others, by their agents' word within the site's."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import structlog

from intertie.common.errors import NotFound, WorkspaceNotRunning
from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.domain.migrating import Channel, Role
from intertie.nodeagent.domain.ports import ArrivalSockets, Hypervisor, Storage, Stream
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.listening import Listening
from intertie.nodeagent.loops.room import Room

log = structlog.get_logger(__name__)


class Arrivals:
    """Serves the agent of the host that sends, for a workspace that this host is told to take by
    the same number from there, and for no other."""

    def __init__(
        self,
        knowledge: Knowledge,
        hypervisor: Hypervisor,
        storage: Storage,
        listening: Listening,
        room: Room,
        sockets: ArrivalSockets,
        check_network: Callable[[WantedWorkspace], None],
    ) -> None:
        """`check_network`: HostFailure where a guest would not be held to what it may send."""
        self._knowledge = knowledge
        self._hypervisor = hypervisor
        self._storage = storage
        self._listening = listening
        self._room = room
        self._sockets = sockets
        self._check_network = check_network

    async def begin(self, uid: str, number: int, host: str, *, ready_time: datetime | None) -> None:
        """NotFound; WorkspaceNotRunning where it cannot come; HostFailure."""
        part, workspace = self._expected(uid, number, host)
        if not self._knowledge.may_start:
            raise WorkspaceNotRunning(workspace.name, "to come to a host that may start nothing")
        if not (self._storage.has_disk(uid) and self._storage.has_seed(uid)):
            raise WorkspaceNotRunning(workspace.name, "to come to a host that is not ready for it")
        if DeviceNames.domain(uid) in await self._hypervisor.states():
            raise WorkspaceNotRunning(workspace.name, "here already, as it came before")
        self._check_network(workspace)
        self._room.look_again()
        await self._room.take(uid, workspace.allocation.memory_mib)
        # Before anything of it comes: whoever finds it standing still later lets it go on.
        note = replace(
            self._knowledge.parts[part.uid].note(uid),
            boots=workspace.switched.boots,
            paused=True,
            was_ready=ready_time,
        )
        self._knowledge.remember(part.uid, uid, note)
        if not self._knowledge.may_start:
            raise WorkspaceNotRunning(workspace.name, "to come to a host that notes nothing")
        log.info("guest.coming", workspace=uid, host=host, number=number)

    def tunnel(
        self, uid: str, number: int, host: str, channel: Channel
    ) -> AbstractAsyncContextManager[Stream]:
        """NotFound; ConnectionRefused when it is entered."""
        self._expected(uid, number, host)
        return self._sockets.open(uid, channel)

    async def take_over(self, uid: str, number: int, host: str) -> None:
        """The source has given it up. NotFound, WorkspaceNotRunning, HostFailure."""
        part, workspace = self._expected(uid, number, host)
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

    def _expected(self, uid: str, number: int, host: str) -> tuple[WantedPart, WantedWorkspace]:
        for part in self._knowledge.parts.values():
            for workspace in part.wanted.workspaces:
                found = workspace.migration
                if workspace.uid != uid or found is None or not part.present:
                    continue
                if (found.role, found.number, found.host) == (Role.TAKE, number, host):
                    return part.wanted, workspace
        raise NotFound(f"workspace {uid}, on its way from {host} by number {number}")
