"""Hosts: the agent's own code over a disk, guests and a power switch that are models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from intertie.nodeagent.adapters.etcd_records import EtcdRecords
from intertie.nodeagent.domain.domain_xml import Machine
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.guest_terms import Change
from intertie.nodeagent.domain.machine import MachineFacts
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState, Kept
from intertie.nodeagent.domain.report import Capacity, HostFacts
from intertie.nodeagent.domain.snapshot_ports import Snapshotting
from intertie.nodeagent.loops.reconcile import Reconciler
from intertie.nodeagent.loops.report import Reporter
from intertie.nodeagent.loops.self_fence import SelfFence
from tests.sim.etcd_client import ModelClient
from tests.sim.etcd_model import EtcdModel
from tests.sim.record import Guest, Record, Save, Start
from tests.sim.services import CAPACITY, DIGEST, HOSTS, POOL_MIB_S
from tests.sim.virtual_loop import Process, VirtualLoop
from tests.unit.nodeagent.host import (
    MemoryChannels,
    MemoryCopies,
    MemoryImages,
    MemoryNetwork,
    MemoryPeers,
    MemoryStorage,
    MemoryTraffic,
)
from tests.unit.nodeagent.memory_hypervisor import MemoryHypervisor
from tests.unit.nodeagent.memory_records import MemoryState

MEMORY_GROWTH = 4


class SimHost:
    """What of a host outlives its agent: its disk, and its guests."""

    def __init__(self, loop: VirtualLoop, record: Record, site: str, name: str) -> None:
        self.site, self.name = site, name
        self._loop, self._record = loop, record
        self.state = _State(self._saved)
        self.storage, self.images = _Storage(), MemoryImages()
        self.hypervisor = Hypervisor(loop, self.storage, self._notes)
        self.network, self.traffic = MemoryNetwork(), MemoryTraffic()
        self.images.here.add(DIGEST)
        self.storage.room = CAPACITY["disk_mib"]
        self.boots = 0

    @property
    def gateway(self) -> bool:
        return self.name == HOSTS[0]

    async def facts(self) -> HostFacts:
        return HostFacts(
            host=self.name,
            capacity=Capacity(**CAPACITY),
            address=f"10.201.0.{self.name[1:]}",
            agent_address=f"{self.site}-{self.name}:1",
            wide_address="10.250.0.1" if self.gateway else "",
            wide_port=4790 if self.gateway else 0,
            hypervisors=("qemu",),
            architecture="x86_64",
            wide_mtu=1500 if self.gateway else 0,
        )

    def power_off(self) -> None:
        """Disks stay, and what is written on them; no process does."""
        self.hypervisor.power_off()
        self.boots += 1

    def _saved(self, generations: dict[str, int]) -> None:
        self._record.saves.append(Save(self._loop.time(), self.site, self.name, generations))

    def _notes(self, domain: str, what: str, vcpus: int, memory_mib: int) -> None:
        now = self._loop.time()
        if what == "start":
            self._record.starts.append(Start(now, self.site, self.name, domain))
        self._record.guests.append(
            Guest(now, self.site, self.name, domain, what, vcpus, memory_mib)
        )


class _State(MemoryState):
    def __init__(self, saved: Callable[[dict[str, int]], None]) -> None:
        super().__init__()
        self._saved = saved

    def save(self, kept: Kept) -> None:
        super().save(kept)
        self._saved({uid: part.wanted.generation for uid, part in kept.parts.items()})


class _Storage(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.saved_mib: dict[str, int] = {}

    def memory_bytes(self, uid: str) -> int:
        return self.saved_mib.get(uid, 0) << 20 if self.memory(uid) is not Memory.NONE else 0


@dataclass(slots=True)
class _Job:
    """What libvirtd is at with a guest, whether or not who asked for it still waits."""

    what: str
    done: asyncio.Future[None]


class Hypervisor(MemoryHypervisor):
    """As libvirtd and QEMU: while a guest's memory is moved, which takes its time and goes on
    without the agent, nothing but its end is taken for it."""

    def __init__(
        self,
        loop: VirtualLoop,
        storage: _Storage,
        notes: Callable[[str, str, int, int], None],
    ) -> None:
        super().__init__(storage.disks)
        self._loop = loop
        self._storage = storage
        self._notes = notes
        self._jobs: dict[str, _Job] = {}

    def power_off(self) -> None:
        for name, state in self.domains.items():
            self._break_off(name)
            if state in ALIVE:
                self.domains[name] = DomainState.OFF
                self._note(name, "power")

    async def start(self, name: str) -> None:
        self._free(name)
        await super().start(name)
        self._note(name, "start")

    async def change(self, name: str, change: Change) -> None:
        self._free(name)
        await super().change(name, change)
        self._note(name, "change")

    async def resume(self, name: str) -> None:
        self._free(name)
        await super().resume(name)
        self._note(name, "resume")

    async def pause(self, name: str) -> None:
        self._free(name)
        await super().pause(name)

    async def press(self, name: str) -> None:
        self._free(name)
        await super().press(name)
        if self.domains[name] not in ALIVE:
            self._note(name, "off")

    async def stop(self, name: str) -> None:
        self._break_off(name)
        await super().stop(name)
        self._note(name, "off")

    async def remove(self, name: str) -> None:
        self._break_off(name)
        await super().remove(name)
        self._note(name, "gone")

    async def define(self, machine: Machine, kind: str) -> None:
        self._free(machine.name)
        await super().define(machine, kind)

    async def save(self, name: str, path: str) -> None:
        self._free(name)
        uid = name.removeprefix("it-")
        if self.domains.get(name) not in ALIVE:
            raise HostFailure("it does not run")
        self._storage.memories[uid] = Memory.SAVING
        self._storage.saved_mib[uid] = self._memory_mib(name)
        self.memory[path] = False
        self.domains[name] = DomainState.PAUSED
        self._note(name, "save")

        def saved() -> None:
            self.memory[path] = True
            self.domains[name] = DomainState.OFF
            self._note(name, "saved")

        await self._takes(name, "save", saved)

    async def restore(self, name: str, path: str) -> None:
        self._free(name)
        if not self.memory.get(path.replace(".saved", ".saving"), False):
            raise HostFailure("libvirt: no such image")
        self.domains[name] = DomainState.PAUSED
        self._note(name, "restore")
        self.restored.append(path)
        await self._takes(name, "restore", lambda: self._note(name, "restored"))

    async def _takes(self, name: str, what: str, then: Callable[[], None]) -> None:
        job = self._jobs[name] = _Job(what, self._loop.create_future())
        seconds = self._memory_mib(name) / POOL_MIB_S

        def over() -> None:
            if self._jobs.get(name) is job:
                del self._jobs[name]
                then()
                if not job.done.done():
                    job.done.set_result(None)

        self._loop.later(seconds, over)
        await asyncio.shield(job.done)

    def _break_off(self, name: str) -> None:
        """The guest's end is the job's; what was written of its memory is not whole."""
        if (job := self._jobs.pop(name, None)) is not None and not job.done.done():
            job.done.set_exception(HostFailure(f"libvirt: the guest is gone while {job.what}"))
            job.done.exception()

    def _free(self, name: str) -> None:
        self._check()
        if (job := self._jobs.get(name)) is not None:
            raise HostFailure(f"libvirt: cannot acquire state change lock, held by {job.what}")

    def _note(self, name: str, what: str) -> None:
        guest = self.guests.get(name)
        has = guest.terms if guest is not None else None
        vcpus, memory = (has.vcpus, has.memory_mib) if has is not None else (0, 0)
        self._notes(name, what, vcpus, memory)


async def run_agent(process: Process, store: EtcdModel, host: SimHost) -> None:
    records = EtcdRecords(ModelClient(store, process), host.name)
    place = Place(host=host.name, interface="eth0", address=f"10.201.0.{host.name[1:]}")
    if host.gateway:
        place = Place(
            host=host.name, interface="eth0", address=place.address,
            wide_interface="wan0", wide_address="10.250.0.1", wide_port=4790,
        )  # fmt: skip
    copies = MemoryCopies()
    reconciler = Reconciler(
        clock=process.clock,
        records=records,
        state=host.state,
        hypervisor=host.hypervisor,
        network=host.network,
        traffic=host.traffic,
        storage=host.storage,
        images=host.images,
        snapshotting=Snapshotting(copies=copies, store=copies),
        channels=MemoryChannels(),
        peers=MemoryPeers(),
        files=WorkspaceFiles(Path("/data")),
        place=place,
        machine=MachineFacts(
            hypervisors=("qemu",), architecture="x86_64", disk_cache="none", cgroups=True,
            memory_growth=MEMORY_GROWTH,
        ),
        self_fence=SelfFence(
            process.clock, host.state, boot=f"boot {host.boots}", fence_after=timedelta()
        ),
        uplink_mbit_s=CAPACITY["uplink_mbit_s"],
        wide_mbit_s=1000 if host.gateway else 0,
        memory_mib=lambda: CAPACITY["memory_mib"],
        period_s=2.0,
    )  # fmt: skip
    reporter = Reporter(reconciler, records, process.clock, host.facts)
    await asyncio.gather(reconciler.run(), reporter.run())
