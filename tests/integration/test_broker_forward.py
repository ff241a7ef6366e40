"""What a site cannot serve alone is handed on, and found again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.common import errors
from intertie.common.errors import NoCapacity, PlanStale, Shortfall
from intertie.common.explanation import Conflict, Explanation, Requirement
from tests.fakes.site_brokers import CLOCK
from tests.integration.broker_meta import Meta, metasched
from tests.integration.broker_site import Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

LOCAL = "sites/north/tenants/demo/clusters/wide"
REMOTE = "metascheds/meta/tenants/demo/clusters/wide"


@pytest.fixture
async def beyond(tmp_path: Path, meta: TestDomain, north: TestDomain) -> AsyncIterator[Meta]:
    async with metasched(tmp_path, meta, (north,)) as up:
        yield up


@pytest.fixture
async def here(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    meta: TestDomain,
    beyond: Meta,
) -> AsyncIterator[Site]:
    settings = etcd_server.settings(etcd_prefix)
    async with site(tmp_path, settings, north, (meta,), metascheds=(beyond.peer,)) as up:
        yield up


async def test_what_is_too_large_is_handed_on_once_and_reached_by_its_local_name(
    here: Site, beyond: Meta
) -> None:
    stub = here.clusters()
    made = await stub.Create(create("wide", cluster_spec(count=20), "r1"))
    again = await stub.Create(create("wide", cluster_spec(count=20), "r1"))
    assert made.name == again.name == REMOTE
    assert len(beyond.elsewhere.request_ids) == 1
    assert set(beyond.elsewhere.callers) == {"spiffe://north.site.intertie/tenant/demo/user/alice"}
    assert not (await here.etcd.range("parts/")).entries

    for name in (LOCAL, REMOTE):
        found = await stub.Get(clusters_pb2.GetClusterRequest(name=name))
        assert found.name == REMOTE
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert [each.name for each in listed.clusters] == [REMOTE]
    for name in (LOCAL, REMOTE):
        async for each in stub.Watch(clusters_pb2.WatchClusterRequest(name=name)):
            assert each.name == REMOTE
    elsewhere = REMOTE.replace("metascheds/meta", "metascheds/other")
    unknown = await refusal(stub.Get(clusters_pb2.GetClusterRequest(name=elsewhere)))
    assert isinstance(unknown, errors.NotFound)
    taken = await refusal(stub.Create(create("wide", cluster_spec(count=20), "r2")))
    assert isinstance(taken, errors.NameTaken)
    other = await refusal(stub.Create(create("wide", cluster_spec(count=21), "r1")))
    assert isinstance(other, errors.RequestIdReuse)

    deleted = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=REMOTE))
    assert deleted.state == cluster_pb2.Cluster.CANCELLED
    small = await stub.Create(create("wide", cluster_spec(), "r3"))
    assert small.name == LOCAL


async def test_another_sites_name_in_the_placement_hands_it_on(here: Site, beyond: Meta) -> None:
    spec = cluster_spec()
    spec.groups[0].placement.allow_sites.append("south")
    plan = await here.clusters().Create(create("wide", spec, "", validate_only=True))
    assert plan.name == REMOTE
    assert not (await here.etcd.range("forwards/")).entries
    made = await here.clusters().Create(create("wide", spec, "r1"))
    assert made.name == REMOTE


def asked(what: cluster_pb2.ClusterSpec) -> clusters_pb2.PlanClusterRequest:
    return clusters_pb2.PlanClusterRequest(parent="-/tenants/demo", cluster_id="wide", spec=what)


async def test_plans_to_choose_from_are_the_meta_schedulers_and_so_is_what_is_chosen(
    here: Site, beyond: Meta
) -> None:
    """Though this site could serve it alone."""
    beyond.elsewhere.options = [clusters_pb2.PlanOption(token="a" * 32)]
    stub = here.clusters()
    told = await stub.Plan(asked(cluster_spec()))
    assert list(told.options) == beyond.elsewhere.options
    assert [each.cluster_id for each in beyond.elsewhere.planned] == ["wide"]
    assert not (await here.etcd.range("forwards/")).entries
    accepts = create("wide", cluster_spec(), "r1", plan_token="a" * 32)
    made = await stub.Create(accepts)
    assert made.name == REMOTE
    assert (await stub.Create(accepts)).name == REMOTE
    assert beyond.elsewhere.tokens == ["a" * 32] * 2
    assert len(beyond.elsewhere.request_ids) == 1
    assert not (await here.etcd.range("parts/")).entries


async def test_a_plan_that_cannot_be_had_any_more_leaves_no_record(
    here: Site, beyond: Meta
) -> None:
    beyond.elsewhere.refusal = PlanStale(
        "south: vcpus", (Shortfall(site="south", resource="vcpus"),)
    )
    accepts = create("wide", cluster_spec(), "r1", plan_token="a" * 32)
    stale = await refusal(here.clusters().Create(accepts))
    assert isinstance(stale, errors.PlanStale)
    assert [each.site for each in stale.shortfalls] == ["south"]
    assert not (await here.etcd.range("forwards/")).entries
    assert not (await here.etcd.range("requests/")).entries


async def test_what_could_not_be_planned_beyond_leaves_no_record(here: Site, beyond: Meta) -> None:
    """Else every retry was handed on, also where the site has room by then."""
    beyond.elsewhere.refusal = errors.SolverFailed("it takes more memory than there is")
    refused = await refusal(here.clusters().Create(create("wide", cluster_spec(count=20), "r1")))
    assert isinstance(refused, errors.SolverFailed)
    assert not (await here.etcd.range("forwards/")).entries
    assert not (await here.etcd.range("requests/")).entries


async def test_of_a_lease_with_a_kind_a_site_tells_its_own_plan(here: Site, beyond: Meta) -> None:
    """It is not handed on, whether it is created or planned."""
    spec = cluster_spec()
    spec.lease.kind = cluster_pb2.LeaseTerms.DEADLINE
    spec.lease.deadline.FromDatetime(CLOCK.now() + timedelta(hours=9))
    spec.lease.duration.FromTimedelta(timedelta(minutes=10))
    told = await here.clusters().Plan(asked(spec))
    assert [each.token for each in told.options] == [""]
    assert beyond.elsewhere.planned == []
    accepts = create("wide", spec, "r1", plan_token="a" * 32)
    refused = await refusal(here.clusters().Create(accepts))
    assert isinstance(refused, errors.FieldInvalid)
    assert refused.field == "plan_token"


async def test_a_refusal_beyond_is_the_answer_and_leaves_no_record(
    here: Site, beyond: Meta
) -> None:
    short = Shortfall(site="south", resource="vcpus")
    asked = Requirement(field="spec.groups[0].count", message="20 node", enough=True)
    told = Explanation(conflicts=(Conflict(requirements=(asked,)),))
    beyond.elsewhere.refusal = NoCapacity((short,), told)
    stub = here.clusters()
    refused = await refusal(stub.Create(create("wide", cluster_spec(count=20), "r1")))
    assert isinstance(refused, errors.NoCapacity)
    assert refused.shortfalls[0].site == "south"
    assert refused.explanation == told
    assert not (await here.etcd.range("forwards/")).entries
    assert not (await here.etcd.range("requests/")).entries
    beyond.elsewhere.refusal = None
    made = await stub.Create(create("wide", cluster_spec(count=20), "r1"))
    assert made.name == REMOTE


async def test_a_lost_answer_is_found_by_the_retry(here: Site, beyond: Meta) -> None:
    """A bug would be a second id: the meta-scheduler would make a second cluster."""
    stub = here.clusters()
    beyond.elsewhere.refusal = errors.SiteUnreachable("south", "for a test")
    refused = await refusal(stub.Create(create("wide", cluster_spec(count=20), "r1")))
    assert isinstance(refused, errors.SiteUnreachable)
    assert len((await here.etcd.range("forwards/")).entries) == 1
    beyond.elsewhere.refusal = None
    await stub.Create(create("wide", cluster_spec(count=20), "r1"))
    await stub.Create(create("wide", cluster_spec(count=20), "r1"))
    assert len(beyond.elsewhere.request_ids) == 1
