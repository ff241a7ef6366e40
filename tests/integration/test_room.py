"""A broker and a real etcd that becomes full: refused in time, ended all the same, and on again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.etcd import room
from intertie.common.etcd.client import Etcd, Put
from intertie.common.rpc.server import ADMISSIONS
from intertie.common.settings import RoomSettings
from tests.integration.broker_site import Site, cluster_spec, create, hold, site
from tests.integration.etcd_server import SmallQuota
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

MIB = 1 << 20
QUOTA_MIB = 48
SETTINGS = RoomSettings(quota_mib=QUOTA_MIB, refuse_above=0.5)
SERVING = int(health_pb2.HealthCheckResponse.SERVING)
NOT_SERVING = int(health_pb2.HealthCheckResponse.NOT_SERVING)
META = "spiffe://meta.meta.intertie/metasched"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallQuota]:
    monkeypatch.setattr(room, "LOOK_S", 0.2)
    server = SmallQuota(tmp_path, QUOTA_MIB)
    server.start()
    yield server
    server.kill()


async def fill(server: SmallQuota, times: int) -> None:
    """MiB, in a corner that is nobody's."""
    etcd = await Etcd.connect(server.settings("/filler"))
    try:
        for number in range(times):
            await etcd.txn([], [Put(f"{number}", bytes(MIB))])
    finally:
        await etcd.close()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.1)


async def health(here: Site, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(here.dial(here.domain.service("broker")))
    said = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(said.status)


def refuses(here: Site) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        return await health(here, ADMISSIONS) == NOT_SERVING

    return does


def takes(here: Site) -> Callable[[], Awaitable[bool]]:
    async def does() -> bool:
        return await health(here, ADMISSIONS) == SERVING

    return does


async def test_a_store_that_is_nearly_full_refuses_what_is_new_and_ends_what_stands(
    tmp_path: Path, north: TestDomain, meta: TestDomain, server: SmallQuota
) -> None:
    etcd = server.settings("/n")
    async with site(tmp_path / "b", etcd, north, (meta,), room=SETTINGS) as here:
        clusters, parts = here.clusters(), here.parts(meta.service("metasched"))
        stays = await clusters.Create(create("stays", cluster_spec(), "r1"))
        goes = await clusters.Create(create("goes", cluster_spec(count=1), "r2"))
        await eventually(takes(here))
        await fill(server, QUOTA_MIB // 2 + 2)
        await eventually(refuses(here))
        assert await health(here, "") == SERVING

        full = await refusal(clusters.Create(create("new", cluster_spec(), "r3")))
        assert isinstance(full, errors.LedgerFull)
        assert f"quota of {QUOTA_MIB}" in full.problem
        assert "defrag" in full.problem
        waits = cluster_spec(count=1, pair_mbit_s=0)
        waits.lease.kind = cluster_pb2.LeaseTerms.BEST_EFFORT
        waits.lease.duration.FromTimedelta(timedelta(hours=1))
        assert isinstance(
            await refusal(clusters.Create(create("waits", waits, "r4"))), errors.LedgerFull
        )
        held = hold("t1", SystemClock(), META)
        assert isinstance(await refusal(parts.Hold(held)), errors.LedgerFull)
        more = clusters_pb2.UpdateClusterRequest(request_id="u1")
        more.cluster.name = stays.name
        more.cluster.spec.CopyFrom(cluster_spec(count=3))
        more.update_mask.paths.append("spec.groups")
        assert isinstance(await refusal(clusters.Update(more)), errors.LedgerFull)

        # What was answered is answered again, and what ends, ends: its hosts tell so, through etcd.
        again = await clusters.Create(create("stays", cluster_spec(), "r1"))
        assert again.uid == stays.uid
        await clusters.Delete(clusters_pb2.DeleteClusterRequest(name=goes.name))

        async def over() -> bool:
            found = await clusters.Get(clusters_pb2.GetClusterRequest(name=goes.name))
            return found.state == cluster_pb2.Cluster.CANCELLED

        await eventually(over)
        assert "NOSPACE" not in server.ctl("alarm", "list")

        server.ctl("del", "--prefix", "/filler")
        server.make_room()
        await eventually(takes(here))
        made = await clusters.Create(create("new", cluster_spec(count=1), "r3"))
        assert made.state in (cluster_pb2.Cluster.SCHEDULED, cluster_pb2.Cluster.ACTIVE)


async def test_a_store_at_its_quota_loses_nothing_and_goes_on_without_a_restart(
    tmp_path: Path, north: TestDomain, meta: TestDomain, server: SmallQuota
) -> None:
    """Another has filled it past what is refused here: not even an end is written down."""
    etcd = server.settings("/n")
    async with site(tmp_path / "b", etcd, north, (meta,), room=SETTINGS) as here:
        clusters = here.clusters()
        stays = await clusters.Create(create("stays", cluster_spec(), "r1"))
        with pytest.raises(errors.LedgerFull):
            await fill(server, 10 * QUOTA_MIB)
        assert "NOSPACE" in server.ctl("alarm", "list")
        await eventually(refuses(here))

        async def says_what_to_do() -> bool:
            full = await refusal(clusters.Create(create("new", cluster_spec(), "r2")))
            assert isinstance(full, errors.LedgerFull)
            return "alarm disarm" in full.problem

        await eventually(says_what_to_do)
        end = clusters_pb2.DeleteClusterRequest(name=stays.name)
        assert isinstance(await refusal(clusters.Delete(end)), errors.LedgerFull)

        server.ctl("del", "--prefix", "/filler")
        server.make_room()
        server.ctl("alarm", "disarm")
        await eventually(takes(here))
        assert (await clusters.Delete(end)).uid == stays.uid
        await clusters.Create(create("new", cluster_spec(count=1), "r2"))
        listed = await clusters.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
        assert [each.name.rpartition("/")[2] for each in listed.clusters] == ["new", "stays"]
