"""A host in memory: what the passes of the agent need of it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from intertie.common.values import replace
from intertie.nodeagent.domain.domain_xml import Machine
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.guest_terms import (
    MEMORY_SLOTS,
    CapDisk,
    Change,
    GrowDisk,
    GuestTerms,
    LetGoOn,
    LimitMemory,
    PlugMemory,
    PlugVcpus,
    Running,
    WeighCpu,
)
from intertie.nodeagent.domain.machine import MachineFacts
from intertie.nodeagent.domain.measured import QueueCounters
from intertie.nodeagent.domain.meters import Queue
from intertie.nodeagent.domain.migrating import Migration, Route
from intertie.nodeagent.domain.network_plan import NetworkPlan
from intertie.nodeagent.domain.ports import (
    Applied,
    BaseImage,
    ClassCounters,
    CopyJob,
    DomainCounters,
    Staging,
)
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState
from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotOrder
from intertie.nodeagent.domain.snapshot_ports import Snapshotting
from intertie.nodeagent.domain.traffic_plan import DevicePlan, NicPlan
from intertie.nodeagent.loops.reconcile import Reconciler
from intertie.nodeagent.loops.self_fence import SelfFence
from tests.fakes.clock import FakeClock
from tests.unit.nodeagent.memory_records import MemoryRecords, MemoryState
from tests.unit.nodeagent.parts import DIGEST, NOW, PLACE


def changed(guest: Running, change: Change) -> Running:
    """What a hypervisor makes of a guest; HostFailure for what cannot be done."""
    has, modules = guest.terms, list(guest.modules)
    match change:
        case CapDisk():
            has = replace(has, cap_iops=change.iops, cap_mib_s=change.mib_s)
        case GrowDisk():
            if change.mib < has.disk_mib:
                raise HostFailure("a disk is not cut")
            has = replace(has, disk_mib=change.mib)
        case WeighCpu():
            has = replace(has, cpu_shares=change.shares, cpu_quota_us=change.quota_us)
        case PlugMemory():
            if has.memory_mib + change.mib != change.total_mib:
                raise HostFailure("that module is there")
            has = replace(has, memory_mib=change.total_mib)
            if has.memory_mib > guest.most_memory_mib or len(modules) == MEMORY_SLOTS:
                raise HostFailure("there is no room for a module")
            modules.append(change.mib)
        case PlugVcpus():
            if not has.vcpus < change.total <= guest.most_vcpus:
                raise HostFailure("it has them, or may not have them")
            came = change.total - has.vcpus
            guest = replace(guest, idle_vcpus=guest.idle_vcpus + came)
            has = replace(has, vcpus=change.total)
        case LimitMemory():
            return replace(guest, limit_off=False)
        case LetGoOn():
            return replace(guest, stands_still=False)
    return replace(guest, terms=has, modules=tuple(modules))


class MemoryHypervisor:
    """`disks` has what is on disk of each guest, by uid, and is the storage's too."""

    def __init__(self, disks: dict[str, int] | None = None) -> None:
        self.disks: dict[str, int] = {} if disks is None else disks
        self.defined: dict[str, Machine] = {}
        self.guests: dict[str, Running] = {}
        """What guests had at their start, and were given since; the size of a disk is its own."""
        self.changes: list[Change] = []
        self.refuses: dict[type, str] = {}
        """Kinds of changes, and what is said of them."""
        self.domains: dict[str, DomainState] = {}
        self.counted: dict[str, DomainCounters] = {}
        self.silent = False
        self.refuses_start = False
        self.refuses_removal = False
        self.starts = 0
        self.presses: list[str] = []
        self.heeds_button = True
        self.agent_problem = "the guest has no agent that answers"
        self.takes_vcpus = False
        """Guests bring online what is plugged in. One that has booted nothing does not."""
        self.memory: dict[str, bool] = {}
        """Files that memory was saved to, and whether to its end."""
        self.may_move = asyncio.Event()
        self.may_move.set()
        self.refuses_save = False
        self.refuses_restore = False
        self.restored: list[str] = []
        self.jobs: dict[str, str] = {}
        """Copies of disks that are being made, by name: their files."""
        self.may_copy = asyncio.Event()
        self.may_copy.set()
        self.refuses_copy = ""
        self.agent_silent = False
        """Guests' agents answer nobody, and do later what they were asked for."""
        self.frozen: set[str] = set()
        self.broken_off: list[str] = []

    async def states(self) -> Mapping[str, DomainState]:
        self._check()
        return dict(self.domains)

    async def define(self, machine: Machine, kind: str) -> None:
        self._check()
        self.defined[machine.name] = machine
        if self.domains.get(machine.name) is not DomainState.POWERED_OFF:
            self.domains[machine.name] = DomainState.OFF

    async def start(self, name: str) -> None:
        self._check()
        self.starts += 1
        if self.refuses_start:
            raise HostFailure("libvirt: no")
        self.domains[name] = DomainState.RUNNING
        machine = self.defined[name]
        terms = GuestTerms(
            vcpus=machine.vcpus,
            memory_mib=machine.memory_mib,
            disk_mib=0,
            cap_iops=machine.cap_iops,
            cap_mib_s=machine.cap_mib_s,
            cpu_shares=machine.cpu_shares,
            cpu_quota_us=machine.cpu_quota_us,
        )
        self.guests[name] = Running(
            terms=terms, most_memory_mib=machine.most_memory_mib, most_vcpus=machine.most_vcpus
        )

    async def running(self, name: str) -> Running:
        self._check()
        if self.domains.get(name) not in (DomainState.RUNNING, DomainState.PAUSED):
            raise HostFailure("it does not run")
        guest, disk_mib = self.guests[name], self.disks.get(name.removeprefix("it-"), 0)
        return replace(guest, terms=replace(guest.terms, disk_mib=disk_mib))

    async def change(self, name: str, change: Change) -> None:
        guest = await self.running(name)
        if said := self.refuses.get(type(change)):
            raise HostFailure(said)
        self.changes.append(change)
        if isinstance(change, GrowDisk):
            self.disks[name.removeprefix("it-")] = change.mib
        guest = changed(guest, change)
        if isinstance(change, PlugVcpus) and self.takes_vcpus:
            guest = replace(guest, idle_vcpus=0)
        if isinstance(change, LetGoOn):
            self.domains[name] = DomainState.RUNNING
        self.guests[name] = guest

    async def resume(self, name: str) -> None:
        self._check()
        self.domains[name] = DomainState.RUNNING

    async def stop(self, name: str) -> None:
        self._check()
        self.domains[name] = DomainState.OFF

    async def pause(self, name: str) -> None:
        self._check()
        self.domains[name] = DomainState.PAUSED

    async def press(self, name: str) -> None:
        self._check()
        self.presses.append(name)
        if self.heeds_button:
            self.domains[name] = DomainState.POWERED_OFF

    async def send(self, name: str, route: Route) -> None:
        """As libvirt does it: the copy is whole and stands still, then it is off here."""
        self._check()
        if self.domains.get(name) is not DomainState.RUNNING:
            raise HostFailure("it does not run")
        self.domains[name] = DomainState.IN_TRANSIT
        try:
            await self.may_move.wait()
            self._check()
            await self.carry(name, route)
        except HostFailure:
            if self.domains.get(name) is DomainState.IN_TRANSIT:
                self.domains[name] = DomainState.RUNNING
            raise
        self.domains[name] = DomainState.SENT

    async def carry(self, name: str, route: Route) -> None:
        raise HostFailure("nobody takes it")

    async def break_off(self, name: str) -> None:
        self._check()
        self.broken_off.append(name)

    async def save(self, name: str, path: str) -> None:
        self._check()
        self.memory[path] = False
        if self.refuses_save:
            raise HostFailure("libvirt: no room")
        await self.may_move.wait()
        self.memory[path] = True
        self.domains[name] = DomainState.OFF

    async def restore(self, name: str, path: str) -> None:
        self._check()
        if self.refuses_restore:
            raise HostFailure("libvirt: no")
        await self.may_move.wait()
        self.restored.append(path)
        self.domains[name] = DomainState.PAUSED

    async def is_whole(self, path: str) -> bool:
        self._check()
        return self.memory.get(path, False)

    def _memory_mib(self, name: str) -> int:
        return self.guests[name].terms.memory_mib if name in self.guests else 0

    async def memory_mib(self) -> Mapping[str, int]:
        self._check()
        return {
            name: self._memory_mib(name) for name, state in self.domains.items() if state in ALIVE
        }

    async def saved_mib(self, path: str) -> int:
        self._check()
        return self._memory_mib(f"it-{Path(path).stem}")

    async def remove(self, name: str) -> None:
        self._check()
        if self.refuses_removal:
            raise HostFailure("libvirt: busy")
        self.domains.pop(name, None)

    async def use_vcpus(self, name: str) -> None:
        self._check()
        if self.agent_problem:
            raise HostFailure(self.agent_problem)
        self.guests[name] = replace(self.guests[name], idle_vcpus=0)

    async def begin_copy(self, name: str, target: str, *, quiesce: bool) -> bool:
        self._check()
        assert self.domains[name] in (DomainState.RUNNING, DomainState.PAUSED)
        assert name not in self.jobs
        self.jobs[name] = target
        if quiesce and self.agent_silent:
            self.frozen.add(name)
        return quiesce and not self.agent_silent

    async def thaw(self, name: str) -> bool:
        self._check()
        if self.agent_silent:
            raise HostFailure("its agent does not answer")
        self.frozen.discard(name)
        return True

    async def copy_job(self, name: str) -> CopyJob:
        self._check()
        if self.domains[name] not in ALIVE:
            self.jobs.pop(name, None)
            raise HostFailure("it was switched off")
        over = self.may_copy.is_set()
        if over:
            self.jobs.pop(name, None)
        return CopyJob(over=over, done_bytes=7, total_bytes=9, problem=self.refuses_copy)

    async def end_copy(self, name: str) -> None:
        self._check()
        self.jobs.pop(name, None)

    async def agent_answers(self, name: str) -> bool:
        return True

    async def counters(self) -> Mapping[str, DomainCounters]:
        self._check()
        return dict(self.counted)

    def _check(self) -> None:
        if self.silent:
            raise HypervisorSilent("libvirt is silent")


class MemoryPeers:
    """Of a host that is alone."""

    def route(self, uid: str, migration: Migration, *, ready_time: datetime | None) -> Any:
        raise HostFailure(f"host {migration.host} cannot be reached")

    async def take_over(self, uid: str, migration: Migration) -> None:
        raise HostFailure(f"host {migration.host} cannot be reached")


class MemoryNetwork:
    def __init__(self) -> None:
        self.plan = NetworkPlan()
        self.result = Applied()

    async def apply(self, plan: NetworkPlan) -> Applied:
        self.plan = plan
        return self.result


class MemoryTraffic:
    def __init__(self) -> None:
        self.nics: tuple[NicPlan, ...] = ()
        self.counted: dict[Queue, QueueCounters] = {}
        self.plans: dict[str, DevicePlan] = {}
        self.broken = ""
        """Why nothing can be shaped."""

    async def apply_device(self, plan: DevicePlan) -> None:
        if self.broken:
            raise HostFailure(self.broken)
        self.plans[plan.device] = plan

    async def apply_nics(self, nics: tuple[NicPlan, ...]) -> None:
        self.nics = nics

    async def device_counters(self, device: str) -> Mapping[str, ClassCounters]:
        return {}

    async def nic_counters(self, device: str) -> ClassCounters:
        return ClassCounters()

    async def queues(self) -> Mapping[Queue, QueueCounters]:
        return dict(self.counted)


class MemoryStorage:
    def __init__(self) -> None:
        self.disks: dict[str, int] = {}
        self.seeds: set[str] = set()
        self.gave: set[str] = set()
        self.memories: dict[str, Memory] = {}
        self.written = 64 * 1024 * 1024
        """Bytes that a guest's memory takes in the pool."""
        self.room = 1024
        self.owed = 0
        self.full = False

    def has_disk(self, uid: str) -> bool:
        return uid in self.disks

    def has_seed(self, uid: str) -> bool:
        return uid in self.seeds

    def uids(self) -> frozenset[str]:
        return frozenset({*self.disks, *self.seeds, *self.memories, *self.gave})

    async def make_disk(self, uid: str, base: BaseImage, size_mib: int) -> None:
        self.disks[uid] = size_mib

    def disk_mib(self, uid: str) -> int:
        return self.disks[uid]

    async def grow_disk(self, uid: str, size_mib: int) -> None:
        self.disks[uid] = size_mib

    def memory(self, uid: str) -> Memory:
        return self.memories.get(uid, Memory.NONE)

    def memory_bytes(self, uid: str) -> int:
        return self.written if self.memory(uid) is not Memory.NONE else 0

    async def keep_memory(self, uid: str) -> None:
        self.memories[uid] = Memory.SAVED

    def take_memory(self, uid: str) -> None:
        assert self.memories[uid] is Memory.SAVED
        self.memories[uid] = Memory.RESTORING

    def discard_memory(self, uid: str) -> None:
        self.memories.pop(uid, None)

    def is_given(self, uid: str) -> bool:
        return uid in self.gave and uid not in self.disks

    async def give(self, uid: str) -> None:
        self.disks.pop(uid, None)
        self.gave.add(uid)

    async def make_seed(self, uid: str, files: Mapping[str, bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.seeds.add(uid)

    async def remove(self, uid: str) -> None:
        self.disks.pop(uid, None)
        self.seeds.discard(uid)
        self.gave.discard(uid)
        self.memories.pop(uid, None)

    def room_mib(self) -> int:
        return self.room

    def free_mib(self) -> int:
        return 1024

    def owed_mib(self) -> int:
        return self.owed


class MemoryCopies:
    """Of disks, and the image store that they are sent to."""

    def __init__(self) -> None:
        self.files: dict[str, bool] = {}
        """Copies that are there, and whether they are whole."""
        self.needed = 64 * 1024 * 1024
        self.written = 0
        """Bytes of a copy that is not whole."""
        self.copied: list[str] = []
        self.may_copy = asyncio.Event()
        self.may_copy.set()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.refuses_copy = ""
        self.refuses: HostFailure | None = None
        self.store: dict[str, str] = {}
        """Digests, by name of the image."""

    async def needed_bytes(self, uid: str) -> int:
        return self.needed

    async def prepare(self, uid: str) -> None:
        self.files[uid] = False

    async def copy(self, uid: str, done: Callable[[int], None]) -> None:
        if self.refuses_copy:
            raise HostFailure(self.refuses_copy)
        await self.may_copy.wait()
        self.copied.append(uid)

    async def finish(self, uid: str) -> tuple[str, int]:
        self.files[uid] = True
        return DIGEST, self.needed

    def is_there(self, uid: str) -> bool:
        return uid in self.files

    def is_whole(self, uid: str) -> bool:
        return self.files.get(uid, False)

    def written_bytes(self, uid: str) -> int:
        return self.written

    def discard(self, uid: str) -> None:
        self.files.pop(uid, None)

    async def put(
        self,
        order: SnapshotOrder,
        tenant: str,
        path: Path,
        note: SnapshotNote,
        done: Callable[[int], None],
    ) -> None:
        if self.refuses is not None:
            raise self.refuses
        await self.may_send.wait()
        self.store[f"{tenant}/{order.image_id}"] = note.digest


class MemoryImages:
    def __init__(self) -> None:
        self.here: set[str] = set()
        self.asked: list[str] = []

    def ready(self, digest: str) -> BaseImage | None:
        if digest not in self.here:
            return None
        return BaseImage(path="/base", format="qcow2", virtual_size_bytes=1)

    def request(self, digest: str, tenant: str) -> None:
        self.asked.append(f"{tenant}/{digest}")

    def progress(self, digest: str) -> Staging:
        return Staging(done_bytes=1, total_bytes=2)

    def retain(self, digests: frozenset[str]) -> None:
        pass


class MemoryChannels:
    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.said: dict[str, datetime] = {}
        self._news = asyncio.Event()

    def listen(self, uid: str, nonce: str) -> None:
        self.open[uid] = nonce

    def close(self, uid: str) -> None:
        self.open.pop(uid, None)

    def heard(self) -> Mapping[str, datetime]:
        said, self.said = self.said, {}
        return said

    def listening(self) -> frozenset[str]:
        return frozenset(self.open)

    def say(self, uid: str, moment: datetime) -> None:
        self.said[uid] = moment
        self._news.set()

    async def news(self) -> None:
        await self._news.wait()
        self._news.clear()


class Host:
    """Everything that outlives an agent, and the agent, which can be started anew."""

    def __init__(
        self,
        *,
        memory_growth: int = 1,
        vcpu_growth: int = 1,
        clock: FakeClock | None = None,
        records: Any = None,
        fence_after: timedelta = timedelta(),
    ) -> None:
        self._memory_growth = memory_growth
        self._vcpu_growth = vcpu_growth
        self.memory_mib = 2048
        self.clock = clock or FakeClock(NOW)
        self.records = records or MemoryRecords()
        self.fence_after = fence_after
        self.boot = "first"
        self.state = MemoryState()
        self.storage = MemoryStorage()
        self.hypervisor = MemoryHypervisor(self.storage.disks)
        self.network = MemoryNetwork()
        self.traffic = MemoryTraffic()
        self.images = MemoryImages()
        self.copies = MemoryCopies()
        self.channels = MemoryChannels()
        self.peers: Any = MemoryPeers()
        self.agent = self.start()

    def start(self) -> Reconciler:
        self.channels = MemoryChannels()
        self.agent = Reconciler(
            clock=self.clock,
            records=self.records,
            state=self.state,
            hypervisor=self.hypervisor,
            network=self.network,
            traffic=self.traffic,
            storage=self.storage,
            images=self.images,
            snapshotting=Snapshotting(copies=self.copies, store=self.copies),
            channels=self.channels,
            peers=self.peers,
            files=WorkspaceFiles(Path("/data")),
            place=PLACE,
            machine=MachineFacts(
                hypervisors=("qemu",),
                architecture="x86_64",
                disk_cache="none",
                cgroups=True,
                memory_growth=self._memory_growth,
                vcpu_growth=self._vcpu_growth,
                host_vcpus=8,
            ),
            memory_mib=lambda: self.memory_mib,
            self_fence=SelfFence(
                self.clock, self.state, boot=self.boot, fence_after=self.fence_after
            ),
            uplink_mbit_s=400,
            wide_mbit_s=0,
            period_s=2.0,
        )
        return self.agent
