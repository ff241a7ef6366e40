"""A lease over several sites has another put aside at the price that it was told before, with two
real brokers and a meta-scheduler, on real etcd, over real TLS."""

from __future__ import annotations

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import price_pb2
from intertie.broker.settings import QueueSettings, TariffSettings
from intertie.client import with_changes
from intertie.common import errors
from tests.fakes.site_brokers import Federation, create
from tests.integration.refusals import refusal
from tests.integration.test_broker_clusters import until
from tests.integration.test_broker_queue import best_effort
from tests.integration.test_metasched_plans import choice, counts, spec

pytestmark = pytest.mark.etcd

Cluster = cluster_pb2.Cluster
WORK = "sites/south/tenants/demo/clusters/work"
BUDGET = "spec.placement.max_cost"
TARIFF = TariffSettings(vcpu_hour=0.1, give_way_vcpu_hour=1.6)
PLAIN, MADE = 12 * 0.1, 2 * 1.6
"""An hour of twelve vCPUs, and of the two of them that others make room for."""


@pytest.fixture
async def here(two_sites: Federation) -> Federation:
    """Both sites ask for room that others make; at south six of eight vCPUs are a best-effort
    lease's, for an hour."""
    queue = QueueSettings(pool_mib_s=100, worth_s=1)
    for each in two_sites.sites.values():
        await each.stop()
        each.settings = each.settings.model_copy(update={"tariff": TARIFF, "queue": queue})
        await each.start()
    asked = best_effort(6, lasts_s=3600, memory_mib=32, pair_mbit_s=0)
    await at_south(two_sites).Create(create("work", asked))
    await until_work_is(two_sites, Cluster.ACTIVE)
    return two_sites


def at_south(here: Federation) -> clusters_pb2_grpc.ClustersAsyncStub:
    return here.clusters_at("south", "demo", "bob")


async def work(here: Federation) -> cluster_pb2.Cluster:
    return await at_south(here).Get(clusters_pb2.GetClusterRequest(name=WORK))


async def until_work_is(here: Federation, state: cluster_pb2.Cluster.State.ValueType) -> None:
    await until(at_south(here), WORK, state)


def asked(max_cost: float = 0.0) -> cluster_pb2.ClusterSpec:
    found = spec(12)
    found.placement.max_cost = max_cost
    return found


def made_at(price: price_pb2.Price) -> dict[str, tuple[int, float]]:
    """vCPUs that others make room for, and what that costs, at each site that asks for it."""
    return {
        each.site: (each.room_made.vcpus, round(each.room_made.amount, 6))
        for each in price.terms
        if each.HasField("room_made")
    }


async def test_a_budget_below_it_is_answered_with_the_one_for_which_others_are_put_aside(
    here: Federation,
) -> None:
    refused = await refusal(here.clusters().Create(create("c1", asked(3.0))))
    assert isinstance(refused, errors.NoCapacity)
    [short] = refused.shortfalls
    assert short.field == BUDGET
    assert short.message == (
        "the cheapest plan that was found costs 4.4, and the budget is 3;"
        " 2 vCPUs of best-effort leases at south give way: +3.20"
    )
    offers = refused.explanation.counter_offers
    [offer] = [each for each in offers if each.changes[0].field == BUDGET]
    assert offer.message == (
        "a budget of 4.4 instead of 3, if best-effort leases at south are put aside: +3.20"
    )
    assert offer.cost == pytest.approx(PLAIN + MADE)
    [later] = [each for each in offers if each.changes[0].field == "spec.lease.start_time"]
    assert "put aside" not in later.message
    assert later.cost == pytest.approx(PLAIN), "when the other is over"
    assert (await work(here)).state == Cluster.ACTIVE, "nothing was taken for that"

    stub = here.clusters()
    told = await stub.Create(create("c1", with_changes(asked(3.0), offer), "r2"))
    assert told.state == Cluster.SCHEDULED
    assert counts(told.plan) == {"north": 8, "south": 4}
    assert told.price.amount == pytest.approx(offer.cost)
    assert told.plan.cost == pytest.approx(offer.cost)
    assert made_at(told.price) == {"south": (2, MADE)}
    await until_work_is(here, Cluster.SUSPENDED)
    [part] = [each for each in await here.parts("south") if each.coordinator]
    assert made_at(part.price) == {"south": (2, MADE)}
    seen = await stub.Get(clusters_pb2.GetClusterRequest(name=told.name))
    assert made_at(seen.price) == {"south": (2, MADE)}


async def test_a_plan_that_is_accepted_is_charged_what_it_said_of_it(here: Federation) -> None:
    told = await choice(here, asked())
    chosen = told[clusters_pb2.PlanOption.EARLIEST]
    assert made_at(chosen.price) == {"south": (2, MADE)}
    assert {each.site for each in chosen.gives_way} == {"south"}
    assert chosen.price.amount == pytest.approx(PLAIN + MADE)
    assert (await work(here)).state == Cluster.ACTIVE
    made = await here.clusters().Create(create("c1", asked(), plan_token=chosen.token))
    assert made.price.amount == pytest.approx(chosen.price.amount)
    assert made_at(made.price) == {"south": (2, MADE)}
    await until_work_is(here, Cluster.SUSPENDED)


async def test_where_nobody_has_to_nobody_is_paid(here: Federation) -> None:
    """Ten fit as things are: eight at one site and two at the other."""
    made = await here.clusters().Create(create("c1", spec(10)))
    assert counts(made.plan) == {"north": 8, "south": 2}
    assert made_at(made.price) == {}
    assert made.price.amount == pytest.approx(1.0)
    assert (await work(here)).state == Cluster.ACTIVE
