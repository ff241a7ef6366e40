"""Guests that are sent to other hosts, beside the passes of their own one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.errors import NotFound
from intertie.common.terms import OnIsolation
from intertie.common.values import replace
from intertie.nodeagent.domain.failures import HostFailure
from intertie.nodeagent.domain.migrating import Migration, Outcome, Role, Route
from intertie.nodeagent.domain.reconcile import DomainState, Listing
from tests.fakes.clock import turns
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.migrations import (
    ANSWER,
    DOMAIN,
    SEND,
    Peers,
    carried,
    running,
    said,
    up,
    wanted,
)
from tests.unit.nodeagent.parts import A_UID, PART, WORKSPACE

OTHER = replace(WORKSPACE, name="a-1", uid="ffffffffffff", nics=())


def both_sent(generation: int, role: Role) -> Listing:
    """Each to another host."""
    going = tuple(
        replace(each, migration=Migration(number=7, role=role, host=to, agent_address=""))
        for each, to in ((WORKSPACE, "n2"), (OTHER, "n3"))
    )
    return Listing(parts=(replace(PART, workspaces=going, generation=generation),))


async def both_running(peers: Peers) -> Host:
    part = replace(PART, workspaces=(WORKSPACE, OTHER), generation=3)
    return await up(peers, Listing(parts=(part,)))


async def test_one_that_waits_for_its_turn_is_answered_for_at_once() -> None:
    """A bug: it had its task already, which nobody could break off, so that nothing was said of
    it before its turn, and then it was sent all the same."""
    host = await both_running(Peers())
    host.hypervisor.may_move.clear()
    host.records.listing = both_sent(4, SEND)
    await host.agent.sweep()
    await turns(5)
    [is_sent] = host.agent._sending.moving()
    host.records.listing = both_sent(5, ANSWER)
    await host.agent.sweep()
    report = host.agent.report
    assert report is not None
    told = {each.uid: each.migration for each in report[0].workspaces}
    assert told.pop(is_sent) is None
    [other] = told.values()
    assert other is not None
    assert other.outcome is Outcome.KEPT


async def test_what_is_to_be_sent_no_more_is_not_though_its_way_was_being_opened() -> None:
    peers = Peers()
    host = await running(peers)
    opened = asyncio.Event()
    route = peers.route

    @contextlib.asynccontextmanager
    async def slowly(*args: Any, **also: Any) -> AsyncIterator[Route]:
        await opened.wait()
        async with route(*args, **also) as found:
            yield found

    peers.route = slowly  # type: ignore[method-assign]
    host.records.listing = wanted(SEND, 4)
    await host.agent.sweep()
    host.records.listing = wanted(ANSWER, 5)
    await host.agent.sweep()
    sent: list[str] = []

    async def carry(name: str, route: Route) -> None:
        sent.append(name)

    host.hypervisor.carry = carry  # type: ignore[method-assign]
    opened.set()
    await turns(10)
    await host.agent.sweep()
    assert sent == []
    assert said(host).outcome is Outcome.KEPT


@pytest.mark.parametrize("waits", [False, True])
async def test_one_that_must_stop_does_though_it_is_being_sent(waits: bool) -> None:
    """A bug: nothing else was done for one that was on its way, or waited to be."""
    peers = Peers()
    host = await both_running(peers)
    host.hypervisor.may_move.clear()
    listing = both_sent(4, SEND)
    [part] = listing.parts
    stops = replace(
        WORKSPACE.allocation.availability,
        on_isolation=OnIsolation.STOP,
        stop_after=timedelta(seconds=30),
    )
    going = [
        replace(each, allocation=replace(each.allocation, availability=stops))
        for each in part.workspaces
    ]
    first, second = reversed(going) if waits else going
    host.records.listing = Listing(parts=(replace(part, workspaces=(first, second)),))
    await host.agent.sweep()
    await turns(5)
    host.records.readable = False
    await host.clock.advance(31)
    await host.agent.sweep()
    assert host.hypervisor.domains[DOMAIN] is DomainState.OFF


async def test_the_other_host_is_told_until_it_has_heard_also_by_the_next_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: that was tried once. Where that word was lost the guest stood still until the site's
    came, which does not while the site is away."""
    peers = Peers()
    host = await running(peers)
    monkeypatch.setattr(host.hypervisor, "carry", carried)
    tries: list[float] = []
    answers: list[Exception | None] = []

    async def take_over(uid: str, migration: Migration) -> None:
        tries.append(host.clock.monotonic())
        answer = answers.pop(0) if answers else HostFailure("not reached")
        if answer is not None:
            raise answer

    monkeypatch.setattr(peers, "take_over", take_over)
    host.records.listing = wanted(SEND, 4)
    await host.agent.sweep()
    await turns(20)
    assert len(tries) == 1
    assert host.agent._sending.moving() == frozenset(), "others may be sent meanwhile"
    host.records.readable = False
    for _ in range(30):
        await host.clock.advance(2)
        await host.agent.sweep()
        await turns(5)
    assert 4 <= len(tries) <= 7, "with longer and longer pauses"
    host.start()
    host.records.readable = True
    host.records.listing = wanted(ANSWER, 5)
    answers[:] = [HostFailure("not reached"), None]
    before = len(tries)
    for _ in range(10):
        await host.clock.advance(2)
        await host.agent.sweep()
        await turns(5)
    assert len(tries) == before + 2, "and it has heard"


async def test_a_host_that_is_not_to_take_it_is_not_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = Peers()
    host = await running(peers)
    monkeypatch.setattr(host.hypervisor, "carry", carried)
    tries: list[str] = []

    async def take_over(uid: str, migration: Migration) -> None:
        tries.append(uid)
        raise NotFound(uid)

    monkeypatch.setattr(peers, "take_over", take_over)
    host.records.listing = wanted(SEND, 4)
    for _ in range(10):
        await host.agent.sweep()
        await turns(20)
        await host.clock.advance(2)
    assert len(tries) == 1


async def test_nothing_is_kept_of_what_is_over() -> None:
    """A bug: a task and a sentence of each that was ever sent, until it was wanted no more."""
    host = await running(Peers())
    host.records.listing = wanted(SEND, 4)
    for _ in range(2):
        await host.agent.sweep()
        await turns(20)
    sending = host.agent._sending
    assert (sending._tasks, set(sending._failed)) == ({}, {A_UID})
    host.records.listing = wanted(None, 5)
    await host.agent.sweep()
    assert (sending._failed, sending._words) == ({}, {})


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (HostFailure("no room there"), "no room there"),
        (PermissionError(13, "Permission denied"), "this host's disk: Permission denied"),
        (OSError("AF_UNIX path too long"), "this host's disk: OSError('AF_UNIX path too long')"),
        (KeyError("n2"), "KeyError('n2')"),
    ],
)
async def test_whatever_kept_it_from_being_sent_is_told(
    error: Exception, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await running(Peers())

    async def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(host.hypervisor, "send", fails)
    host.records.listing = wanted(SEND, 4)
    for _ in range(3):
        await host.agent.sweep()
        await turns(10)
    assert (said(host).outcome, said(host).message) == (Outcome.FAILED, problem)
