"""What gateways say of the ways between sites, at brokers and at the meta-scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.nodeagent.v1 import records_pb2
from intertie.common.rpc.spec_proto import duration_to_proto, timestamp_to_proto
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.test_metasched import NAME, two_groups, until

pytestmark = pytest.mark.etcd

GATEWAY = "10.250.0.11"
"""Of either site."""
TOOK = timedelta(milliseconds=41)
LINKS = {("north", "south"), ("south", "north")}


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


async def say(here: Federation, site: str, *, lost_since: datetime | None = None) -> None:
    """By the site's gateway, of the way to the other: the round trip, or that it is lost."""
    way = records_pb2.Way(address=GATEWAY)
    if lost_since is None:
        way.round_trip.CopyFrom(duration_to_proto(TOOK))
    else:
        way.lost_since.CopyFrom(timestamp_to_proto(lost_since))
    elsewhere = records_pb2.Way(address="10.250.0.99", lost_since=timestamp_to_proto(CLOCK.now()))
    agents = here.sites[site].agents
    agents.ways = [way, elsewhere]
    await agents.report(CLOCK)


async def seen_at(here: Federation, site: str) -> part_pb2.Part:
    """As the broker's List and its Get say it."""
    [part] = await here.parts(site)
    async with here.operating(site) as line:
        stub = parts_pb2_grpc.PartsStub(line)
        got = await stub.Get(parts_pb2.GetPartRequest(name=part.name))
        assert list(got.ways) == list(part.ways)
        return got


async def told(
    here: Federation, says: Callable[[cluster_pb2.PlannedLink], bool]
) -> cluster_pb2.Cluster:
    """By the meta-scheduler, to one who watches, once it says so of both directions."""
    request = clusters_pb2.WatchClusterRequest(name=NAME)
    async with asyncio.timeout(15):
        async for cluster in here.clusters().Watch(request):
            if cluster.plan.links and all(map(says, cluster.plan.links)):
                return cluster
    raise AssertionError("it was never told")


async def test_a_lost_way_is_seen_on_the_parts_of_brokers_and_on_the_cluster_s_links(
    here: Federation,
) -> None:
    stub, get = here.clusters(), clusters_pb2.GetClusterRequest(name=NAME)
    await stub.Create(create("c1", two_groups()))
    before = await until(here, cluster_pb2.Cluster.ACTIVE)
    unknown = await seen_at(here, "north")
    assert [each.site for each in unknown.ways] == ["south"]
    assert not unknown.ways[0].HasField("round_trip")

    await say(here, "north")
    part = await seen_at(here, "north")
    [way] = part.ways
    assert (way.site, way.round_trip.ToTimedelta()) == ("south", TOOK)
    assert part.etag == unknown.etag
    async with asyncio.timeout(10):
        while not all(link.HasField("round_trip") for link in (await stub.Get(get)).plan.links):
            await CLOCK.sleep(0.2)
    cluster = await stub.Get(get)
    assert {(each.from_site, each.to_site) for each in cluster.plan.links} == LINKS
    assert {each.round_trip.ToTimedelta() for each in cluster.plan.links} == {TOOK}
    assert {each.latency.ToTimedelta() for each in cluster.plan.links} == {
        timedelta(milliseconds=5)
    }

    since = CLOCK.now() - timedelta(seconds=6)
    await say(here, "south", lost_since=since)
    [way] = (await seen_at(here, "south")).ways
    assert (way.site, way.lost_since) == ("north", timestamp_to_proto(since))
    cluster = await told(here, lambda link: link.HasField("lost_since"))
    assert {each.lost_since.ToNanoseconds() for each in cluster.plan.links} == {
        timestamp_to_proto(since).ToNanoseconds()
    }
    assert cluster.state == cluster_pb2.Cluster.ACTIVE
    assert cluster.etag == before.etag

    await say(here, "south")
    cluster = await told(here, lambda link: not link.HasField("lost_since"))
    assert all(link.HasField("round_trip") for link in cluster.plan.links)
