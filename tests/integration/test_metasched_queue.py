"""Leases over two sites that wait, with real brokers on real etcd, over real TLS."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.common import errors
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.refusals import refusal
from tests.integration.test_metasched import NAME, two_groups, until

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster
OTHER = "metascheds/meta/tenants/demo/clusters/other"


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


def waiting(workers: int = 2, **lease: bool) -> cluster_pb2.ClusterSpec:
    """A head at north and workers at south, for an hour once both have room."""
    spec = two_groups(workers)
    spec.lease.kind = cluster_pb2.LeaseTerms.BEST_EFFORT
    spec.lease.duration.FromTimedelta(timedelta(hours=1))
    for name, value in lease.items():
        setattr(spec.lease, name, value)
    return spec


async def told(here: Federation, name: str = NAME) -> cluster_pb2.Cluster:
    return await here.clusters().Get(clusters_pb2.GetClusterRequest(name=name))


async def test_it_waits_for_the_room_of_both_and_outlives_its_coordinator(
    here: Federation,
) -> None:
    """Queued while one site is full; the meta-scheduler is killed meanwhile; then it starts."""
    stub = here.clusters()
    await stub.Create(create("other", two_groups(2, vcpus=4), "r-other"))
    asked = create("c1", waiting(8))
    made = await stub.Create(asked)
    assert made.state == Cluster.QUEUED
    assert not made.workspaces
    assert not made.HasField("window")
    impossible = await refusal(stub.Create(create("c2", waiting(40), "r2")))
    assert isinstance(impossible, errors.NoCapacity)
    async with asyncio.timeout(30):
        while not (await told(here)).plan.shortfalls:
            await CLOCK.sleep(0.2)
    await here.kill()
    await here.start()
    stub = here.clusters()
    assert (await stub.Create(asked)).uid == made.uid
    for site in here.sites:
        assert len(await here.parts(site)) == 1  # of the other cluster
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=OTHER))
    begun = await until(here, Cluster.ACTIVE, 40)
    assert begun.uid == made.uid
    assert {each.site for each in begun.workspaces} == {"north", "south"}
    assert begun.window.end_time.seconds - begun.window.start_time.seconds == 3600
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=NAME))
    await until(here, Cluster.CANCELLED)


async def test_it_is_deleted_while_it_waits(here: Federation) -> None:
    stub = here.clusters()
    await stub.Create(create("other", two_groups(2, vcpus=4), "r-other"))
    planned = await stub.Create(create("c1", waiting(8), "", validate_only=True))
    assert planned.state == Cluster.PLANNED
    assert not planned.plan.parts
    await stub.Create(create("c1", waiting(8)))
    over = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=NAME))
    assert over.state == Cluster.CANCELLED
