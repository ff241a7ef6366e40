"""Leases that are done by a moment, through the broker's API, on real etcd: put aside for others
while that can be, and done in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.broker.settings import QueueSettings
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.rpc.spec_proto import timestamp_to_proto
from tests.integration.broker_site import Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.test_broker_clusters import until
from tests.integration.test_broker_giving_way import part_of, plain
from tests.integration.test_broker_queue import best_effort, eventually

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster


@pytest.fixture
async def here(
    tmp_path: Path, etcd_server: EtcdServer, etcd_prefix: str, north: TestDomain, meta: TestDomain
) -> AsyncIterator[Site]:
    settings = etcd_server.settings(etcd_prefix)
    queue = QueueSettings(pool_mib_s=100, worth_s=1)
    async with site(tmp_path, settings, north, [meta], queue=queue) as up:
        yield up


def by_deadline(count: int, deadline: datetime, *, lasts_s: float) -> cluster_pb2.ClusterSpec:
    spec = cluster_spec(count=count, memory_mib=32, pair_mbit_s=0)
    spec.lease.kind = cluster_pb2.LeaseTerms.DEADLINE
    spec.lease.duration.FromTimedelta(timedelta(seconds=lasts_s))
    spec.lease.deadline.CopyFrom(timestamp_to_proto(deadline))
    return spec


async def test_it_is_put_aside_and_done_in_time_and_what_would_prevent_it_is_refused(
    here: Site,
) -> None:
    """All of the site runs for it. One that comes at once gets what it can do without for so long,
    one that would take it for longer nothing, and it goes on when it was promised to."""
    stub, now = here.clusters(), SystemClock().now()
    deadline = now + timedelta(seconds=90)
    spec = by_deadline(8, deadline, lasts_s=12)
    planned = await stub.Create(create("work", spec, "", validate_only=True))
    assert planned.HasField("window")
    work = await stub.Create(create("work", spec, "work"))
    assert work.spec.lease.kind == spec.lease.kind
    assert work.spec.lease.deadline == spec.lease.deadline
    assert {each.kind for each in work.price.terms} == {"deadline"}
    too_wide = by_deadline(8, deadline, lasts_s=80)
    refused = await refusal(stub.Create(create("wide", too_wide, "wide")))
    assert isinstance(refused, errors.NoCapacity), "both are not done by then"
    too_long = by_deadline(1, deadline, lasts_s=91)
    never = await refusal(stub.Create(create("never", too_long, "never")))
    assert isinstance(never, errors.FieldInvalid)
    assert never.field == "spec.lease.deadline"
    await until(stub, work.name, Cluster.ACTIVE)

    long = await refusal(stub.Create(create("long", plain(1, lasts_s=90), "long")))
    assert isinstance(long, errors.NoCapacity), "it would be done too late"
    urgent = await stub.Create(create("urgent", plain(8, lasts_s=8), "urgent"))
    aside = await stub.Get(clusters_pb2.GetClusterRequest(name=work.name))
    assert aside.state == Cluster.SUSPENDED
    part = await part_of(here, work.name)
    assert part.keeping is not None
    assert part.keeping.promised is not None
    room = part.keeping.promised
    assert room.end == deadline
    assert room.duration >= timedelta(seconds=12) - aside.run_time.ToTimedelta()
    idle = best_effort(8, lasts_s=600, memory_mib=32, pair_mbit_s=0)
    await stub.Create(create("idle", idle, "idle"))
    starts_in = (room.start - SystemClock().now()) / timedelta(seconds=1)
    late = plain(1, start_in_s=starts_in + 1, lasts_s=20)
    refused = await refusal(stub.Create(create("late", late, "late")))
    assert isinstance(refused, errors.NoCapacity), "that room is promised"

    await until(stub, urgent.name, Cluster.ENDED)
    over = await eventually(here, work.name, lambda each: each.state == Cluster.ENDED)
    assert over.run_time.ToTimedelta() == timedelta(seconds=12)
    assert over.window.start_time.ToDatetime() >= urgent.window.end_time.ToDatetime()
    assert over.window.end_time.ToDatetime(now.tzinfo) <= deadline
    assert set(here.agents.saves.values()) == {1}, "each guest was saved once"
