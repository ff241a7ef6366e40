"""Nothing of a copy is in the way of what is done for the guest, whoever began it."""

from __future__ import annotations

import asyncio

import pytest

from intertie.common.actions import Power, Switched
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.reconcile import DomainState, Listing
from intertie.nodeagent.domain.snapshot_note import SnapshotState
from tests.unit.nodeagent.parts import A_UID
from tests.unit.nodeagent.test_snapshots import DOMAIN, ORDER, Owner, owner

__all__ = ["owner"]


@pytest.fixture
async def copying(owner: Owner) -> Owner:
    owner.host.hypervisor.may_copy.clear()
    await owner.wants(snapshot=ORDER)
    assert owner.host.hypervisor.jobs
    assert owner.host.copies.files == {A_UID: False}
    return owner


def jobs_at_save(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Copies that are being made when its memory is put aside, each time."""
    hypervisor, found = owner.host.hypervisor, list[dict[str, str]]()
    save = hypervisor.save

    async def watched(name: str, path: str) -> None:
        found.append(dict(hypervisor.jobs))
        await save(name, path)

    monkeypatch.setattr(hypervisor, "save", watched)
    return found


async def test_a_full_pool_gets_back_what_a_half_copy_took(copying: Owner) -> None:
    """So that its guest, which waits for room, goes on."""
    host = copying.host
    room = host.copies.discard

    def gives_room(uid: str) -> None:
        room(uid)
        host.storage.room = 600

    host.copies.discard = gives_room  # type: ignore[method-assign]
    host.storage.room = 10
    host.hypervisor.domains[DOMAIN] = DomainState.STALLED
    await copying.passes(1)
    assert host.copies.files == {}
    assert host.hypervisor.jobs == {}
    assert host.hypervisor.domains[DOMAIN] is DomainState.RUNNING


async def test_a_half_copy_goes_where_its_guest_cannot_be_started(copying: Owner) -> None:
    host = copying.host
    host.hypervisor.refuses_start = True
    host.hypervisor.domains[DOMAIN] = DomainState.OFF
    await copying.passes(1)
    assert host.copies.files == {}


async def test_a_job_of_a_dead_agent_is_ended_before_memory_is_put_aside(
    copying: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await copying.agent_dies()
    at_save = jobs_at_save(copying, monkeypatch)
    await copying.wants(switched=Switched(power=Power.SAVED))
    assert at_save == [{}]
    assert copying.host.hypervisor.domains[DOMAIN] is DomainState.OFF
    assert copying.state() is SnapshotState.READY, "of the disk as it is then"


@pytest.mark.parametrize("readable", [True, False])
async def test_a_job_of_a_dead_agent_is_ended_whatever_may_be_begun(
    copying: Owner, *, readable: bool
) -> None:
    await copying.agent_dies()
    host = copying.host
    host.records.readable = readable
    host.hypervisor.domains[DOMAIN] = DomainState.STALLED
    host.storage.room = 10
    await copying.passes(1)
    assert host.hypervisor.jobs == {}
    assert host.copies.files == {}


async def test_of_a_guest_that_is_no_more_there_is_no_job_to_end(copying: Owner) -> None:
    await copying.agent_dies()
    copying.host.records.listing = Listing(parts=())
    await copying.passes()
    assert DOMAIN not in copying.host.hypervisor.domains


async def test_a_job_that_is_being_begun_is_begun_before_it_is_ended(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of libvirt's goes on, whoever waits for it."""
    hypervisor, may_begin = owner.host.hypervisor, asyncio.Event()

    async def begin(name: str, target: str, *, quiesce: bool) -> bool:
        async def thread() -> bool:
            await may_begin.wait()
            hypervisor.jobs[name] = target
            return quiesce

        return await asyncio.shield(asyncio.ensure_future(thread()))

    monkeypatch.setattr(hypervisor, "begin_copy", begin)
    at_save = jobs_at_save(owner, monkeypatch)
    await owner.wants(snapshot=ORDER)
    sweeps = asyncio.create_task(owner.wants(switched=Switched(power=Power.SAVED)))
    await owner.host.clock.settle()
    assert at_save == []
    may_begin.set()
    await sweeps
    assert at_save == [{}]


@pytest.mark.parametrize("how", [HostFailure("libvirt: no"), HypervisorSilent("silent")])
async def test_while_a_job_cannot_be_ended_nothing_is_done_over_it(
    copying: Owner, monkeypatch: pytest.MonkeyPatch, how: HostFailure
) -> None:
    hypervisor = copying.host.hypervisor
    end = hypervisor.end_copy

    async def refuses(name: str) -> None:
        raise how

    at_save = jobs_at_save(copying, monkeypatch)
    monkeypatch.setattr(hypervisor, "end_copy", refuses)
    await copying.wants(switched=Switched(power=Power.SAVED))
    assert at_save == []
    assert copying.host.copies.files == {A_UID: False}
    monkeypatch.setattr(hypervisor, "end_copy", end)
    await copying.host.clock.advance(60)
    await copying.passes()
    assert at_save == [{}]
