"""A tenant that asks for more than its site lets it have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.broker.settings import QuotaSettings
from intertie.common import errors
from intertie.common.rpc.client import to_domain_error
from tests.integration.broker_site import LARGE_HOST, Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain

pytestmark = pytest.mark.etcd

VCPUS = 5


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
) -> AsyncIterator[Site]:
    """Room for 16, of which `demo` may have five at one time."""
    etcd, hosts = etcd_server.settings(etcd_prefix), {"n1": LARGE_HOST}
    quotas = (QuotaSettings(tenant="demo", vcpus=VCPUS),)
    async with site(tmp_path / "s", etcd, north, (south,), hosts=hosts, quotas=quotas) as up:
        yield up


async def test_of_many_at_once_as_many_are_had_as_the_quota_lets(here: Site) -> None:
    stub, spec = here.clusters(), cluster_spec(count=1, pair_mbit_s=0)
    answers = await asyncio.gather(
        *(stub.Create(create(f"c{n}", spec, f"r{n}")) for n in range(2 * VCPUS)),
        return_exceptions=True,
    )
    made = [each for each in answers if isinstance(each, cluster_pb2.Cluster)]
    assert len(made) == VCPUS
    for each in answers:
        if isinstance(each, grpc.aio.AioRpcError):
            meant = to_domain_error(each)
            assert isinstance(meant, errors.NoCapacity)
            [short] = meant.shortfalls
            assert (short.resource, short.wanted, short.available) == ("quota_vcpus", 1, 0)
            assert "tenant demo" in short.message

    other = here.clusters(here.domain.user("physics", "paul"))
    request = create("theirs", spec, "r1")
    request.parent = "-/tenants/physics"
    assert (await other.Create(request)).name.endswith("/theirs")

    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made[0].name))
    async with asyncio.timeout(20):
        async for seen in stub.Watch(clusters_pb2.WatchClusterRequest(name=made[0].name)):
            if seen.state == cluster_pb2.Cluster.CANCELLED:
                break
    assert (await stub.Create(create("again", spec, "r-again"))).name.endswith("/again")
