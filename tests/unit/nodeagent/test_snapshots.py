"""Images of guests' disks: whole or not at all, and never in the way of the guest itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.common.actions import Power, Switched
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.power import Memory
from intertie.nodeagent.domain.reconcile import DomainState, Listing, Note, Observed, Phase
from intertie.nodeagent.domain.snapshot_note import SeenSnapshot, SnapshotOrder, SnapshotState
from intertie.nodeagent.domain.snapshots import Way, way
from intertie.nodeagent.domain.standing import Hold, Standing
from intertie.nodeagent.domain.wanted import WantedWorkspace
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import A_UID, DIGEST, NOW, PART, WORKSPACE

DOMAIN = f"it-{A_UID}"
IMAGE = f"{PART.tenant}/before"
ORDER = SnapshotOrder(id="s1", image_id="before", grant=b"")
ON, OFF, PAUSED = Power.ON, Power.OFF, Power.PAUSED
DISK = Observed(image=True, disk=True, seed=True, domain=DomainState.OFF)


@pytest.mark.parametrize(
    ("phase", "seen", "switched", "expected"),
    [
        (Phase.RUN, {"domain": DomainState.RUNNING}, Switched(), Way.BESIDE),
        (Phase.RUN, {"domain": DomainState.PAUSED}, Switched(power=PAUSED), Way.BESIDE),
        (Phase.RUN, {"domain": DomainState.OFF}, Switched(power=OFF), Way.ALONE),
        (Phase.RUN, {"domain": DomainState.POWERED_OFF}, Switched(), Way.ALONE),
        (Phase.RUN, {"memory": Memory.SAVED}, Switched(power=Power.SAVED), Way.ALONE),
        (Phase.KEEP, {"memory": Memory.SAVED}, Switched(), Way.ALONE),
        (Phase.RUN, {"domain": DomainState.RUNNING}, Switched(power=OFF), Way.NONE),
        (Phase.RUN, {"domain": DomainState.RUNNING}, Switched(boots=1), Way.NONE),
        (Phase.RUN, {"domain": DomainState.STALLED}, Switched(), Way.NONE),
        (Phase.RUN, {"domain": DomainState.STARTING}, Switched(), Way.NONE),
        (Phase.RUN, {"memory": Memory.SAVING}, Switched(power=Power.SAVED), Way.NONE),
        (Phase.RUN, {"disk": False}, Switched(), Way.NONE),
        (Phase.KEEP, {"domain": DomainState.RUNNING}, Switched(), Way.NONE),
        (Phase.STAGE, {}, Switched(), Way.NONE),
    ],
)
def test_a_disk_is_copied_by_whoever_has_it_open(
    phase: Phase, seen: dict[str, Any], switched: Switched, expected: Way
) -> None:
    assert way(phase, replace(DISK, **seen), Note(), switched) is expected


class Owner:
    """Asks for images of the one guest of a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.others: tuple[WantedWorkspace, ...] = ()
        """Of the same part."""
        self._generation = PART.generation
        self._how: dict[str, Any] = {"switched": Switched(), "snapshot": None}

    async def wants(self, **how: Any) -> None:
        self._generation += 1
        self._how |= how
        workspaces = (replace(WORKSPACE, **self._how), *self.others)
        part = replace(PART, generation=self._generation, workspaces=workspaces)
        self.host.records.listing = Listing(parts=(part,))
        await self.passes()

    async def passes(self, number: int = 4) -> None:
        for _ in range(number):
            await self.host.agent.sweep()
            await self.host.clock.settle()

    def state(self) -> SnapshotState:
        return self.told.state

    async def agent_dies(self) -> None:
        """And is started again."""
        jobs = dict(self.host.hypervisor.jobs)
        await self.host.agent._steps.snapshots.drop(A_UID)
        self.host.hypervisor.jobs.update(jobs)
        self.host.start()

    @property
    def told(self) -> SeenSnapshot:
        assert self.host.agent.report is not None
        found = self.host.agent.report[0].workspaces[0].snapshot
        assert found is not None
        return found


@pytest.fixture
async def owner() -> Owner:
    host = Host()
    host.records.listing = Listing(parts=(PART,))
    host.images.here.add(DIGEST)
    made = Owner(host)
    await made.passes()
    assert host.hypervisor.domains[DOMAIN] is DomainState.RUNNING
    return made


async def test_of_one_that_runs_while_it_runs(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.may_copy.clear()
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.COPYING
    assert owner.told.taken_time is None
    assert (owner.told.done_bytes, owner.told.total_bytes) == (7, 9)
    assert host.hypervisor.jobs == {DOMAIN: f"/data/disks/{A_UID}.copying"}
    assert host.copies.store == {}
    host.copies.may_send.clear()
    host.hypervisor.may_copy.set()
    await host.clock.advance(1)
    await owner.passes()
    assert owner.state() is SnapshotState.UPLOADING
    assert owner.told.taken_time == NOW
    host.copies.may_send.set()
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert (owner.told.digest, host.copies.store) == (DIGEST, {IMAGE: DIGEST})
    assert host.copies.files == {}
    assert host.hypervisor.starts == 1
    await owner.passes()
    assert host.copies.copied == []
    await owner.wants(snapshot=None)
    assert host.agent.report is not None
    assert host.agent.report[0].workspaces[0].snapshot is None


async def test_of_one_that_is_off(owner: Owner) -> None:
    await owner.wants(switched=Switched(power=OFF))
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.READY
    assert owner.host.copies.copied == [A_UID]


@pytest.mark.parametrize("to", [Switched(power=OFF), Switched(power=Power.SAVED)])
async def test_the_guest_comes_first_and_its_disk_is_copied_anew(
    owner: Owner, to: Switched
) -> None:
    host = owner.host
    host.hypervisor.may_copy.clear()
    await owner.wants(snapshot=ORDER)
    assert host.hypervisor.jobs
    await owner.wants(switched=to)
    assert host.hypervisor.domains[DOMAIN] not in (DomainState.RUNNING, DomainState.PAUSED)
    assert host.hypervisor.jobs == {}
    assert owner.state() is SnapshotState.READY
    assert host.copies.copied == [A_UID]


async def test_one_that_is_off_is_started_at_once(owner: Owner) -> None:
    host = owner.host
    await owner.wants(switched=Switched(power=OFF))
    host.copies.may_copy.clear()
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.COPYING
    await owner.wants(switched=Switched(boots=1))
    assert host.hypervisor.domains[DOMAIN] is DomainState.RUNNING
    assert host.copies.copied == []
    assert owner.state() is SnapshotState.READY, "by its emulator"


async def test_an_agent_that_died_while_it_copied_begins_anew(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.may_copy.clear()
    await owner.wants(snapshot=ORDER)
    assert host.copies.files == {A_UID: False}
    await owner.agent_dies()
    assert host.hypervisor.jobs
    await host.clock.advance(100)
    await owner.passes(1)
    assert owner.state() is SnapshotState.COPYING
    host.hypervisor.may_copy.set()
    await host.clock.advance(1)
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert owner.told.taken_time == NOW + timedelta(seconds=100)


async def test_one_that_died_while_it_sent_goes_on_with_the_same_copy(owner: Owner) -> None:
    host = owner.host
    host.copies.may_send.clear()
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.UPLOADING
    await owner.agent_dies()
    await host.clock.advance(100)
    host.copies.may_send.set()
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert owner.told.taken_time == NOW
    host.start()
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert owner.told.digest == DIGEST


async def test_what_an_agent_without_its_notes_finds_is_thrown_away(owner: Owner) -> None:
    host = owner.host
    host.copies.files[A_UID] = False
    host.hypervisor.jobs[DOMAIN] = "of an earlier agent"
    await owner.passes(1)
    assert host.copies.files == {}
    assert host.hypervisor.jobs == {}


async def test_a_copy_is_kept_over_a_start_of_its_guest(owner: Owner) -> None:
    host = owner.host
    host.copies.may_send.clear()
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.UPLOADING
    await host.clock.advance(100)
    await owner.wants(switched=Switched(boots=1))
    assert host.hypervisor.starts == 2
    await owner.agent_dies()
    host.copies.may_send.set()
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert owner.told.taken_time == NOW


async def test_a_note_without_its_copy_begins_anew(owner: Owner) -> None:
    host = owner.host
    host.copies.may_send.clear()
    await owner.wants(snapshot=ORDER)
    await owner.agent_dies()
    host.copies.files.clear()
    await host.clock.advance(100)
    host.copies.may_send.set()
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert owner.told.taken_time != NOW


async def test_without_room_none_is_begun_and_that_is_said(owner: Owner) -> None:
    host = owner.host
    host.storage.room = 64 + 255
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.FAILED
    assert "no room in the host's pool: 319 MiB are free, and 320 needed" in owner.told.message
    assert host.copies.files == {}
    host.storage.room = 2000
    host.start()
    await owner.passes()
    assert owner.state() is SnapshotState.FAILED, "for good: who asks again has another id"
    await owner.wants(snapshot=replace(ORDER, id="s2"))
    assert owner.state() is SnapshotState.READY


async def test_what_the_store_will_not_have_is_given_up(owner: Owner) -> None:
    host = owner.host
    host.copies.refuses = HostFailure("image store: it is full", final=True)
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.FAILED
    assert "it is full" in owner.told.message
    assert host.copies.files == {}
    assert host.hypervisor.domains[DOMAIN] is DomainState.RUNNING


async def test_a_store_that_is_away_is_waited_for(owner: Owner) -> None:
    host = owner.host
    host.copies.refuses = HostFailure("image store: UNAVAILABLE")
    await owner.wants(snapshot=ORDER)
    for _ in range(6):
        await host.clock.advance(60)
        await owner.passes(1)
    assert owner.state() is SnapshotState.UPLOADING
    assert "UNAVAILABLE" in owner.told.message
    host.copies.refuses = None
    await host.clock.advance(60)
    await owner.passes()
    assert owner.state() is SnapshotState.READY
    assert owner.told.message == ""


async def test_a_copy_that_fails_is_tried_again_and_then_given_up(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.refuses_copy = "No space left on device"
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.WAITING
    for _ in range(3):
        await host.clock.advance(60)
        await owner.passes(2)
    assert owner.state() is SnapshotState.FAILED
    assert "No space left" in owner.told.message
    assert host.copies.files == {}


async def test_of_what_is_wanted_no_more_nothing_stays(owner: Owner) -> None:
    host = owner.host
    host.copies.may_send.clear()
    await owner.wants(snapshot=ORDER)
    host.records.listing = Listing(parts=(replace(PART, gone=True, generation=99),))
    await owner.passes()
    assert host.agent.report is not None
    assert host.agent.report[0].gone
    host.copies.may_send.set()
    await owner.passes()
    assert host.copies.store == {}


async def test_while_libvirt_is_silent_a_copy_is_tried_ever_more_seldom(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not given up for that, nor by the first failure that comes after it."""
    hypervisor, tries = owner.host.hypervisor, list[str]()
    begin = hypervisor.begin_copy

    async def silent(name: str, target: str, *, quiesce: bool) -> bool:
        tries.append(name)
        raise HypervisorSilent("libvirt did not answer within 20 s")

    monkeypatch.setattr(hypervisor, "begin_copy", silent)
    await owner.wants(snapshot=ORDER)
    await owner.passes(40)
    assert len(tries) == 1
    assert "did not answer" in owner.told.message
    for _ in range(6):
        await owner.host.clock.advance(60)
        await owner.passes(2)
    assert 5 <= len(tries) <= 7
    assert owner.state() is SnapshotState.WAITING
    monkeypatch.setattr(hypervisor, "begin_copy", begin)
    hypervisor.refuses_copy = "No space left on device"
    await owner.host.clock.advance(60)
    await owner.passes(2)
    assert owner.state() is SnapshotState.WAITING
    hypervisor.refuses_copy = ""
    await owner.host.clock.advance(60)
    await owner.passes()
    assert owner.state() is SnapshotState.READY


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_job_that_cannot_be_ended_is_asked_about_ever_more_seldom(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, *, wanted: bool
) -> None:
    """Each asking takes a pass of all guests as long as libvirt is waited for."""
    owner.host.hypervisor.may_copy.clear()
    await owner.wants(snapshot=ORDER)
    await owner.agent_dies()
    tries = []

    async def silent(name: str) -> None:
        tries.append(name)
        raise HypervisorSilent("libvirt did not answer within 20 s")

    monkeypatch.setattr(owner.host.hypervisor, "end_copy", silent)
    await owner.wants(snapshot=ORDER if wanted else None)
    await owner.passes(40)
    assert len(tries) == 1
    assert owner.host.copies.files == {A_UID: False}


async def test_it_is_of_the_moment_at_which_its_copy_was_begun(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest takes its time to write its file systems out; what it wrote then is in it."""
    begin = owner.host.hypervisor.begin_copy

    async def slow(name: str, target: str, *, quiesce: bool) -> bool:
        await owner.host.clock.sleep(5)
        return await begin(name, target, quiesce=quiesce)

    monkeypatch.setattr(owner.host.hypervisor, "begin_copy", slow)
    await owner.wants(snapshot=ORDER)
    await owner.host.clock.advance(5)
    await owner.passes()
    assert owner.told.taken_time == NOW + timedelta(seconds=5)


@pytest.mark.parametrize("power", [ON, OFF])
async def test_a_host_whose_clock_is_behind_takes_none_of_before_it_was_asked_for(
    owner: Owner, power: Power
) -> None:
    asked_time = NOW + timedelta(seconds=90)
    await owner.wants(switched=Switched(power=power))
    await owner.wants(snapshot=replace(ORDER, asked_time=asked_time))
    assert owner.state() is SnapshotState.READY
    assert owner.told.taken_time == asked_time


@pytest.mark.parametrize("begun", [True, False])
async def test_a_host_that_is_fenced_sends_nothing(owner: Owner, *, begun: bool) -> None:
    """By then it may be on record that its snapshot has failed."""
    host = owner.host
    host.copies.may_send.clear()
    await owner.wants(snapshot=ORDER)
    assert owner.state() is SnapshotState.UPLOADING
    fenced = Standing(epoch=1, hold=Hold.FENCED)
    if begun:
        host.records.listing = replace(host.records.listing, standing=fenced)
        await owner.passes()
    else:
        await owner.agent_dies()
        host.records.readable = False
        await owner.passes()
    host.copies.may_send.set()
    await owner.passes()
    assert host.copies.store == {}
    host.records.readable = True
    host.records.listing = replace(host.records.listing, standing=Standing(epoch=1))
    await owner.passes()
    assert owner.state() is SnapshotState.READY
