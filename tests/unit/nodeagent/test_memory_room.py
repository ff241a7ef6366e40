"""A guest begins when its host has memory for it: what is late is not overbooked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.nodeagent.domain.reconcile import DomainState, Listing, WorkspaceState
from intertie.nodeagent.domain.report import SeenWorkspace
from intertie.nodeagent.domain.wanted import WantedPart
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import DIGEST, LAN, PART, WINDOW, WORKSPACE
from tests.unit.nodeagent.stretches import DOMAIN, Lease, running_lease

B_UID = "dddddddddddd"
LATER = WINDOW.end + timedelta(hours=3)


def newcomer(**terms: Any) -> WantedPart:
    workspace = replace(WORKSPACE, name="n-0", uid=B_UID, nics=(), **terms)
    return replace(
        PART,
        name="sites/north/tenants/demo/parts/p2",
        uid="eeeeeeeeeeee",
        window=Window(WINDOW.end, WINDOW.end + timedelta(hours=1)),
        workspaces=(workspace,),
        networks=(replace(LAN, uid="0123456789cd", tunnels=(), pairs=()),),
    )


class Two(Lease):
    """The lease, and another's part that is due when its window is over."""

    async def come_to_the_end(self) -> None:
        self.host.records.listing = Listing(parts=(self.part, newcomer()))
        await self.comes_to(WINDOW.end)

    @property
    def newcomer(self) -> SeenWorkspace:
        assert self.host.agent.report is not None
        [part] = [each for each in self.host.agent.report if each.uid == newcomer().uid]
        return part.workspaces[0]

    def newcomer_state(self) -> WorkspaceState:
        return self.newcomer.state


@pytest.fixture
async def two() -> Two:
    """On a host with memory for one of them."""
    lease = await running_lease()
    lease.host.memory_mib = 1000
    return Two(lease.host)


async def test_the_next_one_begins_when_there_is_memory_and_no_sooner(two: Two) -> None:
    host = two.host
    host.hypervisor.may_move.clear()
    await two.come_to_the_end()
    assert two.newcomer_state() is WorkspaceState.DEFINED
    assert two.newcomer.message == (
        "waits for memory: it needs 512 MiB, and guests that run, are being saved or restored "
        "have 512 of this host's 1000"
    )
    await host.clock.advance(600)
    await two.passes()
    assert two.newcomer_state() is WorkspaceState.DEFINED, "to wait is no failure"
    host.start()
    host.hypervisor.may_move.set()
    await two.passes(1)
    assert host.hypervisor.starts == 1
    await two.passes()
    assert two.newcomer_state() is WorkspaceState.RUNNING
    assert two.newcomer.message == ""
    assert host.hypervisor.starts == 2


async def test_one_that_cannot_be_saved_is_counted(two: Two) -> None:
    two.host.hypervisor.refuses_save = True
    await two.come_to_the_end()
    for _ in range(4):
        await two.host.clock.advance(60)
        await two.passes()
    assert two.newcomer_state() is WorkspaceState.DEFINED
    assert two.state() is WorkspaceState.RUNNING
    assert two.guest.message == "libvirt: no room"


async def test_one_that_goes_on_is_counted_from_when_it_begins_to(two: Two) -> None:
    """Both are due at once; the one that goes on comes first, and is not seen to run yet."""
    host = two.host
    await two.comes_to(WINDOW.end)
    host.hypervisor.may_move.clear()
    window = Window(WINDOW.end, LATER)
    await two.becomes(window=window)
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    host.records.listing = Listing(parts=(two.part, newcomer()))
    await two.passes()
    assert "waits for memory" in two.newcomer.message
    assert host.hypervisor.starts == 1
    host.hypervisor.may_move.set()
    await two.passes()
    assert two.state() is WorkspaceState.RUNNING
    assert two.newcomer_state() is WorkspaceState.DEFINED


async def test_a_saved_one_waits_for_memory_like_any_other(two: Two) -> None:
    host = two.host
    await two.come_to_the_end()
    assert two.newcomer_state() is WorkspaceState.RUNNING
    two.part = replace(two.part, generation=9, window=Window(WINDOW.end, LATER))
    host.records.listing = Listing(parts=(two.part, newcomer()))
    await two.passes()
    assert two.state() is WorkspaceState.SUSPENDED
    assert "waits for memory: it needs 512 MiB" in two.guest.message
    assert not two.obeyed()
    host.records.listing = Listing(parts=(two.part, replace(newcomer(), gone=True, generation=9)))
    await two.passes()
    assert two.state() is WorkspaceState.RUNNING
    assert host.hypervisor.starts == 2


async def test_of_two_that_begin_in_one_pass_one_gets_the_memory(two: Two) -> None:
    host = two.host
    other = replace(WORKSPACE, name="b-0", uid="cccccccccccc", nics=())
    await two.comes_to(WINDOW.end)
    part = newcomer()
    part = replace(part, workspaces=(*part.workspaces, other))
    host.records.listing = Listing(parts=(two.part, part))
    await two.passes()
    running = [name for name, at in host.hypervisor.domains.items() if at is DomainState.RUNNING]
    assert len(running) == 1


async def test_a_pass_comes_as_soon_as_memory_was_moved(two: Two) -> None:
    host = two.host
    host.hypervisor.may_move.clear()
    await two.come_to_the_end()
    host.start()
    running = asyncio.create_task(host.agent.run())
    await host.clock.settle()
    assert two.newcomer_state() is WorkspaceState.DEFINED
    host.hypervisor.may_move.set()
    await host.clock.settle()
    assert two.newcomer_state() is WorkspaceState.RUNNING, "and no time has passed"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_more_for_a_guest_that_runs_waits_too() -> None:
    host = Host(memory_growth=2)
    host.memory_mib = 600
    host.records.listing = Listing(parts=(PART,))
    host.images.here.add(DIGEST)
    lease = Lease(host)
    lease.part = PART
    await lease.passes()
    grown = replace(WORKSPACE.allocation, memory_mib=640)
    await lease.becomes(workspaces=(replace(WORKSPACE, allocation=grown),))
    assert "waits for memory: it needs 128 MiB" in lease.guest.pending
    assert lease.state() is WorkspaceState.RUNNING
    assert (await host.hypervisor.running(DOMAIN)).terms.memory_mib == 512
    host.memory_mib = 640
    await host.clock.advance(60)
    await lease.passes()
    assert (await host.hypervisor.running(DOMAIN)).terms.memory_mib == 640
    assert lease.guest.pending == ""
