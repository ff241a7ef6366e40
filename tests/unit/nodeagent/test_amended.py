"""Passes of the agent on a host in memory: a record that comes with other terms for what runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.intervals import Window
from intertie.common.terms import BandwidthTerm, DiskTerm, Readiness
from intertie.common.values import replace
from intertie.nodeagent.convert import seen_to_proto
from intertie.nodeagent.domain.guest_terms import (
    CapDisk,
    GrowDisk,
    LetGoOn,
    PlugMemory,
    PlugVcpus,
    WeighCpu,
)
from intertie.nodeagent.domain.ports import Applied
from intertie.nodeagent.domain.reconcile import DomainState, Listing, Note, WorkspaceState, merge
from intertie.nodeagent.domain.report import SeenPart, SeenWorkspace
from intertie.nodeagent.domain.wanted import WantedPart, WantedWorkspace
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, LAN, PART, WINDOW, WORKSPACE

DOMAIN = f"it-{A_UID}"
OTHER = replace(WORKSPACE, name="b-0", uid="dddddddddddd", nics=())


def amended(generation: int = 4, **allocation: Any) -> WantedPart:
    changed = replace(WORKSPACE, allocation=replace(WORKSPACE.allocation, **allocation))
    return replace(PART, generation=generation, workspaces=(changed,))


@pytest.fixture
async def host() -> Host:
    """Its guest runs, and has been looked at."""
    made = Host()
    made.images.here.add(DIGEST)
    await want(made, PART)
    await made.agent.sweep()
    assert seen(made).obeyed_generation == 3
    return made


async def want(host: Host, *parts: WantedPart) -> None:
    host.records.listing = Listing(parts=parts)
    await host.agent.sweep()


def seen(host: Host) -> SeenPart:
    assert host.agent.report is not None
    [part] = host.agent.report
    return part


def workspace(host: Host, uid: str = A_UID) -> SeenWorkspace:
    return next(each for each in seen(host).workspaces if each.uid == uid)


async def test_what_can_be_changed_is_changed_under_the_guest_which_goes_on(host: Host) -> None:
    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    ready = workspace(host).ready_time
    disk = DiskTerm(cap_iops=500, cap_mib_s=50)
    await want(host, amended(disk=disk, disk_mib=2048))
    assert host.hypervisor.changes == [CapDisk(iops=500, mib_s=50), GrowDisk(mib=2048)]
    assert (seen(host).generation, seen(host).obeyed_generation) == (4, 4)
    assert workspace(host).pending == ""
    assert workspace(host).state is WorkspaceState.RUNNING
    assert workspace(host).ready_time == ready is not None
    assert host.hypervisor.starts == 1

    await want(host, amended(5, disk_mib=2048))
    assert host.hypervisor.changes[2:] == [CapDisk(iops=300, mib_s=50)]
    assert seen(host).obeyed_generation == 5


async def test_bandwidth_follows_and_touches_no_guest(host: Host) -> None:
    nic = replace(WORKSPACE.nics[0], bandwidth=BandwidthTerm(guarantee_mbit_s=20, cap_mbit_s=20))
    before = host.traffic.nics
    await want(host, replace(amended(), workspaces=(replace(WORKSPACE, nics=(nic,)),)))
    assert host.traffic.nics != before
    assert host.hypervisor.changes == []
    assert seen(host).obeyed_generation == 4


async def test_what_waits_for_a_start_is_said_and_obeyed_when_there_was_one(host: Host) -> None:
    await want(host, amended(vcpus=4, memory_mib=1024))
    assert host.hypervisor.changes == [WeighCpu(shares=4096, quota_us=100_000)]
    said = workspace(host).pending
    assert "4 vCPUs at its next start; until then 2" in said
    assert "1024 MiB of memory at its next start; until then 512" in said
    assert workspace(host).state is WorkspaceState.RUNNING
    assert (seen(host).generation, seen(host).obeyed_generation) == (4, 3)
    assert seen_to_proto(seen(host), now=host.clock.now()).obeyed_generation == 3
    assert seen_to_proto(seen(host), now=host.clock.now()).workspaces[0].pending == said

    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await host.agent.sweep()
    assert host.hypervisor.starts == 2
    await host.agent.sweep()
    assert host.hypervisor.guests[DOMAIN].terms.memory_mib == 1024
    assert workspace(host).pending == ""
    assert seen(host).obeyed_generation == 4


async def test_what_waits_no_more_because_it_was_taken_back_is_not_said(host: Host) -> None:
    await want(host, amended(memory_mib=1024))
    assert workspace(host).pending
    await want(host, replace(PART, generation=5))
    assert workspace(host).pending == ""
    assert seen(host).obeyed_generation == 5


async def test_a_change_that_fails_is_tried_again_less_and_less_often_and_the_guest_runs(
    host: Host,
) -> None:
    host.hypervisor.refuses = {GrowDisk: "libvirt: no room"}
    disk = DiskTerm(cap_iops=500, cap_mib_s=50)
    await want(host, amended(disk_mib=2048, disk=disk))
    # What else is lacking is there all the same.
    assert host.hypervisor.guests[DOMAIN].terms.cap_iops == 500
    assert workspace(host).pending == "not yet a disk of 2048 MiB: libvirt: no room"
    assert workspace(host).state is WorkspaceState.RUNNING
    assert workspace(host).message == ""

    looked, ask = [], host.hypervisor.change

    async def counted(name: str, change: Any) -> None:
        looked.append(host.clock.monotonic() - began)
        await ask(name, change)

    host.hypervisor.change = counted  # type: ignore[method-assign]
    began = host.clock.monotonic()
    for _ in range(200):
        await host.clock.advance(1)
        await host.agent.sweep()
    assert looked == [1, 3, 7, 15, 31, 63, 123, 183]
    assert seen(host).obeyed_generation == 3
    assert workspace(host).state is WorkspaceState.RUNNING

    host.hypervisor.refuses = {}
    await host.clock.advance(60)
    await host.agent.sweep()
    assert host.storage.disks[A_UID] == 2048
    assert workspace(host).pending == ""
    assert seen(host).obeyed_generation == 4


async def test_what_is_refused_does_not_keep_a_guest_from_the_rest(host: Host) -> None:
    host.hypervisor.refuses = {CapDisk: "libvirt: no"}
    await want(host, amended(disk_mib=2048, vcpus=1, disk=DiskTerm(cap_iops=500)))
    assert host.storage.disks[A_UID] == 2048
    assert host.hypervisor.guests[DOMAIN].terms.cpu_shares == 1024
    said = workspace(host).pending
    assert said.startswith("not yet a disk of at most 500 IOPS and any MiB/s: libvirt: no; 1 vCPUs")


async def test_new_terms_are_tried_at_once_whatever_failed_before(host: Host) -> None:
    host.hypervisor.refuses = {GrowDisk: "libvirt: no room"}
    await want(host, amended(disk_mib=4096))
    for _ in range(6):
        await host.clock.advance(60)
        await host.agent.sweep()
    host.hypervisor.refuses = {}
    await want(host, amended(5, disk_mib=2048))
    assert host.storage.disks[A_UID] == 2048
    assert seen(host).obeyed_generation == 5


async def test_a_change_that_is_not_seen_is_not_believed(host: Host) -> None:
    async def nothing(name: str, change: Any) -> None:
        pass

    host.hypervisor.change = nothing  # type: ignore[method-assign]
    await want(host, amended(disk_mib=2048))
    assert workspace(host).pending == "not yet a disk of 2048 MiB: it is not seen to have it"
    assert seen(host).obeyed_generation == 3


async def test_an_agent_that_died_before_it_changed_anything_changes_it_when_it_is_back(
    host: Host,
) -> None:
    """Nothing is new to it then: its own disk says that it knows the generation."""
    host.hypervisor.silent = True
    await want(host, amended(disk_mib=2048))
    assert host.state.kept is not None
    assert host.state.kept.parts[PART.uid].wanted.generation == 4
    assert seen(host).obeyed_generation == 3

    host.hypervisor.silent = False
    host.start()
    await host.agent.sweep()
    assert host.storage.disks[A_UID] == 2048
    assert seen(host).obeyed_generation == 4
    assert host.hypervisor.starts == 1


async def test_a_guest_whose_terms_somebody_else_changed_gets_them_back(host: Host) -> None:
    guest = host.hypervisor.guests[DOMAIN]
    host.hypervisor.guests[DOMAIN] = replace(guest, terms=replace(guest.terms, cap_iops=0))
    await host.clock.advance(61)
    await host.agent.sweep()
    assert host.hypervisor.guests[DOMAIN].terms.cap_iops == 300


async def test_a_guest_is_not_looked_at_at_every_pass(host: Host) -> None:
    looks, ask = 0, host.hypervisor.running

    async def counted(name: str) -> Any:
        nonlocal looks
        looks += 1
        return await ask(name)

    host.hypervisor.running = counted  # type: ignore[method-assign]
    for _ in range(58):
        await host.clock.advance(1)
        await host.agent.sweep()
    assert looks == 0


async def test_a_guest_that_is_down_gets_its_larger_disk_before_it_starts(host: Host) -> None:
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await want(host, amended(disk_mib=2048))
    assert host.hypervisor.changes == []
    assert host.storage.disks[A_UID] == 2048
    await host.agent.sweep()
    assert seen(host).obeyed_generation == 4


async def test_a_workspace_that_is_not_wanted_any_more_goes_alone_and_a_new_one_comes(
    host: Host,
) -> None:
    both = replace(PART, generation=4, workspaces=(WORKSPACE, OTHER))
    await want(host, both)
    # What is new has to be started and looked at first.
    assert seen(host).obeyed_generation == 3
    await host.agent.sweep()
    assert seen(host).obeyed_generation == 4
    assert host.hypervisor.starts == 2

    host.hypervisor.refuses_removal = True
    await want(host, replace(PART, generation=5))
    assert seen(host).obeyed_generation == 4, "its guest is still there"
    host.hypervisor.refuses_removal = False
    await host.agent.sweep()
    assert set(host.hypervisor.domains) == {DOMAIN}
    assert host.storage.uids() == {A_UID}
    assert [each.uid for each in seen(host).workspaces] == [A_UID]
    assert seen(host).obeyed_generation == 5
    assert host.hypervisor.starts == 2


def test_a_workspace_that_comes_back_begins_anew() -> None:
    """One that had switched itself off, and was given up and asked for again, never started."""
    both = replace(PART, workspaces=(WORKSPACE, OTHER))
    known = merge({}, Listing(parts=(both,)))
    known[PART.uid] = known[PART.uid].with_note(OTHER.uid, Note(powered_off=True))
    fewer = merge(known, Listing(parts=(replace(PART, generation=4),)))
    again = merge(fewer, Listing(parts=(replace(both, generation=5),)))
    assert again[PART.uid].note(OTHER.uid) == Note()


async def test_a_new_end_of_the_window_is_obeyed_either_way(host: Host) -> None:
    longer = Window(WINDOW.start, WINDOW.end + timedelta(hours=1))
    await want(host, replace(PART, generation=4, window=longer))
    assert seen(host).obeyed_generation == 4
    await host.clock.advance(WINDOW.duration.total_seconds() + 60)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}

    shorter = Window(WINDOW.start, WINDOW.end + timedelta(minutes=2))
    await want(host, replace(PART, generation=5, window=shorter))
    host.records.readable = False
    await host.clock.advance(60)
    await host.agent.sweep()
    assert host.hypervisor.domains == {}
    assert seen(host).gone
    assert seen(host).obeyed_generation == 5


async def test_nothing_is_obeyed_that_the_network_lacks(host: Host) -> None:
    host.network.result = Applied(missing=frozenset({"ib0123456789"}), problem="no bridge")
    await want(host, replace(amended(), networks=(replace(LAN, vni=78),)))
    assert seen(host).obeyed_generation == 3
    host.network.result = Applied()
    host.traffic.broken = "no HTB"
    await host.agent.sweep()
    assert seen(host).obeyed_generation == 3
    host.traffic.broken = ""
    await host.agent.sweep()
    assert seen(host).obeyed_generation == 4


async def test_nothing_is_obeyed_that_is_not_written_down(host: Host) -> None:
    host.state.full = True
    await want(host, amended(disk_mib=2048))
    assert host.hypervisor.changes == []
    assert seen(host).obeyed_generation == 3
    host.state.full = False
    await host.agent.sweep()
    assert host.hypervisor.changes == [GrowDisk(mib=2048)]
    assert seen(host).obeyed_generation == 4


async def test_a_record_that_touches_no_guest_is_obeyed_when_it_is_written_down(
    host: Host,
) -> None:
    longer = Window(WINDOW.start, WINDOW.end + timedelta(hours=1))
    host.state.full = True
    await want(host, replace(PART, generation=4, window=longer))
    assert seen(host).obeyed_generation == 3
    host.state.full = False
    await host.agent.sweep()
    assert seen(host).obeyed_generation == 4


async def test_nothing_is_obeyed_while_what_is_not_wanted_may_not_be_removed(host: Host) -> None:
    """An agent that lost its state spares what it does not know until it can read all records."""
    await want(host, replace(PART, generation=4, workspaces=(WORKSPACE, OTHER)))
    host.state.kept = None
    host.start()
    host.records.listing = Listing(
        parts=(replace(PART, generation=5),), unreadable={"cccccccccccc": "schema 2"}
    )
    for _ in range(2):
        await host.agent.sweep()
    assert f"it-{OTHER.uid}" in host.hypervisor.domains
    assert (
        next(each for each in host.agent.report or () if each.uid == PART.uid).obeyed_generation
        == 0
    )
    await want(host, replace(PART, generation=5))
    assert f"it-{OTHER.uid}" not in host.hypervisor.domains
    assert seen(host).obeyed_generation == 5


async def test_a_guest_that_somebody_paused_is_changed_and_stays_paused(host: Host) -> None:
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    await want(host, amended(disk_mib=2048))
    assert host.storage.disks[A_UID] == 2048
    assert workspace(host).state is WorkspaceState.PAUSED
    assert seen(host).obeyed_generation == 4


async def test_a_fault_with_one_guest_does_not_keep_another_from_its_terms(host: Host) -> None:
    await want(host, replace(PART, generation=4, workspaces=(WORKSPACE, OTHER)))
    await host.agent.sweep()
    ask = host.hypervisor.running

    async def faulty(name: str) -> Any:
        if name == DOMAIN:
            raise ValueError("no number")
        return await ask(name)

    host.hypervisor.running = faulty  # type: ignore[method-assign]
    grown = tuple(
        WantedWorkspace(
            name=each.name,
            uid=each.uid,
            environment=each.environment,
            allocation=replace(each.allocation, disk_mib=2048),
            nics=each.nics,
            nonce=each.nonce,
        )
        for each in (WORKSPACE, OTHER)
    )
    await want(host, replace(PART, generation=5, workspaces=grown))
    assert host.storage.disks[OTHER.uid] == 2048
    assert "no number" in workspace(host).pending
    assert workspace(host).state is WorkspaceState.RUNNING


async def test_memory_comes_to_a_guest_that_may_grow_and_goes_with_its_next_start() -> None:
    host = Host(memory_growth=2)
    host.images.here.add(DIGEST)
    await want(host, PART)
    await want(host, amended(memory_mib=768))
    assert host.hypervisor.changes == [PlugMemory(mib=256, total_mib=768)]
    assert seen(host).obeyed_generation == 4
    await want(host, amended(5, memory_mib=1280))
    assert workspace(host).pending == "1280 MiB of memory at its next start; until then 768"

    # Nobody takes a module out of a guest that runs.
    await want(host, replace(PART, generation=6))
    assert workspace(host).pending == "512 MiB of memory at its next start; until then 768"
    assert seen(host).obeyed_generation == 4
    assert host.hypervisor.starts == 1

    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await host.agent.sweep()
    await host.agent.sweep()
    assert host.hypervisor.guests[DOMAIN].terms.memory_mib == 512
    assert seen(host).obeyed_generation == 6


@pytest.fixture
async def growing() -> Host:
    """Its guest runs with 2 vCPUs and may have 4."""
    made = Host(vcpu_growth=2)
    made.hypervisor.takes_vcpus = True
    made.images.here.add(DIGEST)
    await want(made, PART)
    await made.agent.sweep()
    return made


async def test_vcpus_come_to_a_guest_that_may_grow_and_go_with_its_next_start(
    growing: Host,
) -> None:
    weighs = WeighCpu(shares=4096, quota_us=100_000)
    await want(growing, amended(vcpus=4))
    assert growing.hypervisor.changes == [weighs, PlugVcpus(total=4)]
    assert (workspace(growing).pending, seen(growing).obeyed_generation) == ("", 4)

    await want(growing, amended(5, vcpus=6))
    assert workspace(growing).pending == "6 vCPUs at its next start; until then 4"
    assert seen(growing).obeyed_generation == 4

    # Nobody takes one out of a guest that runs; it has no more time than it is to have.
    await want(growing, replace(PART, generation=6))
    assert growing.hypervisor.changes[-1] == WeighCpu(shares=2048, quota_us=50_000)
    assert workspace(growing).pending == "2 vCPUs at its next start; until then 4"
    growing.hypervisor.domains[DOMAIN] = DomainState.OFF
    await growing.agent.sweep()
    await growing.agent.sweep()
    assert growing.hypervisor.guests[DOMAIN].terms.vcpus == 2
    assert seen(growing).obeyed_generation == 6


async def test_a_guest_that_takes_none_of_its_vcpus_is_told_of_until_it_does(
    growing: Host,
) -> None:
    """Its host has done what it can: what it gave up otherwise is free."""
    growing.hypervisor.takes_vcpus = False
    await want(growing, amended(vcpus=3))
    assert workspace(growing).pending.startswith("1 of its 3 vCPUs came while it ran")
    assert seen(growing).obeyed_generation == 4

    guest = growing.hypervisor.guests[DOMAIN]
    growing.hypervisor.guests[DOMAIN] = replace(guest, idle_vcpus=0)
    await growing.clock.advance(1.0)
    await growing.agent.sweep()
    assert workspace(growing).pending == ""


@pytest.mark.parametrize(
    ("readiness", "problem", "online"),
    [
        (Readiness.GUEST_AGENT, "", True),
        (Readiness.GUEST_AGENT, "it says nothing", False),
        (Readiness.CHANNEL, "", False),
    ],
)
async def test_an_agent_in_the_guest_brings_online_what_came(
    growing: Host, readiness: Readiness, problem: str, online: bool
) -> None:
    growing.hypervisor.takes_vcpus = False
    growing.hypervisor.agent_problem = problem
    part = amended(vcpus=3)
    [it] = part.workspaces
    it = replace(it, environment=replace(it.environment, readiness=readiness))
    await want(growing, replace(part, workspaces=(it,)))
    await growing.clock.advance(1.0)
    await growing.agent.sweep()
    await growing.clock.advance(2.0)
    await growing.agent.sweep()
    assert (workspace(growing).pending == "") is online
    assert (workspace(growing).state, seen(growing).obeyed_generation) == (
        WorkspaceState.RUNNING,
        4,
    )


async def test_vcpus_that_there_is_no_room_for_now_are_tried_again(growing: Host) -> None:
    growing.hypervisor.refuses[PlugVcpus] = "no room for their code now"
    await want(growing, amended(vcpus=3))
    assert workspace(growing).pending == "not yet 3 vCPUs: no room for their code now"
    assert workspace(growing).state is WorkspaceState.RUNNING
    assert seen(growing).obeyed_generation != 4
    growing.hypervisor.refuses.clear()
    await growing.agent.sweep()
    assert PlugVcpus(total=3) not in growing.hypervisor.changes, "not at every pass"
    await growing.clock.advance(1.0)
    await growing.agent.sweep()
    assert (workspace(growing).pending, seen(growing).obeyed_generation) == ("", 4)


async def test_a_guest_whose_agent_died_while_it_stood_still_goes_on_with_the_next(
    growing: Host,
) -> None:
    guest = growing.hypervisor.guests[DOMAIN]
    growing.hypervisor.guests[DOMAIN] = replace(guest, stands_still=True)
    growing.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    growing.start()
    await growing.agent.sweep()
    assert growing.hypervisor.changes == [LetGoOn()]
    assert workspace(growing).state is WorkspaceState.RUNNING


async def test_so_it_does_while_the_records_are_away(growing: Host) -> None:
    """It is begun by nobody: it runs, and stands still for an agent that is no more."""
    guest = growing.hypervisor.guests[DOMAIN]
    growing.hypervisor.guests[DOMAIN] = replace(guest, stands_still=True)
    growing.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    growing.records.readable = False
    growing.hypervisor.refuses[LetGoOn] = "not now"
    growing.start()
    await growing.agent.sweep()
    assert growing.hypervisor.domains[DOMAIN] is DomainState.PAUSED
    growing.hypervisor.refuses.clear()
    await growing.clock.advance(1.0)
    await growing.agent.sweep()
    assert growing.hypervisor.changes == [LetGoOn()]
    assert workspace(growing).state is WorkspaceState.RUNNING


async def test_one_that_was_paused_by_somebody_stays_so_while_the_records_are_away(
    growing: Host,
) -> None:
    growing.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    growing.records.readable = False
    growing.start()
    for _ in range(3):
        await growing.agent.sweep()
        await growing.clock.advance(1.0)
    assert growing.hypervisor.changes == []
    assert growing.hypervisor.domains[DOMAIN] is DomainState.PAUSED
