"""A workspace that goes from one host to another as it is put aside: what each of them does, says,
and never does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.common.actions import AS_BEGUN, Power, Switched
from intertie.common.errors import ConnectionRefused, NotFound, WorkspaceNotRunning
from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.nodeagent.adapters.libvirt_migration import rooted
from intertie.nodeagent.domain.domain_xml import domain_xml
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.files import WorkspaceFiles
from intertie.nodeagent.domain.keeping import is_put_aside
from intertie.nodeagent.domain.machine import machine_of
from intertie.nodeagent.domain.migrating import Bearing, Channel, Migration, Outcome, Role
from intertie.nodeagent.domain.ports import Deliver
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import (
    DomainState,
    Listing,
    Note,
    Observed,
    Phase,
    Step,
    WorkspaceState,
    steps,
)
from intertie.nodeagent.domain.told_migration import told_of
from tests.fakes.clock import turns
from tests.unit.nodeagent import migrations
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.migrations import (
    ANSWER,
    DOMAIN,
    FACTS,
    SEND,
    TAKE,
    Peers,
    arrivals_at,
    said,
    taking,
    up,
)
from tests.unit.nodeagent.parts import A_UID, NOW, PART, WORKSPACE

SAVED = Observed(image=True, disk=True, seed=True, memory=Memory.SAVED, domain=DomainState.OFF)
KEPT_UNTIL = NOW + timedelta(hours=3)
BETWEEN = Window(NOW - timedelta(hours=2), NOW - timedelta(hours=1))
WAS_READY = Bearing(ready_time=NOW)


@pytest.mark.parametrize("phase", [Phase.STAGE, Phase.RUN, Phase.KEEP])
@pytest.mark.parametrize(
    ("role", "seen", "expected"),
    [
        (TAKE, Observed(), (Step.STAGE_IMAGE,)),
        (TAKE, Observed(image=True), (Step.MAKE_SEED,)),
        (TAKE, Observed(image=True, seed=True), ()),
        (TAKE, Observed(image=True, seed=True, come=True), ()),
        (TAKE, replace(SAVED, domain=None), ()),
        (SEND, SAVED, (Step.SEND,)),
        (SEND, replace(SAVED, memory=Memory.NONE), (Step.SEND,)),
        (SEND, replace(SAVED, unsent=True), ()),
        (SEND, replace(SAVED, memory=Memory.RESTORING), ()),
        (SEND, replace(SAVED, domain=DomainState.RUNNING), ()),
        (SEND, replace(SAVED, domain=DomainState.IN_TRANSIT), ()),
        (SEND, replace(SAVED, disk=False, given=True), ()),
        (SEND, Observed(come=True), (Step.TAKE_IN,)),
        (ANSWER, SAVED, ()),
        (None, Observed(image=True, seed=True, come=True), (Step.TAKE_IN,)),
    ],
)
def test_nothing_of_it_runs_anywhere(
    phase: Phase, role: Role | None, seen: Observed, expected: tuple[Step, ...]
) -> None:
    for switched in (AS_BEGUN, Switched(power=Power.SAVED), Switched(boots=3)):
        taken = steps(phase, seen, Note(), switched, isolated=False, role=role, goes_aside=True)
        assert taken == expected


@pytest.mark.parametrize(
    ("role", "seen", "moves", "expected"),
    [
        (TAKE, Observed(image=True), False, None),
        (TAKE, Observed(image=True, seed=True), False, Outcome.READY),
        (TAKE, Observed(image=True, seed=True, come=True), False, Outcome.READY),
        (TAKE, SAVED, False, Outcome.TAKEN),
        (SEND, SAVED, True, None),
        (SEND, SAVED, False, None),
        (SEND, replace(SAVED, unsent=True), False, Outcome.FAILED),
        (SEND, replace(SAVED, domain=DomainState.PAUSED), False, Outcome.FAILED),
        (SEND, replace(SAVED, disk=False, given=True), False, Outcome.GIVEN),
        (ANSWER, SAVED, True, None),
        (ANSWER, SAVED, False, Outcome.KEPT),
        (ANSWER, replace(SAVED, disk=False, given=True), False, Outcome.GIVEN),
    ],
)
def test_what_is_said_of_it(
    role: Role, seen: Observed, moves: bool, expected: Outcome | None
) -> None:
    migration = Migration(number=7, role=role, host="n2", agent_address="", aside=True)
    told = told_of(migration, seen, moves=moves, stands=False, problem="")
    assert (told.outcome if told else None) == expected


def test_what_has_come_is_not_put_aside_yet() -> None:
    assert not is_put_aside(Observed(come=True))


def wanted(role: Role | None, generation: int, *, kept: bool = True) -> Listing:
    when = {"window": BETWEEN, "keep_until": KEPT_UNTIL} if kept else {}
    return migrations.wanted(role, generation, aside=True, **when)


class Deliveries(Peers):
    """What is sent, in its order, and whether the source had given it up when it was told so."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Channel] = []
        self.bearing = Bearing()
        self.may_send = asyncio.Event()
        self.may_send.set()

    @contextlib.asynccontextmanager
    async def delivery(
        self, uid: str, migration: Migration, bearing: Bearing
    ) -> AsyncIterator[Deliver]:
        if self.refuses:
            raise HostFailure(self.refuses)
        self.bearing = bearing

        async def deliver(channel: Channel) -> None:
            await self.may_send.wait()
            self.sent.append(channel)

        yield deliver


async def put_aside(peers: Deliveries) -> Host:
    host = await up(peers, migrations.wanted(None, 3, keep_until=KEPT_UNTIL + timedelta(hours=3)))
    host.records.listing = wanted(None, 4)
    for _ in range(3):
        await host.agent.sweep()
        await turns(10)
    assert host.storage.memory(A_UID) is Memory.SAVED
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    return host


async def on_its_way(peers: Deliveries) -> Host:
    """Nothing of it has come yet."""
    host = await put_aside(peers)
    peers.may_send.clear()
    host.records.listing = wanted(SEND, 5)
    await host.agent.sweep()
    await turns(5)
    return host


async def test_its_memory_and_its_disk_are_sent_and_then_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = Deliveries()
    host = await put_aside(peers)
    were_given: list[bool] = []

    async def taken(uid: str, migration: Migration) -> None:
        were_given.append(host.storage.is_given(uid))

    monkeypatch.setattr(peers, "take_over", taken)
    host.records.listing = wanted(SEND, 5)
    await host.agent.sweep()
    await turns(20)
    assert peers.sent == [Channel.MEMORY_FILE, Channel.DISK_FILE]
    assert were_given == [True]
    host.start()
    for _ in range(3):
        await host.agent.sweep()
    assert said(host).outcome is Outcome.GIVEN
    assert host.hypervisor.domains == {DOMAIN: DomainState.OFF}
    assert host.hypervisor.restored == []


async def test_one_that_switched_itself_off_has_only_its_disk_and_stays_off() -> None:
    peers = Deliveries()
    host = await put_aside(peers)
    host.storage.discard_memory(A_UID)
    host.hypervisor.domains[DOMAIN] = DomainState.POWERED_OFF
    host.records.listing = wanted(SEND, 5)
    await host.agent.sweep()
    await turns(20)
    assert peers.sent == [Channel.DISK_FILE]
    assert peers.bearing.powered_off


async def test_one_that_may_be_frozen_goes_and_is_thawed_where_it_goes_on() -> None:
    """A bug: it was waited for until it was thawed, which one that is put aside never is: nothing
    was sent for half an hour, in which it could not go on either."""
    peers = Deliveries()
    host = await put_aside(peers)
    known = host.state.load()
    assert known is not None
    part = known.parts[PART.uid]
    frozen = part.with_note(A_UID, replace(part.note(A_UID), frozen=True))
    host.state.save(replace(known, parts={PART.uid: frozen}))
    host.start()
    host.records.listing = wanted(SEND, 5)
    await host.agent.sweep()
    await turns(20)
    assert peers.sent == [Channel.MEMORY_FILE, Channel.DISK_FILE]
    target = await taking(wanted(TAKE, 4))
    target.hypervisor.frozen.add(DOMAIN)
    await come(target, Channel.MEMORY_FILE, Channel.DISK_FILE, bearing=peers.bearing)
    target.records.listing = wanted(None, 5, kept=False)
    for _ in range(4):
        await target.agent.sweep()
        await turns(10)
    assert target.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert target.hypervisor.frozen == set()


async def test_it_is_broken_off_by_a_newer_word_of_the_site() -> None:
    peers = Deliveries()
    host = await on_its_way(peers)
    host.records.listing = wanted(ANSWER, 6)
    await host.agent.sweep()
    await turns(10)
    await host.agent.sweep()
    assert said(host).outcome is Outcome.KEPT
    peers.may_send.set()
    await turns(10)
    assert (peers.sent, peers.told) == ([], [])
    assert host.storage.has_disk(A_UID)
    assert host.storage.memory(A_UID) is Memory.SAVED


async def test_what_ends_on_its_way_is_gone_at_once() -> None:
    peers = Deliveries()
    host = await on_its_way(peers)
    [part] = wanted(SEND, 6).parts
    host.records.listing = Listing(parts=(replace(part, gone=True),))
    for _ in range(2):
        await host.agent.sweep()
        await turns(5)
    await host.agent.sweep()
    report = host.agent.report
    assert report is not None
    assert report[0].gone
    assert host.storage.uids() == frozenset()


async def test_what_cannot_be_sent_is_kept_and_goes_on_here() -> None:
    peers = Deliveries()
    peers.refuses = "no room there"
    host = await put_aside(peers)
    host.records.listing = wanted(SEND, 5)
    for _ in range(2):
        await host.agent.sweep()
        await turns(10)
    await host.agent.sweep()
    assert (said(host).outcome, said(host).message) == (Outcome.FAILED, "no room there")
    host.records.listing = wanted(ANSWER, 6)
    await host.agent.sweep()
    assert said(host).outcome is Outcome.KEPT
    host.records.listing = wanted(None, 7, kept=False)
    for _ in range(3):
        await host.agent.sweep()
        await turns(10)
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert host.hypervisor.starts == 1, "with its memory"


async def come(host: Host, *channels: Channel, bearing: Bearing = WAS_READY) -> None:
    arrivals = arrivals_at(host)
    await arrivals.begin(A_UID, 7, "n2", bearing)
    for channel in channels:
        async with arrivals.tunnel(A_UID, 7, "n2", channel, 3) as stream:
            await stream.send(b"256")
            stream.end()
            assert [each async for each in stream.received()] == [b"256"]


async def test_the_target_takes_it_in_when_told_and_not_before() -> None:
    host = await taking(wanted(TAKE, 4))
    assert said(host).outcome is Outcome.READY
    assert not host.storage.has_disk(A_UID), "none is made over the image"
    arrivals = arrivals_at(host)
    with pytest.raises(WorkspaceNotRunning):
        await arrivals.take_over(A_UID, 7, "n2")
    await come(host, Channel.MEMORY_FILE, Channel.DISK_FILE)
    await host.agent.sweep()
    assert said(host).outcome is Outcome.READY
    assert not host.storage.has_disk(A_UID)
    for _ in range(2):
        await arrivals.take_over(A_UID, 7, "n2")
    await host.agent.sweep()
    assert said(host).outcome is Outcome.TAKEN
    assert host.storage.memory(A_UID) is Memory.SAVED
    report = host.agent.report
    assert report is not None
    assert report[0].workspaces[0].state is WorkspaceState.SUSPENDED
    assert host.hypervisor.domains == {}


@pytest.mark.parametrize("kept", [False, True])
async def test_where_the_word_is_lost_the_site_has_it_taken_in(kept: bool) -> None:
    """And in its next window it goes on with what it had in memory."""
    host = await taking(wanted(TAKE, 4, kept=kept))
    await come(host, Channel.MEMORY_FILE, Channel.DISK_FILE)
    host.start()
    host.records.listing = wanted(None, 5, kept=kept)
    await host.agent.sweep()
    assert host.storage.has_disk(A_UID)
    host.records.listing = wanted(None, 6, kept=False)
    for _ in range(3):
        await host.agent.sweep()
        await turns(10)
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    assert (host.hypervisor.starts, len(host.hypervisor.restored)) == (0, 1)


async def test_one_that_has_come_and_goes_on_is_there_still_once_it_is_off() -> None:
    """A bug: libvirt forgets a guest that was restored and never defined as soon as it is off, so
    one that had switched itself off was begun anew."""
    host = await taking(wanted(TAKE, 4))
    await come(host, Channel.MEMORY_FILE, Channel.DISK_FILE)
    host.records.listing = wanted(None, 5, kept=False)
    for _ in range(3):
        await host.agent.sweep()
        await turns(10)
    assert host.hypervisor.domains == {DOMAIN: DomainState.RUNNING}
    host.hypervisor.switch_itself_off(DOMAIN)
    for _ in range(3):
        await host.agent.sweep()
    assert host.hypervisor.domains == {DOMAIN: DomainState.POWERED_OFF}
    assert host.hypervisor.starts == 0


async def test_what_does_not_come_after_all_is_thrown_away() -> None:
    host = await taking(wanted(TAKE, 4))
    await come(host, Channel.MEMORY_FILE, Channel.DISK_FILE)
    host.records.listing = Listing()
    await host.agent.sweep()
    assert host.storage.uids() == frozenset()


async def test_files_come_only_as_the_site_says_and_one_at_a_time() -> None:
    host = await taking(wanted(TAKE, 4))
    arrivals = arrivals_at(host)
    way = A_UID, 7, "n2", Channel.DISK_FILE, 3
    with pytest.raises(NotFound, match="begun"):
        await arrivals.tunnel(*way).__aenter__()
    await arrivals.begin(A_UID, 7, "n2", Bearing())
    with pytest.raises(NotFound):
        await arrivals.tunnel(A_UID, 7, "n2", Channel.MEMORY, 0).__aenter__()
    async with arrivals.tunnel(*way) as stream:
        with pytest.raises(ConnectionRefused):
            await arrivals.tunnel(*way).__aenter__()
        stream.cut()
    host.storage.room = 100
    with pytest.raises(HostFailure, match="no room"):
        await arrivals.tunnel(*way).__aenter__()
    host.storage.disks[A_UID] = 1
    with pytest.raises(WorkspaceNotRunning):
        await arrivals.begin(A_UID, 7, "n2", Bearing())


def test_what_another_host_saved_has_its_files_here() -> None:
    here, other = WorkspaceFiles(Path("/here/x")), WorkspaceFiles(Path("/there"))
    saved = domain_xml("qemu", machine_of(PART, WORKSPACE, here, FACTS))
    expected = domain_xml("qemu", machine_of(PART, WORKSPACE, other, FACTS))
    assert "".join(rooted(saved, Path("/there")).split()) == "".join(expected.split())
    assert "".join(rooted(expected, Path("/there")).split()) == "".join(expected.split())
