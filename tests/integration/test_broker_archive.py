"""Leases that are over leave the keys that passes read, on real etcd, and are shown as before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from intertie.api.broker.v1 import parts_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import action_pb2
from intertie.broker import main as broker_main
from intertie.broker.domain import archiving
from intertie.common import errors
from tests.integration.broker_site import Site, cluster_spec, create
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

NAME = "sites/north/tenants/demo/clusters"
"""Of clusters."""
PREFIXES = ("parts/", "clusters/", "accounts/", "wanted/", "vni/")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_main, "RETENTION_S", 0.3)
    monkeypatch.setattr(broker_main, "ACCOUNTING_S", 0.3)
    monkeypatch.setattr(broker_main, "ACCOUNTING_REST_S", 0.1)
    monkeypatch.setattr(archiving, "RESTS", timedelta(seconds=1))


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.1)


async def hot(here: Site) -> list[str]:
    return [entry.key for prefix in PREFIXES for entry in (await here.etcd.range(prefix)).entries]


async def test_what_is_over_is_put_aside_and_answers_as_before(here: Site) -> None:
    stub = here.clusters()
    request = create("one", cluster_spec(), "r1")
    made = await stub.Create(request)
    asked = clusters_pb2.GetClusterRequest(name=made.name)
    watched: list[clusters_pb2.WatchClustersResponse] = []

    async def watch() -> None:
        call = stub.WatchAll(clusters_pb2.WatchClustersRequest(parent="-/tenants/demo"))
        async for each in call:
            watched.append(each)

    following = asyncio.create_task(watch())

    async def active() -> bool:
        return (await stub.Get(asked)).state == cluster_pb2.Cluster.ACTIVE

    await eventually(active)
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))

    async def over() -> bool:
        return (await stub.Get(asked)).state == cluster_pb2.Cluster.CANCELLED

    await eventually(over)
    before = await stub.Get(asked)

    async def cold() -> bool:
        return await hot(here) == []

    await eventually(cold)
    assert len((await here.etcd.range("archive/")).entries) == 2
    assert len((await here.etcd.range("tombs/")).entries) == 1
    told = len(watched)

    # As documented, for as long as before.
    assert await stub.Get(asked) == before
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert list(listed.clusters) == [before]
    assert (await stub.Create(request)).uid == made.uid
    again = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    assert again == before
    more = clusters_pb2.UpdateClusterRequest(request_id="u1")
    more.cluster.name = made.name
    more.cluster.spec.CopyFrom(cluster_spec(count=3))
    more.update_mask.paths.append("spec.groups")
    assert isinstance(await refusal(stub.Update(more)), errors.ClusterOver)
    act = clusters_pb2.ActOnClusterRequest(name=made.name, action=action_pb2.STOP, request_id="a1")
    assert isinstance(await refusal(stub.Act(act)), errors.ClusterOver)
    parts = here.parts(here.domain.operator("olga"))
    [shown] = (await parts.List(parts_pb2.ListPartsRequest(parent="-/tenants/demo"))).parts
    assert await parts.Get(parts_pb2.GetPartRequest(name=shown.name)) == shown
    assert len(watched) == told, "that it was put aside is no change"

    # A new leader, with a book that it has read anew, answers the same; and the name is free.
    await here.broker.ledger.read_again()
    here.broker.ledger._line._throw_away()
    assert await stub.Get(asked) == before
    new = await stub.Create(create("one", cluster_spec(count=1), "r2"))
    assert new.uid != made.uid
    assert (await stub.Get(asked)).uid == new.uid
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert [each.uid for each in listed.clusters] == [new.uid]
    following.cancel()
