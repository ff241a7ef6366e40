"""What an update writes, and what that compares."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.broker.domain.cluster import ClusterRecord, ClusterView
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, RequestKey, RequestRecord, Write
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.create_cluster import CreateCluster, Order
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.broker.usecases.update_cluster import UpdateCluster, UpdateOrder
from intertie.common.amend_rules import GROUPS
from intertie.common.errors import (
    ClusterOver,
    EtcdUnavailable,
    ImageNotReady,
    NoCapacity,
    NotFound,
)
from intertie.common.spec import ClusterSpec, Placement
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import POLICY, facts
from tests.unit.broker.test_passes import ALICE, NAME, SPEC, OneImage


class Raced(MemoryLedger):
    """Another write of the part comes just before the next one."""

    rival = False

    async def commit(self, change: Change) -> int:
        if self.rival:
            self.rival = False
            [found] = await self.parts()
            told = replace(found.value, generation=found.value.generation + 1)
            write = Write(record=told, read_at=found.revision)
            await super().commit(Change(writes=(write,)))
        return await super().commit(change)


class NoImage(OneImage):
    gone = False

    async def find(self, tenant: str, image: str) -> Any:
        return None if self.gone else await super().find(tenant, image)


def counted(count: int) -> ClusterSpec:
    return replace(SPEC, groups=(replace(SPEC.groups[0], count=count),))


class World:
    def __init__(self, *, max_cost: float = 0.0) -> None:
        self._placement = Placement(max_cost=max_cost)
        clock = FakeClock()
        self.ledger = ledger = Raced(POLICY)
        for host in ("n1", "n2"):
            ledger.report(facts(host, report_time=clock.now()))
        self.images = NoImage()
        room = FakeRoom()
        admission = Admission(ledger, clock, room)
        forwarding = Forwarding(ledger, None, clock, room)
        get = GetCluster(ledger, forwarding, "north")
        self._create = CreateCluster(
            ledger, self.images, admission, forwarding, POLICY, clock, lambda: "seed"
        )
        self._update = UpdateCluster(ledger, self.images, admission, get, forwarding, POLICY, clock)

    async def made(self) -> None:
        key = RequestKey(caller="alice", request_id="made", digest="d")
        spec = replace(counted(2), placement=self._placement)
        order = Order(name=NAME, spec=spec, request=key, validate_only=False)
        await self._create(order, ALICE)

    async def cost(self) -> float:
        view = await self.ledger.view()
        return view.clusters[str(NAME)].value.cost

    async def update(self, count: int, request_id: str = "r1") -> ClusterView:
        key = RequestKey(caller="alice", request_id=request_id, digest=f"d{count}")
        order = UpdateOrder(
            name=NAME,
            spec=counted(count),
            paths=(GROUPS,),
            etag="",
            request=key,
            validate_only=False,
        )
        view = await self._update(order, ALICE)
        assert isinstance(view, ClusterView)
        return view


async def test_a_site_gives_nothing_that_would_cost_more_than_its_budget() -> None:
    """Neither to begin with nor by an update; what is just within it, it does."""
    free = World()
    await free.made()
    two = await free.cost()
    await free.update(4)
    four = await free.cost()
    assert two < four

    short = World(max_cost=two * 0.99)
    with pytest.raises(NoCapacity) as refused:
        await short.made()
    [told] = refused.value.shortfalls
    assert (told.site, told.resource, told.field) == ("north", "budget", "spec.placement.max_cost")
    assert short.ledger.commits == []

    just = World(max_cost=two)
    await just.made()
    with pytest.raises(NoCapacity) as refused:
        await just.update(4)
    assert [each.resource for each in refused.value.shortfalls] == ["budget"]
    assert await just.cost() == two

    enough = World(max_cost=four)
    await enough.made()
    await enough.update(4)
    assert await enough.cost() == four


@pytest.fixture
async def world() -> World:
    made = World()
    await made.made()
    return made


async def test_part_cluster_and_request_are_one_write_by_their_revisions(world: World) -> None:
    await world.update(3)
    change = world.ledger.commits[-1]
    part, cluster, request = change.writes
    assert isinstance(part.record, Part)
    assert isinstance(cluster.record, ClusterRecord)
    assert isinstance(request.record, RequestRecord)
    assert part.read_at
    assert cluster.read_at
    assert (part.record.terms, cluster.record.terms, request.record.uid) == (
        1,
        1,
        cluster.record.uid,
    )


async def test_what_takes_more_compares_the_generation_and_what_does_not_need_not(
    world: World,
) -> None:
    await world.update(4, "more")
    assert world.ledger.commits[-1].admitted_on == 1
    await world.update(1, "less")
    assert world.ledger.commits[-1].admitted_on is None
    await world.update(4, "back")
    assert world.ledger.commits[-1].admitted_on is None, "no host has given it up"


async def test_a_write_that_was_first_is_read_and_decided_upon_anew(world: World) -> None:
    world.ledger.rival = True
    view = await world.update(3)
    assert view.record.terms == 1
    [part] = await world.ledger.parts()
    assert (part.value.generation, part.value.terms) == (1, 1)


async def test_where_the_answer_is_lost_the_record_of_the_request_says_that_it_was_done(
    world: World,
) -> None:
    world.ledger.loses_answer = True
    assert (await world.update(3)).record.terms == 1
    commits = len(world.ledger.commits)
    assert (await world.update(3)).record.terms == 1
    assert len(world.ledger.commits) == commits
    world.ledger.broken = True
    with pytest.raises(EtcdUnavailable):
        await world.update(4, "r2")


async def test_of_what_changes_nothing_only_that_it_was_asked_is_written(world: World) -> None:
    assert (await world.update(2)).record.terms == 0
    [write] = world.ledger.commits[-1].writes
    assert isinstance(write.record, RequestRecord)


async def test_more_workspaces_want_their_image_and_fewer_do_not(world: World) -> None:
    world.images.gone = True
    with pytest.raises(ImageNotReady) as caught:
        await world.update(3)
    assert caught.value.field == "spec.groups[0].environment.image"
    assert (await world.update(1)).record.terms == 1


async def test_a_part_whose_end_was_asked_for_is_not_amended(world: World) -> None:
    """Though nobody has told the cluster yet: a workspace that failed ends it by its part."""
    [part] = await world.ledger.parts()
    ending = part.value.ending(now=part.value.create_time, reason="WORKSPACE_FAILED")
    await world.ledger.commit(Change(writes=(Write(record=ending, read_at=part.revision),)))
    with pytest.raises(ClusterOver):
        await world.update(3)


async def test_a_name_that_is_none_is_not_found() -> None:
    with pytest.raises(NotFound):
        await World().update(3)
