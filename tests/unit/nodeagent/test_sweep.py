"""Passes of the agent on a host in memory: what it makes, keeps, and takes away."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from datetime import timedelta

import pytest

from intertie.common.terms import AvailabilityTerm, OnIsolation
from intertie.common.values import replace
from intertie.nodeagent.domain.network_plan import plan_networks
from intertie.nodeagent.domain.ports import Applied
from intertie.nodeagent.domain.reconcile import DomainState, Kept, Listing, WorkspaceState
from intertie.nodeagent.domain.report import HostFacts, SeenPart
from intertie.nodeagent.loops.report import Reporter
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, PART, PLACE, WINDOW, WORKSPACE

DOMAIN = f"it-{A_UID}"


@pytest.fixture
def host() -> Host:
    made = Host()
    made.records.listing = Listing(parts=(PART,))
    made.images.here.add(DIGEST)
    return made


def seen(host: Host) -> SeenPart:
    assert host.agent.report is not None
    [part] = host.agent.report
    return part


async def test_a_guest_is_made_started_and_reported_ready_when_it_says_so(host: Host) -> None:
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert host.channels.open == {A_UID: "secret"}
    assert seen(host).workspaces[0].ready_time is None

    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    [workspace] = seen(host).workspaces
    assert workspace.state is WorkspaceState.RUNNING
    assert workspace.ready_time == host.clock.now()
    assert host.channels.open == {}


async def test_a_guest_that_says_that_it_is_ready_is_not_kept_waiting_for_the_next_period(
    host: Host,
) -> None:
    """A bug: it was told of up to a period later, 2 s of a deployment that takes 10."""
    running = asyncio.create_task(host.agent.run())
    await host.clock.settle()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    host.channels.say(A_UID, host.clock.now())
    await host.clock.settle()
    assert seen(host).workspaces[0].ready_time == host.clock.now()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_image_that_is_not_here_is_fetched_for_its_tenant(host: Host) -> None:
    host.images.here.clear()
    await host.agent.sweep()
    assert host.images.asked == [f"demo/{DIGEST}"]
    [workspace] = seen(host).workspaces
    assert workspace.state is WorkspaceState.STAGING
    assert (workspace.staging_done_bytes, workspace.staging_total_bytes) == (1, 2)


async def test_a_restarted_agent_keeps_its_guests_and_knows_that_they_are_ready(host: Host) -> None:
    await host.agent.sweep()
    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    host.start()
    await host.agent.sweep()
    assert host.hypervisor.starts == 1
    assert seen(host).workspaces[0].ready_time is not None
    assert host.channels.open == {}


async def test_an_agent_that_knows_nothing_does_nothing_until_it_can_read(host: Host) -> None:
    host.hypervisor.domains = {"it-cccccccccccc": DomainState.RUNNING}
    host.records.readable = False
    await host.agent.sweep()
    assert host.agent.report is None
    assert host.hypervisor.domains == {"it-cccccccccccc": DomainState.RUNNING}

    host.records.readable = True
    await host.agent.sweep()
    assert set(host.hypervisor.domains) == {DOMAIN}


async def test_at_the_end_of_its_window_a_part_goes_though_nothing_can_be_read(host: Host) -> None:
    await host.agent.sweep()
    host.start()
    host.records.readable = False
    await host.clock.advance(WINDOW.duration.total_seconds() - 1)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}

    await host.clock.advance(1)
    await host.agent.sweep()
    assert host.hypervisor.domains == {}
    assert host.storage.uids() == frozenset()
    assert host.network.plan.devices == frozenset()
    assert seen(host).gone


async def test_it_is_not_gone_while_anything_is_left(host: Host) -> None:
    await host.agent.sweep()
    host.records.listing = Listing(parts=(replace(PART, generation=4, gone=True),))

    host.hypervisor.refuses_removal = True
    await host.agent.sweep()
    assert not seen(host).gone
    assert "busy" in seen(host).message
    assert host.storage.uids() == {A_UID}

    host.hypervisor.refuses_removal = False
    host.network.result = Applied(left=frozenset({"ib0123456789"}), problem="busy")
    await host.agent.sweep()
    assert not seen(host).gone

    host.network.result = Applied()
    await host.agent.sweep()
    assert seen(host).gone
    assert seen(host).generation == 4


async def test_while_libvirt_is_silent_nothing_is_said_to_be_gone_nor_files_removed(
    host: Host,
) -> None:
    await host.agent.sweep()
    host.records.listing = Listing()
    host.hypervisor.silent = True
    await host.agent.sweep()
    assert not seen(host).gone
    assert host.storage.uids() == {A_UID}
    host.hypervisor.silent = False
    await host.agent.sweep()
    assert seen(host).gone


def hasty(host: Host, within_s: float) -> None:
    """The one guest is to be ready within so long."""
    environment = replace(WORKSPACE.environment, ready_within=timedelta(seconds=within_s))
    part = replace(PART, workspaces=(replace(WORKSPACE, environment=environment),))
    host.records.listing = Listing(parts=(part,))


async def test_a_guest_that_is_not_ready_in_time_has_failed_until_it_is(host: Host) -> None:
    """A bug: a guest that never became ready was waited for until the lease was over."""
    hasty(host, within_s=60)
    await host.agent.sweep()
    await host.clock.advance(59)
    await host.agent.sweep()
    assert seen(host).workspaces[0].state is WorkspaceState.RUNNING
    await host.clock.advance(1)
    await host.agent.sweep()
    [workspace] = seen(host).workspaces
    assert workspace.state is WorkspaceState.FAILED
    assert workspace.message == (
        "not ready within 60 s of its start: it wrote nothing to org.intertie.ready.0"
    )
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}

    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    [workspace] = seen(host).workspaces
    assert (workspace.state, workspace.message) == (WorkspaceState.RUNNING, "")
    await host.clock.advance(600)
    await host.agent.sweep()
    assert seen(host).workspaces[0].state is WorkspaceState.RUNNING


async def test_a_guest_that_is_started_again_has_its_time_again(host: Host) -> None:
    hasty(host, within_s=60)
    await host.agent.sweep()
    await host.clock.advance(50)
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await host.agent.sweep()
    await host.clock.advance(50)
    await host.agent.sweep()
    assert seen(host).workspaces[0].state is WorkspaceState.RUNNING


async def test_without_a_limit_a_guest_is_waited_for(host: Host) -> None:
    hasty(host, within_s=0)
    await host.agent.sweep()
    await host.clock.advance(3000)
    await host.agent.sweep()
    assert seen(host).workspaces[0].state is WorkspaceState.RUNNING


async def test_no_guest_starts_on_a_host_that_cannot_hold_it_to_what_it_may_send(
    host: Host,
) -> None:
    """A bug: it ran, and was ready, with nothing between it and what others were promised."""
    host.traffic.broken = "tc -batch -: Operation not supported"
    for _ in range(4):
        await host.agent.sweep()
        await host.clock.advance(30)
    [workspace] = seen(host).workspaces
    assert host.hypervisor.starts == 0
    assert workspace.state is WorkspaceState.FAILED
    assert workspace.message == (
        "what it may send cannot be enforced: tc -batch -: Operation not supported"
    )

    host.traffic.broken = ""
    await host.clock.advance(120)
    await host.agent.sweep()
    assert host.hypervisor.starts == 1


async def test_a_guest_that_crashed_is_started_again_and_must_say_ready_again(host: Host) -> None:
    await host.agent.sweep()
    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await host.agent.sweep()
    assert host.hypervisor.starts == 2
    assert seen(host).workspaces[0].ready_time is None


async def test_a_guest_that_switched_itself_off_stays_off_when_libvirt_forgets_why(
    host: Host,
) -> None:
    await host.agent.sweep()
    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    host.hypervisor.domains[DOMAIN] = DomainState.POWERED_OFF
    await host.agent.sweep()
    assert seen(host).workspaces[0].ready_time is None
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    host.start()
    await host.agent.sweep()
    assert host.hypervisor.starts == 1
    assert seen(host).workspaces[0].state is WorkspaceState.STOPPED


async def test_a_start_that_fails_is_tried_again_later_and_told(host: Host) -> None:
    host.hypervisor.refuses_start = True
    for _ in range(5):
        await host.agent.sweep()
    assert host.hypervisor.starts == 1
    assert "no" in seen(host).workspaces[0].message
    for pause in (1, 2):
        await host.clock.advance(pause)
        await host.agent.sweep()
    assert host.hypervisor.starts == 3
    assert seen(host).workspaces[0].state is WorkspaceState.FAILED
    host.hypervisor.refuses_start = False
    await host.clock.advance(4)
    await host.agent.sweep()
    await host.agent.sweep()
    assert seen(host).workspaces[0].state is WorkspaceState.RUNNING
    assert seen(host).workspaces[0].message == ""


async def test_a_guest_without_its_network_is_not_started(host: Host) -> None:
    host.network.result = Applied(missing=frozenset({"itaaaaaaaa0"}), problem="no bridge")
    await host.agent.sweep()
    assert host.hypervisor.starts == 0
    assert "no bridge" in seen(host).workspaces[0].message


async def test_an_isolated_guest_is_stopped_when_its_lease_says_so(host: Host) -> None:
    term = AvailabilityTerm(on_isolation=OnIsolation.STOP, stop_after=timedelta(seconds=30))
    allocation = replace(WORKSPACE.allocation, availability=term)
    part = replace(PART, workspaces=(replace(WORKSPACE, allocation=allocation),))
    host.records.listing = Listing(parts=(part,))
    await host.agent.sweep()
    host.records.readable = False
    await host.clock.advance(30)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    host.records.readable = True
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}


async def test_what_was_seen_is_deleted_once_the_record_and_everything_else_is_gone(
    host: Host,
) -> None:
    async def no_facts() -> None:
        raise AssertionError

    reporter = Reporter(host.agent, host.records, host.clock, no_facts)  # type: ignore[arg-type]
    await host.agent.sweep()
    await reporter.tell()
    assert set(host.records.seen) == {PART.uid}

    host.records.listing = Listing(parts=(replace(PART, generation=4, gone=True),))
    await host.agent.sweep()
    await reporter.tell()
    assert host.records.seen[PART.uid].gone

    host.records.listing = Listing()
    await host.agent.sweep()
    await reporter.tell()
    assert host.records.seen == {}
    assert host.state.kept == Kept(parts={})


async def test_a_full_disk_does_not_keep_a_part_past_its_window(host: Host) -> None:
    """Every pass once failed at the first write, before anything was removed."""
    await host.agent.sweep()
    host.state.full = True
    await host.clock.advance(WINDOW.duration.total_seconds())
    await host.agent.sweep()
    assert host.hypervisor.domains == {}
    assert host.storage.uids() == frozenset()
    assert seen(host).gone


async def test_a_full_disk_does_not_keep_a_part_that_is_gone(host: Host) -> None:
    await host.agent.sweep()
    host.state.full = True
    for listing in (Listing(parts=(replace(PART, generation=4, gone=True),)), Listing()):
        host.records.listing = listing
        await host.agent.sweep()
        assert host.hypervisor.domains == {}
        assert seen(host).gone
        assert "No space left" in seen(host).message


async def test_what_cannot_be_written_down_is_not_started_until_it_can(host: Host) -> None:
    host.state.full = True
    await host.agent.sweep()
    assert host.hypervisor.domains == {}
    assert host.storage.uids() == frozenset()
    assert "nothing is started" in seen(host).message

    host.records.readable = False
    host.state.full = False
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert seen(host).message == ""
    assert host.state.kept is not None
    assert set(host.state.kept.parts) == {PART.uid}


async def test_a_start_that_cannot_be_written_down_is_none(host: Host) -> None:
    await host.agent.sweep()
    host.channels.say(A_UID, host.clock.now())
    await host.agent.sweep()
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    host.state.full = True
    await host.agent.sweep()
    assert host.hypervisor.starts == 1
    host.state.full = False
    await host.agent.sweep()
    assert host.hypervisor.starts == 2


async def test_a_full_disk_does_not_end_the_reporter(host: Host) -> None:
    async def no_facts() -> HostFacts:
        raise OSError(errno.ENOSPC, "no room for facts")

    reporter = Reporter(host.agent, host.records, host.clock, no_facts)
    await host.agent.sweep()
    running = asyncio.create_task(reporter.run())
    try:
        for listing in (Listing(parts=(replace(PART, generation=4, gone=True),)), Listing()):
            host.records.listing = listing
            host.state.full = True
            await host.agent.sweep()
            host.agent.swept.set()
            await host.clock.advance(0)
            assert not running.done()
        assert host.records.seen == {}
        host.records.broken = True
        host.records.listing = Listing(parts=(PART,))
        await host.agent.sweep()
        host.agent.swept.set()
        await host.clock.advance(0)
        assert not running.done()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


STRANGER = "cccccccccccc"


@pytest.fixture
def stranger(host: Host) -> Host:
    """A host that lost its state, with a guest of a part whose record cannot be read."""
    host.hypervisor.domains = {f"it-{STRANGER}": DomainState.RUNNING}
    host.storage.disks[STRANGER] = 1
    host.records.listing = Listing(parts=(PART,), unreadable={"dddddddddddd": "schema 2"})
    return host


async def test_one_record_that_cannot_be_read_does_not_keep_an_agent_from_the_others(
    stranger: Host,
) -> None:
    """An agent without a state file was once idle until every record could be read."""
    await stranger.agent.sweep()
    assert stranger.hypervisor.domains == {
        DOMAIN: DomainState.RUNNING,
        f"it-{STRANGER}": DomainState.RUNNING,
    }
    assert "dddddddddddd" in seen(stranger).message
    assert stranger.agent.problems


@pytest.mark.parametrize("restarted", [False, True])
async def test_nothing_unknown_is_removed_while_a_record_cannot_be_read(
    stranger: Host, restarted: bool
) -> None:
    await stranger.agent.sweep()
    if restarted:
        stranger.start()
    gone = replace(PART, generation=4, gone=True)
    stranger.records.listing = replace(stranger.records.listing, parts=(gone,))
    await stranger.agent.sweep()
    assert seen(stranger).gone
    assert set(stranger.hypervisor.domains) == {f"it-{STRANGER}"}
    assert stranger.storage.uids() == {STRANGER}
    assert stranger.network.plan.removable == plan_networks([PART], PLACE).devices
    assert f"ii{STRANGER[:8]}0" in {nic.ifb for nic in stranger.traffic.nics}

    stranger.records.listing = Listing(parts=(gone,))
    await stranger.agent.sweep()
    assert stranger.hypervisor.domains == {}
    assert stranger.storage.uids() == frozenset()
    assert stranger.network.plan.removable is None
    assert stranger.traffic.nics == ()
    assert seen(stranger).message == ""


async def test_a_guest_that_waits_for_room_goes_on_when_there_is_some(host: Host) -> None:
    """A bug: it stayed paused for good, as if somebody had paused it on purpose."""
    await host.agent.sweep()
    host.hypervisor.domains[DOMAIN] = DomainState.STALLED
    host.storage.room = 3
    host.state.full = True
    for _ in range(5):
        await host.agent.sweep()
        await host.clock.advance(10)
    [workspace] = seen(host).workspaces
    assert workspace.state is WorkspaceState.PAUSED
    assert "the host's pool is full, 3 MiB are free" in workspace.message

    host.storage.room = 300
    await host.clock.advance(60)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert host.hypervisor.starts == 1
    await host.agent.sweep()
    assert seen(host).workspaces[0].message == ""


async def test_what_a_full_disk_keeps_from_being_made_is_made_later(host: Host) -> None:
    host.storage.full = True
    await host.agent.sweep()
    assert seen(host).workspaces[0].message == "this host's disk: No space left on device"
    host.storage.full = False
    await host.clock.advance(60)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
