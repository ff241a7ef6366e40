"""Leases over two sites that wait, with real brokers on real etcd, over real TLS."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.common import errors
from intertie.common.rpc.client import channel
from intertie.metasched.usecases.brief import HOLD_WITHIN
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.pki import trust_in
from tests.integration.refusals import refusal
from tests.integration.test_metasched import NAME, two_groups, until

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster
SAVE = timedelta(seconds=11 + 1)
"""Of four guests of 128 MiB on a host, at 50 MiB/s, and the margin."""
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


async def at_south(here: Federation) -> clusters_pb2_grpc.ClustersAsyncStub:
    """As a user of that site alone."""
    domain = next(each for each in here.domains if each.name.startswith("south"))
    line = channel(
        here.sites["south"].address,
        domain.user("demo", "bob"),
        trust_in(*here.domains),
        domain.server_name("broker"),
    )
    here.channels.append(line)
    return clusters_pb2_grpc.ClustersStub(line)


def urgent() -> cluster_pb2.ClusterSpec:
    """Half of what south has, now."""
    spec = two_groups(4)
    del spec.groups[0]
    spec.groups[0].placement.Clear()
    del spec.groups[0].allocation.pairs[:]
    spec.lease.duration.FromTimedelta(timedelta(hours=1))
    return spec


async def until_in(
    here: Federation, states: set[cluster_pb2.Cluster.State.ValueType], seconds: float = 40
) -> cluster_pb2.Cluster:
    async with asyncio.timeout(seconds):
        while (found := await told(here)).state not in states:
            await CLOCK.sleep(0.2)
    return found


async def agreed(here: Federation, terms: int) -> dict[str, part_pb2.Part]:
    async with asyncio.timeout(30):
        while True:
            parts = {
                site: next(each for each in await here.parts(site) if each.spec.cluster == NAME)
                for site in here.sites
            }
            if {each.terms for each in parts.values()} == {terms}:
                return parts
            await CLOCK.sleep(0.1)


async def test_one_site_puts_it_aside_both_do_and_it_goes_on_where_it_was(
    here: Federation,
) -> None:
    """For a lease of one site that does not wait, of which the other site knows nothing. The
    meta-scheduler is killed when it is put aside, and when it is to go on."""
    stub = here.clusters()
    await stub.Create(create("c1", waiting(8)))
    begun = await until(here, Cluster.ACTIVE, 40)
    assert {each.kind for each in begun.price.terms} == {"best_effort"}
    hosts = {each.name: each.host for each in begun.workspaces}

    local = await at_south(here)
    first = create("urgent", urgent(), "r-urgent")
    made = await local.Create(first)
    assert "1 lease gives way that may have to" in made.plan.reasons
    south = next(each for each in await here.parts("south") if each.participants)
    assert south.spec.window.end_time.seconds <= made.window.start_time.seconds
    assert south.HasField("keep_until")
    await here.kill()
    await here.start()
    aside = await until_in(here, {Cluster.SUSPENDED})
    parts = await agreed(here, 1)
    ends = {each.spec.window.end_time.ToNanoseconds() for each in parts.values()}
    assert ends == {aside.window.end_time.ToNanoseconds()}
    assert all(each.spec.recallable.put_aside for each in parts.values())
    assert not any(each.HasField("recalled_end") for each in parts.values())
    assert all(each.HasField("keep_until") for each in parts.values())
    assert timedelta() < aside.run_time.ToTimedelta() < timedelta(minutes=5)

    await local.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    await here.kill()
    await here.start()
    on = await until_in(here, {Cluster.ACTIVE}, 60)
    assert {each.name: each.host for each in on.workspaces} == hosts
    assert (on.uid, on.terms) == (begun.uid, 2)
    parts = await agreed(here, 2)
    assert not any(each.HasField("keep_until") for each in parts.values())
    lasts = on.window.end_time.ToDatetime() - on.window.start_time.ToDatetime()
    assert lasts > timedelta(hours=1) - on.run_time.ToTimedelta()
    stub = here.clusters()
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=NAME))
    await until(here, Cluster.CANCELLED)


async def test_a_lease_in_advance_over_both_puts_one_aside_in_time(here: Federation) -> None:
    """What sites offer to one that does not wait has the room that they would make."""
    stub = here.clusters()
    await stub.Create(create("c1", waiting(8)))
    await until(here, Cluster.ACTIVE, 40)
    later = two_groups(4)
    later.lease.start_time.FromDatetime(CLOCK.now() + timedelta(minutes=10))
    later.lease.duration.FromTimedelta(timedelta(hours=1))
    other = await stub.Create(create("other", later))
    assert other.state == Cluster.SCHEDULED
    parts = await agreed(here, 1)
    ends = {each.spec.window.end_time.ToNanoseconds() for each in parts.values()}
    begins = other.window.start_time.ToNanoseconds()
    assert len(ends) == 1
    assert begins - 60 * 10**9 < min(ends) < begins
    assert (await told(here)).state == Cluster.ACTIVE, "until then it runs"


async def test_one_over_both_that_starts_now_begins_when_both_can_have_saved(
    here: Federation,
) -> None:
    """A bug: it was refused, as no site moved the window of all. What gives way goes on."""
    stub = here.clusters()
    work = waiting(8)
    work.groups[0].count = 8
    work.groups[1].allocation.pairs.clear()
    await stub.Create(create("c1", work))
    await until(here, Cluster.ACTIVE, 40)
    impossible = await refusal(stub.Create(create("much", two_groups(9))))
    assert isinstance(impossible, errors.NoCapacity)
    assert (await told(here)).state == Cluster.ACTIVE, "nobody gives way in vain"
    planned = await stub.Create(create("other", two_groups(4), "", validate_only=True))
    assert (await told(here)).state == Cluster.ACTIVE, "to look moves nobody"
    before = CLOCK.now()
    other = await stub.Create(create("other", two_groups(4)))
    assert other.state == Cluster.SCHEDULED
    begins = other.window.start_time.ToDatetime(before.tzinfo)
    assert before + SAVE <= begins <= CLOCK.now() + SAVE + HOLD_WITHIN + timedelta(seconds=1)
    assert (
        "leases give way that may have to at north and south, and it begins when they are saved"
        in other.plan.reasons
    )
    assert planned.window.start_time.seconds <= other.window.start_time.seconds
    parts = [each for site in here.sites for each in await here.parts(site)]
    windows = [each.spec.window for each in parts if not each.spec.HasField("recallable")]
    assert windows == [other.window, other.window]
    for each in parts:
        if each.spec.HasField("recallable"):
            end = each.spec.window.end_time.ToDatetime(before.tzinfo)
            assert before < end <= begins - timedelta(seconds=1)
    await here.kill()
    await here.start()
    await until_in(here, {Cluster.SUSPENDED})
    stub = here.clusters()
    async with asyncio.timeout(60):
        while (await told(here, OTHER)).state != Cluster.ACTIVE:
            await CLOCK.sleep(0.2)
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=OTHER))
    on = await until_in(here, {Cluster.ACTIVE}, 60)
    assert on.terms == 2
