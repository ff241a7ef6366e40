"""Clusters of one site through the broker's API, on real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from intertie.api.broker.v1 import site_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.guarantees import GuaranteeKind
from intertie.nodeagent.adapters.etcd_records import EtcdRecords
from intertie.nodeagent.domain.measured import Measured
from intertie.nodeagent.domain.meters import (
    Promise,
)
from tests.integration.broker_site import HOST, Site, cluster_spec, create, site
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

NAME = "sites/north/tenants/demo/clusters"


async def until(
    stub: clusters_pb2_grpc.ClustersAsyncStub, name: str, state: cluster_pb2.Cluster.State.ValueType
) -> list[cluster_pb2.Cluster]:
    """Everything that Watch tells until the state is reached."""
    told = []
    async with asyncio.timeout(20):
        async for each in stub.Watch(clusters_pb2.WatchClusterRequest(name=name)):
            told.append(each)
            if each.state == state:
                break
    return told


async def test_a_cluster_is_admitted_becomes_active_and_leaves_nothing(here: Site) -> None:
    stub = here.clusters()
    made = await stub.Create(create("one", cluster_spec(), "r1"))
    assert made.name == f"{NAME}/one"
    assert made.state in (cluster_pb2.Cluster.SCHEDULED, cluster_pb2.Cluster.ACTIVE)
    assert {each.host for each in made.workspaces} == {"n1", "n2"}
    assert {each.kind for each in made.guarantees} == {
        cluster_pb2.Guarantee.PAIR_BANDWIDTH,
        cluster_pb2.Guarantee.DISK_IOPS,
    }
    assert made.plan.cost > 0
    [agreed] = made.price.terms
    assert (agreed.site, agreed.kind, agreed.window) == ("north", "immediate", made.window)
    assert made.plan.cost == made.price.amount == agreed.amount

    told = await until(stub, made.name, cluster_pb2.Cluster.ACTIVE)
    assert all(each.ready for each in told[-1].workspaces)
    wanted = list(here.agents.wanted.values())
    assert len(wanted) == 2
    for each in wanted:
        [network] = each.networks
        assert network.vni >= 4096
        assert network.mtu == 1450
        assert [len(tunnel.macs) for tunnel in network.tunnels] == [1]
        assert [pair.bandwidth.guarantee_mbit_s for pair in network.pairs] == [10]
        assert each.workspaces[0].nonce
    assert len({each.workspaces[0].nonce for each in wanted}) == 2

    ending = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    assert ending.HasField("end_requested_time")
    told = await until(stub, made.name, cluster_pb2.Cluster.CANCELLED)
    assert all(each.state == cluster_pb2.Workspace.ENDED for each in told[-1].workspaces)
    assert not (await here.etcd.range("wanted/")).entries
    assert not (await here.etcd.range("vni/")).entries
    again = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    assert again.state == cluster_pb2.Cluster.CANCELLED


async def test_what_agents_measure_is_told_with_the_guarantee_and_changes_no_etag(
    here: Site,
) -> None:
    stub = here.clusters()
    made = await stub.Create(create("one", cluster_spec(), "r1"))
    active = (await until(stub, made.name, cluster_pb2.Cluster.ACTIVE))[-1]
    one, two = active.workspaces
    uid = next(iter(here.agents.wanted.values())).part_uid
    now = datetime.now(UTC)
    out = Promise(
        part_uid=uid,
        kind=GuaranteeKind.PAIR_BANDWIDTH,
        network=one.addresses[0].network,
        source=one.addresses[0].mac,
        target=two.addresses[0].mac,
    )
    iops = Promise(part_uid=uid, kind=GuaranteeKind.DISK_IOPS, source=two.name.rpartition("/")[2])
    below = Measured(promised=10, value=6.5, backlogged=True, below_since=now)
    for workspace, promise in ((one, out), (two, iops)):
        records = EtcdRecords(here.etcd, workspace.host)
        await records.write_measured({promise: below}, at=now)

    request = clusters_pb2.GetClusterRequest(name=made.name)
    async with asyncio.timeout(10):
        while True:
            shown = await stub.Get(request)
            measured = [each for term in shown.guarantees for each in term.measured]
            if len(measured) == 2:
                break
            await SystemClock().sleep(0.05)
    assert shown.etag == active.etag
    assert [getattr(each, "from") for each in measured] == ["worker-0", "worker-1"]
    assert [each.to for each in measured] == ["worker-1", ""]
    for each in measured:
        assert (each.value, each.backlogged) == (6.5, True)
        assert each.measured_time.ToDatetime(UTC) == each.below_since.ToDatetime(UTC) == now


async def test_the_same_request_twice_is_one_cluster_and_another_body_is_refused(
    here: Site,
) -> None:
    stub = here.clusters()
    first, second = await asyncio.gather(
        stub.Create(create("one", cluster_spec(), "r1")),
        stub.Create(create("one", cluster_spec(), "r1")),
    )
    assert first.uid == second.uid
    assert len((await here.etcd.range("parts/")).entries) == 1
    other = await refusal(stub.Create(create("one", cluster_spec(count=3), "r1")))
    assert isinstance(other, errors.RequestIdReuse)
    taken = await refusal(stub.Create(create("one", cluster_spec(), "r2")))
    assert isinstance(taken, errors.NameTaken)


async def test_what_does_not_fit_is_refused_with_what_is_short(here: Site) -> None:
    stub = here.clusters()
    refused = await refusal(stub.Create(create("big", cluster_spec(vcpus=5), "r1")))
    assert isinstance(refused, errors.NoCapacity)
    [short] = refused.shortfalls
    assert (short.site, short.resource, short.wanted, short.available) == ("north", "vcpus", 5, 4)
    assert "largest free on one host is 4" in short.message
    many = await refusal(stub.Create(create("many", cluster_spec(count=9), "r2")))
    assert isinstance(many, errors.NoCapacity)
    assert (many.shortfalls[0].wanted, many.shortfalls[0].available) == (9, 8)
    assert not (await here.etcd.range("parts/")).entries


async def test_fields_and_images_are_refused_by_name(here: Site) -> None:
    stub = here.clusters()
    small = cluster_spec()
    small.groups[0].allocation.disk_mib = 10
    refused = await refusal(stub.Create(create("one", small, "r1")))
    assert isinstance(refused, errors.FieldInvalid)
    assert refused.field == "spec.groups[0].allocation.disk_mib"
    assert "64 MiB" in refused.problem
    unknown = cluster_spec()
    unknown.groups[0].environment.image = "nothing"
    missing = await refusal(stub.Create(create("one", unknown, "r2")))
    assert isinstance(missing, errors.ImageNotReady)
    nameless = await refusal(stub.Create(create("one", cluster_spec(), "")))
    assert isinstance(nameless, errors.FieldInvalid)
    assert nameless.field == "request_id"


async def test_a_site_alone_tells_the_one_plan_that_it_would_make(here: Site) -> None:
    """Without a meta-scheduler there is nothing to choose, and nothing to accept."""
    stub = here.clusters()
    asked = clusters_pb2.PlanClusterRequest(
        parent="-/tenants/demo", cluster_id="one", spec=cluster_spec()
    )
    (only,) = (await stub.Plan(asked)).options
    assert list(only.merits) == [clusters_pb2.PlanOption.EARLIEST]
    assert [each.site for each in only.plan.parts] == ["north"]
    assert only.price.amount == only.plan.cost
    assert only.window.start_time == only.plan.start_time
    assert (only.token, only.HasField("accept_before")) == ("", False)
    accepts = create("one", cluster_spec(), "r1", plan_token="a" * 32)
    refused = await refusal(stub.Create(accepts))
    assert isinstance(refused, errors.FieldInvalid)
    assert refused.field == "plan_token"
    assert not (await here.etcd.range("requests/")).entries
    asked.spec.lease.kind = cluster_pb2.LeaseTerms.BEST_EFFORT
    waits = await refusal(stub.Plan(asked))
    assert isinstance(waits, errors.FieldInvalid)
    assert waits.field == "spec.lease.kind"


async def test_validate_only_plans_and_takes_nothing(here: Site) -> None:
    stub = here.clusters()
    plan = await stub.Create(create("one", cluster_spec(), "", validate_only=True))
    assert plan.state == cluster_pb2.Cluster.PLANNED
    assert dict(plan.plan.parts[0].counts) == {"worker": 2}
    assert not (await here.etcd.range("parts/")).entries
    assert not (await here.etcd.range("requests/")).entries


async def test_as_many_as_fit_and_a_start_put_off_until_there_is_room(here: Site) -> None:
    stub = here.clusters()
    spec = cluster_spec(count=0, vcpus=2, min_count=2, max_count=9)
    spec.lease.duration.FromTimedelta(timedelta(minutes=10))
    made = await stub.Create(create("all", spec, "r1"))
    assert dict(made.plan.parts[0].counts) == {"worker": 4}
    assert made.plan.shortfalls
    later = cluster_spec()
    later.lease.max_delay.FromTimedelta(timedelta(hours=1))
    second = await stub.Create(create("later", later, "r2"))
    assert second.window.start_time == made.window.end_time


async def test_lists_in_pages_and_refuses_other_tenants(here: Site) -> None:
    stub = here.clusters()
    for position in range(3):
        await stub.Create(create(f"c{position}", cluster_spec(count=1), f"r{position}"))
    request = clusters_pb2.ListClustersRequest(parent="-/tenants/demo", page_size=2)
    first = await stub.List(request)
    request.page_token = first.next_page_token
    second = await stub.List(request)
    found = [each.name for each in (*first.clusters, *second.clusters)]
    assert found == [f"{NAME}/c{position}" for position in range(3)]
    assert not second.next_page_token
    stranger = here.clusters(here.domain.user("other", "eve"))
    denied = await refusal(stranger.Get(clusters_pb2.GetClusterRequest(name=found[0])))
    assert isinstance(denied, errors.RoleDenied)


async def test_an_old_etag_deletes_nothing(here: Site) -> None:
    stub = here.clusters()
    made = await stub.Create(create("one", cluster_spec(), "r1"))
    await until(stub, made.name, cluster_pb2.Cluster.ACTIVE)
    stale = clusters_pb2.DeleteClusterRequest(name=made.name, etag=made.etag)
    assert isinstance(await refusal(stub.Delete(stale)), errors.EtagStale)
    fresh = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
    stale.etag = fresh.etag
    assert (await stub.Delete(stale)).HasField("end_requested_time")


async def test_the_window_ends_it(here: Site) -> None:
    stub = here.clusters()
    spec = cluster_spec()
    spec.lease.end_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=4))
    made = await stub.Create(create("short", spec, "r1"))
    told = await until(stub, made.name, cluster_pb2.Cluster.ENDED)
    assert told[-1].state == cluster_pb2.Cluster.ENDED


async def test_hosts_and_site_say_what_is_free(here: Site) -> None:
    alice = here.domain.user("demo", "alice")
    await here.clusters().Create(create("one", cluster_spec(), "r1"))
    hosts = await here.hosts(alice).List(site_pb2.ListHostsRequest(parent="sites/north"))
    assert [(each.name, each.free.vcpus, each.alive) for each in hosts.hosts] == [
        ("sites/north/hosts/n1", HOST["vcpus"] - 1, True),
        ("sites/north/hosts/n2", HOST["vcpus"] - 1, True),
    ]
    told = []
    async for each in here.hosts(alice).Watch(site_pb2.WatchHostsRequest(parent="sites/-")):
        told.append(each.name)
        if len(told) == 2:
            break
    assert told == [each.name for each in hosts.hosts]
    whole = await here.sites(alice).Get(site_pb2.GetSiteRequest(name="sites/-"))
    assert (whole.hosts_alive, whole.free.vcpus, whole.ledger_generation) == (2, 6, 1)
    assert whole.leader
    one = await here.hosts(alice).Get(site_pb2.GetHostRequest(name="sites/-/hosts/n2"))
    assert one.name == "sites/north/hosts/n2"
    assert (one.capacity, one.free) == (site_pb2.Capacity(**HOST), hosts.hosts[1].free)
    assert (one.alive, one.workspaces) == (True, 1)
    absent = here.hosts(alice).Get(site_pb2.GetHostRequest(name="sites/north/hosts/n9"))
    assert isinstance(await refusal(absent), errors.NotFound)


async def told_of_hosts(
    watching: AsyncIterator[site_pb2.Host], until: Callable[[site_pb2.Host], bool]
) -> list[site_pb2.Host]:
    """All that is told until one is as wanted, which is the last."""
    told = []
    async with asyncio.timeout(20):
        async for each in watching:
            told.append(each)
            if until(each):
                break
    return told


async def test_a_watch_of_hosts_tells_again_of_those_that_change_and_of_no_other(
    here: Site,
) -> None:
    alice = here.domain.user("demo", "alice")
    watching = aiter(here.hosts(alice).Watch(site_pb2.WatchHostsRequest(parent="sites/north")))
    at_first = [await anext(watching), await anext(watching)]
    assert [(each.name, each.free.vcpus) for each in at_first] == [
        ("sites/north/hosts/n1", 4),
        ("sites/north/hosts/n2", 4),
    ]
    made = await here.clusters().Create(create("one", cluster_spec(count=1, vcpus=3), "r1"))
    host = f"sites/north/hosts/{made.workspaces[0].host}"
    told = await told_of_hosts(watching, lambda each: each.free.vcpus == 1)
    assert (told[-1].name, told[-1].workspaces) == (host, 1)
    await here.clusters().Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    told += await told_of_hosts(watching, lambda each: each.free.vcpus == 4)
    assert {each.name for each in told} == {host}
    assert told[-1].workspaces == 0


async def test_a_replica_that_does_not_lead_answers_reads_and_refuses_writes(
    here: Site, tmp_path: Path, north: TestDomain, south: TestDomain
) -> None:
    made = await here.clusters().Create(create("one", cluster_spec(), "r1"))
    async with site(tmp_path / "second", here.settings.etcd, north, (south,), lead=False) as second:
        stub = second.clusters()
        found = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
        assert found.uid == made.uid
        refused = await refusal(stub.Create(create("two", cluster_spec(), "r2")))
        assert isinstance(refused, errors.NotLeading)
        deleted = stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
        assert isinstance(await refusal(deleted), errors.NotLeading)
        same = await stub.Create(create("one", cluster_spec(), "r1"))
        assert same.uid == made.uid
