"""A guest that was frozen for a copy is thawed, whenever it gets round to either."""

from __future__ import annotations

import pytest

from intertie.common.actions import Power, Switched
from intertie.common.terms import Readiness
from intertie.common.values import replace
from intertie.nodeagent.domain.migrating import Migration, Role
from intertie.nodeagent.domain.reconcile import DomainState
from intertie.nodeagent.domain.snapshot_note import SnapshotState
from tests.unit.nodeagent.parts import A_UID, DIGEST, WORKSPACE
from tests.unit.nodeagent.test_snapshots import DOMAIN, ORDER, Owner, owner

__all__ = ["owner"]

WITH_AGENT = replace(WORKSPACE.environment, readiness=Readiness.GUEST_AGENT)


@pytest.fixture
async def slow(owner: Owner) -> Owner:
    """Its guest was asked to freeze, said nothing, and has done it since."""
    owner.host.hypervisor.agent_silent = True
    await owner.wants(snapshot=ORDER, environment=WITH_AGENT)
    assert owner.state() is SnapshotState.READY
    assert not owner.told.quiesced
    assert owner.host.hypervisor.frozen == {DOMAIN}
    return owner


async def thawed_in_the_end(owner: Owner) -> None:
    owner.host.hypervisor.agent_silent = False
    await owner.host.clock.advance(60)
    await owner.passes(2)
    assert owner.host.hypervisor.frozen == set()
    part = next(iter(owner.host.agent.known.values()))
    assert not part.note(A_UID).frozen


async def test_one_that_freezes_after_its_time_is_thawed(slow: Owner) -> None:
    await slow.host.clock.advance(100)
    await slow.passes()
    await thawed_in_the_end(slow)


async def test_so_it_is_by_an_agent_that_begins_anew(slow: Owner) -> None:
    slow.host.start()
    await thawed_in_the_end(slow)


async def test_so_it_is_by_what_is_there_of_a_copy_where_its_note_is_lost(owner: Owner) -> None:
    host = owner.host
    host.hypervisor.agent_silent = True
    host.hypervisor.may_copy.clear()
    await owner.wants(snapshot=ORDER, environment=WITH_AGENT)
    assert host.copies.files == {A_UID: False}
    assert host.hypervisor.frozen == {DOMAIN}
    host.state.kept = None
    await owner.agent_dies()
    await owner.wants(snapshot=None)
    assert host.copies.files == {}
    await thawed_in_the_end(owner)


async def test_so_it_is_where_the_snapshot_is_wanted_no_more(slow: Owner) -> None:
    await slow.wants(snapshot=None)
    await thawed_in_the_end(slow)


async def test_so_it_is_while_nothing_may_be_started(slow: Owner) -> None:
    slow.host.records.readable = False
    slow.host.start()
    await thawed_in_the_end(slow)


async def test_so_it_is_once_it_goes_on_after_it_was_put_aside(slow: Owner) -> None:
    await slow.wants(switched=Switched(power=Power.SAVED))
    slow.host.hypervisor.agent_silent = False
    await slow.host.clock.advance(60)
    await slow.passes()
    assert slow.host.hypervisor.domains[DOMAIN] is DomainState.OFF
    slow.host.hypervisor.frozen.add(DOMAIN)
    await slow.wants(switched=Switched())
    await thawed_in_the_end(slow)


async def test_it_is_asked_ever_more_seldom(slow: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    thaw = slow.host.hypervisor.thaw

    async def counted(name: str) -> bool:
        asked.append(slow.host.clock.monotonic())
        return await thaw(name)

    monkeypatch.setattr(slow.host.hypervisor, "thaw", counted)
    for _ in range(120):
        await slow.host.clock.advance(1)
        await slow.passes(2)
    assert 3 <= len(asked) <= 8


async def test_it_is_not_thawed_before_the_copy_has_begun(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def thaw(name: str) -> bool:
        asked.append(name)
        return True

    monkeypatch.setattr(owner.host.hypervisor, "thaw", thaw)
    begin = owner.host.hypervisor.begin_copy

    async def slow(name: str, target: str, *, quiesce: bool) -> bool:
        await owner.host.clock.sleep(4)
        assert asked == []
        return await begin(name, target, quiesce=quiesce)

    monkeypatch.setattr(owner.host.hypervisor, "begin_copy", slow)
    await owner.wants(snapshot=ORDER, environment=WITH_AGENT)
    await owner.host.clock.advance(4)
    await owner.passes()
    assert asked == [DOMAIN]
    assert owner.told.quiesced
    assert owner.told.digest == DIGEST


@pytest.mark.parametrize("answers", [True, False])
async def test_it_is_thawed_before_it_is_sent_to_another_host(
    slow: Owner, *, answers: bool
) -> None:
    """Nobody there knows of it. One whose agent is gone for good is waited for a minute."""
    sends = Migration(number=1, role=Role.SEND, host="n2", agent_address="n2:1")
    await slow.wants(migration=sends)
    assert sent(slow) == ""
    slow.host.hypervisor.agent_silent = not answers
    for _ in range(1 if answers else 9):
        await slow.host.clock.advance(60 if answers else 10)
        await slow.passes()
    assert "n2 cannot be reached" in sent(slow), "it was tried"
    assert (DOMAIN in slow.host.hypervisor.frozen) is not answers


def sent(owner: Owner) -> str:
    """Why it could not be."""
    assert owner.host.agent.report is not None
    told = owner.host.agent.report[0].workspaces[0].migration
    return told.message if told is not None else ""
