"""Two meta-schedulers that know nothing of each other, over the same sites, which have not room for
all that both want."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.common import errors
from intertie.common.rpc.client import to_domain_error
from tests.fakes.site_brokers import CLOCK, Federation, create, federation
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.test_metasched import two_groups

pytestmark = pytest.mark.etcd

USERS, TURNS = 5, 2
"""Of each meta-scheduler; the sites have room for four clusters at a time."""
PATIENCE_S = 60.0
OVER = {"RELEASED", "EXPIRED"}
BEGUN = {"CONFIRMED", "ENDED"}


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
    meta: TestDomain,
) -> AsyncIterator[Federation]:
    beta = TestDomain.create(tmp_path / "pki", "beta.meta.intertie")
    async with federation(
        tmp_path, etcd_server, etcd_prefix, north, south, meta, rivals=[beta]
    ) as up:
        yield up


async def test_none_of_both_gets_a_part_of_a_cluster_and_both_get_on(here: Federation) -> None:
    """Each user wants a cluster over both sites, gives it back, and wants another one."""
    [beta] = here.rivals
    had: dict[str, int] = {"meta": 0, "beta": 0}
    refused: dict[str, int] = {"meta": 0, "beta": 0}

    async def use(at: Federation, number: int) -> None:
        name, stub = at.settings.name, at.clusters()
        for turn in range(TURNS):
            request = create(f"c{number}-{turn}", two_groups(2, mbit_s=1))
            for attempt in range(1000):
                request.request_id = f"r-{number}-{turn}-{attempt}"
                try:
                    cluster = await stub.Create(request)
                except grpc.aio.AioRpcError as error:
                    why = to_domain_error(error)
                    assert isinstance(why, errors.NoCapacity | errors.Aborted), why
                    refused[name] += 1
                    await CLOCK.sleep(0.2)
                else:
                    break
            assert {each.site for each in cluster.workspaces} == {"north", "south"}
            had[name] += 1
            await stub.Delete(clusters_pb2.DeleteClusterRequest(name=cluster.name))
            async for seen in stub.Watch(clusters_pb2.WatchClusterRequest(name=cluster.name)):
                if seen.state == cluster_pb2.Cluster.CANCELLED:
                    break

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(
            *(use(each, number) for each in (here, beta) for number in range(USERS))
        )
    assert had == {"meta": USERS * TURNS, "beta": USERS * TURNS}
    assert all(refused.values()), "they were in each other's way"
    states = await here.until_settled()
    begun = [each for each in states.values() if each & BEGUN]
    assert len(begun) == 2 * USERS * TURNS
    assert all(each <= BEGUN or each <= OVER for each in states.values()), states
