"""Two replicas of a broker on one etcd: one leads, both read, and the other takes over."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.common.errors import NotLeading
from intertie.common.rpc.client import to_domain_error
from tests.integration.broker_site import LARGE_HOST, Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain

pytestmark = pytest.mark.etcd

FAIL_OVER_S = 10


@pytest.fixture
async def replicas(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
) -> AsyncIterator[tuple[Site, Site]]:
    """The first one leads."""
    etcd, hosts = etcd_server.settings(etcd_prefix), {"n1": LARGE_HOST}
    async with (
        site(tmp_path / "one", etcd, north, (south,), hosts=hosts) as first,
        site(tmp_path / "two", etcd, north, (south,), hosts=hosts, lead=False) as second,
    ):
        yield first, second


async def read(replica: Site, name: str) -> cluster_pb2.Cluster:
    return await replica.clusters().Get(clusters_pb2.GetClusterRequest(name=name))


def crash(leader: Site) -> None:
    """As a leader that is killed and started again: its key stays, and nobody renews it."""
    leader.broker.election._lease = 0


async def created(name: str, *replicas: Site) -> cluster_pb2.Cluster:
    """As a client does that is told NOT_LEADING: the same request again, at the next replica."""
    stubs = [each.clusters() for each in replicas]
    async with asyncio.timeout(4 * FAIL_OVER_S):
        for stub in itertools.cycle(stubs):
            try:
                return await stub.Create(create(name, cluster_spec(count=1), name))
            except grpc.aio.AioRpcError as error:
                if not isinstance(to_domain_error(error), NotLeading):
                    raise
                await asyncio.sleep(0.1)
    raise AssertionError("unreachable")


async def test_both_read_and_one_writes(replicas: tuple[Site, Site]) -> None:
    first, second = replicas
    made = await created("one", first)
    for replica in replicas:
        assert (await read(replica, made.name)).uid == made.uid
        listed = await replica.clusters().List(
            clusters_pb2.ListClustersRequest(parent="-/tenants/demo")
        )
        assert [each.uid for each in listed.clusters] == [made.uid]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await second.clusters().Create(create("two", cluster_spec(count=1), "two"))
    assert isinstance(to_domain_error(caught.value), NotLeading)


async def test_a_fail_over_loses_nothing_and_takes_ten_seconds_at_most(
    replicas: tuple[Site, Site],
) -> None:
    first, second = replicas
    before = [await created(f"before-{number}", first) for number in range(5)]
    crash(first)
    async with asyncio.timeout(FAIL_OVER_S):
        after = await created("after", *replicas)
    assert (await read(second, after.name)).uid == after.uid
    for each in before:
        for replica in replicas:
            assert (await read(replica, each.name)).uid == each.uid
    again = await created("before-0", *replicas)
    assert again.uid == before[0].uid, "the same request is answered as before by whoever leads"
    hosts = {w.host for each in before for w in (await read(second, each.name)).workspaces}
    assert hosts == {"n1"}


async def test_a_leader_that_comes_back_reads_what_was_written_meanwhile(
    replicas: tuple[Site, Site],
) -> None:
    """Its book is of another term: nothing of it may be decided on."""
    first, _ = replicas
    await created("one", first)
    crash(first)
    made = await created("two", *replicas)
    crash(next(each for each in replicas if each.broker.election.is_leader))
    again = await created("two", *replicas)
    assert again.uid == made.uid
    third = await created("three", *replicas)
    for replica in replicas:
        assert (await read(replica, third.name)).uid == third.uid
        assert (await read(replica, made.name)).uid == made.uid


async def test_an_update_is_whole_or_not_there_over_a_fail_over(
    replicas: tuple[Site, Site],
) -> None:
    """The same request again, at whoever leads: once it was answered it changes nothing more."""
    first, second = replicas
    made = await created("one", first)
    update = clusters_pb2.UpdateClusterRequest(
        cluster=cluster_pb2.Cluster(name=made.name, spec=cluster_spec(count=3)), request_id="more"
    )
    update.update_mask.paths.append("spec.groups")
    stubs = [each.clusters() for each in replicas]

    async def updated() -> cluster_pb2.Cluster:
        async with asyncio.timeout(4 * FAIL_OVER_S):
            for stub in itertools.cycle(stubs):
                try:
                    return await stub.Update(update)
                except grpc.aio.AioRpcError as error:
                    if not isinstance(to_domain_error(error), NotLeading):
                        raise
                    await asyncio.sleep(0.1)
        raise AssertionError("unreachable")

    under_way = asyncio.create_task(updated())
    await asyncio.sleep(0)
    crash(first)
    assert (await under_way).terms == 1
    again = await updated()
    assert (again.terms, len(again.workspaces)) == (1, 3)
    assert len((await read(second, made.name)).workspaces) == 3
