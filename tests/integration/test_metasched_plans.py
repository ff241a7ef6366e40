"""Plans to choose from, of a meta-scheduler with two real brokers, on real etcd, over real TLS."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.common import errors
from intertie.metasched.settings import PlanningSettings
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

Option = clusters_pb2.PlanOption
NAME = "metascheds/meta/tenants/demo/clusters/c1"


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


def spec(workers: int = 4) -> cluster_pb2.ClusterSpec:
    """Of one vCPU each: north asks less for one than south, and each has room for eight."""
    found = cluster_pb2.ClusterSpec(
        groups=[
            cluster_pb2.Group(
                name="worker",
                count=workers,
                environment=resources_pb2.Environment(image="guest"),
                allocation=resources_pb2.Allocation(vcpus=1, memory_mib=128, disk_mib=128),
            )
        ],
        networks=[cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")],
    )
    found.lease.duration.FromTimedelta(timedelta(hours=1))
    return found


def plan(what: cluster_pb2.ClusterSpec, cluster_id: str = "c1") -> clusters_pb2.PlanClusterRequest:
    return clusters_pb2.PlanClusterRequest(
        parent="-/tenants/demo", cluster_id=cluster_id, spec=what
    )


async def choice(
    here: Federation, what: cluster_pb2.ClusterSpec | None = None
) -> dict[int, clusters_pb2.PlanOption]:
    """By each of its merits."""
    told = await here.clusters().Plan(plan(what or spec()))
    return {merit: option for option in told.options for merit in option.merits}


def counts(told: cluster_pb2.Plan) -> dict[str, int]:
    return {each.site: each.counts["worker"] for each in told.parts}


async def test_the_one_that_is_chosen_is_held_as_it_was_told(here: Federation) -> None:
    told = await choice(here)
    assert counts(told[Option.EARLIEST].plan) == {"north": 4}
    assert told[Option.EARLIEST] == told[Option.CHEAPEST] == told[Option.MOST_LOCAL]
    spread = told[Option.MOST_RELIABLE]
    assert counts(spread.plan) == {"north": 2, "south": 2}
    assert spread.price.amount > told[Option.CHEAPEST].price.amount
    assert "2 of 4 worker go with a site at most, 1 with a host" in spread.plan.reasons
    assert list(spread.gives_way) == []
    left = spread.accept_before.ToDatetime(UTC) - CLOCK.now()
    assert timedelta(seconds=280) < left <= timedelta(seconds=300)
    assert await here.parts("north") == [], "nothing is held"

    made = await here.clusters().Create(create("c1", spec(), plan_token=spread.token))
    assert made.state == cluster_pb2.Cluster.SCHEDULED
    assert counts(made.plan) == {"north": 2, "south": 2}
    assert made.price.amount == pytest.approx(spread.price.amount)
    assert len({(each.site, each.host) for each in made.workspaces}) == 4
    for site in here.sites:
        (part,) = await here.parts(site)
        assert [each.max_per_host for each in part.spec.workspaces] == [1, 1]
    again = await here.clusters().Create(create("c1", spec(), plan_token=spread.token))
    assert again.uid == made.uid


async def test_after_another_took_the_room_nothing_is_held(here: Federation) -> None:
    told = await choice(here, spec(8))
    chosen = told[Option.CHEAPEST]
    assert counts(chosen.plan) == {"north": 8}
    other = spec(2)
    other.groups[0].placement.allow_sites.append("north")
    await here.clusters().Create(create("c2", other))
    stale = await refusal(here.clusters().Create(create("c1", spec(8), plan_token=chosen.token)))
    assert isinstance(stale, errors.PlanStale)
    assert {each.site for each in stale.shortfalls} == {"north"}
    states = await here.until_settled()
    assert sorted(states.values()) == sorted([{"CONFIRMED"}, *[{"RELEASED"}] * (len(states) - 1)])
    missing = await refusal(here.clusters().Get(clusters_pb2.GetClusterRequest(name=NAME)))
    assert isinstance(missing, errors.NotFound)
    anew = await choice(here, spec(8))
    assert counts(anew[Option.EARLIEST].plan) != {"north": 8}


async def test_of_another_tenant_it_is_of_no_plan(here: Federation) -> None:
    chosen = (await choice(here))[Option.EARLIEST]
    mallory = here.clusters(here.meta.user("other", "mallory"))
    request = create("c1", spec(), plan_token=chosen.token)
    denied = await refusal(mallory.Create(request))
    assert isinstance(denied, errors.RoleDenied)
    request.parent = "-/tenants/other"
    unknown = await refusal(mallory.Create(request))
    assert isinstance(unknown, errors.FieldInvalid)
    assert unknown.field == "plan_token"
    assert "of no plan that may be accepted" in unknown.problem
    changed = await refusal(here.clusters().Create(create("c1", spec(3), plan_token=chosen.token)))
    assert isinstance(changed, errors.FieldInvalid)
    assert "for another request" in changed.problem


async def test_it_outlives_the_meta_scheduler_and_is_any_replicas(here: Federation) -> None:
    spread = (await choice(here))[Option.MOST_RELIABLE]
    await here.kill()
    await here.start()
    made = await here.clusters().Create(create("c1", spec(), plan_token=spread.token))
    assert counts(made.plan) == {"north": 2, "south": 2}

    second = here.another()
    await second.start(lead=False)
    try:
        of_other = await second.clusters().Plan(plan(spec(), "c2"))
        token = of_other.options[-1].token
        other = await here.clusters().Create(create("c2", spec(), plan_token=token))
        assert counts(other.plan) == counts(of_other.options[-1].plan)
    finally:
        for line in second.channels:
            await line.close()
        await second.kill()


async def test_when_its_time_is_over_it_is_forgotten(here: Federation) -> None:
    await here.kill()
    await here.start(planning=PlanningSettings(accept_within_s=10))
    chosen = (await choice(here))[Option.EARLIEST]
    assert chosen.accept_before.ToDatetime(UTC) < CLOCK.now() + timedelta(seconds=10)
    assert here.metasched is not None
    store = here.metasched._etcd
    assert len((await store.range("plans/")).entries) == 2
    while CLOCK.now() < chosen.accept_before.ToDatetime(UTC):
        await CLOCK.sleep(0.2)
    late = await refusal(here.clusters().Create(create("c1", spec(), plan_token=chosen.token)))
    assert isinstance(late, errors.FieldInvalid)
    assert late.field == "plan_token"
    for _ in range(50):
        if not (await store.range("plans/")).entries:
            break
        await CLOCK.sleep(0.2)
    assert not (await store.range("plans/")).entries


async def test_a_broker_hands_on_what_is_to_be_chosen_from_and_what_was_chosen(
    here: Federation,
) -> None:
    """Also where it could serve the request alone."""
    stub = here.clusters_at("north", "demo", "bob")
    told = await stub.Plan(plan(spec()))
    assert [counts(each.plan) for each in told.options] == [{"north": 4}, {"north": 2, "south": 2}]
    request = create("c1", spec(), plan_token=told.options[1].token)
    made = await stub.Create(request)
    assert made.name == NAME
    assert counts(made.plan) == {"north": 2, "south": 2}
    assert (await stub.Create(request)).uid == made.uid
    seen = await stub.Get(clusters_pb2.GetClusterRequest(name="-/tenants/demo/clusters/c1"))
    assert seen.uid == made.uid
    unknown = await refusal(stub.Create(create("c2", spec(), plan_token="f" * 32)))
    assert isinstance(unknown, errors.FieldInvalid)
    assert unknown.field == "plan_token"
    local = await stub.Create(create("c2", spec()))
    assert local.name == "sites/north/tenants/demo/clusters/c2", "no record of it is in the way"


async def test_what_is_malformed_or_fits_nowhere_is_refused_as_by_create(here: Federation) -> None:
    bad = spec()
    bad.groups[0].allocation.vcpus = 0
    invalid = await refusal(here.clusters().Plan(plan(bad)))
    assert isinstance(invalid, errors.FieldInvalid)
    assert invalid.field == "spec.groups[0].allocation.vcpus"
    large = await refusal(here.clusters().Plan(plan(spec(40))))
    assert isinstance(large, errors.NoCapacity)
    assert large.explanation.counter_offers
    waits = spec()
    waits.lease.kind = cluster_pb2.LeaseTerms.BEST_EFFORT
    queued = await refusal(here.clusters().Plan(plan(waits)))
    assert isinstance(queued, errors.FieldInvalid)
    assert queued.field == "spec.lease.kind"
    nobody = await refusal(here.clusters().Plan(clusters_pb2.PlanClusterRequest(spec=spec())))
    assert isinstance(nobody, errors.FieldInvalid)
    assert nobody.field == "parent"
