"""Memory and vCPUs that come to a guest that runs, where it may grow."""

from __future__ import annotations

import pytest

from intertie.common.terms import Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.guest_terms import (
    LetGoOn,
    PlugMemory,
    PlugVcpus,
    WeighCpu,
)
from intertie.nodeagent.domain.reconcile import DomainState, WorkspaceState
from tests.unit.nodeagent.amendments import DOMAIN, amended, seen, want, workspace
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import DIGEST, PART


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
