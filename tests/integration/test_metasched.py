"""The meta-scheduler with two real brokers, on real etcd, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest

from intertie.api.broker.v1 import part_pb2, site_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.metasched.v1 import decisions_pb2, sites_pb2
from intertie.api.types.v1 import attach_pb2, resources_pb2
from intertie.common import errors
from intertie.common.rpc.client import to_domain_error
from intertie.metasched.settings import CommitSettings
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.broker_site import HOST
from tests.integration.refusals import refusal

pytestmark = pytest.mark.etcd

SHORT = CommitSettings(decide_within_s=3, rpc_timeout_s=2)
"""Of a coordinator that will not decide in time."""
NAME = "metascheds/meta/tenants/demo/clusters/c1"


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


def two_groups(
    workers: int = 2,
    *,
    vcpus: int = 1,
    mbit_s: int = 20,
    pinned: bool = True,
    max_latency_ms: float = 0,
) -> cluster_pb2.ClusterSpec:
    """A head at north and workers at south, with bandwidth promised between them."""
    place = cluster_pb2.GroupPlacement
    pair = resources_pb2.PairTerm(
        group="head", bandwidth=resources_pb2.BandwidthTerm(guarantee_mbit_s=mbit_s)
    )
    spec = cluster_pb2.ClusterSpec(
        groups=[
            cluster_pb2.Group(
                name="head",
                count=1,
                environment=resources_pb2.Environment(image="guest"),
                allocation=resources_pb2.Allocation(vcpus=1, memory_mib=128, disk_mib=128),
                placement=place(allow_sites=["north"]) if pinned else None,
            ),
            cluster_pb2.Group(
                name="worker",
                count=workers,
                environment=resources_pb2.Environment(image="guest"),
                allocation=resources_pb2.Allocation(
                    vcpus=vcpus, memory_mib=128, disk_mib=128, pairs=[pair]
                ),
                placement=place(allow_sites=["south"]) if pinned else None,
            ),
        ],
        networks=[cluster_pb2.Network(name="lan", subnet="10.1.0.0/24")],
    )
    if max_latency_ms:
        bound = spec.networks[0].latency.add(groups=["head", "worker"])
        bound.max_latency.FromTimedelta(timedelta(milliseconds=max_latency_ms))
    return spec


async def until(
    here: Federation, state: cluster_pb2.Cluster.State.ValueType, seconds: float = 20
) -> cluster_pb2.Cluster:
    stub = here.clusters()
    async with asyncio.timeout(seconds):
        async for cluster in stub.Watch(clusters_pb2.WatchClusterRequest(name=NAME)):
            if cluster.state == state:
                return cluster
    raise AssertionError(f"it never became {cluster_pb2.Cluster.State.Name(state)}")


async def test_a_cluster_over_two_sites_from_create_to_cancelled(here: Federation) -> None:
    stub = here.clusters()
    planned = await stub.Create(create("c1", two_groups(), validate_only=True))
    assert planned.state == cluster_pb2.Cluster.PLANNED
    assert {each.site: dict(each.counts) for each in planned.plan.parts} == {
        "north": {"head": 1},
        "south": {"worker": 2},
    }
    assert [each.mbit_s for each in planned.plan.links] == [40, 40]
    assert planned.plan.reasons
    assert [each.kind for each in planned.price.terms] == ["", ""], "not agreed yet"
    assert await here.parts("north") == []

    cluster = await stub.Create(create("c1", two_groups()))
    assert cluster.name == NAME
    assert cluster.state == cluster_pb2.Cluster.SCHEDULED
    addresses = {
        each.name.rpartition("/")[2]: each.addresses[0].address for each in cluster.workspaces
    }
    assert addresses == {
        "head-0": "10.1.0.10/24",
        "worker-0": "10.1.0.11/24",
        "worker-1": "10.1.0.12/24",
    }
    costs = {each.site: each.cost for each in planned.plan.parts}
    await agree_on_the_price(here, cluster, costs)
    active = await until(here, cluster_pb2.Cluster.ACTIVE)
    await agree_on_the_price(here, active, costs)
    assert all(each.ready and each.host for each in active.workspaces)
    assert {each.site for each in active.workspaces} == {"north", "south"}
    for site in ("north", "south"):
        (part,) = await here.parts(site)
        assert part.state == part_pb2.Part.CONFIRMED
        assert [each.network for each in part.endpoints] == ["lan"]

    again = await stub.Create(create("c1", two_groups()))
    assert again.uid == cluster.uid
    other = await refusal(stub.Create(create("c1", two_groups(1))))
    assert isinstance(other, errors.RequestIdReuse)
    taken = await refusal(stub.Create(create("c1", two_groups(), "another")))
    assert isinstance(taken, errors.NameTaken)
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert [each.name for each in listed.clusters] == [NAME]

    update = clusters_pb2.UpdateClusterRequest(cluster=cluster_pb2.Cluster(name=NAME))
    nameless = await refusal(stub.Update(update))
    assert isinstance(nameless, errors.FieldInvalid)
    assert nameless.field == "request_id"
    update.request_id = "u1"
    update.cluster.name = f"{NAME}x"
    assert isinstance(await refusal(stub.Update(update)), errors.NotFound)

    deleted = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=NAME))
    assert deleted.HasField("end_requested_time")
    await until(here, cluster_pb2.Cluster.CANCELLED)
    for site in ("north", "south"):
        (part,) = await here.parts(site)
        assert part.state == part_pb2.Part.ENDED
    over = await stub.Get(clusters_pb2.GetClusterRequest(name=NAME))
    assert over.price == cluster.price, "it stays on record"


async def agree_on_the_price(
    here: Federation, cluster: cluster_pb2.Cluster, costs: dict[str, float]
) -> None:
    """What the planner said by the sites' offers, what each site has agreed on, their sum."""
    terms = {each.site: each for each in cluster.price.terms}
    for site in ("north", "south"):
        (part,) = await here.parts(site)
        assert list(part.price.terms) == [terms[site]]
        assert terms[site].kind == "immediate"
        assert terms[site].amount == pytest.approx(costs[site])
    hours = (cluster.window.end_time.seconds - cluster.window.start_time.seconds) / 3600
    south = 2 * 0.05 + 2 * 500 * 0.001 + 2 * 20 * 0.003 + 2 * 40 * 0.002
    assert costs["south"] == pytest.approx(hours * south)
    assert cluster.price.amount == cluster.plan.cost == pytest.approx(sum(costs.values()))


async def test_what_does_not_fit_says_what_is_short_and_by_how_much(here: Federation) -> None:
    stub = here.clusters()
    large = await refusal(stub.Create(create("c1", two_groups(40, pinned=False))))
    assert isinstance(large, errors.NoCapacity)
    vcpus = {each.site: each for each in large.shortfalls if each.resource == "vcpus"}
    assert set(vcpus) == {"north", "south", ""}
    assert (vcpus["north"].wanted, vcpus["north"].available) == (41, 8)
    assert (vcpus[""].wanted, vcpus[""].available) == (41, 16)

    wide = await refusal(stub.Create(create("c1", two_groups(mbit_s=150))))
    assert isinstance(wide, errors.NoCapacity)
    links = {(each.site, each.resource): each for each in wide.shortfalls}
    assert links["north", "link_egress"].wanted == 300
    assert links["north", "link_egress"].available == 200
    assert links["north", "link_egress"].peer == "south"

    far = await refusal(stub.Create(create("c1", two_groups(max_latency_ms=2))))
    assert isinstance(far, errors.NoCapacity)
    assert [(each.resource, each.wanted, each.available) for each in far.shortfalls] == [
        ("latency", 2000, 5000)
    ]
    unknown = two_groups()
    unknown.groups[0].environment.image = "nothing"
    missing = await refusal(stub.Create(create("c1", unknown)))
    assert isinstance(missing, errors.ImageNotReady)
    assert (missing.image, missing.site) == ("nothing", "north")
    bad = two_groups()
    bad.groups[1].allocation.vcpus = 0
    invalid = await refusal(stub.Create(create("c1", bad)))
    assert isinstance(invalid, errors.FieldInvalid)
    assert invalid.field == "spec.groups[1].allocation.vcpus"


async def test_a_site_that_is_down_leaves_nothing_and_then_a_retry_works(here: Federation) -> None:
    stub = here.clusters()
    await here.sites["south"].stop()
    down = await refusal(stub.Create(create("c1", two_groups())))
    assert isinstance(down, errors.SiteUnreachable)
    known = await here.known_sites().List(sites_pb2.ListKnownSitesRequest())
    assert [each.reachable for each in known.sites] == [True, False]
    await here.sites["south"].start()
    cluster = await _retried(here, create("c1", two_groups()))
    assert cluster.state == cluster_pb2.Cluster.SCHEDULED


@pytest.mark.parametrize(
    ("point", "fate"),
    [
        ("after_prepare", "RELEASED"),
        ("after_decide", "CONFIRMED"),
    ],
)
async def test_a_coordinator_that_dies_leaves_all_or_nothing(
    here: Federation, point: str, fate: str
) -> None:
    await here.kill()
    await here.start(fault_pause=f"{point}:60")
    call = asyncio.ensure_future(here.clusters().Create(create("c1", two_groups())))
    async with asyncio.timeout(10):
        while not await _reached(here, point):
            await CLOCK.sleep(0.05)
    await here.kill()
    await asyncio.gather(call, return_exceptions=True)
    await here.start()
    states = await here.until_settled()
    assert list(states.values()) == [{fate}] or (fate == "RELEASED" and _gone(states))
    again = await here.clusters().Create(create("c1", two_groups()))
    assert again.state in (cluster_pb2.Cluster.SCHEDULED, cluster_pb2.Cluster.ACTIVE)
    confirmed = [tx for tx, each in (await here.until_settled()).items() if each == {"CONFIRMED"}]
    assert len(confirmed) == 1


async def _retried(
    here: Federation, request: clusters_pb2.CreateClusterRequest
) -> cluster_pb2.Cluster:
    """As a caller does who is told that a site did not answer."""
    stub = here.clusters()
    async with asyncio.timeout(10):
        while True:
            try:
                return await stub.Create(request)
            except grpc.aio.AioRpcError as error:
                if not isinstance(to_domain_error(error), errors.SiteUnreachable):
                    raise
                await CLOCK.sleep(0.2)


def _gone(states: dict[str, set[str]]) -> bool:
    """A hold may also have run out by itself."""
    return all(each <= {"RELEASED", "EXPIRED"} for each in states.values())


async def _reached(here: Federation, point: str) -> bool:
    states = []
    for site in here.sites:
        states += [part_pb2.Part.State.Name(part.state) for part in await here.parts(site)]
    if states != ["PREPARED", "PREPARED"]:
        return False
    if point != "after_decide":
        return True
    (part,) = await here.parts("north")
    stub = here.decisions(here.domains[0].service("broker"))
    decision = await stub.Get(decisions_pb2.GetDecisionRequest(tx=part.tx))
    return decision.outcome == part_pb2.Decision.COMMIT


async def test_sites_in_doubt_abort_without_any_coordinator_but_its_register(
    here: Federation,
) -> None:
    """The coordinator waits far beyond decide_by; the prepared sites race to ABORT, and win."""
    await here.kill()
    await here.start(fault_pause="after_prepare:8", commit=SHORT)
    call = asyncio.ensure_future(here.clusters().Create(create("c1", two_groups())))
    states = await _after_prepared(here)
    assert _gone(states)
    error = await refusal(call)
    assert isinstance(error, errors.Aborted)


async def _after_prepared(here: Federation) -> dict[str, set[str]]:
    async with asyncio.timeout(10):
        while not await _reached(here, "after_prepare"):
            await CLOCK.sleep(0.05)
    return await here.until_settled()


async def test_only_participants_ask_the_register(here: Federation) -> None:
    await here.clusters().Create(create("c1", two_groups()))
    (part,) = await here.parts("north")
    stub = here.decisions(here.domains[0].service("broker"))
    stands = await stub.Resolve(decisions_pb2.ResolveDecisionRequest(tx=part.tx))
    assert stands.outcome == part_pb2.Decision.COMMIT
    assert len(stands.receipts) == 2
    user = here.decisions(here.alice)
    denied = await refusal(user.Resolve(decisions_pb2.ResolveDecisionRequest(tx=part.tx)))
    assert isinstance(denied, errors.RoleDenied)


async def test_other_tenants_see_nothing(here: Federation) -> None:
    await here.clusters().Create(create("c1", two_groups()))
    mallory = here.clusters(here.meta.user("other", "mallory"))
    denied = await refusal(mallory.Get(clusters_pb2.GetClusterRequest(name=NAME)))
    assert isinstance(denied, errors.RoleDenied)
    hosts = await here.known_sites().ListHosts(site_pb2.ListHostsRequest(parent="sites/south"))
    assert [each.name for each in hosts.hosts] == ["sites/south/hosts/n1", "sites/south/hosts/n2"]


async def test_eight_clients_at_once_never_overfill_a_site(here: Federation) -> None:
    stub = here.clusters()
    spec = two_groups(2, vcpus=1, mbit_s=1)
    answers = await asyncio.gather(
        *(stub.Create(create(f"c{n}", spec, f"r{n}")) for n in range(8)), return_exceptions=True
    )
    held = [each for each in answers if isinstance(each, cluster_pb2.Cluster)]
    assert len(held) == 4  # south has 8 vCPUs, each takes 2
    for each in answers:
        if isinstance(each, grpc.aio.AioRpcError):
            assert isinstance(to_domain_error(each), errors.NoCapacity | errors.Aborted)
    states = await here.until_settled()
    kept = [tx for tx, each in states.items() if each == {"CONFIRMED"}]
    assert len(kept) == 4
    assert _gone({tx: each for tx, each in states.items() if tx not in kept})


async def test_a_broker_hands_on_what_it_cannot_serve_alone(here: Federation) -> None:
    """The user asks the site; the cluster is the meta-scheduler's, and the user's."""
    stub = here.clusters_at("north", "demo", "bob")
    spec = two_groups(11, mbit_s=1, pinned=False)
    cluster = await stub.Create(create("c1", spec))
    assert cluster.name == NAME
    assert cluster.owner == "spiffe://north.site.intertie/tenant/demo/user/bob"
    assert {each.site for each in cluster.workspaces} == {"north", "south"}
    again = await stub.Create(create("c1", spec))
    assert again.uid == cluster.uid
    seen = await stub.Get(clusters_pb2.GetClusterRequest(name="-/tenants/demo/clusters/c1"))
    assert seen.uid == cluster.uid


async def test_attach_goes_to_the_site_of_the_workspace(here: Federation) -> None:
    await here.clusters().Create(create("c1", two_groups()))
    await until(here, cluster_pb2.Cluster.ACTIVE)

    async def attached(workspace: str) -> object:
        opened = attach_pb2.AttachRequest.Open(
            workspace=workspace, channel=attach_pb2.AttachRequest.Open.TCP, port=22
        )

        async def requests() -> AsyncIterator[attach_pb2.AttachRequest]:
            yield attach_pb2.AttachRequest(open=opened)

        return [each async for each in here.clusters().Attach(requests())]

    nobody = await refusal(attached(f"{NAME}/workspaces/worker-7"))
    assert isinstance(nobody, errors.NotFound)
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # the fake agents take no streams
        await attached(f"{NAME}/workspaces/worker-0")
    assert to_domain_error(caught.value) is None or not isinstance(
        to_domain_error(caught.value), errors.NotFound
    )


async def test_disks_without_terms_are_planned_as_the_sites_will_admit_them(
    here: Federation,
) -> None:
    """Of 400 MiB/s a disk takes the site's default of 100: 4 a host, 16 in all, not 17."""
    spec = two_groups(15, mbit_s=1, pinned=False)
    for site in here.sites.values():
        site.agents.hosts = {host: {**HOST, "vcpus": 16} for host in ("n1", "n2")}
        await site.agents.report(CLOCK)
    cluster = await here.clusters().Create(create("c1", spec))
    assert len(cluster.workspaces) == 16
    decisions = await here.parts("north")
    assert len(decisions) == 1  # at the first attempt
    refused = await refusal(here.clusters().Create(create("c2", two_groups(1, pinned=False))))
    assert isinstance(refused, errors.NoCapacity)
    assert "throughput" in {each.resource for each in refused.shortfalls}
