"""A site that refuses to hold what it offered a moment before: the whole, or nothing anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from intertie.api.broker.v1 import part_pb2, site_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.metasched.v1 import decisions_pb2
from intertie.client import with_changes
from intertie.common import errors
from intertie.common.etcd.client import Etcd
from intertie.metasched.domain.commit import Decision, TxRecord
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.ports import Prepared
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.coallocate import Coallocate
from intertie.metasched.usecases.create_cluster import CreateCluster
from intertie.metasched.usecases.planning import Planning
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.broker_site import HOST, cluster_spec
from tests.integration.refusals import refusal
from tests.integration.test_metasched import NAME, two_groups

pytestmark = pytest.mark.etcd

TAKEN = "sites/south/tenants/other/clusters/taken"
FULL = 2 * HOST["vcpus"]


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


def between_plan_and_holds(
    monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[None]]
) -> None:
    """Has `meanwhile` happen once, when the first plan is made and no site knows of it."""
    happened = False
    planned = Planning.in_time

    async def later(planning: Planning, brief: Brief) -> Plan:
        nonlocal happened
        plan = await planned(planning, brief)
        if not happened:
            happened = True
            await meanwhile()
        return plan

    monkeypatch.setattr(Planning, "in_time", later)


def at_south(here: Federation) -> clusters_pb2_grpc.ClustersAsyncStub:
    return here.clusters_at("south", "other", "eve")


async def take_south(here: Federation) -> None:
    """All of its processors."""
    spec = cluster_spec(count=2, vcpus=HOST["vcpus"], pair_mbit_s=0)
    request = create("taken", spec)
    request.parent = "-/tenants/other"
    assert (await at_south(here).Create(request)).name == TAKEN


async def free(here: Federation, site: str) -> list[site_pb2.Capacity]:
    request = site_pb2.ListHostsRequest(parent=f"sites/{site}")
    return [each.free for each in (await here.known_sites().ListHosts(request)).hosts]


async def until_free(here: Federation, site: str, vcpus: int) -> None:
    async with asyncio.timeout(20):
        while sum(each.vcpus for each in await free(here, site)) != vcpus:
            await CLOCK.sleep(0.05)


async def taken_for_guests(here: Federation, site: str) -> list[str]:
    """Network ids that are not free, and records of what agents are to do."""
    etcd = await Etcd.connect(here.sites[site].settings.etcd)
    try:
        kept = [(await etcd.range(prefix)).entries for prefix in ("vni/", "wanted/")]
        return [entry.key for entries in kept for entry in entries]
    finally:
        await etcd.close()


async def test_room_that_is_taken_before_the_hold_is_a_typed_refusal_and_nothing_is_left(
    here: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await free(here, "north")
    between_plan_and_holds(monkeypatch, lambda: take_south(here))
    refused = await refusal(here.clusters().Create(create("c1", two_groups())))
    assert isinstance(refused, errors.NoCapacity)
    assert ("south", "vcpus") in {(each.site, each.resource) for each in refused.shortfalls}

    # North did hold its part, in the one transaction that there was; south did not.
    [part] = await here.parts("north")
    assert list(part.participants) == ["north", "south"]
    assert part.state == part_pb2.Part.RELEASED
    assert await here.parts("south") == []
    register = here.decisions(here.domains[0].service("broker"))
    decision = await register.Get(decisions_pb2.GetDecisionRequest(tx=part.tx))
    assert decision.outcome == part_pb2.Decision.ABORT
    assert decision.reason.startswith("south: it does not fit")

    assert await free(here, "north") == before
    assert await taken_for_guests(here, "north") == []
    stub = here.clusters()
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert list(listed.clusters) == []
    missing = stub.Get(clusters_pb2.GetClusterRequest(name=NAME))
    assert isinstance(await refusal(missing), errors.NotFound)

    # What was refused is a cluster as soon as there is room, by the same request.
    await at_south(here).Delete(clusters_pb2.DeleteClusterRequest(name=TAKEN))
    await until_free(here, "south", FULL)
    made = await stub.Create(create("c1", two_groups()))
    assert made.state == cluster_pb2.Cluster.SCHEDULED


async def test_a_site_that_refuses_is_planned_around_where_there_is_room(
    here: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = here.sites["north"].agents

    async def hosts_of(vcpus: int) -> None:
        """North has two, of so many processors."""
        agents.hosts = {host: {**HOST, "vcpus": vcpus} for host in ("n1", "n2")}
        await agents.report(CLOCK)
        await until_free(here, "north", 2 * vcpus)

    async def meanwhile() -> None:
        await take_south(here)
        await hosts_of(HOST["vcpus"])

    await hosts_of(1)
    between_plan_and_holds(monkeypatch, meanwhile)
    spec = two_groups(2)
    spec.groups[1].placement.CopyFrom(cluster_pb2.GroupPlacement(allow_sites=["north", "south"]))
    cluster = await here.clusters().Create(create("c1", spec))
    assert cluster.state == cluster_pb2.Cluster.SCHEDULED
    assert {each.site for each in cluster.workspaces} == {"north"}
    assert len(cluster.workspaces) == 3

    # The first attempt was to be at both, and nothing of it is held.
    await here.until_settled()
    attempts = [(list(each.participants), each.state) for each in await here.parts("north")]
    assert sorted(attempts) == [
        (["north"], part_pb2.Part.CONFIRMED),
        (["north", "south"], part_pb2.Part.RELEASED),
    ]
    assert await here.parts("south") == []
    assert sum(each.vcpus for each in await free(here, "north")) == FULL - 3


async def test_what_another_replica_gave_up_meanwhile_is_planned_anew_and_not_refused(
    here: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It led for a moment, found a transaction without a decision, and discarded its cluster."""
    commit, undertake = Coallocate._commit, CreateCluster._undertake
    creating: list[CreateCluster] = []
    attempts: list[str] = []

    async def watched(create: CreateCluster, *args: Any) -> Any:
        creating.append(create)
        return await undertake(create, *args)

    async def overtaken(
        coallocate: Coallocate, tx: TxRecord, prepared: Mapping[str, Prepared]
    ) -> Decision:
        attempts.append(tx.tx)
        if len(attempts) == 1:
            await coallocate.abort(tx, RuntimeError("its coordinator stopped"))
            clusters = creating[0]._clusters
            stored = await clusters.get(tx.cluster)
            assert stored is not None
            await clusters.delete(stored)
        return await commit(coallocate, tx, prepared)

    monkeypatch.setattr(CreateCluster, "_undertake", watched)
    monkeypatch.setattr(Coallocate, "_commit", overtaken)
    made = await here.clusters().Create(create("c1", two_groups()))
    assert made.state == cluster_pb2.Cluster.SCHEDULED
    assert len(attempts) == 2
    await here.until_settled()
    for site in ("north", "south"):
        states = sorted(each.state for each in await here.parts(site))
        assert states == sorted([part_pb2.Part.RELEASED, part_pb2.Part.CONFIRMED])


async def test_each_counter_offer_is_accepted_as_it_is_sent(here: Federation) -> None:
    """Over real brokers: south has 8 processors, of which others have 4 for an hour; and a link of
    100 Mbit/s."""
    south = cluster_spec(count=1, vcpus=HOST["vcpus"], pair_mbit_s=0)
    request = create("taken", south)
    request.parent = "-/tenants/other"
    await at_south(here).Create(request)

    stub, what = here.clusters(), two_groups(5, mbit_s=10)
    planned = await refusal(stub.Create(create("c1", what, validate_only=True)))
    refused = await refusal(stub.Create(create("c1", what)))
    assert isinstance(planned, errors.NoCapacity)
    assert isinstance(refused, errors.NoCapacity)
    for each in (planned, refused):
        [conflict] = each.explanation.conflicts
        assert {requirement.field for requirement in conflict.requirements} == {
            "spec.groups[1].count",
            "spec.groups[1].placement.allow_sites",
            "spec.lease.max_delay",
        }
        [short] = [s for s in each.shortfalls if (s.site, s.resource) == ("south", "vcpus")]
        assert (short.wanted, short.available) == (5, 4)
        assert short.until is not None
    offers = refused.explanation.counter_offers
    assert {each.message for each in offers} >= {"4 worker instead of 5", "worker at north as well"}
    assert any("later" in each.message for each in offers)
    for number, offer in enumerate(offers):
        changed = with_changes(what, offer)
        plan = await stub.Create(create(f"p{number}", changed, validate_only=True))
        assert plan.plan.cost == pytest.approx(offer.cost)
        made = await stub.Create(create(f"c{number}", changed))
        assert made.state == cluster_pb2.Cluster.SCHEDULED
        await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
        await until_free(here, "south", HOST["vcpus"])
