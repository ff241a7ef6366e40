"""Data sets and volumes over the API: at one site, and over two with a meta-scheduler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.common import errors
from tests.fakes import site_brokers
from tests.fakes.site_brokers import CLOCK, Federation
from tests.integration.broker_site import DIGEST, Site, cluster_spec, create
from tests.integration.refusals import refusal
from tests.integration.test_broker_clusters import until
from tests.integration.test_broker_update import GROUPS, update
from tests.integration.test_metasched import two_groups
from tests.integration.test_metasched import until as until_over_sites

pytestmark = pytest.mark.etcd

HALF = resources_pb2.DiskTerm(guarantee_iops=40, cap_iops=50, cap_mib_s=5)


def with_disks(
    spec: cluster_pb2.ClusterSpec, source: str = "guest", size_mib: int = 256
) -> cluster_pb2.ClusterSpec:
    spec.datasets.add(name="genomes", source=source, groups=["worker"])
    spec.volumes.add(name="scratch", group="worker", size_mib=size_mib, disk=HALF)
    return spec


def told(disks: Any) -> list[tuple[str, str, int, int]]:
    return [(each.name, each.image, each.size_mib, each.disk.cap_iops) for each in disks]


EACH = [("genomes", DIGEST, 0, 500), ("scratch", "", 256, 50)]
"""With the sites' default caps for the data set."""


async def test_a_site_alone_has_them_counted_told_to_hosts_and_left_as_they_are(
    here: Site,
) -> None:
    stub = here.clusters()
    lost = await refusal(stub.Create(create("one", with_disks(cluster_spec(), "nowhere"), "r0")))
    assert isinstance(lost, errors.ImageNotReady)
    assert (lost.image, lost.field) == ("nowhere", "spec.datasets[0].source")
    full = await refusal(
        stub.Create(create("one", with_disks(cluster_spec(), size_mib=1 << 20), "r1"))
    )
    assert isinstance(full, errors.NoCapacity)
    assert {each.resource for each in full.shortfalls} == {"disk"}

    made = await stub.Create(create("one", with_disks(cluster_spec(count=1)), "r2"))
    await until(stub, made.name, cluster_pb2.Cluster.ACTIVE)
    promised = {(getattr(each, "from"), each.to, each.guarantee) for each in made.guarantees}
    assert promised == {("worker-0", "", 100), ("worker-0", "scratch", 40)}
    [wanted] = here.agents.wanted.values()
    assert told(wanted.workspaces[0].disks) == EACH

    more = await stub.Update(update(made.name, with_disks(cluster_spec(count=2)), "u1", GROUPS))
    assert len(more.workspaces) == 2
    other = with_disks(cluster_spec(count=2), size_mib=512)
    refused = await refusal(stub.Update(update(made.name, other, "u2", GROUPS)))
    assert isinstance(refused, errors.FieldInvalid)
    assert refused.field == "spec.volumes"
    async with asyncio.timeout(20):
        while sum(len(each.workspaces) for each in here.agents.wanted.values()) < 2:
            await CLOCK.sleep(0.1)
    there = [ws for each in here.agents.wanted.values() for ws in each.workspaces]
    assert [told(each.disks) for each in there] == [EACH, EACH]


async def test_over_two_sites_a_part_has_what_its_groups_have(two_sites: Federation) -> None:
    stub = two_sites.clusters()
    asked = site_brokers.create("c1", with_disks(two_groups(), "nowhere"), "r0")
    lost = await refusal(stub.Create(asked))
    assert isinstance(lost, errors.ImageNotReady)
    assert (lost.image, lost.site, lost.field) == ("nowhere", "south", "spec.datasets[0].source")

    made = await stub.Create(site_brokers.create("c1", with_disks(two_groups())))
    await until_over_sites(two_sites, cluster_pb2.Cluster.ACTIVE)
    [north], [south] = await two_sites.parts("north"), await two_sites.parts("south")
    assert [told(each.disks) for each in north.spec.workspaces] == [[]]
    assert [told(each.disks) for each in south.spec.workspaces] == [EACH, EACH]
    promised = {(getattr(each, "from"), each.to) for each in made.guarantees}
    assert {("worker-0", "scratch"), ("worker-1", "scratch")} <= promised
