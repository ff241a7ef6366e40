"""The queue's passes over leases that run, and what becomes of those that get more."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain import resizing
from intertie.broker.domain.cluster import ClusterState
from intertie.broker.domain.fleet import Policy, SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.migrating import dropped, on_its_way
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, Write
from intertie.broker.loops import queue
from intertie.broker.loops.queue import TELL_S, Queue
from intertie.broker.loops.reconcile import PATIENCE, Reconcile
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.line import ImagesHere, best_effort, name_of, waits
from tests.unit.broker.samples import DIGEST, NOW, POLICY, facts
from tests.unit.broker.standing import ALLOCATION, group, spec
from tests.unit.broker.test_malleable import STEADY, between

MINUTE = timedelta(minutes=1)


class World:
    """The broker's queue and what tells hosts, and hosts that do as they are told."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.clock = FakeClock(NOW)
        self.ledger = MemoryLedger(policy)
        self.room, self.images = FakeRoom(), ImagesHere()
        self.queue = Queue(self.ledger, policy, self.clock, lambda: "seed", self.room, self.images)
        self.reconcile = Reconcile(self.ledger, policy, self.clock)
        self.fails: set[str] = set()
        """Labels of workspaces."""

    async def asks(self, name: str, asked: ClusterSpec) -> None:
        record = waits(name, asked, now=self.clock.now())
        await self.ledger.commit(Change(writes=(Write(record=record),)))

    async def passes(self, seconds: float = 0.0) -> None:
        """Time, and then all that is to be done."""
        await self.clock.advance(seconds)
        for host in ("n1", "n2"):
            self.ledger.report(facts(host, report_time=self.clock.now()))
        for _ in range(4):
            await self.queue.sweep()
            await self.reconcile.sweep()
            self._obey()
            await self.reconcile.sweep()

    def _obey(self) -> None:
        for (host, uid), wanted in self.ledger.wanted.items():
            seen = tuple(
                SeenWorkspace(
                    name=each.name,
                    state=WorkspaceState.FAILED
                    if each.name in self.fails
                    else WorkspaceState.RUNNING,
                    ready=each.name not in self.fails,
                )
                for each in wanted.workspaces
            )
            self.ledger.see(
                SeenPart(
                    host=host,
                    part_uid=uid,
                    generation=wanted.generation,
                    obeyed_generation=wanted.generation,
                    workspaces=() if wanted.gone else seen,
                    gone=wanted.gone,
                )
            )

    async def has(self, name: str) -> tuple[ClusterState, int]:
        found = await self.ledger.cluster("demo", name)
        assert found is not None
        counts = dict(found.value.counts)
        part = (await self.ledger.view()).parts.get(found.value.part)
        there: Part | None = part.value if part is not None else None
        if there is not None:
            assert len(there.spec.workspaces) == counts["w"]
        return found.value.state, counts["w"]


async def malleable_beside(lasts: timedelta, most: int) -> World:
    """One for so long, and one that has what that leaves, of 2 to so many."""
    world = World()
    await world.asks("first", best_effort(5, lasts=lasts))
    await world.asks("many", between(2, most))
    await world.passes()
    assert await world.has("many") == (ClusterState.ACTIVE, 3)
    return world


async def test_it_gets_more_when_others_are_over_and_less_when_others_come() -> None:
    world = await malleable_beside(10 * MINUTE, most=8)
    await world.passes(599)
    assert await world.has("many") == (ClusterState.ACTIVE, 3)
    await world.passes(TELL_S)
    assert await world.has("many") == (ClusterState.ACTIVE, 8)
    await world.asks("late", best_effort(2))
    await world.passes(1)
    assert await world.has("many") == (ClusterState.ACTIVE, 6)
    assert await world.has("late") == (ClusterState.ACTIVE, 2)
    [part] = [each for each in await world.ledger.parts() if len(each.value.placed) == 6]
    assert not part.value.shed


async def test_who_runs_an_image_that_is_not_here_any_more_gets_no_more() -> None:
    world = await malleable_beside(10 * MINUTE, most=8)
    del world.images.here[DIGEST]
    await world.passes(600)
    await world.passes(TELL_S)
    assert await world.has("many") == (ClusterState.ACTIVE, 3)


async def test_who_has_no_image_any_more_is_not_in_the_way_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: as many as get more in a pass were looked at, and these were the first in each."""
    monkeypatch.setattr(queue, "RESIZED_AT_MOST", 1)
    world = World()
    await world.asks("short", best_effort(4, lasts=10 * MINUTE))
    for name in ("first", "second"):
        await world.asks(name, between(2, 4))
    await world.passes()

    async def has_images(_: Queue, part: Part) -> bool:
        return part.spec.cluster != name_of("first")

    monkeypatch.setattr(Queue, "_has_images", has_images)
    await world.passes(600)
    for _ in range(3):
        await world.passes(TELL_S)
    assert await world.has("first") == (ClusterState.ACTIVE, 2)
    assert await world.has("second") == (ClusterState.ACTIVE, 4)


async def test_who_has_no_room_for_more_is_not_in_the_way_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: of those that would get more the first few were looked at, and always the same."""
    for module in (queue, resizing):
        monkeypatch.setattr(module, "LOOKED_AT", 1)
    world = World()
    await world.asks("short", best_effort(1, lasts=10 * MINUTE))
    await world.asks("long", best_effort(2))
    whole = group(count=0, min_count=1, max_count=2, allocation=replace(ALLOCATION, vcpus=4))
    await world.asks("large", spec(whole, lease=between(1, 2).lease))
    await world.asks("small", between(1, 2))
    await world.passes()
    assert await world.has("large") == (ClusterState.ACTIVE, 1)
    assert await world.has("small") == (ClusterState.ACTIVE, 1)
    await world.passes(600)
    for _ in range(3):
        await world.passes(TELL_S)
    assert await world.has("large") == (ClusterState.ACTIVE, 1)
    assert await world.has("small") == (ClusterState.ACTIVE, 2)


async def test_nobody_gets_more_while_the_store_is_short_of_room() -> None:
    world = await malleable_beside(10 * MINUTE, most=8)
    world.room.short = True
    await world.passes(600)
    await world.passes(TELL_S)
    assert await world.has("many") == (ClusterState.ACTIVE, 3)
    world.room.short = False
    await world.passes(TELL_S)
    assert await world.has("many") == (ClusterState.ACTIVE, 8)


async def test_what_it_got_in_addition_and_fails_does_not_end_it() -> None:
    world = await malleable_beside(10 * MINUTE, most=8)
    world.fails = {"w-5"}
    await world.passes(600)
    await world.passes(TELL_S)
    assert await world.has("many") == (ClusterState.ACTIVE, 8)
    await world.passes(PATIENCE.total_seconds() + 1)
    assert await world.has("many") == (ClusterState.ACTIVE, 5)
    found = await world.ledger.cluster("demo", "many")
    assert found is not None
    assert found.value.reasons[0] == "goes on without what failed: w-5"
    assert found.value.name == name_of("many")


async def test_what_it_can_do_without_and_fails_ends_no_steady_one() -> None:
    """A bug: the policy says who is left with fewer for others, and that was asked here too."""
    world = World(STEADY)
    await world.asks("many", between(2, 5))
    await world.passes()
    assert await world.has("many") == (ClusterState.ACTIVE, 5)
    world.fails = {"w-3"}
    await world.passes(1)
    await world.passes(PATIENCE.total_seconds() + 1)
    assert await world.has("many") == (ClusterState.ACTIVE, 3)


async def test_what_fails_while_it_goes_to_other_hosts_is_given_up_once_that_is_over() -> None:
    """A bug: while anything of it was on its way it could do without nothing, and ended."""
    world = await malleable_beside(10 * MINUTE, most=8)
    await world.passes(600)
    await world.passes(TELL_S)
    assert await world.has("many") == (ClusterState.ACTIVE, 8)
    [found] = [each for each in await world.ledger.parts() if len(each.value.placed) == 8]
    part = found.value
    host = {"n1": "n2", "n2": "n1"}[part.host_of("w-0")]
    going = on_its_way(part, part, "w-0", host, aside=False, now=world.clock.now())
    await world.ledger.commit(Change(writes=(Write(record=going, read_at=found.revision),)))
    world.fails = {"w-5"}
    await world.passes()
    await world.passes(PATIENCE.total_seconds() + 1)
    assert await world.has("many") == (ClusterState.ACTIVE, 8)
    found = (await world.ledger.view()).parts[part.name]
    stays = dropped(found.value, found.value.moving[0], "host n3 was lost")
    await world.ledger.commit(Change(writes=(Write(record=stays, read_at=found.revision),)))
    await world.passes(1)
    assert await world.has("many") == (ClusterState.ACTIVE, 5)


async def test_without_what_it_wants_at_least_it_ends() -> None:
    world = await malleable_beside(10 * MINUTE, most=8)
    world.fails = {"w-1"}
    await world.passes(1)
    await world.passes(PATIENCE.total_seconds() + 1)
    assert (await world.has("many"))[0] is ClusterState.FAILED
