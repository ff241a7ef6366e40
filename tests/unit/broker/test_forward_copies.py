"""A request that is handed on more than once leads to one cluster, wherever there is room by then.

Of the same request, 50 are more than the site has room for, and 2 are not: as if room had come.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from intertie.broker.domain.cluster import ClusterView
from intertie.broker.domain.ports import Foreign, RefusedSoFar
from intertie.broker.domain.records import Change
from intertie.common.errors import (
    NameTaken,
    NoCapacity,
    NotLeading,
    Shortfall,
    SiteUnreachable,
    StaleWrite,
)
from tests.fakes.clock import FakeClock
from tests.unit.broker.test_names_taken import Beyond, World

TOO_MANY, FEW = 50, 2
REFUSED = NoCapacity((Shortfall(site="south", resource="vcpus"),))
LOST = SiteUnreachable("meta", "no answer")


class Answering(Beyond):
    """With these in turn, each once it may; then it takes everything."""

    def __init__(self, *answers: Exception) -> None:
        super().__init__()
        self.may: list[asyncio.Event] = [asyncio.Event() for _ in answers]
        self.asked = 0
        self._answers = iter(list(zip(answers, self.may, strict=True)))

    async def create(self, *asked: Any, **also: Any) -> Foreign:
        self.asked += 1
        answer, may = next(self._answers, (None, None))
        if answer is None or may is None:
            return await super().create(*asked, **also)
        await may.wait()
        raise answer


def world_of(*answers: Exception) -> tuple[World, Answering]:
    beyond = Answering(*answers)
    return World(beyond), beyond


async def fails(world: World, error: type[Exception]) -> None:
    with pytest.raises(error):
        await world.create(TOO_MANY)


async def test_after_an_answer_was_lost_a_refusal_does_not_bring_it_back_here() -> None:
    """A bug: the site forgot that it had handed the request on, and found room; and the copy whose
    answer was lost came late, and was committed as well."""
    world, beyond = world_of(LOST, REFUSED)
    for may in beyond.may:
        may.set()
    await fails(world, SiteUnreachable)
    await fails(world, NoCapacity)
    assert isinstance(await world.create(FEW), Foreign)
    assert await world.ledger.cluster("demo", "one") is None


async def test_what_was_refused_once_and_for_all_may_find_room_here() -> None:
    world, beyond = world_of(REFUSED)
    beyond.may[0].set()
    await fails(world, NoCapacity)
    assert isinstance(await world.create(FEW), ClusterView)
    assert beyond.made == {}


async def test_a_refusal_beside_a_copy_at_a_silent_replica_does_not_bring_it_back_here() -> None:
    """A bug that simulated worlds have found: the copy that a silent replica had was taken for
    given up, and came late, when there was room here too."""
    world, beyond = world_of(RefusedSoFar(REFUSED))
    beyond.may[0].set()
    await fails(world, NoCapacity)
    assert isinstance(await world.create(FEW), Foreign)
    assert await world.ledger.cluster("demo", "one") is None


async def test_while_a_copy_is_on_its_way_the_refusal_of_another_is_not_forgotten() -> None:
    world, beyond = world_of(REFUSED, REFUSED)
    first, second = (asyncio.create_task(fails(world, NoCapacity)) for _ in range(2))
    await FakeClock().settle()
    beyond.may[1].set()
    await second
    assert await world.ledger.forward("demo", "one") is not None
    beyond.may[0].set()
    await first
    assert await world.ledger.forward("demo", "one") is None
    assert isinstance(await world.create(FEW), ClusterView)


async def test_a_copy_whose_caller_went_away_is_not_known_to_be_refused() -> None:
    world, beyond = world_of(REFUSED, REFUSED)
    gone, stays = (asyncio.create_task(fails(world, NoCapacity)) for _ in range(2))
    await FakeClock().settle()
    gone.cancel()
    beyond.may[1].set()
    await stays
    assert isinstance(await world.create(FEW), Foreign)


async def test_what_another_leader_may_have_handed_on_too_is_not_forgotten() -> None:
    world, beyond = world_of(REFUSED)
    first = asyncio.create_task(fails(world, NoCapacity))
    await FakeClock().settle()
    world.ledger.term = 3
    beyond.may[0].set()
    await first
    assert isinstance(await world.create(FEW), Foreign)


async def test_what_was_forgotten_without_an_answer_is_not_handed_on_by_what_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug that simulated worlds have found: the records were taken back, the answer to that was
    lost and the watch did not tell of it; so a retry was handed on by a record that was gone, and
    the next one, which knew better, found room here as well."""
    world, beyond = world_of(REFUSED)
    ledger = world.ledger
    first = asyncio.create_task(fails(world, NoCapacity))
    await FakeClock().settle()
    forward = await ledger.forward("demo", "one")
    request = await ledger.request("alice", "r1")
    beyond.may[0].set()
    ledger.loses_answer = True
    await first
    commit = ledger.commit
    stale = [True]

    async def known_forward(*_: str) -> Any:
        return forward if stale else None

    async def known_request(*_: str) -> Any:
        return request if stale else None

    async def compares(change: Change) -> int:
        try:
            return await commit(change)
        except StaleWrite:
            stale.clear()
            raise

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "forward", known_forward)
        patched.setattr(ledger, "request", known_request)
        patched.setattr(ledger, "commit", compares)
        await world.create(TOO_MANY)
    assert isinstance(await world.create(FEW), Foreign)
    assert await ledger.cluster("demo", "one") is None


async def test_a_refusal_is_told_though_the_lead_is_gone() -> None:
    world, beyond = world_of(REFUSED)
    first = asyncio.create_task(fails(world, NoCapacity))
    await FakeClock().settle()
    world.ledger.leading = False
    beyond.may[0].set()
    await first
    assert await world.ledger.forward("demo", "one") is not None


async def test_a_replica_that_does_not_lead_hands_nothing_on() -> None:
    """A bug: it found the record, and its copy was one of which the leader did not know."""
    world, beyond = world_of(REFUSED)
    first = asyncio.create_task(fails(world, NoCapacity))
    await FakeClock().settle()
    world.ledger.leading = False
    await fails(world, NotLeading)
    assert beyond.asked == 1
    world.ledger.leading = True
    beyond.may[0].set()
    await first


async def test_a_name_that_is_taken_beyond_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: what was handed on was taken for what another copy had found room for here."""
    world, beyond = world_of(LOST, NameTaken("one"))
    commit = world.ledger.commit

    async def meanwhile_another_comes(change: Change) -> int:
        await FakeClock().settle()
        return await commit(change)

    monkeypatch.setattr(world.ledger, "commit", meanwhile_another_comes)
    copies = [asyncio.create_task(fails(world, each)) for each in (SiteUnreachable, NameTaken)]
    await FakeClock().settle()
    for may in beyond.may:
        may.set()
        await FakeClock().settle()
    await asyncio.gather(*copies)
    assert beyond.asked == 2
