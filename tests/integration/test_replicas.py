"""Services of several replicas, by all of their addresses: one that is not there, one that follows
and one that leads, in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import grpc
import pytest

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2
from intertie.api.metasched.v1 import decisions_pb2, sites_pb2
from intertie.client import connection
from intertie.client.changes import Changed, Snapshot
from intertie.client.clusters import Clusters
from intertie.client.config import Endpoint
from intertie.client.errors import Unreachable
from intertie.common.errors import NotFound, NotLeading
from intertie.common.etcd.client import DeleteKey, Etcd, Put
from intertie.common.rpc.client import to_domain_error
from intertie.common.rpc.replicas import ReplicaChannel
from tests.fakes.site_brokers import CLOCK, Federation, FederationSite, create
from tests.integration.broker_site import cluster_spec
from tests.integration.pki import TestDomain
from tests.integration.test_metasched import NAME, two_groups

pytestmark = pytest.mark.etcd

FAIL_OVER_S = 10.0


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


@pytest.fixture
async def second_meta(here: Federation) -> AsyncIterator[Federation]:
    """A replica of the meta-scheduler that follows."""
    other = here.another()
    await other.start(lead=False)
    try:
        yield other
    finally:
        for line in other.channels:
            await line.close()
        await other.kill()


@pytest.fixture
async def second_north(here: Federation) -> AsyncIterator[FederationSite]:
    """A replica of north's broker that follows."""
    other = here.sites["north"].another()
    await other.start(lead=False)
    try:
        yield other
    finally:
        await other.stop()


class Client:
    """A user's, of a service at all of these addresses."""

    def __init__(self, domain: TestDomain, service: str, *addresses: str) -> None:
        alice = domain.user("demo", "alice")
        self.connection = connection.open_connection(
            Endpoint(
                name="here",
                kind="metasched" if service == "metasched" else "site",
                addresses=addresses,
                server_name=domain.server_name(service),
                certificate=alice.certificate,
                key=alice.key,
                roots=domain.trust.roots,
                tenant="demo",
            ),
            CLOCK,
        )
        self.clusters = Clusters(self.connection)

    async def __aenter__(self) -> Clusters:
        return self.clusters

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()


def local(site: str = "north") -> cluster_pb2.ClusterSpec:
    spec = cluster_spec(count=1)
    spec.groups[0].placement.allow_sites.append(site)
    return spec


async def test_a_client_passes_over_who_is_not_there_and_who_follows(
    here: Federation, second_north: FederationSite, north: TestDomain
) -> None:
    first = here.sites["north"]
    absent = f"unix:{first.folder / 'nobody'}"
    for order in (
        (absent, second_north.address, first.address),
        (second_north.address, first.address, absent),
        (first.address, absent, second_north.address),
    ):
        async with Client(north, "broker", *order) as clusters:
            made = await clusters.create("c1", local(), request_id="r1")
            assert (await clusters.get("c1")).uid == made.uid
            assert [each.uid for each in await clusters.list()] == [made.uid]
            async with aclosing(clusters.watch("c1")) as changes:
                assert (await anext(changes)).uid == made.uid


async def test_each_replica_alone_answers_reads(
    here: Federation, second_north: FederationSite, north: TestDomain
) -> None:
    first = here.sites["north"]
    async with Client(north, "broker", first.address, second_north.address) as clusters:
        made = await clusters.create("c1", local())
    for replica in (first, second_north):
        async with Client(north, "broker", replica.address) as clusters:
            assert (await clusters.get("c1")).uid == made.uid
            plan = await clusters.create("c2", local(), validate_only=True)
            assert plan.state == cluster_pb2.Cluster.PLANNED


def read_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients draw the first of their addresses to read from."""
    at_first = partial(ReplicaChannel, draw=lambda count: 0)
    monkeypatch.setattr(connection, "ReplicaChannel", at_first)


async def test_a_stream_to_a_workspace_goes_to_who_is_there(
    here: Federation, north: TestDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not begun a second time, so it has to begin at the right one."""
    read_at_first(monkeypatch)
    up = here.sites["north"].address
    async with Client(north, "broker", f"{up}-absent", up) as clusters:
        with pytest.raises(NotFound):
            await clusters.attach("c1", "worker-0")


async def test_a_watch_goes_on_at_the_other_replica_when_its_own_is_gone(
    here: Federation,
    second_north: FederationSite,
    north: TestDomain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_at_first(monkeypatch)
    first = here.sites["north"]
    async with Client(north, "broker", first.address, second_north.address) as clusters:
        made = await clusters.create("c1", local())
        async with aclosing(clusters.watch("c1")) as changes, asyncio.timeout(20):
            assert (await anext(changes)).uid == made.uid
            await first.stop()
            await clusters.delete("c1")
            states = [each.state async for each in changes]
    assert states[-1] == cluster_pb2.Cluster.CANCELLED


async def test_a_watch_of_all_goes_on_where_it_was_at_the_other_replica(
    here: Federation,
    second_north: FederationSite,
    north: TestDomain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker that it reads from goes away with the lead, and what nobody read until then is
    told by the other."""
    read_at_first(monkeypatch)
    first = here.sites["north"]
    async with (
        Client(north, "broker", first.address, second_north.address) as clusters,
        aclosing(clusters.watch_all()) as events,
        asyncio.timeout(60),
    ):
        begun = await anext(events)
        assert isinstance(begun, Snapshot)
        assert begun.clusters == ()
        made = await clusters.create("c1", local())
        scheduled = await anext(events)
        assert isinstance(scheduled, Changed)
        assert scheduled.cluster.uid == made.uid
        while (await clusters.get("c1")).state != cluster_pb2.Cluster.ACTIVE:
            await CLOCK.sleep(0.1)
        await first.stop()
        await clusters.delete("c1")
        told = [scheduled]
        async for event in events:
            assert not isinstance(event, Snapshot), "it goes on where it was"
            if isinstance(event, Changed):
                told.append(event)
                if event.cluster.state == cluster_pb2.Cluster.CANCELLED:
                    break
    assert len({each.token for each in told}) == len(told)
    ended = [each.cluster.HasField("end_requested_time") for each in told]
    assert ended == sorted(ended), "in order"
    ready = [w.ready for each in told for w in each.cluster.workspaces]
    assert True in ready, "what it passed through while nobody read is told too"
    states = [cluster_pb2.Cluster.State.Name(each.cluster.state) for each in told]
    assert [*dict.fromkeys(states)] == ["SCHEDULED", "ACTIVE", "CANCELLED"]


async def test_where_none_leads_the_error_says_so_and_names_all_that_were_asked(
    here: Federation, north: TestDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_S", 3.0)
    first = here.sites["north"]
    second = first.another()
    store = await Etcd.connect(first.settings.etcd)
    try:  # the key is nobody's who lives, and no lease ends it
        await store.txn([], [DeleteKey("election/broker")])
        await store.txn([], [Put("election/broker", b"gone")])
        await second.start(lead=False)
        async with Client(north, "broker", second.address, first.address) as clusters:
            with pytest.raises(NotLeading) as caught:
                await clusters.create("c1", local())
            assert caught.value.leader == "gone"
            for replica in (first, second):
                assert replica.address in str(caught.value)
            assert await clusters.list() == []
    finally:
        await second.stop()
        await store.close()


async def test_where_nobody_is_there_all_addresses_are_named(
    north: TestDomain, tmp_path: Path
) -> None:
    nowhere = [f"unix:{tmp_path / name}" for name in ("a", "b")]
    async with Client(north, "broker", *nowhere) as clusters:
        with pytest.raises(Unreachable) as caught:
            await clusters.get("c1")
    assert ", ".join(nowhere) in str(caught.value)


async def test_a_meta_scheduler_finds_the_leader_of_a_site(
    here: Federation, second_north: FederationSite
) -> None:
    """Its configuration names the follower first; at south nobody is there at the first address."""
    made = await here.clusters().Create(create("c1", two_groups()))
    assert made.state == cluster_pb2.Cluster.SCHEDULED
    assert (await here.until_settled()) == {(await here.parts("north"))[0].tx: {"CONFIRMED"}}


async def test_a_site_whose_leader_has_crashed_is_waited_for(
    here: Federation, second_north: FederationSite
) -> None:
    first = here.sites["north"].broker
    assert first is not None
    await here.clusters().Create(create("c0", two_groups(1)))
    first.election._lease = 0  # nobody renews it, and nobody gives it up
    async with asyncio.timeout(FAIL_OVER_S):
        while first.election.is_leader:
            await CLOCK.sleep(0.05)
        made = await here.clusters().Create(create("c1", two_groups(1)))
    assert made.state == cluster_pb2.Cluster.SCHEDULED
    states = await here.until_settled()
    assert sorted(states.values(), key=str) == [{"CONFIRMED"}, {"CONFIRMED"}]


async def test_a_follower_of_a_meta_scheduler_reads_plans_and_tells_decisions(
    here: Federation, second_meta: Federation
) -> None:
    made = await here.clusters().Create(create("c1", two_groups()))
    stub = second_meta.clusters()
    request = clusters_pb2.GetClusterRequest(name=NAME)
    assert (await stub.Get(request)).uid == made.uid
    listed = await stub.List(clusters_pb2.ListClustersRequest(parent="-/tenants/demo"))
    assert [each.uid for each in listed.clusters] == [made.uid]
    watching = stub.Watch(clusters_pb2.WatchClusterRequest(name=NAME))
    assert (await anext(aiter(watching))).uid == made.uid
    watching.cancel()
    plan = await stub.Create(create("c2", two_groups(), validate_only=True))
    assert plan.state == cluster_pb2.Cluster.PLANNED
    known = await second_meta.known_sites().List(sites_pb2.ListKnownSitesRequest())
    assert [each.reachable for each in known.sites] == [True, True]
    (part,) = await here.parts("north")
    decisions = second_meta.decisions(here.domains[0].service("broker"))
    for answer in (
        decisions.Get(decisions_pb2.GetDecisionRequest(tx=part.tx)),
        decisions.Resolve(decisions_pb2.ResolveDecisionRequest(tx=part.tx)),
    ):
        assert (await answer).tx == part.tx

    for refused in (
        stub.Create(create("c2", two_groups())),
        stub.Delete(clusters_pb2.DeleteClusterRequest(name=NAME)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused
        meant = to_domain_error(caught.value)
        assert isinstance(meant, NotLeading)
        assert meant.leader == here.address


async def test_a_broker_hands_on_to_whichever_meta_scheduler_leads(
    here: Federation, second_meta: Federation, north: TestDomain
) -> None:
    """North's configuration names the follower first."""
    wide = two_groups()
    async with Client(north, "broker", here.sites["north"].address) as clusters:
        made = await clusters.create("c1", wide, request_id="r1")
        assert made.name == NAME
        assert here.metasched is not None
        here.metasched.election._lease = 0
        async with asyncio.timeout(FAIL_OVER_S):
            while here.metasched.election.is_leader:
                await CLOCK.sleep(0.05)
            ended = await clusters.delete("c1")
        assert ended.uid == made.uid
        again = await clusters.create("c1", wide, request_id="r1")
        assert again.uid == made.uid


async def test_a_new_leader_undoes_what_was_begun_and_serves_the_same_request(
    here: Federation, second_meta: Federation, meta: TestDomain
) -> None:
    """The client knows both; its one call outlives the leader that had prepared everything."""
    await here.kill()
    second_led = second_meta.metasched
    assert second_led is not None
    await second_led.election.wait_until_leading()
    await second_meta.kill()
    await here.start(fault_pause="after_prepare:60")
    await second_meta.start(lead=False)
    async with Client(meta, "metasched", here.address, second_meta.address) as clusters:
        creating = asyncio.create_task(clusters.create("c1", two_groups()))
        async with asyncio.timeout(20):
            while [len(await here.parts(site)) for site in here.sites] != [1, 1]:
                await CLOCK.sleep(0.1)
        [begun] = {part.tx for part in await here.parts("north")}
        await here.kill()
        async with asyncio.timeout(20):
            made = await creating
        listed = await clusters.list()
    assert [each.uid for each in listed] == [made.uid]
    states = await second_meta.until_settled()
    assert states.pop(begun) <= {"RELEASED", "EXPIRED"}
    assert list(states.values()) == [{"CONFIRMED"}]
