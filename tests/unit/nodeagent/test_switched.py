"""Guests that their owner has switched: off, on again, held, put aside with their memory."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from intertie.common.actions import AS_BEGUN, Power, Switched
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import Attempts, HypervisorSilent
from intertie.nodeagent.domain.network_plan import NetworkPlan
from intertie.nodeagent.domain.ports import Applied
from intertie.nodeagent.domain.power import SHUTDOWN_S, Button, Memory
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    Listing,
    Note,
    Observed,
    Phase,
    Step,
    WorkspaceState,
    state_of,
    steps,
)
from intertie.nodeagent.domain.report import SeenPart
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, PART, WINDOW, WORKSPACE

DOMAIN = f"it-{A_UID}"
READY = Observed(image=True, disk=True, seed=True, domain=DomainState.OFF)
RUNNING = replace(READY, domain=DomainState.RUNNING)
PAUSED = replace(READY, domain=DomainState.PAUSED)
OFF, HELD, ASIDE = (Switched(power=each) for each in (Power.OFF, Power.PAUSED, Power.SAVED))
ANEW = Switched(boots=1)


@pytest.mark.parametrize(
    ("seen", "note", "switched", "expected"),
    [
        (RUNNING, Note(), OFF, (Step.PRESS,)),
        (PAUSED, Note(), OFF, (Step.STOP,)),
        (READY, Note(), OFF, ()),
        (replace(READY, domain=None), Note(), OFF, (Step.DEFINE,)),
        (RUNNING, Note(), HELD, (Step.PAUSE,)),
        (PAUSED, Note(paused=True), HELD, ()),
        (PAUSED, Note(paused=True), AS_BEGUN, (Step.GO_ON,)),
        (PAUSED, Note(), AS_BEGUN, ()),
        (replace(READY, domain=DomainState.STALLED), Note(), HELD, ()),
        (READY, Note(), HELD, ()),
        (RUNNING, Note(), ASIDE, (Step.SAVE,)),
        (PAUSED, Note(paused=True), ASIDE, (Step.SAVE,)),
        (READY, Note(), ASIDE, ()),
        (replace(READY, memory=Memory.SAVED), Note(), ASIDE, ()),
        (replace(READY, memory=Memory.SAVED), Note(), AS_BEGUN, (Step.RESTORE,)),
        (
            replace(READY, memory=Memory.SAVED, domain=None),
            Note(),
            AS_BEGUN,
            (Step.DEFINE, Step.RESTORE),
        ),
        (replace(READY, memory=Memory.SAVED), Note(), OFF, (Step.DISCARD,)),
        (
            replace(READY, memory=Memory.SAVED),
            Note(),
            ANEW,
            (Step.DISCARD, Step.DEFINE, Step.START),
        ),
        (replace(READY, memory=Memory.SAVING), Note(), ASIDE, (Step.KEEP,)),
        (replace(RUNNING, memory=Memory.SAVING), Note(), ASIDE, (Step.SAVE,)),
        (replace(RUNNING, memory=Memory.SAVING), Note(), AS_BEGUN, ()),
        (replace(RUNNING, memory=Memory.RESTORING), Note(), AS_BEGUN, (Step.DISCARD,)),
        (
            replace(READY, memory=Memory.RESTORING),
            Note(),
            AS_BEGUN,
            (Step.DISCARD, Step.DEFINE, Step.START),
        ),
        (replace(PAUSED, memory=Memory.SAVED), Note(), AS_BEGUN, (Step.GO_ON,)),
        (replace(PAUSED, memory=Memory.RESTORING), Note(), AS_BEGUN, (Step.GO_ON,)),
        (replace(PAUSED, memory=Memory.SAVED), Note(), HELD, (Step.GO_ON,)),
        (replace(PAUSED, memory=Memory.SAVED), Note(), ASIDE, (Step.STOP,)),
        (replace(PAUSED, memory=Memory.RESTORING), Note(), ASIDE, (Step.DISCARD, Step.SAVE)),
        (replace(PAUSED, memory=Memory.SAVED), Note(), OFF, (Step.DISCARD, Step.STOP)),
        (replace(PAUSED, memory=Memory.SAVED), Note(), ANEW, (Step.DISCARD, Step.STOP)),
        (replace(READY, domain=DomainState.STARTING), Note(), OFF, ()),
        (RUNNING, Note(), ANEW, (Step.PRESS,)),
        (RUNNING, Note(boots=1), ANEW, ()),
        (READY, Note(), replace(ANEW, power=Power.PAUSED), (Step.DEFINE, Step.START)),
        (READY, Note(), replace(ANEW, power=Power.SAVED), (Step.DEFINE, Step.START)),
        (READY, Note(), replace(ANEW, power=Power.OFF), ()),
        (replace(READY, memory=Memory.SAVED), Note(), HELD, (Step.RESTORE,)),
        (
            replace(READY, domain=DomainState.POWERED_OFF),
            Note(boots=1, starting=True),
            ANEW,
            (Step.DEFINE, Step.START),
        ),
        (READY, Note(powered_off=True), ANEW, (Step.DEFINE, Step.START)),
        (READY, Note(powered_off=True, boots=1), ANEW, ()),
    ],
)
def test_what_is_done(
    seen: Observed, note: Note, switched: Switched, expected: tuple[Step, ...]
) -> None:
    assert steps(Phase.RUN, seen, note, switched, isolated=False) == expected


def test_who_does_not_heed_the_button_is_stopped() -> None:
    def next_steps(button: Button) -> tuple[Step, ...]:
        return steps(Phase.RUN, RUNNING, Note(), OFF, isolated=False, button=button)

    assert next_steps(Button.PRESSED) == ()
    assert next_steps(Button.IGNORED) == (Step.STOP,)


def test_one_that_is_cut_off_is_not_gone_on_with() -> None:
    saved = replace(READY, memory=Memory.SAVED)
    assert steps(Phase.RUN, saved, Note(), AS_BEGUN, isolated=True) == ()
    assert steps(Phase.RUN, RUNNING, Note(), ASIDE, isolated=True) == (Step.STOP,)


@pytest.mark.parametrize(
    ("seen", "switched", "state"),
    [
        (replace(READY, memory=Memory.SAVED), ASIDE, WorkspaceState.SUSPENDED),
        (replace(READY, memory=Memory.SAVED), AS_BEGUN, WorkspaceState.SUSPENDED),
        (READY, OFF, WorkspaceState.STOPPED),
        (READY, AS_BEGUN, WorkspaceState.DEFINED),
        (PAUSED, HELD, WorkspaceState.PAUSED),
    ],
)
def test_what_is_said(seen: Observed, switched: Switched, state: WorkspaceState) -> None:
    said = state_of(Phase.RUN, seen, Note(), switched, isolated=False, attempts=Attempts())
    assert said is state


class Owner:
    """Switches the one guest of a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._generation = PART.generation

    async def switches(self, **how: Any) -> None:
        self._generation += 1
        workspace = replace(WORKSPACE, switched=Switched(**how))
        part = replace(PART, generation=self._generation, workspaces=(workspace,))
        self.host.records.listing = Listing(parts=(part,))
        await self.passes()

    async def passes(self, number: int = 4) -> None:
        for _ in range(number):
            await self.host.agent.sweep()
            await self.host.clock.settle()

    @property
    def seen(self) -> SeenPart:
        assert self.host.agent.report is not None
        [part] = self.host.agent.report
        return part

    def state(self) -> WorkspaceState:
        return self.seen.workspaces[0].state

    def obeyed(self) -> bool:
        return self.seen.obeyed_generation == self._generation


@pytest.fixture
async def owner() -> Owner:
    host = Host()
    host.records.listing = Listing(parts=(PART,))
    host.images.here.add(DIGEST)
    made = Owner(host)
    await made.passes()
    host.channels.say(A_UID, host.clock.now())
    await made.passes()
    assert made.seen.workspaces[0].ready_time is not None
    return made


async def test_off_and_on_again(owner: Owner) -> None:
    host = owner.host
    await owner.switches(power=Power.OFF)
    assert host.hypervisor.presses == [DOMAIN]
    assert owner.state() is WorkspaceState.STOPPED
    assert owner.obeyed()
    assert owner.seen.workspaces[0].ready_time is None
    await owner.switches(power=Power.ON, boots=1)
    assert owner.state() is WorkspaceState.RUNNING
    assert host.hypervisor.starts == 2
    host.start()
    await owner.passes()
    assert host.hypervisor.starts == 2, "an agent that was started again has it noted"


async def test_one_that_does_not_heed_the_button_is_off_after_a_while(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.heeds_button = False
    await owner.switches(power=Power.OFF)
    assert owner.state() is WorkspaceState.RUNNING
    assert not owner.obeyed()
    await host.clock.advance(SHUTDOWN_S)
    await owner.passes()
    assert host.hypervisor.presses == [DOMAIN], "once"
    assert owner.state() is WorkspaceState.STOPPED
    assert owner.obeyed()


async def test_a_reboot_is_one(owner: Owner) -> None:
    await owner.switches(power=Power.ON, boots=1)
    await owner.passes()
    assert owner.host.hypervisor.starts == 2
    assert owner.host.hypervisor.presses == [DOMAIN]
    assert owner.state() is WorkspaceState.RUNNING
    assert owner.obeyed()


async def test_one_that_switched_itself_off_is_started_by_its_owner_alone(owner: Owner) -> None:
    owner.host.hypervisor.domains[DOMAIN] = DomainState.POWERED_OFF
    await owner.passes()
    assert owner.state() is WorkspaceState.STOPPED
    await owner.switches(power=Power.ON, boots=1)
    assert owner.state() is WorkspaceState.RUNNING


async def test_held_and_let_go_on(owner: Owner) -> None:
    await owner.switches(power=Power.PAUSED)
    assert owner.state() is WorkspaceState.PAUSED
    assert owner.obeyed()
    owner.host.start()
    await owner.switches(power=Power.ON)
    assert owner.state() is WorkspaceState.RUNNING
    assert owner.host.hypervisor.starts == 1


async def test_put_aside_with_its_memory_and_gone_on_with(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.may_move.clear()
    await owner.switches(power=Power.SAVED)
    assert not owner.obeyed(), "it is on the way"
    host.hypervisor.may_move.set()
    await owner.passes()
    assert owner.state() is WorkspaceState.SUSPENDED
    assert not owner.obeyed(), "it goes on with what it had then, whatever it is to have by now"
    await owner.switches(power=Power.ON)
    assert owner.state() is WorkspaceState.RUNNING
    assert owner.seen.workspaces[0].ready_time is not None, "it need not say so again"
    assert host.hypervisor.starts == 1
    assert len(host.hypervisor.restored) == 1
    assert host.storage.memory(A_UID) is Memory.NONE
    assert owner.obeyed()


async def test_a_memory_that_cannot_be_saved_leaves_the_guest_running(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.refuses_save = True
    await owner.switches(power=Power.SAVED)
    assert owner.state() is WorkspaceState.RUNNING
    assert "no room" in owner.seen.workspaces[0].message
    host.hypervisor.refuses_save = False
    await host.clock.advance(60)
    await owner.passes()
    assert owner.state() is WorkspaceState.SUSPENDED


async def test_a_memory_that_cannot_be_gone_on_with_is_kept(owner: Owner) -> None:
    host = owner.host
    await owner.switches(power=Power.SAVED)
    host.hypervisor.refuses_restore = True
    await owner.switches(power=Power.ON)
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert "libvirt: no" in owner.seen.workspaces[0].message
    host.hypervisor.refuses_restore = False
    await host.clock.advance(60)
    await owner.passes()
    assert owner.state() is WorkspaceState.RUNNING
    assert host.hypervisor.starts == 1


@pytest.mark.parametrize("whole", [True, False])
async def test_an_agent_that_died_while_a_memory_was_written(owner: Owner, *, whole: bool) -> None:
    host = owner.host
    host.storage.memories[A_UID] = Memory.SAVING
    host.hypervisor.memory = {f"/data/disks/{A_UID}.saving": whole}
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    host.start()
    await owner.switches(power=Power.SAVED)
    assert owner.state() is (WorkspaceState.SUSPENDED if whole else WorkspaceState.STOPPED)
    await owner.switches(power=Power.ON)
    assert owner.state() is WorkspaceState.RUNNING
    assert len(host.hypervisor.restored) == whole


async def test_a_memory_is_gone_on_with_once(owner: Owner) -> None:
    """The agent died when the guest ran already, and that has ended by now."""
    host = owner.host
    await owner.switches(power=Power.SAVED)
    host.storage.take_memory(A_UID)
    host.start()
    await owner.switches(power=Power.ON)
    assert host.hypervisor.restored == []
    assert host.hypervisor.starts == 2


async def test_a_window_that_ends_while_a_memory_is_written_leaves_nothing(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.may_move.clear()
    await owner.switches(power=Power.SAVED)
    await host.clock.advance(WINDOW.duration.total_seconds())
    await owner.passes()
    assert not owner.seen.gone
    host.hypervisor.may_move.set()
    await owner.passes()
    assert owner.seen.gone
    assert host.hypervisor.domains == {}
    assert host.storage.uids() == frozenset()


async def test_a_memory_that_is_saved_within_a_pass_is_not_thrown_away(owner: Owner) -> None:
    """A bug: guests were looked at before, and their files after it."""
    host = owner.host
    host.hypervisor.may_move.clear()
    await owner.switches(power=Power.SAVED)
    make_networks = host.network.apply

    async def slowly(plan: NetworkPlan) -> Applied:
        host.hypervisor.may_move.set()
        await host.clock.settle()
        return await make_networks(plan)

    with mock.patch.object(host.network, "apply", slowly):
        await owner.passes()
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert owner.state() is WorkspaceState.SUSPENDED
    await owner.switches(power=Power.ON)
    assert len(host.hypervisor.restored) == 1


async def test_after_a_silence_nobody_goes_on_from_a_memory_again(owner: Owner) -> None:
    """It may have gone on, and its disk be newer."""
    host = owner.host
    await owner.switches(power=Power.SAVED)

    async def silent(name: str) -> None:
        host.hypervisor.domains[name] = DomainState.OFF
        raise HypervisorSilent("libvirt: gone")

    with mock.patch.object(host.hypervisor, "resume", silent):
        await owner.switches(power=Power.ON)
    await host.clock.advance(60)
    await owner.passes()
    assert len(host.hypervisor.restored) == 1
    assert host.hypervisor.starts == 2


async def test_a_silence_while_a_memory_is_read_loses_nothing(owner: Owner) -> None:
    """libvirtd was killed, and has done away with a guest that had not run yet."""
    host = owner.host
    await owner.switches(power=Power.SAVED)

    async def silent(name: str, path: str) -> None:
        raise HypervisorSilent("libvirt: gone")

    with mock.patch.object(host.hypervisor, "restore", silent):
        await owner.switches(power=Power.ON)
    assert host.storage.memory(A_UID) is Memory.SAVED
    await host.clock.advance(60)
    await owner.passes()
    assert owner.state() is WorkspaceState.RUNNING
    assert len(host.hypervisor.restored) == 1
    assert host.hypervisor.starts == 1


@pytest.mark.parametrize("memory", [Memory.SAVED, Memory.RESTORING])
async def test_an_agent_that_died_while_a_memory_was_read(owner: Owner, memory: Memory) -> None:
    """libvirt goes on with it, and leaves the guest paused."""
    host = owner.host
    await owner.switches(power=Power.SAVED)
    host.start()
    host.hypervisor.domains[DOMAIN] = DomainState.STARTING
    await owner.switches(power=Power.ON)
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert owner.state() is WorkspaceState.SUSPENDED
    host.storage.memories[A_UID] = memory
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    await owner.passes()
    assert owner.state() is WorkspaceState.RUNNING
    assert host.storage.memory(A_UID) is Memory.NONE
    assert host.hypervisor.starts == 1
    assert host.hypervisor.restored == []


async def test_one_that_is_let_go_on_by_another_agent_is_not_gone_on_from_again(
    owner: Owner,
) -> None:
    host = owner.host
    await owner.switches(power=Power.SAVED)
    host.start()
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED

    async def silent(name: str) -> None:
        host.hypervisor.domains[name] = DomainState.OFF
        raise HypervisorSilent("libvirt: gone")

    with mock.patch.object(host.hypervisor, "resume", silent):
        await owner.switches(power=Power.ON)
    await host.clock.advance(60)
    await owner.passes()
    assert host.hypervisor.restored == []
    assert host.hypervisor.starts == 2


async def test_one_that_was_not_let_go_on_is_put_aside_as_it_was(owner: Owner) -> None:
    host = owner.host
    await owner.switches(power=Power.SAVED)
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    await owner.passes()
    assert host.hypervisor.domains[DOMAIN] is DomainState.OFF
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert owner.state() is WorkspaceState.SUSPENDED


async def test_one_that_is_to_stand_still_after_it_was_put_aside_does(owner: Owner) -> None:
    await owner.switches(power=Power.SAVED)
    await owner.switches(power=Power.PAUSED)
    assert owner.state() is WorkspaceState.PAUSED
    assert len(owner.host.hypervisor.restored) == 1
    assert owner.host.hypervisor.starts == 1


async def test_an_agent_that_died_before_a_start_that_it_has_noted_makes_it(owner: Owner) -> None:
    """A bug: the guest had switched itself off before, and so it stayed."""
    host = owner.host
    await owner.switches(power=Power.OFF)
    host.hypervisor.refuses_start = True
    await owner.switches(power=Power.ON, boots=1)
    host.hypervisor.refuses_start = False
    host.start()
    await owner.passes()
    assert owner.state() is WorkspaceState.RUNNING
    host.hypervisor.domains[DOMAIN] = DomainState.POWERED_OFF
    await owner.passes()
    assert owner.state() is WorkspaceState.STOPPED, "once it ran, it may switch itself off"


async def test_a_restore_that_fails_again_and_again_is_no_failure_of_the_guest(
    owner: Owner,
) -> None:
    await owner.switches(power=Power.SAVED)
    owner.host.hypervisor.refuses_restore = True
    await owner.switches(power=Power.ON)
    for _ in range(6):
        await owner.host.clock.advance(60)
        await owner.passes()
    assert owner.state() is WorkspaceState.SUSPENDED
    assert "libvirt: no" in owner.seen.workspaces[0].message


async def test_a_memory_that_has_no_room_is_not_begun_to_be_saved(owner: Owner) -> None:
    owner.host.storage.room = WORKSPACE.allocation.memory_mib
    await owner.switches(power=Power.SAVED)
    assert owner.state() is WorkspaceState.RUNNING
    assert "no room in the host's pool" in owner.seen.workspaces[0].message
    assert owner.host.hypervisor.memory == {}


async def test_a_lost_file_of_notes_starts_nobody_anew(owner: Owner) -> None:
    await owner.switches(power=Power.ON, boots=3)
    await owner.passes()
    starts = owner.host.hypervisor.starts
    owner.host.state.kept = None
    owner.host.start()
    await owner.passes()
    assert owner.host.hypervisor.starts == starts
