"""A cluster's name stands for one cluster: here, or handed on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.ports import Caller, Foreign, ForeignPlans
from intertie.broker.domain.records import Change, ForwardRecord, RequestKey, Write
from intertie.broker.usecases.admission import Admission
from intertie.broker.usecases.create_cluster import CreateCluster, Order
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import NameTaken, NotFound
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import HOUR, POLICY, facts, part
from tests.unit.broker.test_passes import ALICE, NAME, SPEC, OneImage


class Beyond:
    """A meta-scheduler that takes everything."""

    name = "meta"

    def __init__(self) -> None:
        self.made: dict[str, Foreign] = {}

    async def create(
        self,
        caller: Caller,
        tenant: str,
        cluster_id: str,
        spec: ClusterSpec,
        *,
        request_id: str,
        validate_only: bool,
        plan_token: str,
    ) -> Foreign:
        made = Foreign(name=cluster_id, message=b"", over=False, etag="")
        return self.made.setdefault(cluster_id, made)

    async def plan(self, *args: Any, **also: Any) -> ForeignPlans:
        raise AssertionError

    async def get(self, caller: Caller, tenant: str, cluster_id: str) -> Foreign:
        if cluster_id not in self.made:
            raise NotFound(cluster_id)
        return self.made[cluster_id]

    async def delete(self, caller: Caller, tenant: str, cluster_id: str, etag: str) -> Foreign:
        raise AssertionError

    async def update(self, *args: Any, **also: Any) -> Foreign:
        raise AssertionError

    async def act(self, *args: Any, **also: Any) -> Foreign:
        raise AssertionError

    async def watch(self, caller: Caller, tenant: str, cluster_id: str) -> AsyncIterator[Foreign]:
        raise AssertionError
        yield


class Raced(MemoryLedger):
    """Another replica's write comes just before the next one."""

    rival: Change | None = None

    async def commit(self, change: Change) -> int:
        rival, self.rival = self.rival, None
        if rival is not None:
            await super().commit(rival)
        return await super().commit(change)


class World:
    def __init__(self, beyond: Beyond | None = None) -> None:
        clock = FakeClock()
        self.ledger = Raced(POLICY)
        self.beyond = beyond or Beyond()
        for host in ("n1", "n2"):
            self.ledger.report(facts(host, report_time=clock.now()))
        ledger = self.ledger
        forwarding = Forwarding(ledger, self.beyond, clock, FakeRoom())
        self._create = CreateCluster(
            ledger,
            OneImage(),
            Admission(ledger, clock, FakeRoom()),
            forwarding,
            POLICY,
            clock,
            lambda: "seed",
        )

    async def create(self, count: int) -> object:
        spec = replace(SPEC, groups=(replace(SPEC.groups[0], count=count),))
        key = RequestKey(caller="alice", request_id="r1", digest="d")
        return await self._create(
            Order(name=NAME, spec=spec, request=key, validate_only=False), ALICE
        )


FORWARD = ForwardRecord(
    name=str(NAME), metasched="meta", request_id="fwd-2", caller="bob", create_time=START
)
LOCAL = ClusterRecord(
    name=str(NAME),
    uid="u",
    spec=SPEC,
    owner="bob",
    state=ClusterState.SCHEDULED,
    part=part().name,
    window=part().window,
    counts=(("w", 1),),
    cost=0.0,
    reasons=(),
    shortfalls=(),
    create_time=START,
)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_name_that_is_handed_on_meanwhile_is_not_taken_here_too(world: World) -> None:
    """A bug: both looked for the other before they wrote, and both came to be."""
    world.ledger.rival = Change(writes=(Write(record=FORWARD),))
    with pytest.raises(NameTaken):
        await world.create(2)
    assert await world.ledger.cluster("demo", "one") is None
    assert await world.ledger.parts() == ()


async def test_a_name_that_is_taken_here_meanwhile_is_not_handed_on_too(world: World) -> None:
    world.ledger.rival = Change(writes=(Write(record=LOCAL),))
    with pytest.raises(NameTaken):
        await world.create(50)
    assert await world.ledger.forward("demo", "one") is None
    assert world.beyond.made == {}


async def test_a_name_whose_forward_led_to_nothing_is_free(world: World) -> None:
    await world.ledger.commit(Change(writes=(Write(record=FORWARD),)))
    await world.create(2)
    assert await world.ledger.cluster("demo", "one") is not None


async def test_a_name_is_free_for_handing_on_once_the_cluster_here_is_over(world: World) -> None:
    over = replace(LOCAL, state=ClusterState.ENDED, end_time=START + HOUR)
    await world.ledger.commit(Change(writes=(Write(record=over),)))
    await world.create(50)
    assert set(world.beyond.made) == {"one"}
