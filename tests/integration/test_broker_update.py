"""A cluster of one site gets other terms through the broker's API, on real etcd."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.api.broker.v1 import site_pb2, usage_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.broker.adapters import keys
from intertie.broker.domain.part import Part
from intertie.client import changes_of, read_document
from intertie.common import errors
from intertie.common.clock import SystemClock
from intertie.common.etcd.records import decode
from intertie.common.rpc.client import to_domain_error
from tests.integration.broker_meta import metasched
from tests.integration.broker_site import Site, cluster_spec, create, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.pki import TestDomain
from tests.integration.refusals import refusal
from tests.integration.test_broker_clusters import until

pytestmark = pytest.mark.etcd

GROUPS, DURATION, END_TIME = "spec.groups", "spec.lease.duration", "spec.lease.end_time"


def update(
    name: str, spec: cluster_pb2.ClusterSpec, request_id: str, *paths: str, **more: Any
) -> clusters_pb2.UpdateClusterRequest:
    request = clusters_pb2.UpdateClusterRequest(
        cluster=cluster_pb2.Cluster(name=name, spec=spec), request_id=request_id, **more
    )
    request.update_mask.paths.extend(paths or [GROUPS])
    return request


def lasting(hours: float) -> cluster_pb2.ClusterSpec:
    spec = cluster_pb2.ClusterSpec()
    spec.lease.duration.FromTimedelta(timedelta(hours=hours))
    return spec


async def part_of(here: Site) -> Part:
    """The only one."""
    [entry] = (await here.etcd.range(keys.PARTS)).entries
    return decode(Part, entry.value)


async def free(here: Site) -> dict[str, int]:
    """vCPUs of each host, as the site tells operators."""
    stub = here.hosts(here.domain.operator("olga"))
    listed = await stub.List(site_pb2.ListHostsRequest(parent="sites/north"))
    return {each.name.rpartition("/")[2]: each.free.vcpus for each in listed.hosts}


def meaning(error: BaseException) -> errors.DomainError | None:
    return to_domain_error(error) if isinstance(error, grpc.aio.AioRpcError) else None


async def until_obeyed(here: Site) -> Part:
    async with asyncio.timeout(20):
        while (part := await part_of(here)).shed:
            await SystemClock().sleep(0.05)
    return part


async def active(
    stub: clusters_pb2_grpc.ClustersAsyncStub, here: Site, **spec: Any
) -> cluster_pb2.Cluster:
    made = await stub.Create(create("one", cluster_spec(**spec), "made"))
    return (await until(stub, made.name, cluster_pb2.Cluster.ACTIVE))[-1]


def places(cluster: cluster_pb2.Cluster) -> dict[str, tuple[str, str]]:
    return {
        each.name.rpartition("/")[2]: (each.host, each.addresses[0].address)
        for each in cluster.workspaces
    }


async def test_a_cluster_grows_and_who_was_there_stays_as_it_was(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2)
    grown = await stub.Update(update(made.name, cluster_spec(count=4), "r1"))
    assert (grown.terms, len(grown.workspaces)) == (1, 4)
    assert grown.spec.groups[0].count == 4
    assert grown.uid == made.uid
    assert places(grown).items() >= places(made).items()
    assert len({address for _, address in places(grown).values()}) == 4
    assert grown.plan.cost == pytest.approx(grown.price.amount)
    past, rest = grown.price.terms
    assert (past.window.start_time, rest.window.end_time) == (
        made.window.start_time,
        made.window.end_time,
    )
    whole = made.price.amount
    share = past.amount / whole
    assert 0 < share < 0.5, "the past at the old price"
    assert rest.amount == pytest.approx(2 * (1 - share) * whole), "twice as many for the rest"
    assert dict(grown.plan.parts[0].counts) == {"worker": 4}
    async with asyncio.timeout(20):
        while True:
            now = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
            if all(each.ready for each in now.workspaces):
                break
            await SystemClock().sleep(0.05)
    assert len(now.workspaces) == 4
    assert await free(here) == {"n1": 2, "n2": 2}
    assert {len(each.workspaces) for each in here.agents.wanted.values()} == {2}


async def test_what_a_host_has_not_given_up_is_nobody_elses(here: Site) -> None:
    """And what it has is, with the record of a host that has nothing of it any more taken away."""
    stub = here.clusters()
    made = await active(stub, here, count=8)
    here.agents.deaf = {"n1", "n2"}
    shrunk = await stub.Update(update(made.name, cluster_spec(count=1), "r1"))
    assert list(places(shrunk)) == ["worker-0"]
    assert places(made).items() >= places(shrunk).items()
    full = await refusal(stub.Create(create("two", cluster_spec(count=2), "two")))
    assert isinstance(full, errors.NoCapacity)
    assert await free(here) == {"n1": 0, "n2": 0}
    assert (await part_of(here)).shed

    stays = shrunk.workspaces[0].host
    here.agents.deaf = {stays}
    async with asyncio.timeout(20):
        while not any(each.gone for each in here.agents.wanted.values()):
            await SystemClock().sleep(0.05)
    assert await free(here) == {"n1": 0, "n2": 0}, "every host has to obey"
    here.agents.deaf = set()
    await until_obeyed(here)
    left = "n2" if stays == "n1" else "n1"
    assert await free(here) == {stays: 3, left: 4}
    wanted = (await here.etcd.range("wanted/")).entries
    assert [each.key.split("/")[1] for each in wanted] == [stays]
    await stub.Create(create("two", cluster_spec(count=7), "two"))


async def test_a_refusal_leaves_the_old_terms_as_they_were(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2)
    before = (await here.etcd.range("")).entries
    refusals: tuple[tuple[cluster_pb2.ClusterSpec, list[str], type[errors.DomainError]], ...] = (
        (cluster_spec(count=9), [GROUPS], errors.NoCapacity),
        (cluster_spec(count=2, vcpus=5), [GROUPS], errors.NoCapacity),
        (cluster_spec(count=2), ["spec.networks"], errors.FieldInvalid),
        (cluster_spec(count=0), [GROUPS], errors.FieldInvalid),
        (lasting(1.5), [END_TIME], errors.FieldInvalid),
    )
    for number, (spec, paths, kind) in enumerate(refusals):
        refused = await refusal(stub.Update(update(made.name, spec, f"no-{number}", *paths)))
        assert isinstance(refused, kind), refused
    gone = await refusal(stub.Update(update(f"{made.name}x", cluster_spec(), "r2")))
    assert isinstance(gone, errors.NotFound)
    stale = await refusal(stub.Update(update(made.name, cluster_spec(), "r3", etag="0" * 12)))
    assert isinstance(stale, errors.EtagStale)
    other = here.clusters(here.domain.user("other", "eve"))
    denied = await refusal(other.Update(update(made.name, cluster_spec(count=1), "r4")))
    assert isinstance(denied, errors.RoleDenied)
    after = (await here.etcd.range("")).entries
    ours = ("parts/", "clusters/", "wanted/", "requests/", "ledger/")
    assert [each for each in after if each.key.startswith(ours)] == [
        each for each in before if each.key.startswith(ours)
    ]


async def test_longer_shorter_and_what_changes_nothing(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2)
    longer = await stub.Update(update(made.name, lasting(2), "r1", DURATION, etag=made.etag))
    span = longer.window.end_time.ToDatetime() - longer.window.start_time.ToDatetime()
    assert (span, longer.terms) == (timedelta(hours=2), 1)
    assert longer.window.start_time == made.window.start_time
    spec = cluster_pb2.ClusterSpec()
    spec.lease.end_time.CopyFrom(made.window.end_time)
    shorter = await stub.Update(update(made.name, spec, "r2", END_TIME))
    assert (shorter.window, shorter.terms) == (made.window, 2)
    await until_obeyed(here)
    wanted = list(here.agents.wanted.values())
    assert {each.window.end_time.seconds for each in wanted} == {made.window.end_time.seconds}
    same = await stub.Update(update(made.name, cluster_spec(count=2), "r3"))
    assert same.terms == 2
    grown = await stub.Update(update(made.name, cluster_spec(count=3), "r4"))
    again = await stub.Update(update(made.name, cluster_spec(count=2), "r3"))
    assert (grown.terms, again.terms) == (3, 3), "what changed nothing changes nothing later"


DOCUMENT = """
name: one
groups:
  - name: worker
    count: 2
    environment: {image: guest}
    allocation: {vcpus: 1, memory_mib: 128, disk_mib: 128}
networks:
  - name: lan
    subnet: 10.1.0.0/24
    latency: [{groups: [worker, worker], max_latency: 50ms}]
lease: {duration: 1h}
"""


async def test_the_document_that_it_was_made_from_changes_nothing(here: Site) -> None:
    """What the service has filled in is no difference; what was written otherwise is."""
    stub = here.clusters()
    document = read_document(DOCUMENT)
    made = await stub.Create(create("one", document.spec, "made"))
    spec, paths = changes_of(document, made)
    same = await stub.Update(update(made.name, spec, "r1", *paths))
    assert (paths, same.terms) == (["spec.groups"], 0)
    more = DOCUMENT.replace("count: 2", "count: 3").replace("duration: 1h", "duration: 2h")
    spec, paths = changes_of(read_document(more), same)
    changed = await stub.Update(update(made.name, spec, "r2", *paths))
    assert (changed.terms, len(changed.workspaces)) == (1, 3)
    assert changed.spec.lease.duration.seconds == 7200


async def test_validate_only_tells_what_would_be_and_changes_nothing(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2)
    would = await stub.Update(update(made.name, cluster_spec(count=3), "", validate_only=True))
    assert (would.terms, len(would.workspaces)) == (1, 3)
    now = await stub.Get(clusters_pb2.GetClusterRequest(name=made.name))
    assert (now.terms, now.etag) == (0, made.etag)
    missing = await refusal(stub.Update(update(made.name, cluster_spec(count=3), "")))
    assert isinstance(missing, errors.FieldInvalid)
    assert missing.field == "request_id"


async def test_the_same_request_again_changes_nothing_more(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2)
    request = update(made.name, cluster_spec(count=3), "r1")
    answers = await asyncio.gather(*(stub.Update(request) for _ in range(5)))
    assert {each.terms for each in answers} == {1}
    await stub.Update(update(made.name, cluster_spec(count=4), "r2"))
    late = await stub.Update(request)
    assert (late.terms, late.spec.groups[0].count) == (2, 4), "as it is now"
    other = await refusal(stub.Update(update(made.name, cluster_spec(count=5), "r1")))
    assert isinstance(other, errors.RequestIdReuse)
    first = await refusal(stub.Update(update(made.name, cluster_spec(count=5), "made")))
    assert isinstance(first, errors.RequestIdReuse)


async def test_many_updates_at_once_each_whole_or_refused(here: Site) -> None:
    """Of two clusters that want what is left; whatever is done, no host has more than it has."""
    stub = here.clusters()
    one = await stub.Create(create("one", cluster_spec(count=2), "one"))
    two = await stub.Create(create("two", cluster_spec(count=2), "two"))
    wishes = [(each.name, count) for count in (3, 5, 4, 6, 2, 5) for each in (one, two)]

    done = await asyncio.gather(
        *(
            stub.Update(update(name, cluster_spec(count=count), f"u{number}"))
            for number, (name, count) in enumerate(wishes)
        ),
        return_exceptions=True,
    )
    refused = [meaning(each) for each in done if isinstance(each, BaseException)]
    assert all(isinstance(each, errors.NoCapacity) for each in refused), refused
    assert len(refused) < len(done)
    taken = dict.fromkeys(("n1", "n2"), 0)
    for each in (one, two):
        now = await stub.Get(clusters_pb2.GetClusterRequest(name=each.name))
        assert len(now.workspaces) == now.spec.groups[0].count
        assert len({address for _, address in places(now).values()}) == len(now.workspaces)
        for host, _ in places(now).values():
            taken[host] += 1
    assert all(vcpus <= 4 for vcpus in taken.values()), taken


async def test_an_end_beside_an_update_wins(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=2)
    deleting = stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    updates = [
        stub.Update(update(made.name, cluster_spec(count=3 + number % 2), f"u{number}"))
        for number in range(4)
    ]
    outcomes = await asyncio.gather(deleting, *updates, return_exceptions=True)
    assert not isinstance(outcomes[0], BaseException)
    refused = [meaning(each) for each in outcomes[1:] if isinstance(each, BaseException)]
    assert all(isinstance(each, errors.ClusterOver) for each in refused), refused
    over = await refusal(stub.Update(update(made.name, cluster_spec(count=4), "late")))
    assert isinstance(over, errors.ClusterOver)
    await until(stub, made.name, cluster_pb2.Cluster.CANCELLED)
    assert not (await here.etcd.range("wanted/")).entries
    assert await free(here) == {"n1": 4, "n2": 4}


async def test_each_time_is_written_down_by_the_terms_of_then(here: Site) -> None:
    stub = here.clusters()
    made = await active(stub, here, count=1)
    await stub.Update(update(made.name, cluster_spec(count=3), "r1"))
    await stub.Update(update(made.name, cluster_spec(count=2), "r2"))
    await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    await until(stub, made.name, cluster_pb2.Cluster.CANCELLED)

    async def records() -> list[usage_pb2.UsageRecord]:
        kept = (await here.etcd.range("usage/records/")).entries
        return [usage_pb2.UsageRecord.FromString(each.value) for each in kept]

    async with asyncio.timeout(30):
        while not any(each.final for each in await records()):
            await SystemClock().sleep(0.1)
    found = sorted(await records(), key=lambda each: each.number)
    assert [each.reserved.hosts.vcpus for each in found] == [1, 3, 2]
    assert [[len(w.indices) for w in each.workspaces] for each in found] == [[1], [3], [2]]
    assert [each.final for each in found] == [False, False, True]
    for before, after in itertools.pairwise(found):
        assert before.period.end_time == after.period.start_time
    assert found[-1].end_reason == "CANCELLED"


async def test_what_was_handed_on_is_its_meta_schedulers_to_change(
    tmp_path: Path,
    etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    meta: TestDomain,
) -> None:
    async with (
        metasched(tmp_path, meta, (north,)) as beyond,
        site(
            tmp_path / "north",
            etcd_server.settings(etcd_prefix),
            north,
            (meta,),
            metascheds=(beyond.peer,),
        ) as here,
    ):
        stub = here.clusters()
        made = await stub.Create(create("wide", cluster_spec(count=40), "r1"))
        assert made.name.startswith("metascheds/")
        for number, name in enumerate((made.name, "sites/north/tenants/demo/clusters/wide")):
            request = update(name, cluster_spec(count=2 + number), f"u{number}")
            for _ in range(2):
                changed = await stub.Update(request)
                assert changed.name == made.name
            first, again = beyond.elsewhere.updates[-2:]
            assert first == again
            assert first.cluster.spec.groups[0].count == 2 + number
            assert list(first.update_mask.paths) == [GROUPS]
            assert first.request_id.startswith("fwd-")
        beyond.elsewhere.refusal = errors.AmendPending(made.name)
        refused = await refusal(stub.Update(update(made.name, cluster_spec(count=3), "r9")))
        assert isinstance(refused, errors.AmendPending)
        assert len({each.request_id for each in beyond.elsewhere.updates}) == 3
        assert set(beyond.elsewhere.callers) == {
            "spiffe://north.site.intertie/tenant/demo/user/alice"
        }
        assert not (await here.etcd.range("parts/")).entries
