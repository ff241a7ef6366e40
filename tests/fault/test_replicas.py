"""Broker and meta-scheduler in two replicas each, on real processes: leaders are killed while
clusters are created and deleted, by clients that know both addresses."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from intertie.api.cluster.v1.cluster_pb2 import Cluster, ClusterSpec, LeaseTerms, Network
from intertie.client import load
from intertie.client.clusters import Clusters
from intertie.client.config import Config
from intertie.client.connection import open_connection
from intertie.common.clock import SystemClock
from intertie.common.values import replace
from testbed.bed import Testbed
from testbed.component import Component, Inside
from testbed.domains import meta_domain, site_domain
from testbed.etcds import endpoints, etcdctl
from testbed.services import brokers, metascheds
from testbed.topology import META, HostSpec, SiteSpec, Topology, WanLink
from tests.e2e.driver import User, group, spec, standing, user_with_image

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.root, pytest.mark.e2e]

INSTANCE = "replicas"
FAIL_OVER_S = 10.0
SETTLED_S = 60.0
KEPT = 2
"""Clusters of one stream of traffic that live at once."""
PACE_S = 0.1
"""Between two of them: a site alone would else take dozens a second, and all of a small machine."""
CLOCK = SystemClock()
OVER = {part_pb2.Part.RELEASED, part_pb2.Part.EXPIRED, part_pb2.Part.ENDED}


def topology() -> Topology:
    """Two sites of one host. No guest is started here: all is days ahead."""

    def host(name: str) -> HostSpec:
        return HostSpec(
            name=name, vcpus=32, memory_mib=16384, disk_gib=32, pool_iops=50_000,
            pool_mib_s=10_000, gateway=True,
        )  # fmt: skip

    return Topology(
        sites=tuple(
            SiteSpec(name=name, hosts=(host(f"{name[0]}1"),)) for name in ("north", "south")
        ),
        links=(WanLink(a="north", b="south", mbps=200),),
        cpu_overcommit=32.0,
        broker_replicas=2,
        metasched_replicas=2,
    )


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with standing(topology(), INSTANCE) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    return user_with_image(bed, tmp_path_factory.mktemp("user"))


@pytest.fixture(autouse=True)
def all_run(bed: Testbed) -> Iterator[None]:
    """Whatever a test has killed or stopped, the next one finds running."""
    yield
    for name in (*metascheds(bed.topology), *brokers(bed.topology, "north")):
        component = bed.component(name)
        if component.running:
            component.cont()
        else:
            component.start()


def leader_of(bed: Testbed, label: str) -> tuple[Component, Component]:
    """Of the replicas at a site or at `meta`, as etcd says: who leads, and the other one."""
    if label == META:
        names = metascheds(bed.topology)
        inside, domain = Inside(netns=bed.places.meta_netns), meta_domain(bed.places, bed.topology)
        address, key = bed.topology.meta_address(), f"{bed.topology.metasched}/election/metasched"
    else:
        names = brokers(bed.topology, label)
        inside = Inside(netns=bed.places.ctl_netns(label))
        domain = site_domain(bed.places, label)
        address, key = bed.topology.ctl_address(label), f"{label}/election/broker"
    [endpoint] = endpoints(address, 1)
    words = ("get", f"/intertie/{key}", "--print-value-only")
    said = etcdctl(bed.places, inside, domain, endpoint, *words).stdout.strip()
    replicas = [bed.component(name) for name in names]
    for leader, other in (replicas, replicas[::-1]):
        if said == leader.name or f":{leader.pid}:" in said:
            return leader, other
    raise AssertionError(f"{label} is led by {said!r}, which is none of {names}")


def days_ahead(*sites: str) -> ClusterSpec:
    """One small workspace at each of the sites, for an hour, the day after tomorrow."""
    wanted = ClusterSpec(networks=[Network(name="lan", subnet="10.1.0.0/24")], lease=LeaseTerms())
    start = CLOCK.now().replace(microsecond=0) + timedelta(days=2)
    wanted.lease.start_time.FromDatetime(start)
    wanted.lease.end_time.FromDatetime(start + timedelta(hours=1))
    for site in sites:
        part = wanted.groups.add(name=f"at-{site}", count=1)
        part.environment.image = "intertie-guest"
        part.allocation.vcpus = 1
        part.allocation.memory_mib = 112
        part.allocation.disk_mib = 256
        part.placement.allow_sites.append(site)
    return wanted


@asynccontextmanager
async def clusters_at(
    config: Config, endpoint: str, *, only: int | None = None
) -> AsyncIterator[Clusters]:
    """Of all replicas of the endpoint; or of one, by its place in the list."""
    to = config.endpoint(endpoint)
    if only is not None:
        to = replace(to, addresses=(to.addresses[only],))
    connection = open_connection(to, CLOCK)
    try:
        yield Clusters(connection)
    finally:
        await connection.close()


@dataclass
class Traffic:
    """Creates clusters one after another, and deletes all but the last few. Whatever a client is
    refused ends it: nothing here may be."""

    clusters: Clusters
    name: str
    sites: tuple[str, ...]
    living: dict[str, str] = field(default_factory=dict)
    """Uid, by name."""
    deleted: dict[str, str] = field(default_factory=dict)

    async def run(self, until: asyncio.Event) -> None:
        for number in itertools.count():
            if until.is_set():
                return
            await self.create(f"{self.name}{number}")
            await self.delete_all_but_the_last()
            await CLOCK.sleep(PACE_S)

    async def delete_all_but_the_last(self) -> None:
        while len(self.living) > KEPT:
            oldest = next(iter(self.living))
            ended = await self.clusters.delete(oldest)
            self.deleted[oldest] = self.living.pop(oldest)
            assert ended.uid == self.deleted[oldest]

    async def create(self, name: str) -> None:
        made = await self.clusters.create(name, days_ahead(*self.sites))
        self.living[name] = made.uid


@dataclass
class Reads:
    """Lists clusters all the time, and says how long each took."""

    clusters: Clusters
    took_s: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    async def run(self, until: asyncio.Event) -> None:
        while not until.is_set():
            began = time.monotonic()
            await self.clusters.list()
            self.ended.append(time.monotonic())
            self.took_s.append(self.ended[-1] - began)
            await CLOCK.sleep(0.2)

    def between(self, began: float, ended: float) -> int:
        return sum(began < each < ended for each in self.ended)


async def parts_at(user: User, site: str) -> list[part_pb2.Part]:
    """All of them, as the site's operator sees them."""
    path = user.testbed.client("ops", operator=True)
    connection = open_connection(load(path).endpoint(site), CLOCK)
    try:
        stub = connection.stub(parts_pb2_grpc.PartsStub)
        request = parts_pb2.ListPartsRequest(parent=f"sites/{site}/tenants/-", page_size=1000)
        found: list[part_pb2.Part] = []
        while True:  # a page ends where a message is full, too
            page = await connection.call(stub.List, request)
            found += page.parts
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token
    finally:
        await connection.close()


async def counted(user: User, but: set[str]) -> dict[str, list[str]]:
    """By site, `uid STATE` of every part of a co-allocation that counts there; but for those named
    in `but`."""
    return {
        site: sorted(
            f"{part.spec.cluster_uid} {part_pb2.Part.State.Name(part.state)}"
            for part in await parts_at(user, site)
            if part.state not in OVER and part.tx and part.name not in but
        )
        for site in ("north", "south")
    }


async def becomes(wanted: object, found: Callable[[], Awaitable[object]]) -> None:
    until = time.monotonic() + SETTLED_S
    while (now := await found()) != wanted:
        assert time.monotonic() < until, f"it is {now}, and never became {wanted}"
        await CLOCK.sleep(0.5)


async def states(clusters: Clusters, of: Mapping[str, str]) -> dict[str, str]:
    """`uid STATE` by name, of those clusters that are there."""
    found = {
        each.name.rpartition("/")[2]: f"{each.uid} {Cluster.State.Name(each.state)}"
        for each in await clusters.list()
    }
    return {name: state for name, state in found.items() if name in of}


async def changed_after(traffic: Traffic, name: str) -> float:
    """How long it takes, in seconds from now, until a cluster more is created."""
    began = time.monotonic()
    await traffic.create(name)
    return time.monotonic() - began


async def test_leaders_are_killed_while_clusters_come_and_go(bed: Testbed, user: User) -> None:
    config = load(user.config)
    earlier = {part.name for site in ("north", "south") for part in await parts_at(user, site)}
    done = asyncio.Event()
    async with (
        clusters_at(config, META) as at_meta,
        clusters_at(config, META) as others,
        clusters_at(config, META) as reading,
        clusters_at(config, "north") as at_north,
    ):
        wide = Traffic(at_meta, "wide", ("north", "south"))
        more = Traffic(others, "more", ("north", "south"))
        local = Traffic(at_north, "local", ("north",))
        probes = {
            META: Traffic(at_meta, "", wide.sites),
            "north": Traffic(at_north, "", ("north",)),
        }
        reads = Reads(reading)
        tasks = [asyncio.create_task(each.run(done)) for each in (wide, more, local, reads)]
        took: list[tuple[str, float]] = []
        try:
            for number, labels in enumerate(((META,), ("north",), (META,), (META, "north"))):
                await CLOCK.sleep(3)
                leaders = [leader_of(bed, label)[0] for label in labels]
                killed = time.monotonic()
                for leader in leaders:
                    leader.kill9()
                after = await asyncio.gather(
                    *(changed_after(probes[label], f"after-{number}") for label in labels)
                )
                took += zip(("+".join(labels),) * len(labels), after, strict=True)
                assert max(after) <= FAIL_OVER_S, took
                assert reads.between(killed, time.monotonic()) > 0, "reads went on"
                for leader in leaders:
                    await asyncio.to_thread(leader.start)
                for each in tasks:
                    if each.done():
                        each.result()  # raises what a client was refused with
        finally:
            done.set()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert ended == [None] * len(tasks)
        log.info("fail-overs, s: %s; the slowest read: %.2f s", took, max(reads.took_s))

        living = wide.living | more.living | probes[META].living
        deleted = wide.deleted | more.deleted
        assert len(deleted) > 4, "there was traffic"
        confirmed = sorted(f"{uid} CONFIRMED" for uid in living.values())
        await becomes({"north": confirmed, "south": confirmed}, partial(counted, user, earlier))
        wanted = {name: f"{uid} SCHEDULED" for name, uid in living.items()} | {
            name: f"{uid} CANCELLED" for name, uid in deleted.items()
        }
        for replica in (None, 0, 1):
            async with clusters_at(config, META, only=replica) as clusters:
                await becomes(wanted, partial(states, clusters, wanted))
        here = {
            name: f"{uid} SCHEDULED"
            for name, uid in (local.living | probes["north"].living).items()
        } | {name: f"{uid} CANCELLED" for name, uid in local.deleted.items()}
        for replica in (0, 1):
            async with clusters_at(config, "north", only=replica) as clusters:
                await becomes(here, partial(states, clusters, here))


@pytest.mark.parametrize(
    "times", [1, pytest.param(100, marks=[pytest.mark.more_faults, pytest.mark.timeout(3600)])]
)
@pytest.mark.parametrize("label", [META, "north"])
async def test_a_leader_that_stands_still_is_passed_over_and_writes_nothing_when_it_wakes(
    bed: Testbed, user: User, label: str, times: int
) -> None:
    config = load(user.config)
    sites = ("north", "south") if label == META else ("north",)
    took_s: list[float] = []
    async with clusters_at(config, label) as clusters:
        traffic = Traffic(clusters, "", sites)
        await traffic.create(f"before-{label}-{times}")
        for number in range(times):
            leader, other = leader_of(bed, label)
            leader.stop()
            try:
                took_s.append(await changed_after(traffic, f"still-{label}-{times}-{number}"))
                assert took_s[-1] <= FAIL_OVER_S, took_s
                assert leader_of(bed, label) == (other, leader)
            finally:
                leader.cont()
            await traffic.create(f"awake-{label}-{times}-{number}")
            assert leader_of(bed, label) == (other, leader)
            for name, uid in traffic.living.items():
                assert (await clusters.get(name)).uid == uid
            await traffic.delete_all_but_the_last()
    log.info("fail-overs, s: %s", sorted(round(each, 2) for each in took_s))


@pytest.mark.parametrize("label", [META, "north"])
async def test_each_replica_answers_reads_and_one_takes_changes(
    bed: Testbed, user: User, label: str
) -> None:
    config = load(user.config)
    sites = ("north", "south") if label == META else ("north",)
    async with clusters_at(config, label) as clusters:
        made = await clusters.create(f"seen-{label}", days_ahead(*sites))
    names = metascheds(bed.topology) if label == META else brokers(bed.topology, label)
    leader, _ = leader_of(bed, label)
    for number, name in enumerate(names):
        async with clusters_at(config, label, only=number) as clusters:
            assert (await clusters.get(f"seen-{label}")).uid == made.uid
            assert made.uid in {each.uid for each in await clusters.list()}
            async with aclosing(clusters.watch(f"seen-{label}")) as changes:
                assert (await anext(changes)).uid == made.uid
            plan = await clusters.create("planned", days_ahead(*sites), validate_only=True)
            assert plan.state == Cluster.PLANNED
            if name == leader.name:
                await clusters.delete(f"seen-{label}")


def test_the_command_goes_on_when_the_leader_is_killed(bed: Testbed, user: User) -> None:
    """As a user types it; each command is a client anew, which begins at the first address."""
    start = CLOCK.now() + timedelta(days=2)
    lease = {"start_time": f"{start:%FT%TZ}", "duration": "1h"}
    wanted = {**spec(group("a")), "lease": lease}
    for place in range(2):
        leader, _ = leader_of(bed, META)
        leader.kill9()
        try:
            name = f"typed-{place}"
            user.do(*user.create_args(name, wanted, "--no-wait"))
            assert user.show(name)["state"] == "SCHEDULED"
            user.do("cluster", "delete", name)
        finally:
            leader.start()
