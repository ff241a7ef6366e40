"""Leases over two sites that are done by a deadline, with real brokers on real etcd, over real
TLS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.broker.domain import recalling
from intertie.common import errors
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.refusals import refusal
from tests.integration.test_metasched import NAME, two_groups, until
from tests.integration.test_metasched_queue import (
    agreed,
    at_south,
    told,
    until_in,
    urgent,
    waiting,
)

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster
HOUR = timedelta(hours=1)


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


def in_time(within: timedelta, *, lasts: timedelta = HOUR) -> cluster_pb2.ClusterSpec:
    """All that south has."""
    spec = two_groups(8)
    spec.lease.kind = cluster_pb2.LeaseTerms.DEADLINE
    spec.lease.duration.FromTimedelta(lasts)
    spec.lease.deadline.FromDatetime(CLOCK.now() + within)
    return spec


def promise_of(part: part_pb2.Part) -> tuple[datetime, datetime]:
    said = part.spec.recallable.promised
    start, end = (each.ToDatetime(tzinfo=UTC) for each in (said.start_time, said.end_time))
    return start, end


async def test_it_is_admitted_with_room_on_record_or_refused(here: Federation) -> None:
    stub = here.clusters()
    await stub.Create(create("other", two_groups(4), "r-other"))
    refused = await refusal(stub.Create(create("c1", in_time(timedelta(minutes=70)))))
    assert isinstance(refused, errors.NoCapacity)
    assert {"south"} <= {each.site for each in refused.shortfalls}
    made = await stub.Create(create("c2", in_time(timedelta(hours=6)), "r2"))
    assert made.state == Cluster.SCHEDULED
    assert made.window.start_time.ToDatetime() - made.create_time.ToDatetime() > timedelta(
        minutes=55
    )
    for site in here.sites:
        parts = await here.parts(site)
        assert len([each for each in parts if each.spec.recallable.HasField("promised")]) == 1
    # What is promised counts: nobody else gets it.
    promised, _ = promise_of(
        next(
            each
            for each in await here.parts("south")
            if each.terms == 0 and each.spec.recallable.HasField("promised")
        )
    )
    ahead = two_groups(8)
    ahead.lease.start_time.FromDatetime(promised)
    ahead.lease.duration.FromTimedelta(timedelta(minutes=10))
    late = await refusal(stub.Create(create("c3", ahead, "r3")))
    assert isinstance(late, errors.NoCapacity)


async def test_leases_that_wait_give_way_to_it(here: Federation) -> None:
    stub = here.clusters()
    await stub.Create(create("c1", waiting(8)))
    await until(here, Cluster.ACTIVE, 40)
    due = in_time(timedelta(minutes=100))
    made = await stub.Create(create("due", due, "r-due"))
    assert made.state == Cluster.SCHEDULED
    assert made.window.end_time.ToDatetime() <= due.lease.deadline.ToDatetime()
    parts = await agreed(here, 1)
    begins = made.window.start_time.ToNanoseconds()
    assert all(each.spec.window.end_time.ToNanoseconds() < begins for each in parts.values())


async def test_put_aside_by_one_site_it_goes_on_at_both_as_it_was_promised(
    here: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta-scheduler is killed when it is put aside, and when it is to go on."""
    monkeypatch.setattr(recalling, "TOLD_WITHIN", timedelta(seconds=5))
    stub, lasts = here.clusters(), timedelta(seconds=50)
    due = in_time(timedelta(seconds=190), lasts=lasts)
    made = await stub.Create(create("c1", due))
    assert made.state == Cluster.SCHEDULED
    [south] = await here.parts("south")
    promised, last = promise_of(south)
    assert last <= due.lease.deadline.ToDatetime(tzinfo=UTC)

    local = await at_south(here)
    other = urgent()
    other.lease.ClearField("duration")
    other.lease.end_time.FromDatetime(promised)
    first = await local.Create(create("urgent", other, "r-urgent"))
    assert "1 lease gives way that may have to" in first.plan.reasons
    await here.kill()
    await here.start()
    aside = await until_in(here, {Cluster.SUSPENDED})
    assert aside.run_time.ToTimedelta() < lasts
    parts = await agreed(here, 1)
    for each in parts.values():
        assert promise_of(each) == (promised, last)
        assert each.keep_until.ToDatetime(tzinfo=UTC) == last

    await CLOCK.sleep((promised - CLOCK.now()).total_seconds())
    await here.kill()
    await here.start()
    on = await until_in(here, {Cluster.SCHEDULED, Cluster.ACTIVE}, 40)
    parts = await agreed(here, 2)
    windows = {each.spec.window.SerializeToString() for each in parts.values()}
    assert windows == {on.window.SerializeToString()}
    begins, ends = (
        each.ToDatetime(tzinfo=UTC) for each in (on.window.start_time, on.window.end_time)
    )
    assert promised <= begins
    assert ends <= last
    assert ends - begins >= lasts - on.run_time.ToTimedelta()
    assert not any(each.spec.recallable.HasField("promised") for each in parts.values())
    await until_in(here, {Cluster.ACTIVE}, 30)
    await here.clusters().Delete(clusters_pb2.DeleteClusterRequest(name=NAME))
    await until(here, Cluster.CANCELLED)


async def test_put_aside_it_goes_on_sooner_where_all_have_room(here: Federation) -> None:
    stub = here.clusters()
    made = await stub.Create(create("c1", in_time(timedelta(hours=4))))
    await until(here, Cluster.ACTIVE, 40)
    local = await at_south(here)
    first = await local.Create(create("urgent", urgent(), "r-urgent"))
    await until_in(here, {Cluster.SUSPENDED})
    shown = await told(here)
    await local.Delete(clusters_pb2.DeleteClusterRequest(name=first.name))
    on = await until_in(here, {Cluster.ACTIVE}, 60)
    assert (on.uid, on.terms) == (made.uid, 2)
    assert on.window.start_time.ToNanoseconds() > shown.window.end_time.ToNanoseconds()
    parts = await agreed(here, 2)
    assert all(each.spec.recallable.HasField("promised") for each in parts.values())
