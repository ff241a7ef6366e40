"""How each step of a guest is taken on its host."""

from typing import Any

import structlog

from intertie.common.names import DeviceNames
from intertie.common.points import reach
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.machine import MachineFacts, hypervisor_for, machine_of
from intertie.nodeagent.domain.migrating import Bearing
from intertie.nodeagent.domain.ports import Hypervisor, Images, Storage
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import DomainState, Note, Step
from intertie.nodeagent.domain.seed import seed_files
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace
from intertie.nodeagent.loops.connections import Connections
from intertie.nodeagent.loops.knowledge import Knowledge
from intertie.nodeagent.loops.listening import Listening
from intertie.nodeagent.loops.moving_memory import MovingMemory
from intertie.nodeagent.loops.pool_room import TO_RESUME_MIB
from intertie.nodeagent.loops.room import Room
from intertie.nodeagent.loops.sending_guests import SendingGuests
from intertie.nodeagent.loops.snapshots import Snapshots

log = structlog.get_logger(__name__)


class GuestSteps:
    """Takes steps; which ones and when is the reconciler's to say."""

    def __init__(
        self,
        knowledge: Knowledge,
        connections: Connections,
        listening: Listening,
        hypervisor: Hypervisor,
        storage: Storage,
        images: Images,
        files: WorkspaceFiles,
        machine: MachineFacts,
        memory: MovingMemory,
        room: Room,
        snapshots: Snapshots,
        sending: SendingGuests,
    ) -> None:
        self._knowledge = knowledge
        self._connections = connections
        self._listening = listening
        self._hypervisor = hypervisor
        self._storage = storage
        self._images = images
        self._files = files
        self._machine = machine
        self._memory = memory
        self._room = room
        self.snapshots = snapshots
        self._sending = sending

    def moving(self) -> frozenset[str]:
        """Uids of those whose memory is on the way, from or to the host's disk or to another host:
        until it is there, nothing is known of what there is to do for them."""
        return self._sending.moving().union(self._memory.moving())

    def forget(self, uid: str) -> None:
        self._memory.forget(uid)

    async def take(self, step: Step, part: WantedPart, workspace: WantedWorkspace) -> None:
        """HostFailure; NoMemoryYet for what begins when there is some."""
        uid, name = workspace.uid, DeviceNames.domain(workspace.uid)
        await self.snapshots.give_way(uid)
        match step:
            case Step.STAGE_IMAGE:
                self._stage(workspace, part.tenant)
                return
            case Step.MAKE_DISK:
                base = self._images.ready(workspace.environment.image)
                if base is None:
                    return
                await self._storage.make_disk(uid, base, workspace.allocation.disk_mib)
                reach("agent.disk_made")
            case Step.GROW_DISK:
                await self._storage.grow_disk(uid, workspace.allocation.disk_mib)
            case Step.MAKE_VOLUMES:
                for number, disk in enumerate(workspace.disks):
                    if not disk.image and not self._storage.has_volume(uid, number):
                        await self._storage.make_volume(uid, number, disk.size_mib)
            case Step.MAKE_SEED:
                await self._storage.make_seed(uid, seed_files(part, workspace))
            case Step.DEFINE:
                kind = hypervisor_for(workspace, self._machine.hypervisors)
                machine = machine_of(part, workspace, self._files, self._machine)
                reach("agent.before_define")
                await self._hypervisor.define(machine, kind)
                reach("agent.defined")
            case Step.START:
                self.check_network(workspace)
                await self._room.take(uid, workspace.allocation.memory_mib)
                note = self._knowledge.parts[part.uid].note(uid)
                begun = Note(
                    boots=workspace.switched.boots,
                    starting=True,
                    saved=note.saved,
                    restored=note.restored,
                    snapshot=note.snapshot,
                )
                self._knowledge.remember(part.uid, uid, begun)
                if not self._knowledge.may_start:
                    return
                await self._hypervisor.start(name)
                self._listening.started(uid)
                reach("agent.started")
            case Step.RESUME:
                room_mib = self._storage.room_mib()
                if room_mib < TO_RESUME_MIB:
                    raise HostFailure(
                        f"paused in a write to its disk: the host's pool is full, {room_mib} MiB"
                        f" are free; it goes on when there are {TO_RESUME_MIB}"
                    )
                await self._hypervisor.resume(name)
            case Step.STOP:
                await self._hypervisor.stop(name)
            case Step.PRESS:
                await self._hypervisor.press(name)
            case Step.PAUSE:
                self._note(part, uid, paused=True)
                if not self._knowledge.may_start:
                    return
                await self._hypervisor.pause(name)
            case Step.GO_ON:
                if self._storage.memory(uid) is Memory.SAVED:
                    self._storage.take_memory(uid)
                await self._hypervisor.resume(name)
                self._note(part, uid, paused=False)
                self._listening.started(uid)
            case Step.SAVE:
                has = await self._hypervisor.memory_mib()
                self._memory.save(
                    uid,
                    has.get(name, workspace.allocation.memory_mib),
                    lambda move: self._note(part, uid, saved=move),
                )
            case Step.KEEP:
                await self._memory.keep(uid)
            case Step.RESTORE:
                self.check_network(workspace)
                memory_mib = await self._hypervisor.saved_mib(str(self._files.saved(uid)))
                await self._room.take(uid, memory_mib)
                self._note(part, uid, paused=False)
                self._memory.restore(
                    uid, memory_mib, lambda move: self._note(part, uid, restored=move)
                )
                self._listening.started(uid)
            case Step.SEND:
                assert workspace.migration is not None
                if not self._knowledge.may_start:
                    return
                if not workspace.migration.aside and self.snapshots.thawing.awaited(part.uid, uid):
                    return
                bearing = await self._bearing(part, workspace)
                if not self._sending.send(uid, workspace.migration, bearing):
                    return
            case Step.TAKE_IN:
                await self._storage.take_in(uid)
            case Step.GIVE:
                await self._storage.give(uid)
            case Step.DISCARD:
                self._storage.discard_memory(uid)
        log.info("guest.step", step=step.value, workspace=uid, name=workspace.name)

    def _stage(self, workspace: WantedWorkspace, tenant: str) -> None:
        image = workspace.environment.image
        if not self._storage.has_disk(workspace.uid) and self._images.ready(image) is None:
            self._images.request(image, tenant)
        for digest in workspace.data:
            if not self._images.has_data(digest):
                self._images.request(digest, tenant, data=True)

    async def _bearing(self, part: WantedPart, workspace: WantedWorkspace) -> Bearing:
        assert workspace.migration is not None
        note = self._knowledge.parts[part.uid].note(workspace.uid)
        if not workspace.migration.aside:
            return Bearing(ready_time=note.ready_time, frozen=note.frozen)
        state = (await self._hypervisor.states()).get(DeviceNames.domain(workspace.uid))
        itself = state is DomainState.POWERED_OFF and not (note.paused or note.starting)
        return Bearing(
            ready_time=note.ready_time or note.was_ready,
            boots=note.boots,
            powered_off=note.powered_off or itself,
            frozen=note.frozen,
        )

    def check_network(self, workspace: WantedWorkspace) -> None:
        """HostFailure where a guest that runs from now on would not be held to what it may do."""
        uid = workspace.uid
        taps = {DeviceNames.tap(uid, number) for number in range(len(workspace.nics))}
        applied = self._connections.applied
        if taps & applied.missing:
            raise HostFailure(f"its network is not there: {applied.problem}")
        if taps and (why := self._connections.unenforced):
            raise HostFailure(f"what it may send cannot be enforced: {why}")

    def _note(self, part: WantedPart, uid: str, **what: Any) -> None:
        """Of a part that may have been forgotten, where memory was on its way meanwhile."""
        known = self._knowledge.parts.get(part.uid)
        if known is not None:
            self._knowledge.remember(part.uid, uid, replace(known.note(uid), **what))
