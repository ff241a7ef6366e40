"""Guests in memory: a hypervisor that obeys, or fails as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from intertie.common.values import replace
from intertie.nodeagent.domain.domain_xml import Machine
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
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
from intertie.nodeagent.domain.migrating import Route
from intertie.nodeagent.domain.ports import (
    CopyJob,
    DomainCounters,
)
from intertie.nodeagent.domain.reconcile import ALIVE, DomainState


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

    def switch_itself_off(self, name: str) -> None:
        """The guest does; libvirt keeps only what it was told of apart from its running."""
        if name in self.defined:
            self.domains[name] = DomainState.POWERED_OFF
        else:
            del self.domains[name]

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
        self.defined.pop(name, None)

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
