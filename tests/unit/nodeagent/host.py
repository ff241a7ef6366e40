"""A host in memory: what the passes of the agent need of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.machine import MachineFacts
from intertie.nodeagent.domain.measured import QueueCounters
from intertie.nodeagent.domain.meters import Queue
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration
from intertie.nodeagent.domain.network_plan import NetworkPlan
from intertie.nodeagent.domain.ports import (
    Applied,
    BaseImage,
    ClassCounters,
    Staging,
)
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.snapshot_note import SnapshotNote, SnapshotOrder
from intertie.nodeagent.domain.snapshot_ports import Snapshotting
from intertie.nodeagent.domain.traffic_plan import DevicePlan, NicPlan
from intertie.nodeagent.loops.reconcile import Reconciler
from intertie.nodeagent.loops.self_fence import SelfFence
from tests.fakes.clock import FakeClock
from tests.unit.nodeagent.memory_hypervisor import MemoryHypervisor
from tests.unit.nodeagent.memory_records import MemoryRecords, MemoryState
from tests.unit.nodeagent.parts import DIGEST, NOW, PLACE


class MemoryPeers:
    """Of a host that is alone."""

    def route(self, uid: str, migration: Migration, bearing: Bearing) -> Any:
        raise HostFailure(f"host {migration.host} cannot be reached")

    def delivery(self, uid: str, migration: Migration, bearing: Bearing) -> Any:
        raise HostFailure(f"host {migration.host} cannot be reached")

    async def take_over(self, uid: str, migration: Migration) -> None:
        raise HostFailure(f"host {migration.host} cannot be reached")


class MemoryNetwork:
    def __init__(self) -> None:
        self.plan = NetworkPlan()
        self.result = Applied()
        self.may_apply = asyncio.Event()
        self.may_apply.set()

    async def apply(self, plan: NetworkPlan) -> Applied:
        await self.may_apply.wait()
        self.plan = plan
        return self.result

    async def send_on(self, plan: NetworkPlan) -> None:
        self.plan = replace(self.plan, fdb=self.plan.fdb | plan.fdb, sent_on=plan.sent_on)


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


class ComingBytes:
    """A file that comes from another host; its content is what it is told to be."""

    taken = False

    def __init__(self) -> None:
        self.content = b""
        self.over = asyncio.Event()
        self.broken = False

    async def received(self) -> AsyncIterator[bytes]:
        await self.over.wait()
        if self.broken:
            raise HostFailure("it broke off")
        yield self.content

    async def send(self, data: bytes) -> None:
        self.content += data

    def end(self) -> None:
        self.over.set()

    def cut(self) -> None:
        self.broken = True
        self.over.set()


class MemoryStorage:
    def __init__(self) -> None:
        self.came: dict[tuple[str, Channel], bytes] = {}
        """Files that are whole, and not this host's yet."""
        self.disks: dict[str, int] = {}
        self.volumes: dict[tuple[str, int], int] = {}
        """MiB, by uid and number."""
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
        came = {uid for uid, _ in self.came}
        return frozenset({*self.disks, *self.seeds, *self.memories, *self.gave, *came})

    async def make_disk(self, uid: str, base: BaseImage, size_mib: int) -> None:
        self.disks[uid] = size_mib

    def has_volume(self, uid: str, number: int) -> bool:
        return (uid, number) in self.volumes

    async def make_volume(self, uid: str, number: int, size_mib: int) -> None:
        self.volumes[uid, number] = size_mib

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

    @contextlib.asynccontextmanager
    async def coming(
        self, uid: str, channel: Channel, size_bytes: int, base: BaseImage
    ) -> AsyncIterator[ComingBytes]:
        stream = ComingBytes()
        yield stream
        if stream.over.is_set() and not stream.broken:
            self.came[uid, channel] = stream.content

    def coming_bytes(self, uid: str, channel: Channel) -> int:
        return 0

    def has_come(self, uid: str) -> bool:
        return (uid, Channel.DISK_FILE) in self.came

    async def take_in(self, uid: str) -> None:
        """The memory's content is the hypervisor's to know, by the same file name."""
        if self.came.pop((uid, Channel.MEMORY_FILE), None) is not None:
            self.memories[uid] = Memory.SAVED
        self.disks[uid] = int(self.came.pop((uid, Channel.DISK_FILE)))

    async def make_seed(self, uid: str, files: Mapping[str, bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.seeds.add(uid)

    async def remove(self, uid: str) -> None:
        self.disks.pop(uid, None)
        self.seeds.discard(uid)
        self.gave.discard(uid)
        self.memories.pop(uid, None)
        self.came = {key: each for key, each in self.came.items() if key[0] != uid}
        self.volumes = {key: each for key, each in self.volumes.items() if key[0] != uid}

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
        self.data: set[str] = set()
        self.asked: list[str] = []

    def ready(self, digest: str) -> BaseImage | None:
        if digest not in self.here:
            return None
        return BaseImage(path="/base", format="qcow2", virtual_size_bytes=1)

    def has_data(self, digest: str) -> bool:
        return digest in self.data

    def request(self, digest: str, tenant: str, *, data: bool = False) -> None:
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
