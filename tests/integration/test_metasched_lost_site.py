"""A site of a cluster falls silent: what was there begins anew at another, with real brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.metasched.settings import LossSettings
from tests.fakes.site_brokers import CLOCK, Federation, create, federation
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.test_metasched import NAME, two_groups, until

pytestmark = pytest.mark.etcd

LOST_AFTER_S = 20.0


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
    meta: TestDomain,
) -> AsyncIterator[Federation]:
    west = TestDomain.create(tmp_path / "pki", "west.site.intertie")
    losses = LossSettings(site_lost_after_s=LOST_AFTER_S)
    async with federation(
        tmp_path,
        etcd_server,
        etcd_prefix,
        north,
        south,
        meta,
        more={"west": west},
        losses=losses,
    ) as up:
        yield up


def asked() -> cluster_pb2.ClusterSpec:
    """A head at north, workers at south or west, which are to begin anew."""
    spec = two_groups(2)
    worker = spec.groups[1]
    worker.placement.allow_sites[:] = ["south", "west"]
    worker.placement.max_per_site = 2
    worker.allocation.availability.on_site_loss = resources_pb2.AvailabilityTerm.REPLACE
    return spec


async def labels_at(here: Federation, site: str, state: int) -> list[tuple[str, str]]:
    return [
        (f"{each.group}-{each.index}", each.nics[0].address)
        for part in await here.parts(site)
        if part.state == state
        for each in part.spec.workspaces
    ]


async def test_a_silent_site_is_left_and_hears_of_it_when_it_is_back(here: Federation) -> None:
    stub = here.clusters()
    await stub.Create(create("c1", asked()))
    before = await until(here, cluster_pb2.Cluster.ACTIVE)
    [lost] = {each.site for each in before.workspaces if each.site != "north"}
    [other] = {"south", "west"} - {lost}
    confirmed = part_pb2.Part.CONFIRMED
    had = await labels_at(here, lost, confirmed)
    head = await labels_at(here, "north", confirmed)
    assert len(had) == 2

    await here.sites[lost].stop()
    get = clusters_pb2.GetClusterRequest(name=NAME)
    async with asyncio.timeout(LOST_AFTER_S + 30):
        while (after := await stub.Get(get)).terms == 0:
            assert after.state == cluster_pb2.Cluster.ACTIVE
            await CLOCK.sleep(0.5)
    assert {each.site for each in after.workspaces} == {"north", other}
    assert after.plan.reasons[0] == f"{lost} is lost: anew worker-0 and worker-1 at {other}"
    assert await labels_at(here, other, confirmed) == had
    assert await labels_at(here, "north", confirmed) == head
    async with asyncio.timeout(20):
        while not all(each.ready for each in (await stub.Get(get)).workspaces):
            await CLOCK.sleep(0.2)

    await here.sites[lost].start()
    async with asyncio.timeout(30):
        while any(part.state == confirmed for part in await here.parts(lost)):
            await CLOCK.sleep(0.5)
    assert [part.end_reason for part in await here.parts(lost)] == ["PART_LOST"]
    assert (await stub.Get(get)).state == cluster_pb2.Cluster.ACTIVE
