"""Leases give way by migration, through the broker's API and on real etcd. Agents are faked: that
guests run on meanwhile is for tests/e2e."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.broker.domain import keeping, pace, vacating
from intertie.broker.domain.part import Part
from intertie.broker.settings import QueueSettings
from intertie.common.clock import SystemClock
from tests.integration.broker_site import Site, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.test_broker_clusters import until
from tests.integration.test_broker_giving_way import part_of, plain
from tests.integration.test_broker_queue import best_effort, eventually
from tests.integration.test_broker_update import free

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster
SECOND = timedelta(seconds=1)
ANSWERED = 2 * SECOND
SAVE = 2 * SECOND
"""Of 32 MiB at 100 MiB/s, and the margin."""
SENT = (1 + 6) * SECOND
"""160 MiB at 25 MiB/s, after the second in which hosts begin."""
GOES = "it goes to other hosts, as another lease needs its room"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents here do at once what they are told."""
    monkeypatch.setattr(pace, "TO_PREPARE", SECOND)
    for module in (keeping, vacating):
        monkeypatch.setattr(module, "ANSWERED_WITHIN", ANSWERED)


Lead = Callable[[str], AbstractAsyncContextManager[Site]]


@pytest.fixture
def led(
    tmp_path: Path, etcd_server: EtcdServer, etcd_prefix: str, north: TestDomain, meta: TestDomain
) -> Lead:
    """By brokers that come one after the other, each by its name."""
    etcd = etcd_server.settings(etcd_prefix)
    queue = QueueSettings(pool_mib_s=100, worth_s=1)
    return lambda name: site(tmp_path / name, etcd, north, [meta], queue=queue)


@pytest.fixture
async def here(led: Lead) -> AsyncIterator[Site]:
    async with led("broker") as up:
        yield up


def large(count: int = 1, *, start_in: timedelta = timedelta(), vcpus: int = 4) -> Any:
    """Guests that take a host each."""
    spec = plain(count, start_in_s=start_in.total_seconds())
    spec.groups[0].allocation.vcpus = vcpus
    return spec


async def split(here: Site) -> Cluster:
    """A best-effort lease of one vCPU has a host, and another one of the same the other. The latter
    gives way first."""
    stub = here.clusters()
    small = best_effort(1, memory_mib=32, pair_mbit_s=0)
    first = await stub.Create(create("first", small, "first"))
    await until(stub, first.name, Cluster.ACTIVE)
    rest = await stub.Create(create("rest", large(vcpus=3), "rest"))
    last = await stub.Create(create("last", small, "last"))
    found = (await until(stub, last.name, Cluster.ACTIVE))[-1]
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=rest.name))
    await until(stub, rest.name, Cluster.CANCELLED)
    assert sorted((await free(here)).values()) == [3, 3]
    return found


def host_of(cluster: Cluster) -> str:
    [workspace] = cluster.workspaces
    return workspace.host


def other(host: str) -> str:
    return {"n1": "n2", "n2": "n1"}[host]


async def get(here: Site, name: str) -> Cluster:
    return await here.clusters().Get(clusters_pb2.GetClusterRequest(name=name))


async def until_part(here: Site, cluster: Cluster, holds: Any) -> Part:
    async with asyncio.timeout(30):
        while not holds(found := await part_of(here, cluster.name)):
            await SystemClock().sleep(0.05)
    return found


async def test_one_goes_to_another_host_and_runs_on_at_the_price_that_it_had(here: Site) -> None:
    last = await split(here)
    stub = here.clusters()
    here.agents.obedient = False
    urgent = await stub.Create(create("urgent", large(), "urgent"))
    start = urgent.window.start_time.ToDatetime()
    assert start == urgent.create_time.ToDatetime() + SENT + ANSWERED + SAVE
    assert "of these 1 goes to other hosts meanwhile" in urgent.plan.reasons
    assert host_of(urgent) == host_of(last)
    going = await get(here, last.name)
    [workspace] = going.workspaces
    assert (workspace.host, workspace.migrating_to) == (host_of(last), other(host_of(last)))
    assert list(going.plan.reasons) == [GOES]
    assert (going.state, going.window, going.terms) == (Cluster.ACTIVE, last.window, last.terms)
    assert await free(here) == {host_of(last): 3, other(host_of(last)): 2}
    here.agents.obedient = True
    there = await eventually(
        here,
        last.name,
        lambda each: host_of(each) == other(host_of(last)) and not each.workspaces[0].migrating_to,
    )
    assert there.state == Cluster.ACTIVE
    await until_part(here, last, lambda each: each.vacating is None and not each.left)
    there = await get(here, last.name)
    assert (there.window, there.plan.cost, there.terms) == (last.window, last.plan.cost, last.terms)
    assert list(there.plan.reasons) == [GOES.replace("goes", "went").replace("needs", "needed")]
    await until(stub, urgent.name, Cluster.ACTIVE)
    assert (await get(here, last.name)).state == Cluster.ACTIVE
    assert not here.agents.saves, "nobody was put aside"


async def test_one_that_cannot_be_sent_is_put_aside_and_the_other_begins_when_it_was_told_to(
    here: Site,
) -> None:
    last = await split(here)
    stub = here.clusters()
    here.agents.sends = False
    urgent = await stub.Create(create("urgent", large(), "urgent"))
    start = urgent.window.start_time.ToDatetime()
    stays = await eventually(here, last.name, lambda each: each.terms == 1)
    [workspace] = stays.workspaces
    assert workspace.message.endswith("and stays: the tunnel broke")
    assert stays.window.end_time.ToDatetime() == start - SAVE
    assert stays.state == Cluster.ACTIVE, "until then"
    aside = (await until(stub, last.name, Cluster.SUSPENDED))[-1]
    assert list(aside.plan.reasons) == ["put aside for others"]
    begun = (await until(stub, urgent.name, Cluster.ACTIVE))[-1]
    assert begun.window == urgent.window
    assert len(here.agents.saves) == 1
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=urgent.name))
    on = (await until(stub, last.name, Cluster.ACTIVE))[-1]
    assert host_of(on) == host_of(last)


async def test_one_that_is_not_there_in_time_is_broken_off(here: Site) -> None:
    """For an advance lease, whose start nobody moves; its hosts say nothing for long."""
    last = await split(here)
    stub = here.clusters()
    here.agents.deaf = {other(host_of(last))}
    ahead = SENT + ANSWERED + SAVE + 2 * SECOND
    later = await stub.Create(create("later", large(start_in=ahead), "later"))
    going = await part_of(here, last.name)
    assert going.vacating is not None
    assert going.vacating.free_from.replace(tzinfo=None) == later.window.start_time.ToDatetime()
    aside = (await until(stub, last.name, Cluster.SUSPENDED))[-1]
    assert aside.window.end_time.ToDatetime() == later.window.start_time.ToDatetime() - SAVE
    assert "not there in time" in aside.workspaces[0].message
    here.agents.deaf = set()
    await until(stub, later.name, Cluster.ACTIVE)


@pytest.mark.parametrize("sends", [True, False])
async def test_a_leader_that_is_killed_meanwhile_is_followed_by_one_that_goes_on(
    sends: bool, led: Lead
) -> None:
    """What became of the migration is found on record, and in what hosts say."""
    async with led("one") as first:
        last = await split(first)
        first.agents.obedient = False
        urgent = await first.clusters().Create(create("urgent", large(), "urgent"))
        assert (await part_of(first, last.name)).moving
    async with led("two") as second:
        second.agents.sends = sends
        if sends:
            there = await eventually(
                second, last.name, lambda each: host_of(each) == other(host_of(last))
            )
            assert (there.state, there.window) == (Cluster.ACTIVE, last.window)
        else:
            aside = (await until(second.clusters(), last.name, Cluster.SUSPENDED))[-1]
            assert host_of(aside) == host_of(last)
            start = urgent.window.start_time.ToDatetime()
            assert aside.window.end_time.ToDatetime() == start - SAVE
        now = await get(second, urgent.name)
        assert (now.window, host_of(now)) == (urgent.window, host_of(last))


async def test_a_leader_that_comes_late_puts_it_aside_late_and_nothing_is_promised_twice(
    led: Lead,
) -> None:
    async with led("one") as first:
        last = await split(first)
        first.agents.sends = False
        first.agents.deaf = {host_of(last)}
        urgent = await first.clusters().Create(create("urgent", large(), "urgent"))
        sending = await until_part(first, last, lambda each: each.moving[0].state.name == "SENDING")
        assert sending.vacating is not None
    delay = sending.vacating.free_from - SystemClock().now() + SECOND
    await SystemClock().sleep(max(delay.total_seconds(), 0))
    async with led("two") as second:
        second.agents.sends = False
        stub = second.clusters()
        aside = (await until(stub, last.name, Cluster.SUSPENDED))[-1]
        late = aside.window.end_time.ToDatetime() - urgent.window.start_time.ToDatetime()
        assert late > timedelta()
        assert host_of(aside) == host_of(last)
        await until(stub, urgent.name, Cluster.ACTIVE)
        refused = best_effort(1, memory_mib=32, pair_mbit_s=0)
        refused.groups[0].allocation.vcpus = 4
        waits = await stub.Create(create("waits", refused, "waits"))
        await SystemClock().sleep(2.5)
        assert (await get(second, waits.name)).state == Cluster.QUEUED


async def test_its_owner_may_delete_it_on_its_way_and_nothing_is_left(here: Site) -> None:
    last = await split(here)
    stub = here.clusters()
    here.agents.obedient = False
    urgent = await stub.Create(create("urgent", large(), "urgent"))
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=last.name))
    here.agents.obedient = True
    await until(stub, last.name, Cluster.CANCELLED)
    await until(stub, urgent.name, Cluster.ACTIVE)

    async def rooms() -> list[int]:
        return sorted((await free(here)).values())

    async with asyncio.timeout(20):
        while await rooms() != [0, 3]:
            await SystemClock().sleep(0.1)
