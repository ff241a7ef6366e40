"""A host that may be fenced: what it starts, what it stops, and what it says of itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from intertie.common.values import replace
from intertie.nodeagent.adapters.state_file import StateFile
from intertie.nodeagent.domain.failures import RecordsUnreadable
from intertie.nodeagent.domain.reconcile import DomainState, Listing
from intertie.nodeagent.domain.report import Capacity, HostFacts
from intertie.nodeagent.domain.sign_of_life import SignOfLife
from intertie.nodeagent.domain.standing import Hold, Standing
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, PART

DOMAIN = f"it-{A_UID}"
FENCE_AFTER = timedelta(seconds=30)
HELD = Standing(epoch=2, hold=Hold.HELD)
FENCED = Standing(epoch=2, hold=Hold.FENCED)
FREE = Standing(epoch=2)
NOTHING = Capacity(vcpus=1, memory_mib=1, disk_mib=1, iops=1, throughput_mib_s=1, uplink_mbit_s=1)
FACTS = HostFacts(host="n1", capacity=NOTHING, address="", agent_address="")


def a_host(fence_after: timedelta = timedelta()) -> Host:
    host = Host(fence_after=fence_after)
    host.records.listing = Listing(parts=(PART,))
    host.images.here.add(DIGEST)
    return host


async def running(fence_after: timedelta = timedelta()) -> Host:
    host = a_host(fence_after)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    return host


def told(host: Host, standing: Standing, *, parts: bool = True) -> None:
    host.records.listing = Listing(parts=(PART,) if parts else (), standing=standing)


async def test_a_host_that_comes_back_while_it_is_cut_off_starts_nothing_that_it_has_in_mind() -> (
    None
):
    host = await running()
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    host.records.readable = False
    host.start()
    for _ in range(3):
        await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    assert any("before the records" in each for each in host.agent.problems)
    host.records.readable = True
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}


async def test_one_that_has_not_asked_yet_has_no_problem() -> None:
    """A bug: every host that had just come up was shown as one that starts nothing."""
    assert not a_host().agent.problems


async def test_what_runs_goes_on_while_a_new_agent_is_cut_off() -> None:
    host = await running()
    host.records.readable = False
    host.start()
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}


async def test_while_it_is_held_nothing_is_started_and_nothing_stopped() -> None:
    host = await running()
    told(host, HELD)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    assert host.agent.fenced_epoch == 0


async def test_a_fenced_host_stops_what_it_has_and_says_so_once_it_has() -> None:
    host = await running()
    host.hypervisor.domains["it-cccccccccccc"] = DomainState.PAUSED
    told(host, replace(FENCED))
    host.hypervisor.silent = True
    await host.agent.sweep()
    assert host.agent.fenced_epoch == 0
    host.hypervisor.silent = False
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    assert host.agent.fenced_epoch == 2


async def test_a_guest_that_cannot_be_removed_keeps_a_fenced_host_from_saying_so() -> None:
    host = await running()
    told(host, FENCED, parts=False)
    host.hypervisor.refuses_removal = True
    await host.agent.sweep()
    assert host.agent.fenced_epoch == 0


async def test_once_it_is_let_in_it_has_nothing_left_of_what_was_moved() -> None:
    host = await running()
    told(host, FENCED)
    await host.agent.sweep()
    told(host, FREE, parts=False)
    await host.agent.sweep()
    assert host.hypervisor.domains == {}
    assert host.storage.disks == {}
    assert host.hypervisor.starts == 1


async def report(host: Host) -> None:
    await host.agent.tell(FACTS)


async def test_guests_are_stopped_once_nobody_can_hear_of_them() -> None:
    host = await running(FENCE_AFTER)
    await report(host)
    host.records.readable = False
    await host.clock.advance(29.9)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    await host.clock.advance(0.1)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}


async def test_to_read_is_not_to_be_heard() -> None:
    """As where etcd is full: it is read, and takes no sign of life."""
    host = await running(FENCE_AFTER)
    await report(host)
    await host.clock.advance(30)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}


async def test_a_restart_does_not_begin_the_time_anew() -> None:
    host = await running(FENCE_AFTER)
    await report(host)
    host.records.readable = False
    await host.clock.advance(25)
    host.start()
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    await host.clock.advance(5)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}


async def test_after_a_lapse_nothing_starts_before_the_records_were_read_since() -> None:
    """They may say by now that the host is fenced."""
    host = await running(FENCE_AFTER)
    await report(host)
    await host.clock.advance(31)
    await host.agent.sweep()
    await report(host)
    host.records.readable = False
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    host.records.readable = True
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}


async def test_a_promise_is_on_disk_before_it_is_told() -> None:
    host = a_host(FENCE_AFTER)
    host.state.full = True
    host.records.told.clear()
    await report(host)
    assert [each.fence_after for each in host.records.told] == [timedelta()]
    host.state.full = False
    host.records.readable = False
    with pytest.raises(RecordsUnreadable):
        await report(host)
    assert host.state.life is not None
    assert host.state.life.fence_after == FENCE_AFTER


async def test_without_the_setting_nothing_is_promised_and_nothing_stopped() -> None:
    host = await running()
    await report(host)
    assert [each.fence_after for each in host.records.told] == [timedelta()]
    host.records.readable = False
    await host.clock.advance(3000)
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}


@pytest.mark.parametrize(
    ("at", "boot", "overdue"),
    [
        (129.9, "b", False),
        (130.0, "b", True),
        (99.0, "b", True),  # a clock that went back is not believed
        (500.0, "another", False),
    ],
)
def test_overdue(at: float, boot: str, overdue: bool) -> None:
    last = SignOfLife(at=100.0, boot="b", fence_after=FENCE_AFTER)
    assert last.overdue(at=at, boot=boot) is overdue


def test_the_last_sign_of_life_is_kept_on_disk(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    assert state.load_sign_of_life() is None
    last = SignOfLife(at=12.25, boot="b", fence_after=FENCE_AFTER)
    state.save_sign_of_life(last)
    assert StateFile(tmp_path).load_sign_of_life() == last
    (tmp_path / "life.json").write_text("{")
    assert state.load_sign_of_life() is None
