"""Thousands of requests, each sent until it is answered, over links that break in the middle of
whatever they carry: each is had once, whole, and none is lost."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from intertie.api.broker.v1 import part_pb2
from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.common import errors
from intertie.common.etcd.client import Etcd
from intertie.common.rpc.client import channel, to_domain_error
from intertie.common.rpc.spec_proto import timestamp_to_proto
from intertie.common.settings import NamedPeerSettings, TlsSettings
from tests.fakes.site_brokers import CLOCK, Federation
from tests.integration.broker_site import HOST, Site, cluster_spec, site
from tests.integration.etcd_server import EtcdServer
from tests.integration.flaky_link import FlakyLink, flaky_link
from tests.integration.ledger_history import history, replay
from tests.integration.pki import TestDomain, trust_in
from tests.integration.test_metasched import two_groups

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(7200)]

CLIENTS = 16
PATIENCE_S = 3.0
"""Of a client with one try."""
TWICE = 0.1
"""Of the requests are sent by two at the same time, as by a user with two terminals."""
DELETED = 0.3
REPLAYED = 300
"""Clusters of a history that is counted again at each of its revisions."""
AT_ONCE = 4
"""Clusters whose windows are the same: the hosts of a site have room for twice as many."""
PASSING = (
    errors.EtcdUnavailable,
    errors.NotLeading,
    errors.SiteUnreachable,
    errors.StaleWrite,
    errors.Aborted,
    errors.NoCapacity,
)
"""What a client is told that may be otherwise next time. NO_CAPACITY: of an attempt that failed,
and whose site has not heard of it yet."""


@dataclass
class Clients:
    """Each sends its requests one after another, each until it has an answer."""

    dial: Callable[[], grpc.aio.Channel]
    spec: Callable[[int], cluster_pb2.ClusterSpec]
    draw: random.Random
    uids: dict[str, set[str]] = field(default_factory=dict)
    """Of each cluster, as its creates were answered."""
    deleted: set[str] = field(default_factory=set)
    tries: Counter[str] = field(default_factory=Counter)
    answered_late: int = 0
    """Creates that had been done when they were sent again."""

    async def run(self, count: int) -> None:
        numbers = iter(range(count))
        await asyncio.gather(*(self._work(numbers) for _ in range(CLIENTS)))

    async def _work(self, numbers: Iterator[int]) -> None:
        lines = [self.dial(), self.dial()]
        stubs = [clusters_pb2_grpc.ClustersStub(each) for each in lines]
        try:
            for number in numbers:
                await self._one(stubs, number)
        finally:
            for each in lines:
                await each.close()

    async def _one(self, stubs: list[clusters_pb2_grpc.ClustersAsyncStub], number: int) -> None:
        name = f"c{number}"
        request = clusters_pb2.CreateClusterRequest(
            parent="-/tenants/demo",
            cluster_id=name,
            spec=self.spec(number),
            request_id=f"r{number}",
        )
        by = stubs if self.draw.random() < TWICE else stubs[:1]
        made = await asyncio.gather(
            *(self._until_answered(name, stub.Create, request) for stub in by)
        )
        self.uids.setdefault(name, set()).update(each.uid for each in made)
        if self.draw.random() < DELETED:
            ending = clusters_pb2.DeleteClusterRequest(name=made[0].name)
            await self._until_answered(f"end of {name}", stubs[0].Delete, ending)
            self.deleted.add(name)

    async def _until_answered(
        self,
        what: str,
        call: Callable[..., Awaitable[cluster_pb2.Cluster]],
        request: object,
    ) -> cluster_pb2.Cluster:
        while True:
            began = CLOCK.now()
            self.tries[what] += 1
            try:
                answer = await call(request, timeout=PATIENCE_S)
            except grpc.aio.AioRpcError as error:
                if not _may_be_asked_again(error):
                    raise
                await CLOCK.sleep(0.05)
                continue
            if answer.create_time.ToDatetime(tzinfo=began.tzinfo) < began:
                self.answered_late += "end of" not in what
            return answer


def _may_be_asked_again(error: grpc.aio.AioRpcError) -> bool:
    again = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    return error.code() in again or isinstance(to_domain_error(error), PASSING)


def in_turn(spec: cluster_pb2.ClusterSpec, number: int) -> cluster_pb2.ClusterSpec:
    """Days ahead, where there is room: a few in each window."""
    start = START + timedelta(minutes=number // AT_ONCE)
    spec.lease.start_time.CopyFrom(timestamp_to_proto(start))
    spec.lease.end_time.CopyFrom(timestamp_to_proto(start + timedelta(minutes=1)))
    return spec


BEGAN = {"CONFIRMED", "ENDED"}
START = CLOCK.now().replace(microsecond=0) + timedelta(days=2)


@contextmanager
def nothing_unforeseen() -> Iterator[None]:
    """No service logs an error: whatever happens on the way, it has a name for it."""
    with capture_logs() as logged:
        yield
    assert [each for each in logged if each["log_level"] in ("error", "critical")] == []


def check_answers(clients: Clients, count: int, links: Sequence[FlakyLink]) -> None:
    """It was as bad as it was meant to be, and nobody was told of two clusters of one request."""
    assert {name: len(uids) for name, uids in clients.uids.items()} == {
        f"c{number}": 1 for number in range(count)
    }
    again = sum(tries - 1 for tries in clients.tries.values())
    print(  # noqa: T201
        f"{count} creates, {len(clients.deleted)} deletes, {again} sent again, "
        f"{clients.answered_late} of them had been done; "
        f"{sum(each.cut for each in links)} of {sum(each.connections for each in links)} "
        "connections cut"
    )
    assert all(each.cut >= 5 for each in links)


def _line(
    link: FlakyLink,
    tls: TlsSettings,
    domain: TestDomain,
    service: str,
    trusted: Sequence[TestDomain],
) -> grpc.aio.Channel:
    return channel(link.address, tls, trust_in(*trusted), domain.server_name(service))


def _by(links: Mapping[str, FlakyLink], peer: NamedPeerSettings) -> NamedPeerSettings:
    return peer.model_copy(update={"addresses": (links[peer.name].address,)})


async def _listed(stub: clusters_pb2_grpc.ClustersAsyncStub) -> dict[str, cluster_pb2.Cluster]:
    found: dict[str, cluster_pb2.Cluster] = {}
    request = clusters_pb2.ListClustersRequest(parent="-/tenants/demo")
    while True:
        page = await stub.List(request)
        found |= {each.name.rpartition("/")[2]: each for each in page.clusters}
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _check_end(listed: Mapping[str, cluster_pb2.Cluster], clients: Clients) -> None:
    ending = {name for name, each in listed.items() if each.HasField("end_requested_time")}
    assert ending == clients.deleted


async def records(etcd: Etcd, prefix: str) -> list[str]:
    return [each.key for each in (await etcd.range(prefix)).entries]


@pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=pytest.mark.more_faults, id="10000")]
)
async def test_a_request_that_is_sent_until_it_is_answered_is_had_once(
    here: Site, tmp_path: Path, count: int
) -> None:
    tls = here.domain.user("demo", "alice")
    async with flaky_link(here.address, tmp_path / "link", seed=count) as link:
        clients = Clients(
            dial=lambda: _line(link, tls, here.domain, "broker", here.trusted),
            spec=lambda number: in_turn(cluster_spec(count=1, pair_mbit_s=0), number),
            draw=random.Random(count),
        )
        with nothing_unforeseen():
            await clients.run(count)
        check_answers(clients, count, [link])
        assert clients.answered_late >= count / 100
    listed = await _listed(here.clusters())
    assert {name: {each.uid} for name, each in listed.items()} == clients.uids
    assert len(await records(here.etcd, "requests/")) == count
    parts = await records(here.etcd, "parts/")
    assert len(parts) == count
    assert len({each.rpartition("/")[2] for each in parts}) == count
    _check_end(listed, clients)


@pytest.mark.parametrize(
    "count", [300, pytest.param(3_000, marks=pytest.mark.more_faults, id="3000")]
)
async def test_a_request_is_had_once_where_the_store_s_connections_break(
    tmp_path: Path,
    own_etcd_server: EtcdServer,
    etcd_prefix: str,
    north: TestDomain,
    south: TestDomain,
    count: int,
) -> None:
    """Between the broker and its etcd, whose history is looked at: nobody knows then whether it
    was written."""
    direct = own_etcd_server.settings(etcd_prefix)
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(
            flaky_link(
                direct.endpoints[0], tmp_path, seed=count, bytes_each=math.inf, seconds_each=0.2
            )
        )
        by = direct.model_copy(update={"endpoints": (link.address,)})
        here = await stack.enter_async_context(
            site(tmp_path / "site", direct, north, (south,), by=by)
        )
        clients = Clients(
            dial=lambda: here.dial(north.user("demo", "alice")),
            spec=lambda number: in_turn(cluster_spec(count=1, pair_mbit_s=0), number),
            draw=random.Random(count),
        )
        with nothing_unforeseen():
            await clients.run(count)
        check_answers(clients, count, [link])
        assert len(await records(here.etcd, "requests/")) == count
        assert len(await records(here.etcd, "parts/")) == count
        if count <= REPLAYED:
            writes = await history(here.etcd, own_etcd_server)
            assert replay(writes, {"n1": HOST, "n2": HOST}, 200) == []


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.more_faults, id="500")])
async def test_a_co_allocation_over_links_that_break_is_whole_and_had_once(
    two_sites: Federation, tmp_path: Path, count: int
) -> None:
    """Between the user and the meta-scheduler, and between that and both sites."""
    async with AsyncExitStack() as stack:
        to_site = {
            name: await stack.enter_async_context(
                flaky_link(site.address, tmp_path / f"to-{name}", seed=count, bytes_each=30_000)
            )
            for name, site in two_sites.sites.items()
        }
        link = await stack.enter_async_context(
            flaky_link(two_sites.address, tmp_path / "link", seed=count)
        )
        await two_sites.kill()
        await two_sites.start(sites=tuple(_by(to_site, each) for each in two_sites.settings.sites))
        clients = Clients(
            dial=lambda: _line(
                link, two_sites.alice, two_sites.meta, "metasched", two_sites.domains
            ),
            spec=lambda number: in_turn(two_groups(1, mbit_s=1), number),
            draw=random.Random(count),
        )
        with nothing_unforeseen():
            await clients.run(count)
            states = await two_sites.until_settled(60)
        check_answers(clients, count, [link, *to_site.values()])
        assert clients.answered_late
    listed = await _listed(two_sites.clusters())
    assert {name: {each.uid} for name, each in listed.items()} == clients.uids
    _check_end(listed, clients)
    assert all(
        each in ({"CONFIRMED"}, {"ENDED"}, {"CONFIRMED", "ENDED"}) or not BEGAN & each
        for each in states.values()
    )
    for name in two_sites.sites:
        had = [
            part.spec.cluster_uid
            for part in await two_sites.parts(name)
            if part_pb2.Part.State.Name(part.state) in BEGAN
        ]
        assert sorted(had) == sorted(uid for uids in clients.uids.values() for uid in uids)
