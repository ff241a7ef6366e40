"""A guest that goes from one host to another: what each of them does, says, and never does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from intertie.common.actions import AS_BEGUN
from intertie.common.errors import ConnectionRefused, NotFound, WorkspaceNotRunning
from intertie.common.names import DeviceNames
from intertie.common.values import replace
from intertie.nodeagent.adapters.libvirt_migration import there
from intertie.nodeagent.domain.domain_xml import domain_xml
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.handing_on import handed_on
from intertie.nodeagent.domain.machine import machine_of
from intertie.nodeagent.domain.memory_room import NoMemoryYet
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration, Outcome, Role
from intertie.nodeagent.domain.network_plan import FdbEntry, plan_networks, sending_on_rules
from intertie.nodeagent.domain.ports import Applied
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    Note,
    Observed,
    Phase,
    Step,
    steps,
)
from intertie.nodeagent.domain.told_migration import told_of
from tests.fakes.clock import turns
from tests.unit.nodeagent.migrations import (
    ANSWER,
    DOMAIN,
    FACTS,
    SEND,
    TAKE,
    Peers,
    arrivals_at,
    carried,
    running,
    said,
    taking,
    wanted,
)
from tests.unit.nodeagent.parts import A_MAC, A_UID, B_MAC, NOW, PART, PLACE, WORKSPACE

READY = Observed(image=True, disk=True, seed=True)
OFF = replace(READY, domain=DomainState.OFF)
RUNNING = replace(READY, domain=DomainState.RUNNING)
IN_TRANSIT = replace(READY, domain=DomainState.IN_TRANSIT)
SENT = replace(READY, domain=DomainState.SENT)


@pytest.mark.parametrize(
    ("role", "seen", "expected"),
    [
        (TAKE, Observed(), (Step.STAGE_IMAGE,)),
        (TAKE, Observed(image=True), (Step.MAKE_DISK, Step.MAKE_SEED)),
        (TAKE, READY, ()),
        (TAKE, OFF, ()),
        (TAKE, RUNNING, ()),
        (TAKE, IN_TRANSIT, ()),
        (SEND, RUNNING, (Step.SEND,)),
        (SEND, replace(RUNNING, unsent=True), ()),
        (SEND, IN_TRANSIT, (Step.GO_ON,)),
        (SEND, SENT, (Step.GIVE,)),
        (SEND, replace(SENT, given=True), ()),
        (SEND, OFF, ()),
        (SEND, replace(READY, domain=DomainState.POWERED_OFF), ()),
        (SEND, Observed(given=True), ()),
        (ANSWER, RUNNING, ()),
        (ANSWER, IN_TRANSIT, (Step.GO_ON,)),
        (ANSWER, SENT, (Step.GIVE,)),
        (ANSWER, OFF, ()),
    ],
)
def test_nothing_is_started_by_either(
    role: Role, seen: Observed, expected: tuple[Step, ...]
) -> None:
    assert steps(Phase.RUN, seen, Note(), AS_BEGUN, isolated=False, role=role) == expected
    if seen.domain in (DomainState.RUNNING, DomainState.IN_TRANSIT):
        stopped = steps(Phase.RUN, seen, Note(), AS_BEGUN, isolated=True, role=role)
        assert stopped == (Step.STOP,)


def test_alone_again_it_goes_on_and_starts() -> None:
    arrived = replace(READY, domain=DomainState.PAUSED)
    assert steps(Phase.RUN, arrived, Note(paused=True), AS_BEGUN, isolated=False) == (Step.GO_ON,)
    assert steps(Phase.RUN, IN_TRANSIT, Note(), AS_BEGUN, isolated=False) == (Step.GO_ON,)
    started = (Step.DEFINE, Step.START)
    assert steps(Phase.RUN, READY, Note(), AS_BEGUN, isolated=False) == started


@pytest.mark.parametrize(
    ("role", "seen", "moves", "expected"),
    [
        (TAKE, Observed(image=True), False, None),
        (TAKE, READY, False, Outcome.READY),
        (TAKE, IN_TRANSIT, False, None),
        (TAKE, replace(READY, domain=DomainState.PAUSED), False, None),
        (TAKE, RUNNING, False, Outcome.TAKEN),
        (TAKE, replace(READY, domain=DomainState.POWERED_OFF), False, Outcome.TAKEN),
        (SEND, RUNNING, True, None),
        (SEND, RUNNING, False, None),
        (SEND, replace(RUNNING, unsent=True), False, Outcome.FAILED),
        (SEND, OFF, False, Outcome.FAILED),
        (SEND, SENT, False, None),
        (SEND, replace(SENT, given=True), False, Outcome.GIVEN),
        (ANSWER, RUNNING, True, None),
        (ANSWER, RUNNING, False, Outcome.KEPT),
        (ANSWER, OFF, False, Outcome.KEPT),
        (ANSWER, IN_TRANSIT, False, None),
        (ANSWER, SENT, False, None),
        (ANSWER, Observed(given=True), False, Outcome.GIVEN),
    ],
)
def test_what_is_said_of_it(
    role: Role, seen: Observed, moves: bool, expected: Outcome | None
) -> None:
    migration = Migration(number=7, role=role, host="n2", agent_address="")
    told = told_of(migration, seen, moves=moves, stands=False, problem="")
    assert (told.outcome if told else None) == expected
    assert told is None or told.number == 7
    assert told_of(None, seen, moves=moves, stands=False, problem="") is None


@pytest.mark.parametrize(
    "state", [DomainState.POWERED_OFF, DomainState.STALLED, DomainState.ENDING]
)
async def test_a_copy_that_stood_still_is_not_taken_when_its_emulator_ends(
    state: DomainState,
) -> None:
    """A bug: libvirt says of one that was ended by a signal that it switched itself off, and the
    site had it for taken while it ran at its source."""
    host = await taking(wanted(TAKE, 4))
    arrivals = arrivals_at(host)
    await arrivals.begin(A_UID, 7, "n2", Bearing(ready_time=NOW))
    host.hypervisor.domains[DOMAIN] = state
    await host.agent.sweep()
    assert said(host) is None
    if state is DomainState.POWERED_OFF:
        host.records.listing = wanted(None, 5)
        for _ in range(2):
            await host.agent.sweep()
        started = host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
        assert started, (
            "given all the same, it is begun from its disk: it did not switch itself off"
        )


@pytest.mark.parametrize("state", [DomainState.POWERED_OFF, DomainState.STALLED])
async def test_one_that_went_on_is_taken_whatever_became_of_it(state: DomainState) -> None:
    host = await taking(wanted(TAKE, 4))
    arrivals = arrivals_at(host)
    await arrivals.begin(A_UID, 7, "n2", Bearing(ready_time=NOW))
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    await arrivals.take_over(A_UID, 7, "n2")
    host.hypervisor.domains[DOMAIN] = state
    await host.agent.sweep()
    assert said(host).outcome is Outcome.TAKEN


async def test_it_is_given_up_before_the_other_host_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = Peers()
    host = await running(peers)
    monkeypatch.setattr(host.hypervisor, "carry", carried)
    monkeypatch.setattr(
        peers, "take_over", lambda uid, migration: taken(host.storage.is_given(uid))
    )
    were_given: list[bool] = []

    async def taken(given: bool) -> None:
        were_given.append(given)

    host.records.listing = wanted(SEND, 4)
    await host.agent.sweep()
    await turns(20)
    assert were_given == [True]
    await host.agent.sweep()
    assert said(host).outcome is Outcome.GIVEN
    assert host.hypervisor.domains == {DOMAIN: DomainState.SENT}
    assert host.network.plan.taps == ()
    assert host.network.plan.sent_on
    host.start()
    host.state.kept = None  # its notes are lost as well
    host.start()
    for _ in range(3):
        await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.SENT}
    assert said(host).outcome is Outcome.GIVEN


async def test_what_still_comes_is_sent_on_once_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: it waited for the next pass, and for the one that was being made, which took most of
    the time in which nothing reached the guest."""
    peers = Peers()
    host = await running(peers)
    monkeypatch.setattr(host.hypervisor, "carry", carried)
    host.hypervisor.may_move.clear()
    host.records.listing = wanted(SEND, 4)
    await host.agent.sweep()
    host.network.may_apply.clear()
    late = asyncio.create_task(host.agent.sweep())
    await turns(20)
    host.hypervisor.may_move.set()
    await turns(20)
    assert host.storage.is_given(A_UID)
    assert peers.told == [f"{A_UID} 7"]
    host.network.may_apply.set()
    await late
    await turns(20)
    assert host.network.plan.sent_on, "and a plan that was made before does not undo it"


async def test_what_cannot_be_sent_goes_on_and_is_not_tried_again() -> None:
    peers = Peers()
    peers.refuses = "no room there"
    host = await running(peers)
    host.records.listing = wanted(SEND, 4)
    for _ in range(3):
        await host.agent.sweep()
        await turns(10)
    await host.agent.sweep()
    assert (said(host).outcome, said(host).message) == (Outcome.FAILED, "no room there")
    peers.refuses = ""
    await host.agent.sweep()
    await turns(10)
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    host.records.listing = wanted(ANSWER, 5)
    await host.agent.sweep()
    assert said(host).outcome is Outcome.KEPT


async def test_it_is_broken_off_and_nothing_is_said_before_it_is() -> None:
    host = await running(Peers())
    host.hypervisor.may_move.clear()
    host.records.listing = wanted(SEND, 4)
    await host.agent.sweep()
    await turns(5)
    host.records.listing = wanted(ANSWER, 5)
    await host.agent.sweep()
    assert host.hypervisor.broken_off == [DOMAIN]
    assert said(host) is None
    host.hypervisor.may_move.set()
    await turns(10)
    await host.agent.sweep()
    assert said(host).outcome is Outcome.KEPT
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}


async def test_nothing_is_said_while_libvirt_is_silent() -> None:
    host = await running(Peers())
    host.hypervisor.domains[DOMAIN] = DomainState.SENT
    host.records.listing = wanted(ANSWER, 5)
    host.start()
    host.hypervisor.silent = True
    await host.agent.sweep()
    assert said(host) is None


async def test_the_target_makes_all_and_lets_it_go_on_when_told() -> None:
    host = await taking(wanted(TAKE, 4))
    assert said(host).outcome is Outcome.READY
    assert host.hypervisor.domains == {}
    assert host.network.plan.taps
    arrivals = arrivals_at(host)
    await arrivals.begin(A_UID, 7, "n2", Bearing(ready_time=NOW))
    with pytest.raises(WorkspaceNotRunning):
        await arrivals.take_over(A_UID, 7, "n2")
    host.hypervisor.domains[DOMAIN] = DomainState.IN_TRANSIT
    with pytest.raises(WorkspaceNotRunning):
        await arrivals.take_over(A_UID, 7, "n2")
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.PAUSED}
    for _ in range(2):
        await arrivals.take_over(A_UID, 7, "n2")
    await host.agent.sweep()
    assert said(host).outcome is Outcome.TAKEN
    [seen] = host.agent.report or ()
    assert seen.workspaces[0].ready_time == NOW


async def test_one_that_may_be_frozen_is_thawed_where_it_goes_on() -> None:
    """A bug: after a minute it is sent as it is, and nobody asked it there."""
    host = await taking(wanted(TAKE, 4))
    arrivals = arrivals_at(host)
    await arrivals.begin(A_UID, 7, "n2", Bearing(ready_time=NOW, frozen=True))
    host.hypervisor.frozen.add(DOMAIN)
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    await host.agent.sweep()
    assert host.hypervisor.frozen
    await arrivals.take_over(A_UID, 7, "n2")
    await host.agent.sweep()
    await turns(3)
    assert host.hypervisor.frozen == set()


async def test_where_the_word_is_lost_the_site_has_it_go_on() -> None:
    host = await taking(wanted(TAKE, 4))
    await arrivals_at(host).begin(A_UID, 7, "n2", Bearing(ready_time=NOW))
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    host.records.listing = wanted(None, 5)
    host.start()
    for _ in range(2):
        await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert host.hypervisor.starts == 0


@pytest.mark.parametrize(("number", "host_name"), [(6, "n2"), (7, "n3")])
async def test_nobody_else_brings_anything(number: int, host_name: str) -> None:
    host = await taking(wanted(TAKE, 4))
    arrivals = arrivals_at(host)
    with pytest.raises(NotFound):
        await arrivals.begin(A_UID, number, host_name, Bearing())
    with pytest.raises(NotFound):
        await arrivals.tunnel(A_UID, number, host_name, Channel.LIBVIRT, 0).__aenter__()
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    with pytest.raises(NotFound):
        await arrivals.take_over(A_UID, number, host_name)


class Socket:
    """Of a libvirt that says nothing by itself."""

    def __init__(self) -> None:
        self.taken = False
        self.is_cut = asyncio.Event()

    @contextlib.asynccontextmanager
    async def open(self, uid: str, channel: Channel) -> AsyncIterator[Socket]:
        yield self

    async def received(self) -> AsyncIterator[bytes]:
        await self.is_cut.wait()
        return
        yield b""

    async def send(self, data: bytes) -> None: ...

    def end(self) -> None: ...

    def cut(self) -> None:
        self.is_cut.set()


async def test_a_tunnel_is_open_for_what_was_begun_and_no_longer_than_the_site_says() -> None:
    """A bug: whoever had been let in once had this host's libvirt for as long as they liked."""
    host = await taking(wanted(TAKE, 4))
    socket = Socket()
    arrivals = host.agent.arrivals(socket)
    way = A_UID, 7, "n2", Channel.LIBVIRT, 0
    with pytest.raises(NotFound, match="begun"):
        await arrivals.tunnel(*way).__aenter__()
    await arrivals.begin(A_UID, 7, "n2", Bearing(ready_time=NOW))

    async def use() -> None:
        async with arrivals.tunnel(*way) as stream:
            async for _ in stream.received():
                pass

    using = [asyncio.create_task(use()) for _ in range(2)]
    await host.clock.advance(60)
    assert not any(task.done() for task in using)
    with pytest.raises(ConnectionRefused):
        await arrivals.tunnel(*way).__aenter__()
    host.records.listing = wanted(None, 5)
    await host.agent.sweep()
    await host.clock.advance(5)
    assert socket.is_cut.is_set()
    for task in using:
        assert task.done()
        assert isinstance(task.exception(), NotFound)


async def test_what_cannot_come_is_refused() -> None:
    host = await taking(wanted(TAKE, 4))
    arrivals = arrivals_at(host)
    host.memory_mib = 100
    with pytest.raises(NoMemoryYet):
        await arrivals.begin(A_UID, 7, "n2", Bearing())
    host.memory_mib = 2048
    host.network.result = Applied(missing=frozenset({DeviceNames.tap(A_UID, 0)}), problem="no tap")
    await host.agent.sweep()
    with pytest.raises(HostFailure, match="no tap"):
        await arrivals.begin(A_UID, 7, "n2", Bearing())
    host.network.result = Applied()
    await host.agent.sweep()
    host.hypervisor.domains[DOMAIN] = DomainState.PAUSED
    with pytest.raises(WorkspaceNotRunning):
        await arrivals.begin(A_UID, 7, "n2", Bearing())


def test_a_source_sends_on_what_still_comes() -> None:
    migration = Migration(number=7, role=SEND, host="n2", agent_address="")
    part = replace(PART, workspaces=(replace(WORKSPACE, migration=migration),))
    assert handed_on(part, set()) == part
    plan = plan_networks([handed_on(part, {A_UID})], PLACE)
    assert plan.taps == ()
    assert FdbEntry("iv0123456789", A_MAC, "10.201.0.12") in plan.fdb
    assert FdbEntry("iv0123456789", B_MAC, "10.201.0.12") in plan.fdb
    assert plan.sent_on == {("iv0123456789", A_MAC)}
    rules = sending_on_rules(plan.sent_on)
    assert f'ether daddr {{ {A_MAC} }} fwd to "iv0123456789"' in rules
    assert "chain" not in sending_on_rules(())


def test_the_document_is_the_other_hosts() -> None:
    here, other = WorkspaceFiles(Path("/here/x")), WorkspaceFiles(Path("/there"))
    machine = machine_of(PART, WORKSPACE, here, FACTS)
    expected = domain_xml("qemu", machine_of(PART, WORKSPACE, other, FACTS))
    live = domain_xml("qemu", machine).replace(
        "</disk>",
        '<backingStore type="file"><source file="/here/x/cache/b"/></backingStore></disk>',
    )
    live = live.replace("<os>", "<memtune><hard_limit>1</hard_limit></memtune><os>")
    found = there(live, here=Path("/here/x"), there=Path("/there"))
    assert "".join(found.split()) == "".join(expected.split())
