"""The fake hypervisor and libvirt agree on what becomes of a guest that is changed as it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from intertie.common.values import replace
from intertie.nodeagent.adapters import libvirt_changes
from intertie.nodeagent.adapters.libvirt_hypervisor import LibvirtHypervisor
from intertie.nodeagent.adapters.workspace_storage import WorkspaceStorage
from intertie.nodeagent.domain.domain_xml import Machine
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.guest_terms import (
    CapDisk,
    Change,
    GrowDisk,
    LetGoOn,
    PlugMemory,
    PlugVcpus,
    WeighCpu,
)
from intertie.nodeagent.domain.machine import MachineFacts, machine_of
from intertie.nodeagent.domain.ports import Hypervisor
from intertie.nodeagent.domain.reconcile import DomainState
from testbed import cgroups
from testbed.bed import Testbed
from testbed.topology import HostSpec, SiteSpec, Topology
from tests.unit.nodeagent.memory_hypervisor import MemoryHypervisor, changed
from tests.unit.nodeagent.parts import A_UID, PART, WORKSPACE

DISK_MIB = WORKSPACE.allocation.disk_mib
NAME = f"it-{A_UID}"


class Place:
    """A hypervisor, and a machine for it that has a disk and nothing to boot from."""

    def __init__(self, hypervisor: Hypervisor, machine: Machine, files: WorkspaceFiles) -> None:
        self.hypervisor = hypervisor
        self.machine = machine
        self.files = files


@pytest.fixture(
    params=["memory", pytest.param("libvirt", marks=[pytest.mark.e2e, pytest.mark.root])]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    files = WorkspaceFiles(tmp_path)
    if request.param == "memory":
        yield Place(MemoryHypervisor({A_UID: DISK_MIB}), machine(files, shares=True), files)
        return
    WorkspaceStorage(files)
    for path, size_mib in ((files.disk(A_UID), DISK_MIB), (files.seed(A_UID), 1)):
        kind = path.suffix.replace(".iso", "raw").removeprefix(".")
        argv = ["qemu-img", "create", "-q", "-f", kind, str(path), f"{size_mib}M"]
        subprocess.run(argv, check=True, timeout=30)
    north = SiteSpec(name="north", hosts=(HostSpec(name="n1", gateway=True),))
    testbed = Testbed.create(Topology(sites=(north,)), "changes")
    testbed.down()
    testbed.up(services=False)
    try:
        hypervisor = LibvirtHypervisor(testbed.libvirt_uri("north/n1"))
        described = machine(files, shares="cpu" in cgroups.controllers())
        yield Place(hypervisor, described, files)
    finally:
        testbed.down()
    assert testbed.leftovers() == []


def machine(files: WorkspaceFiles, *, shares: bool) -> Machine:
    facts = MachineFacts(
        hypervisors=("qemu",),
        architecture="x86_64",
        disk_cache="writeback",
        cgroups=shares,
        memory_growth=2,
        vcpu_growth=2,
        host_vcpus=8,
    )
    return machine_of(PART, replace(WORKSPACE, nics=()), files, facts)


@contextmanager
def no_room(hypervisor: Hypervisor, *, dies: bool) -> Iterator[None]:
    """For one more vCPU; whoever has it stand still meanwhile `dies` over it, or does not."""
    if isinstance(hypervisor, MemoryHypervisor):
        hypervisor.refuses[PlugVcpus] = "no room"
        if dies:
            hypervisor.domains[NAME] = DomainState.PAUSED
            guest = hypervisor.guests[NAME]
            hypervisor.guests[NAME] = replace(guest, stands_still=True)
        yield
        del hypervisor.refuses[PlugVcpus]
        return
    with ExitStack() as patches:
        patches.enter_context(patch.object(libvirt_changes, "has_room", return_value=False))
        if dies:
            patches.enter_context(patch.object(libvirt_changes, "_go_on"))
        yield


async def test_what_is_changed_is_seen_and_nothing_else_is(place: Place) -> None:
    hypervisor, machine = place.hypervisor, place.machine
    await hypervisor.define(machine, "qemu")
    with pytest.raises(HostFailure):
        await hypervisor.running(NAME)
    with pytest.raises(HostFailure):
        await hypervisor.change(NAME, CapDisk(iops=1, mib_s=1))

    await hypervisor.start(NAME)
    guest = await hypervisor.running(NAME)
    has = guest.terms
    assert (has.vcpus, has.memory_mib, has.disk_mib) == (2, 512, DISK_MIB)
    assert (has.cap_iops, has.cap_mib_s) == (300, 50)
    assert (has.cpu_shares, has.cpu_quota_us) == (machine.cpu_shares, machine.cpu_quota_us)
    assert (guest.most_memory_mib, guest.modules) == (1024, ())
    assert (guest.most_vcpus, guest.idle_vcpus) == (4, 0)
    assert await hypervisor.memory_mib() == {NAME: 512}

    changes: list[Change] = [
        CapDisk(iops=77, mib_s=0),
        CapDisk(iops=0, mib_s=9),
        GrowDisk(mib=2 * DISK_MIB),
        PlugMemory(mib=256, total_mib=768),
        PlugMemory(mib=128, total_mib=896),
        PlugVcpus(total=3),
        *([] if machine.cpu_shares is None else [WeighCpu(shares=512, quota_us=25_000)]),
    ]
    for change in changes:
        await hypervisor.change(NAME, change)
        guest = changed(guest, change)
        assert await hypervisor.running(NAME) == guest, change
    # More than it may have; and what was done already, as an agent asks for that heard no answer.
    refusals: list[Change] = [
        PlugMemory(mib=256, total_mib=1152),
        PlugMemory(mib=128, total_mib=896),
        PlugVcpus(total=5),
    ]
    for refused in refusals:
        with pytest.raises(HostFailure):
            await hypervisor.change(NAME, refused)
        assert await hypervisor.running(NAME) == guest, refused
    for total in (3, 2):
        # Nor is a guest asked to give one up: it might do so later.
        with pytest.raises(HostFailure, match="it has"):
            await hypervisor.change(NAME, PlugVcpus(total=total))
        assert await hypervisor.running(NAME) == guest
    assert (await hypervisor.states())[NAME] is DomainState.RUNNING
    assert await hypervisor.memory_mib() == {NAME: 896}

    # What was plugged in is there again when it goes on.
    saved = str(place.files.saved(A_UID))
    await hypervisor.save(NAME, saved)
    assert await hypervisor.memory_mib() == {}
    assert await hypervisor.saved_mib(saved) == 896
    await hypervisor.restore(NAME, saved)
    stands_still = (DomainState.PAUSED, DomainState.IN_TRANSIT)
    assert (await hypervisor.states())[NAME] in stands_still
    await hypervisor.resume(NAME)
    assert (await hypervisor.states())[NAME] is DomainState.RUNNING
    assert await hypervisor.memory_mib() == {NAME: 896}
    assert (await hypervisor.running(NAME)).terms.vcpus == 3

    # One that there is no room for goes on as it was; and so it does where its agent died over it.
    guest = await hypervisor.running(NAME)
    with no_room(hypervisor, dies=False), pytest.raises(HostFailure, match="room"):
        await hypervisor.change(NAME, PlugVcpus(total=4))
    assert (await hypervisor.states())[NAME] is DomainState.RUNNING
    assert await hypervisor.running(NAME) == guest
    with no_room(hypervisor, dies=True), pytest.raises(HostFailure, match="room"):
        await hypervisor.change(NAME, PlugVcpus(total=4))
    assert (await hypervisor.states())[NAME] is DomainState.PAUSED
    assert await hypervisor.running(NAME) == replace(guest, stands_still=True)
    await hypervisor.change(NAME, LetGoOn())
    assert (await hypervisor.states())[NAME] is DomainState.RUNNING
    assert await hypervisor.running(NAME) == guest

    # One that is paused is given some too, and stays so, but for who paused it for that alone.
    await hypervisor.pause(NAME)
    await hypervisor.change(NAME, PlugVcpus(total=4))
    assert (await hypervisor.states())[NAME] is DomainState.PAUSED
    guest = await hypervisor.running(NAME)
    assert (guest.terms.vcpus, guest.stands_still) == (4, False)
    await hypervisor.change(NAME, LetGoOn())
    assert (await hypervisor.states())[NAME] is DomainState.RUNNING

    # A start is from what was defined, but for the disk, which has grown.
    await hypervisor.stop(NAME)
    await hypervisor.define(machine, "qemu")
    await hypervisor.start(NAME)
    started = (await hypervisor.running(NAME)).terms
    assert (started.cap_iops, started.cap_mib_s) == (300, 50)
    assert started.disk_mib == 2 * DISK_MIB
    assert started.cpu_shares == machine.cpu_shares
    assert (started.memory_mib, started.vcpus) == (512, 2)
    await hypervisor.remove(NAME)
