"""Passes of the agent on a host in memory: a record that comes with other terms for what runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.intervals import Window
from intertie.common.terms import BandwidthTerm, DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.convert import seen_to_proto
from intertie.nodeagent.domain.guest_terms import (
    CapDisk,
    GrowDisk,
    WeighCpu,
)
from intertie.nodeagent.domain.ports import Applied
from intertie.nodeagent.domain.reconcile import DomainState, Listing, Note, WorkspaceState, merge
from intertie.nodeagent.domain.wanted import WantedWorkspace
from tests.unit.nodeagent.amendments import DOMAIN, amended, seen, want, workspace
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, LAN, PART, WINDOW, WORKSPACE

OTHER = replace(WORKSPACE, name="b-0", uid="dddddddddddd", nics=())


@pytest.fixture
async def host() -> Host:
    """Its guest runs, and has been looked at."""
    made = Host()
    made.images.here.add(DIGEST)
    await want(made, PART)
    await made.agent.sweep()
    assert seen(made).obeyed_generation == 3
    return made


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
