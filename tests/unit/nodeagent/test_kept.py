"""Parts whose window is over and whose guests are kept with what they have in memory."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from intertie.common.actions import AS_BEGUN, Power, Switched
from intertie.common.intervals import Window
from intertie.common.terms import BandwidthTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import Attempts
from intertie.nodeagent.domain.keeping import alive_in
from intertie.nodeagent.domain.power import Memory, MemoryMove
from intertie.nodeagent.domain.reconcile import (
    NEXT_PHASE,
    DomainState,
    KnownPart,
    Note,
    Observed,
    Phase,
    Step,
    WorkspaceState,
    phase_of,
    state_of,
    steps,
)
from intertie.nodeagent.domain.wanted import WantedPart
from tests.unit.nodeagent.parts import A_UID, NOW, PART, WINDOW, WORKSPACE
from tests.unit.nodeagent.stretches import DOMAIN, KEEP_UNTIL, KEPT, Lease, running_lease

B_UID = "dddddddddddd"
NEXT = Window(WINDOW.end + timedelta(hours=2), WINDOW.end + timedelta(hours=3))
S = timedelta(seconds=1)

READY = Observed(image=True, disk=True, seed=True, domain=DomainState.OFF)
RUNNING = replace(READY, domain=DomainState.RUNNING)
PAUSED = replace(READY, domain=DomainState.PAUSED)
SAVED = replace(READY, memory=Memory.SAVED)
OFF, HELD = Switched(power=Power.OFF), Switched(power=Power.PAUSED)
ANEW = Switched(boots=1)


@pytest.mark.parametrize(
    ("part", "at", "phase"),
    [
        (KEPT, WINDOW.end - S, Phase.RUN),
        (KEPT, WINDOW.end, Phase.KEEP),
        (KEPT, KEEP_UNTIL - S, Phase.KEEP),
        (KEPT, KEEP_UNTIL, Phase.OVER),
        (PART, WINDOW.end, Phase.OVER),
        (replace(PART, keep_until=WINDOW.end), WINDOW.end, Phase.OVER),
        (replace(KEPT, gone=True), WINDOW.end, Phase.OVER),
        (replace(KEPT, window=NEXT), WINDOW.end, Phase.KEEP),
        (replace(KEPT, window=NEXT), NEXT.start - 30 * S, Phase.STAGE),
        (replace(PART, window=NEXT), WINDOW.end, Phase.WAIT),
        (replace(KEPT, window=NEXT), NEXT.start, Phase.RUN),
    ],
)
def test_where_a_part_is(part: WantedPart, at: Any, phase: Phase) -> None:
    assert phase_of(KnownPart(wanted=part), now=at) is phase


@pytest.mark.parametrize("keep_until", [None, KEEP_UNTIL])
def test_time_takes_a_part_along_the_table(keep_until: datetime | None) -> None:
    """And so does a record of another window, whenever it comes."""
    minutes = [NOW + timedelta(minutes=each / 2) for each in range(-300, 1000)]
    windows = [WINDOW, NEXT] if keep_until else [WINDOW]
    parts = [
        KnownPart(wanted=replace(PART, keep_until=keep_until, window=each)) for each in windows
    ]
    at = [[phase_of(part, now=moment) for moment in minutes] for part in parts]
    moves = {(a[n], b[n + 1]) for a, b in pairwise([*at, at[-1]]) for n in range(len(minutes) - 1)}
    moves |= {move for each in at for move in pairwise(each)}
    over = {(before, after) for before, after in moves if before is Phase.OVER}
    assert over == {(Phase.OVER, Phase.OVER)}
    assert all(before is after or after in NEXT_PHASE[before] for before, after in moves)


def test_a_part_whose_record_is_away_is_not_kept() -> None:
    assert phase_of(KnownPart(wanted=KEPT, present=False), now=WINDOW.end) is Phase.OVER


@pytest.mark.parametrize(
    ("seen", "switched", "expected"),
    [
        (RUNNING, AS_BEGUN, (Step.SAVE,)),
        (PAUSED, HELD, (Step.SAVE,)),
        (PAUSED, AS_BEGUN, (Step.SAVE,)),
        (replace(READY, domain=DomainState.STALLED), AS_BEGUN, (Step.SAVE,)),
        (replace(RUNNING, memory=Memory.SAVING), AS_BEGUN, (Step.SAVE,)),
        (replace(READY, memory=Memory.SAVING), AS_BEGUN, (Step.KEEP,)),
        (replace(PAUSED, memory=Memory.SAVED), AS_BEGUN, (Step.STOP,)),
        (replace(PAUSED, memory=Memory.SAVED), ANEW, (Step.STOP,)),
        (replace(PAUSED, memory=Memory.RESTORING), AS_BEGUN, (Step.DISCARD, Step.SAVE)),
        (replace(SAVED, domain=DomainState.STARTING), AS_BEGUN, ()),
        (RUNNING, ANEW, (Step.SAVE,)),
        (RUNNING, OFF, (Step.PRESS,)),
        (SAVED, AS_BEGUN, ()),
        (SAVED, OFF, ()),
        (SAVED, ANEW, ()),
        (READY, AS_BEGUN, ()),
        (READY, ANEW, ()),
        (replace(READY, domain=DomainState.POWERED_OFF), AS_BEGUN, ()),
        (replace(READY, memory=Memory.RESTORING), AS_BEGUN, ()),
        (Observed(), AS_BEGUN, ()),
    ],
)
def test_what_is_done_while_it_is_kept(
    seen: Observed, switched: Switched, expected: tuple[Step, ...]
) -> None:
    assert steps(Phase.KEEP, seen, Note(), switched, isolated=False, keeps=True) == expected


def test_one_that_has_not_come_to_be_saved_is_so_before_its_next_window() -> None:
    def staged(*, keeps: bool) -> tuple[Step, ...]:
        return steps(Phase.STAGE, RUNNING, Note(), AS_BEGUN, isolated=False, keeps=keeps)

    assert staged(keeps=True) == (Step.SAVE,)
    assert staged(keeps=False) == ()
    assert steps(Phase.STAGE, SAVED, Note(), AS_BEGUN, isolated=False, keeps=True) == ()


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (SAVED, WorkspaceState.SUSPENDED),
        (RUNNING, WorkspaceState.RUNNING),
        (Observed(), WorkspaceState.PLANNED),
        (replace(READY, domain=DomainState.POWERED_OFF), WorkspaceState.STOPPED),
    ],
)
def test_what_is_said(seen: Observed, state: WorkspaceState) -> None:
    said = state_of(Phase.KEEP, seen, Note(), AS_BEGUN, isolated=False, attempts=Attempts())
    assert said is state


@pytest.fixture
async def lease() -> Lease:
    return await running_lease()


async def test_at_the_windows_end_it_is_saved_with_nobody_to_ask(lease: Lease) -> None:
    host = lease.host
    host.start()
    host.records.readable = False
    await lease.comes_to(WINDOW.end - S)
    assert lease.state() is WorkspaceState.RUNNING
    assert host.network.plan.fdb
    assert host.traffic.plans["eth0"].classes
    await lease.comes_to(WINDOW.end)
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert host.storage.has_disk(A_UID)
    assert host.storage.has_seed(A_UID)
    assert host.network.plan.devices == frozenset()
    assert host.network.plan.fdb == frozenset()
    assert host.traffic.plans["eth0"].classes == ()
    assert host.traffic.nics == ()
    assert lease.state() is WorkspaceState.SUSPENDED
    assert lease.guest.ready_time is None
    assert not lease.told.gone
    assert host.agent.wanted() == ()


async def test_it_is_kept_for_its_time_and_then_nothing_is_left(lease: Lease) -> None:
    host = lease.host
    await lease.comes_to(WINDOW.end)
    host.records.readable = False
    host.start()
    await lease.comes_to(KEEP_UNTIL - S)
    assert host.storage.memory(A_UID) is Memory.SAVED
    await lease.comes_to(KEEP_UNTIL)
    assert host.hypervisor.domains == {}
    assert host.storage.uids() == frozenset()
    assert lease.told.gone


async def test_it_goes_on_in_its_next_window_where_it_was(lease: Lease) -> None:
    host = lease.host
    await lease.comes_to(WINDOW.end)
    await lease.becomes(window=NEXT)
    assert host.storage.memory(A_UID) is Memory.SAVED, "two hours before it begins"
    assert lease.obeyed()
    host.start()
    await lease.comes_to(NEXT.start - 30 * S)
    assert host.network.plan.devices, "its network is there before it is"
    assert lease.state() is WorkspaceState.SUSPENDED
    assert host.hypervisor.restored == []
    await lease.comes_to(NEXT.start)
    assert lease.state() is WorkspaceState.RUNNING
    assert lease.guest.ready_time == NOW, "it need not say so again"
    assert len(host.hypervisor.restored) == 1
    assert host.hypervisor.starts == 1
    assert host.storage.memory(A_UID) is Memory.NONE
    assert lease.obeyed()
    await lease.comes_to(NEXT.end)
    assert lease.state() is WorkspaceState.SUSPENDED


async def test_a_recalled_one_has_obeyed_once_it_is_saved(lease: Lease) -> None:
    host = lease.host
    host.hypervisor.may_move.clear()
    await lease.comes_to(NOW + 600 * S)
    await lease.becomes(window=Window(NOW, NOW + 600 * S))
    assert not lease.obeyed()
    assert lease.state() is WorkspaceState.RUNNING
    host.hypervisor.may_move.set()
    await lease.passes()
    assert lease.state() is WorkspaceState.SUSPENDED
    assert lease.obeyed()


async def test_while_it_is_saved_its_nic_is_there_and_leads_nowhere(lease: Lease) -> None:
    host = lease.host
    [cap] = [nic.cap_kbit for nic in host.traffic.nics]
    host.hypervisor.may_move.clear()
    await lease.comes_to(WINDOW.end)
    assert {device[:2] for device in host.network.plan.devices} == {"ib", "it"}
    assert host.network.plan.fdb == frozenset()
    assert host.traffic.plans["eth0"].classes == ()
    [nic] = host.traffic.nics
    assert (nic.cap_kbit, nic.sent.classes) == (cap, ())
    host.hypervisor.silent = True
    await lease.passes()
    assert {device[:2] for device in host.network.plan.devices} == {"ib", "it"}


def test_one_whose_memory_is_on_its_way_has_a_guest_whatever_libvirt_says() -> None:
    off = {DOMAIN: DomainState.OFF}
    assert alive_in([KEPT], off, frozenset()) == frozenset()
    assert alive_in([KEPT], off, {A_UID}) == {A_UID}
    assert alive_in([KEPT], None, frozenset()) == {A_UID}


async def test_what_is_off_stays_so_and_is_not_started_in_the_next_window(lease: Lease) -> None:
    host = lease.host
    host.hypervisor.domains[DOMAIN] = DomainState.POWERED_OFF
    await lease.comes_to(WINDOW.end)
    assert lease.obeyed()
    assert lease.state() is WorkspaceState.STOPPED
    host.hypervisor.domains[DOMAIN] = DomainState.OFF  # libvirt forgets why
    host.start()
    await lease.becomes(window=NEXT)
    await lease.comes_to(NEXT.start)
    assert host.hypervisor.starts == 1
    assert host.hypervisor.memory == {}


async def test_one_that_its_owner_held_is_saved_and_held_again(lease: Lease) -> None:
    host = lease.host
    await lease.becomes(workspaces=(replace(WORKSPACE, switched=HELD),))
    assert lease.state() is WorkspaceState.PAUSED
    await lease.comes_to(WINDOW.end)
    assert lease.state() is WorkspaceState.SUSPENDED
    await lease.becomes(window=NEXT)
    await lease.comes_to(NEXT.start)
    assert lease.state() is WorkspaceState.PAUSED
    assert host.hypervisor.starts == 1


@pytest.mark.parametrize("ends", ["saving", "written"])
async def test_an_agent_that_dies_while_it_saves(lease: Lease, ends: str) -> None:
    host = lease.host
    host.storage.memories[A_UID] = Memory.SAVING
    whole = ends == "written"
    host.hypervisor.memory = {f"/data/disks/{A_UID}.saving": whole}
    if whole:
        host.hypervisor.domains[DOMAIN] = DomainState.OFF
    host.start()
    host.records.readable = False
    await lease.comes_to(WINDOW.end)
    assert lease.state() is WorkspaceState.SUSPENDED
    host.records.readable = True
    await lease.becomes(window=NEXT)
    await lease.comes_to(NEXT.start)
    assert lease.state() is WorkspaceState.RUNNING
    assert len(host.hypervisor.restored) == 1
    assert host.hypervisor.starts == 1


async def test_one_that_cannot_go_on_keeps_what_it_had_and_says_why(lease: Lease) -> None:
    host = lease.host
    await lease.comes_to(WINDOW.end)
    host.hypervisor.refuses_restore = True
    await lease.becomes(window=NEXT)
    await lease.comes_to(NEXT.start)
    for _ in range(8):
        await host.clock.advance(60)
        await lease.passes()
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert lease.state() is WorkspaceState.SUSPENDED
    assert lease.guest.message == "libvirt: no"
    assert host.hypervisor.starts == 1


async def test_a_memory_without_room_in_the_pool_leaves_its_guest_running(lease: Lease) -> None:
    host = lease.host
    host.storage.room = 700
    await lease.comes_to(WINDOW.end)
    assert lease.state() is WorkspaceState.RUNNING
    assert "700 MiB are free, and 768 needed" in lease.guest.message
    assert not lease.obeyed()
    host.storage.room = 800
    await host.clock.advance(60)
    await lease.passes()
    assert lease.state() is WorkspaceState.SUSPENDED
    assert lease.guest.message == ""
    assert lease.obeyed()


async def test_two_that_are_saved_do_not_count_the_same_room(lease: Lease) -> None:
    host = lease.host
    other = replace(WORKSPACE, name="b-0", uid=B_UID, nics=())
    await lease.becomes(workspaces=(WORKSPACE, other))
    host.storage.room = 512 + 512 + 256 - 65
    host.storage.memories[A_UID] = Memory.SAVING
    host.hypervisor.may_move.clear()
    await lease.comes_to(WINDOW.end)
    await lease.passes()
    short = [each.message for each in lease.told.workspaces if each.message]
    assert short == [
        "its memory has no room in the host's pool: 1215 MiB are free, and 1216 needed"
    ], "64 MiB of the other are written"
    host.hypervisor.may_move.set()
    await host.clock.advance(60)
    await lease.passes()
    assert {each.state for each in lease.told.workspaces} == {WorkspaceState.SUSPENDED}


async def test_saving_needs_no_note_that_can_be_written(lease: Lease) -> None:
    lease.host.state.full = True
    await lease.becomes(window=Window(NOW, NOW + 600 * S))
    await lease.comes_to(NOW + 600 * S)
    assert lease.state() is WorkspaceState.SUSPENDED


async def test_what_moving_memory_took_is_told_and_outlives_the_agent(lease: Lease) -> None:
    host = lease.host
    assert (lease.guest.saved, lease.guest.restored) == (None, None)
    host.hypervisor.may_move.clear()
    await lease.comes_to(WINDOW.end)
    await host.clock.advance(7)
    host.hypervisor.may_move.set()
    await lease.passes()
    took = MemoryMove(bytes=host.storage.written, duration=7 * S)
    assert lease.guest.saved == took
    host.hypervisor.may_move.clear()
    await lease.becomes(window=NEXT)
    await lease.comes_to(NEXT.start)
    await host.clock.advance(4)
    host.hypervisor.may_move.set()
    await lease.passes()
    assert lease.guest.restored == replace(took, duration=4 * S)
    host.start()
    await lease.becomes(workspaces=(replace(WORKSPACE, switched=Switched(boots=1)),))
    assert host.hypervisor.starts == 2
    assert lease.guest.saved == took
    assert lease.guest.restored == replace(took, duration=4 * S)


async def test_a_saved_one_goes_on_with_the_newest_terms_that_can_be_given(lease: Lease) -> None:
    host = lease.host
    [before] = [nic.cap_kbit for nic in host.traffic.nics]
    await lease.comes_to(WINDOW.end)
    disk = replace(WORKSPACE.allocation.disk, cap_iops=77)
    more = replace(WORKSPACE.allocation, disk=disk, disk_mib=2048, vcpus=3)
    wider = replace(WORKSPACE.nics[0], bandwidth=BandwidthTerm(guarantee_mbit_s=20, cap_mbit_s=90))
    await lease.becomes(
        window=NEXT, workspaces=(replace(WORKSPACE, allocation=more, nics=(wider,)),)
    )
    await lease.comes_to(NEXT.start)
    has = (await host.hypervisor.running(DOMAIN)).terms
    assert (has.cap_iops, has.disk_mib, has.vcpus) == (77, 2048, 2)
    assert "3 vCPUs at its next start" in lease.guest.pending
    [nic] = host.traffic.nics
    assert nic.cap_kbit == pytest.approx(before * 90 / 40, rel=0.01)
