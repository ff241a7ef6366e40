"""Update of a cluster over two sites with real brokers, on real etcd, over real TLS."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.common import errors
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.refusals import refusal
from tests.integration.test_broker_update import DURATION, lasting
from tests.integration.test_broker_update import update as update_of
from tests.integration.test_metasched import NAME, two_groups, until

pytestmark = pytest.mark.etcd


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


def update(
    spec: cluster_pb2.ClusterSpec, request_id: str, *paths: str, **more: Any
) -> clusters_pb2.UpdateClusterRequest:
    return update_of(NAME, spec, request_id, *paths, **more)


async def standing(here: Federation) -> dict[str, part_pb2.Part]:
    return {site: (await here.parts(site))[0] for site in here.sites}


async def until_agreed(here: Federation, terms: int) -> dict[str, part_pb2.Part]:
    """Until all sites have these terms, and nothing is held for any."""
    async with asyncio.timeout(30):
        while True:
            parts = await standing(here)
            if all(
                part.terms == terms and not part.HasField("amendment") for part in parts.values()
            ):
                return parts
            await CLOCK.sleep(0.1)


def shape(parts: dict[str, part_pb2.Part]) -> dict[str, Any]:
    """Who is there, with what, until when; and what of the link is reserved."""
    return {
        site: (
            [
                (f"{each.group}-{each.index}", each.allocation.vcpus, each.nics[0].address)
                for each in part.spec.workspaces
            ],
            [(each.egress_mbit_s, each.ingress_mbit_s) for each in part.spec.links],
            part.spec.window.end_time.seconds,
        )
        for site, part in parts.items()
    }


async def test_growth_is_had_at_both_sites_or_at_none(here: Federation) -> None:
    stub = here.clusters()
    made = await stub.Create(create("c1", two_groups()))
    await until(here, cluster_pb2.Cluster.ACTIVE)
    before = await until_agreed(here, 0)

    for more, resource in (
        (two_groups(2, mbit_s=150), {"link_egress", "link_ingress"}),
        (two_groups(2, vcpus=5), {"vcpus"}),
        (two_groups(40), {"vcpus", "hosts"}),
    ):
        refused = await refusal(stub.Update(update(more, f"no-{more.ByteSize()}")))
        assert isinstance(refused, errors.NoCapacity)
        assert {each.resource for each in refused.shortfalls} & resource
        assert shape(await until_agreed(here, 0)) == shape(before)

    planned = await stub.Update(update(two_groups(3, mbit_s=40), "", validate_only=True))
    assert (planned.terms, len(planned.workspaces)) == (1, 4)
    assert shape(await standing(here)) == shape(before)

    grown = await stub.Update(update(two_groups(3, mbit_s=40), "u1"))
    assert (grown.uid, grown.terms) == (made.uid, 1)
    assert not grown.HasField("amendment")
    assert [each.mbit_s for each in grown.plan.links] == [120, 120]
    after = shape(await until_agreed(here, 1))
    assert after["north"][0] == shape(before)["north"][0]
    assert after["south"][0][:2] == shape(before)["south"][0]
    assert after["south"][0][2] == ("worker-2", 1, "10.1.0.13/24")
    assert (after["north"][1], after["south"][1]) == ([(120, 120)], [(120, 120)])
    again = await stub.Update(update(two_groups(3, mbit_s=40), "u1"))
    assert again.terms == 1
    async with asyncio.timeout(20):
        while not all(
            each.ready
            for each in (await stub.Get(clusters_pb2.GetClusterRequest(name=NAME))).workspaces
        ):
            await CLOCK.sleep(0.1)
    await the_past_keeps_its_price(here, made)

    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=NAME))
    await until(here, cluster_pb2.Cluster.CANCELLED)
    over = await refusal(stub.Update(update(two_groups(2), "u2")))
    assert isinstance(over, errors.ClusterOver)


async def the_past_keeps_its_price(here: Federation, made: cluster_pb2.Cluster) -> None:
    """The rest is at what the sites have asked for the new terms."""
    now = await here.clusters().Get(clusters_pb2.GetClusterRequest(name=NAME))
    assert now.plan.cost == pytest.approx(now.price.amount)
    hour = 3 * 0.05 + 3 * 500 * 0.001 + 3 * 40 * 0.003 + 2 * 120 * 0.002
    past, rest = (each for each in now.price.terms if each.site == "south")
    [before] = (each for each in made.price.terms if each.site == "south")
    assert rest.amount == pytest.approx(hour * hours(rest.window))
    assert past.amount / hours(past.window) == pytest.approx(before.amount / hours(before.window))
    assert past.window.start_time == before.window.start_time
    assert past.window.end_time == rest.window.start_time


def hours(window: resources_pb2.Window) -> float:
    return (window.end_time.ToDatetime() - window.start_time.ToDatetime()) / timedelta(hours=1)


async def test_less_is_told_to_a_site_that_was_away_and_more_waits_for_it(
    here: Federation,
) -> None:
    stub = here.clusters()
    await stub.Create(create("c1", two_groups(3)))
    await until(here, cluster_pb2.Cluster.ACTIVE)
    await here.sites["south"].stop()
    less = await stub.Update(update(two_groups(1), "u1"))
    assert (less.terms, len(less.workspaces)) == (1, 2)
    more = await refusal(stub.Update(update(lasting(2), "u2", DURATION)))
    assert isinstance(more, errors.SiteUnreachable)
    shorter = await stub.Update(update(lasting(0.5), "u3", DURATION))
    assert shorter.terms == 2
    await here.sites["south"].start()
    parts = await until_agreed(here, 2)
    assert [len(parts[site].spec.workspaces) for site in ("north", "south")] == [1, 1]
    past, rest = parts["south"].price.terms[0], parts["south"].price.terms[-1]
    less_hour, more_hour = (each.amount / hours(each.window) for each in (rest, past))
    assert less_hour == pytest.approx(more_hour / 3), "at the rates that there were"
    longer = await stub.Update(update(lasting(2), "u4", DURATION))
    assert longer.terms == 3
    parts = await until_agreed(here, 3)
    (start, end) = parts["south"].spec.window.start_time, parts["south"].spec.window.end_time
    assert end.ToDatetime() - start.ToDatetime() == timedelta(hours=2)


async def asked(here: Federation, point: str) -> bool:
    """Whether all sites have prepared the new terms, and whether that is decided."""
    parts = await standing(here)
    if not all(part.amendment.state == part_pb2.Part.PREPARED for part in parts.values()):
        return False
    record = await here.clusters().Get(clusters_pb2.GetClusterRequest(name=NAME))
    return record.terms == (1 if point == "after_decide" else 0)


@pytest.mark.parametrize(("point", "terms"), [("after_prepare", 0), ("after_decide", 1)])
async def test_a_coordinator_that_dies_leaves_old_or_new_terms_at_both_sites(
    here: Federation, point: str, terms: int
) -> None:
    """And a retry of the same request has what it asked for."""
    await here.clusters().Create(create("c1", two_groups()))
    await until(here, cluster_pb2.Cluster.ACTIVE)
    before = await until_agreed(here, 0)
    await here.kill()
    await here.start(fault_pause=f"{point}:60")
    request = update(two_groups(3, mbit_s=40), "u1")
    call = asyncio.ensure_future(here.clusters().Update(request))
    async with asyncio.timeout(20):
        while not await asked(here, point):
            await CLOCK.sleep(0.05)
    held = await standing(here)
    assert shape(held) == shape(before)
    assert {part.terms for part in held.values()} == {0}
    await here.kill()
    await asyncio.gather(call, return_exceptions=True)
    await here.start()
    found = await until_agreed(here, terms)
    assert (shape(found) == shape(before)) == (terms == 0)
    cluster = await here.clusters().Get(clusters_pb2.GetClusterRequest(name=NAME))
    assert cluster.terms == terms
    again = await here.clusters().Update(request)
    assert again.terms == 1
    await until_agreed(here, 1)


async def test_a_coordinator_that_dies_while_a_site_is_asked_leaves_the_old_terms(
    here: Federation,
) -> None:
    """South does not answer; north has prepared, and lets go once ABORT is on record."""
    await here.clusters().Create(create("c1", two_groups()))
    await until(here, cluster_pb2.Cluster.ACTIVE)
    before = await until_agreed(here, 0)
    await here.sites["south"].stop()
    call = asyncio.ensure_future(here.clusters().Update(update(lasting(2), "u1", DURATION)))
    async with asyncio.timeout(20):
        while not (await here.parts("north"))[0].HasField("amendment"):
            await CLOCK.sleep(0.02)
    await here.kill()
    await asyncio.gather(call, return_exceptions=True)
    await here.sites["south"].start()
    await here.start()
    assert shape(await until_agreed(here, 0)) == shape(before)
    again = await here.clusters().Update(update(lasting(2), "u1", DURATION))
    assert again.terms == 1
    await until_agreed(here, 1)
