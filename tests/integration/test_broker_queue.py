"""Leases that run when there is room, through the broker's API, on real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import action_pb2
from intertie.broker.adapters import keys
from intertie.common import errors
from intertie.common.clock import SystemClock
from tests.integration.broker_meta import metasched
from tests.integration.broker_site import Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.test_broker_clusters import until

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster


@pytest.fixture
async def here(
    tmp_path: Path, etcd_server: EtcdServer, etcd_prefix: str, north: TestDomain, meta: TestDomain
) -> AsyncIterator[Site]:
    async with site(tmp_path, etcd_server.settings(etcd_prefix), north, [meta]) as up:
        yield up


def best_effort(
    count: int = 2, *, lasts_s: float = 3600, max_wait_s: float = 0, **more: Any
) -> cluster_pb2.ClusterSpec:
    spec = cluster_spec(count=count, **more)
    spec.lease.kind = cluster_pb2.LeaseTerms.BEST_EFFORT
    spec.lease.duration.FromTimedelta(timedelta(seconds=lasts_s))
    if max_wait_s:
        spec.lease.max_wait.FromTimedelta(timedelta(seconds=max_wait_s))
    return spec


async def eventually(here: Site, name: str, holds: Any) -> cluster_pb2.Cluster:
    stub = here.clusters()
    async with asyncio.timeout(30):
        while not holds(now := await stub.Get(clusters_pb2.GetClusterRequest(name=name))):
            await SystemClock().sleep(0.05)
    return now


async def test_it_starts_at_once_where_there_is_room_and_ends_after_its_time(here: Site) -> None:
    stub = here.clusters()
    made = await stub.Create(create("one", best_effort(lasts_s=3), "r1"))
    assert made.spec.lease.kind == cluster_pb2.LeaseTerms.BEST_EFFORT
    told = await until(stub, made.name, Cluster.ENDED)
    states = [each.state for each in told]
    assert states[-1] == Cluster.ENDED
    assert Cluster.ACTIVE in states
    ran = told[-1].window
    lasted = ran.end_time.ToDatetime() - ran.start_time.ToDatetime()
    assert lasted == timedelta(seconds=3)
    again = await stub.Create(create("one", best_effort(lasts_s=3), "r1"))
    assert (again.uid, again.state) == (made.uid, Cluster.ENDED), "a retry takes nothing"


async def test_it_waits_its_turn_says_for_what_and_takes_nothing_meanwhile(here: Site) -> None:
    """A site of eight vCPUs is full; the first in line starts once there is room, and the one
    behind it that fits beside what runs does at once."""
    stub = here.clusters()
    full = await stub.Create(create("full", cluster_spec(count=7), "full"))
    await stub.Create(create("wide", best_effort(8, pair_mbit_s=0), "wide"))
    wide = await eventually(here, f"{full.name[:-4]}wide", lambda each: each.plan.shortfalls)
    assert (wide.state, len(wide.workspaces)) == (Cluster.QUEUED, 0)
    assert not wide.HasField("window")
    assert wide.plan.reasons[0] == "first in line at north"
    assert "vcpus" in {each.resource for each in wide.plan.shortfalls}
    assert wide.plan.start_time.ToDatetime() >= full.window.end_time.ToDatetime()
    assert len((await here.etcd.range(keys.PARTS)).entries) == 1, "it has no part"

    small = await stub.Create(create("small", best_effort(1, lasts_s=600), "small"))
    await until(stub, small.name, Cluster.ACTIVE)
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert [each.state for each in listed.clusters if each.name == wide.name] == [Cluster.QUEUED]

    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=small.name))
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=full.name))
    began = (await until(stub, wide.name, Cluster.ACTIVE))[-1]
    assert len(began.workspaces) == 8
    assert began.HasField("window")


async def test_one_that_waits_can_be_deleted_and_does_not_wait_for_ever(here: Site) -> None:
    stub = here.clusters()
    full = await stub.Create(create("full", cluster_spec(count=8), "full"))
    one = await stub.Create(create("one", best_effort(), "one"))
    gone = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=one.name))
    assert gone.state == Cluster.CANCELLED
    two = await stub.Create(create("two", best_effort(max_wait_s=1), "two"))
    over = (await until(stub, two.name, Cluster.FAILED))[-1]
    assert over.failure.reason == "WAITED_TOO_LONG"
    assert over.failure.message == ("it found no room at north for 0:00:01, and waits no longer")
    three = await stub.Create(create("three", best_effort(), "three"))
    act = clusters_pb2.ActOnClusterRequest(
        name=three.name, action=action_pb2.STOP, request_id="act"
    )
    assert isinstance(await refusal(stub.Act(act)), errors.ActionIllegal)
    update = clusters_pb2.UpdateClusterRequest(
        cluster=Cluster(name=three.name, spec=best_effort(3)), request_id="up"
    )
    update.update_mask.paths.append("spec.groups")
    refused = await refusal(stub.Update(update))
    assert isinstance(refused, errors.FieldInvalid)
    assert "BEST_EFFORT" in refused.problem
    assert full.name


async def test_what_never_fits_or_is_not_of_this_site_alone_is_refused(
    tmp_path: Path, etcd_server: EtcdServer, etcd_prefix: str, north: TestDomain, meta: TestDomain
) -> None:
    """Though there is a meta-scheduler: none of them is handed on."""
    settings = etcd_server.settings(etcd_prefix)
    async with (
        metasched(tmp_path, meta, [north]) as beyond,
        site(tmp_path, settings, north, [meta], metascheds=[beyond.peer]) as here,
    ):
        stub = here.clusters()
        never = await refusal(stub.Create(create("nine", best_effort(9), "nine")))
        assert isinstance(never, errors.NoCapacity)
        spread = best_effort(2)
        spread.groups[0].placement.min_sites = 2
        two = await refusal(stub.Create(create("two", spread, "two")))
        assert isinstance(two, errors.FieldInvalid)
        assert two.field == "spec.lease.kind"
        assert "worker wants 2 sites or more" in two.problem
        assert not (await here.etcd.range(keys.CLUSTERS)).entries
        assert not (await here.etcd.range(keys.FORWARDS)).entries


async def test_the_plan_of_one_that_would_wait_takes_nothing(here: Site) -> None:
    stub = here.clusters()
    full = await stub.Create(create("full", cluster_spec(count=8), "full"))
    planned = await stub.Create(create("one", best_effort(), "", validate_only=True))
    assert planned.state == Cluster.PLANNED
    assert planned.plan.start_time.ToDatetime() >= full.window.end_time.ToDatetime()
    assert planned.plan.reasons[0] == "first in line at north"
    assert len((await here.etcd.range(keys.CLUSTERS)).entries) == 1
