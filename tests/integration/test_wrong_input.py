"""Everything that a request may have wrong, through the API: what is answered, and that nothing is
left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from intertie.api.cluster.v1 import cluster_pb2, clusters_pb2, clusters_pb2_grpc
from intertie.api.types.v1 import resources_pb2
from intertie.cli.remedies import REMEDIES
from intertie.common import errors
from intertie.common.rpc.errors import from_status
from tests.integration.broker_site import Site, cluster_spec, create

pytestmark = pytest.mark.etcd

KEPT = ("ledger/", "parts/", "clusters/", "requests/", "forwards/", "vni/", "wanted/")
INVALID = grpc.StatusCode.INVALID_ARGUMENT
GROUP = "spec.groups[0]"
ALLOCATION = f"{GROUP}.allocation"

Change = Callable[[clusters_pb2.CreateClusterRequest], None]


async def ledger(here: Site) -> list[tuple[str, int]]:
    """Everything that a request could leave behind, and when it was written."""
    found = [(await here.etcd.range(prefix)).entries for prefix in KEPT]
    return [(each.key, each.mod_revision) for entries in found for each in entries]


def set_to(path: str, value: Any) -> Change:
    """Of the request, below `spec` unless it begins with a dot."""

    def change(request: clusters_pb2.CreateClusterRequest) -> None:
        *steps, last = (path[1:] if path.startswith(".") else f"spec.{path}").split(".")
        at: Any = request
        for step in steps:
            at = at[int(step)] if step.isdigit() else getattr(at, step)
        if isinstance(value, timedelta):
            getattr(at, last).FromTimedelta(value)
        elif isinstance(value, datetime):
            getattr(at, last).FromDatetime(value)
        elif isinstance(value, list):
            getattr(at, last)[:] = value
        else:
            setattr(at, last, value)

    return change


def in_allocation(field: str, value: Any) -> Change:
    return set_to(f"groups.0.allocation.{field}", value)


def both(*changes: Change) -> Change:
    def change(request: clusters_pb2.CreateClusterRequest) -> None:
        for each in changes:
            each(request)

    return change


def ten_thousand_groups(request: clusters_pb2.CreateClusterRequest) -> None:
    request.spec.groups.extend(
        cluster_pb2.Group(name=f"g{number}", count=1) for number in range(10_000)
    )


def latency(milliseconds: int, *groups: str) -> Change:
    def change(request: clusters_pb2.CreateClusterRequest) -> None:
        bound = request.spec.networks[0].latency.add(groups=groups)
        bound.max_latency.FromTimedelta(timedelta(milliseconds=milliseconds))

    return change


def no_meaning(request: clusters_pb2.CreateClusterRequest) -> None:
    request.spec.lease.start_time.seconds = 1 << 60


NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)

WRONG: list[tuple[str, Change, str, str]] = [
    ("an empty name", set_to(".cluster_id", ""), "cluster_id", "give a name"),
    ("no DNS label", set_to(".cluster_id", "My_Cluster"), "cluster_id", "use a-z"),
    ("64 characters", set_to(".cluster_id", "a" * 64), "cluster_id", "at most 63"),
    ("not ASCII", set_to(".cluster_id", "größe"), "cluster_id", "use a-z"),
    ("a name of 500 KiB", set_to(".cluster_id", "a" * 500_000), "cluster_id", "at most 63"),
    ("no request id", set_to(".request_id", ""), "request_id", "must be 1 to 64"),
    ("a request id with spaces", set_to(".request_id", "a b"), "request_id", "of A-Z"),
    ("a group of 64 characters", set_to("groups.0.name", "a" * 64), f"{GROUP}.name", "at most 63"),
    ("a group that is not ASCII", set_to("groups.0.name", "wörker"), f"{GROUP}.name", "use a-z"),
    ("a count of nothing", set_to("groups.0.count", 0), f"{GROUP}.count", "say how many"),
    ("a negative count", set_to("groups.0.count", -1), f"{GROUP}.count", "from 1"),
    ("an absurd count", set_to("groups.0.count", 2**31 - 1), f"{GROUP}.count", "to 10000"),
    ("no vCPU", in_allocation("vcpus", 0), f"{ALLOCATION}.vcpus", "from 1 to 256"),
    ("negative memory", in_allocation("memory_mib", -1), f"{ALLOCATION}.memory_mib", "from 16"),
    (
        "absurd memory",
        in_allocation("memory_mib", 2**62),
        f"{ALLOCATION}.memory_mib",
        "to 16777216 MiB",
    ),
    ("no disk", in_allocation("disk_mib", 0), f"{ALLOCATION}.disk_mib", "from 1"),
    ("an absurd disk", in_allocation("disk_mib", 2**62), f"{ALLOCATION}.disk_mib", "1073741824"),
    (
        "an image larger than the disk",
        in_allocation("disk_mib", 63),
        f"{ALLOCATION}.disk_mib",
        "give 64 or more",
    ),
    (
        "a guarantee above its cap",
        in_allocation("disk.cap_iops", 50),
        f"{ALLOCATION}.disk.cap_iops",
        "raise it",
    ),
    (
        "a promised pair above its cap",
        in_allocation("pairs.0.bandwidth.cap_mbit_s", 5),
        f"{ALLOCATION}.pairs[0].bandwidth.cap_mbit_s",
        "raise it",
    ),
    (
        "end before start",
        both(
            set_to("lease.start_time", NOW + 2 * HOUR),
            set_to("lease.end_time", NOW + HOUR),
        ),
        "spec.lease.end_time",
        "must be after the start",
    ),
    (
        "start in the past",
        set_to("lease.start_time", NOW - HOUR),
        "spec.lease.start_time",
        "give a later one",
    ),
    ("a moment beyond time", no_meaning, "spec.lease.start_time", "between the years 1 and 9999"),
    ("10,000 groups", ten_thousand_groups, "spec.groups", "at most 1000"),
    (
        "a network of 500 KiB that nobody knows",
        set_to("groups.0.networks", ["n" * 500_000]),
        f"{GROUP}.networks[0]",
        "known: lan",
    ),
    (
        "a subnet of 500 KiB",
        set_to("networks.0.subnet", "9" * 500_000 + "/24"),
        "spec.networks[0].subnet",
        "give one like 10.1.0.0/24",
    ),
    (
        "a latency of no two groups",
        latency(5, "worker"),
        "spec.networks[0].latency[0].groups",
        "name two",
    ),
    (
        "no latency at all",
        latency(0, "worker", "worker"),
        "spec.networks[0].latency[0].max_latency",
        "more than 0 s",
    ),
    (
        "user data too long",
        set_to("groups.0.environment.contextualization.user_data", b"\0" * 16_385),
        f"{GROUP}.environment.contextualization.user_data",
        "let it fetch the rest",
    ),
]


@pytest.mark.parametrize("validate_only", [False, True], ids=["create", "plan"])
async def test_a_wrong_field_is_named_with_what_would_be_right_and_leaves_nothing(
    here: Site, validate_only: bool
) -> None:
    stub = here.clusters()
    before = await ledger(here)
    for case, change, field, remedy in WRONG:
        request = create("one", cluster_spec(), "r1", validate_only=validate_only)
        change(request)
        if validate_only and case == "no request id":
            continue
        status = await refused(stub.Create(request))
        assert status.code == INVALID.value[0], case
        meant = from_status(status)
        assert isinstance(meant, errors.FieldInvalid), case
        assert meant.field == field, case
        assert remedy in meant.problem, (case, meant.problem)
        assert len(meant.problem) <= 1000, case
    assert await ledger(here) == before
    good = await stub.Create(create("one", cluster_spec(), "r1"))
    assert good.name.endswith("/one")


async def refused(call: Any) -> status_pb2.Status:
    """What was answered, with its details, as it came over the wire."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    for key, value in caught.value.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(bytes(value))  # type: ignore[arg-type]
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert REMEDIES[info.reason]
            assert caught.value.code().value[0] == status.code
            return status
    raise AssertionError(caught.value)


@pytest.mark.parametrize("image", ["nothing", "b3:" + "0" * 64])
async def test_an_unknown_image_is_named_with_its_field_and_site(here: Site, image: str) -> None:
    before = await ledger(here)
    spec = cluster_spec()
    spec.groups.add().CopyFrom(spec.groups[0])
    spec.groups[1].name = "head"
    del spec.groups[1].allocation.pairs[:]
    spec.groups[1].environment.image = image
    status = await refused(here.clusters().Create(create("one", spec, "r1")))
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    meant = from_status(status)
    assert isinstance(meant, errors.ImageNotReady)
    assert (meant.image, meant.site) == (image, "north")
    assert meant.field == "spec.groups[1].environment.image"
    assert await ledger(here) == before


async def test_a_group_that_no_site_may_host_is_named_with_the_sites_it_may_be_at(
    here: Site,
) -> None:
    before = await ledger(here)
    place = cluster_pb2.GroupPlacement(allow_sites=["atlantis"])
    spec = cluster_spec(placement=place)
    status = await refused(here.clusters().Create(create("one", spec, "r1")))
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    meant = from_status(status)
    assert isinstance(meant, errors.NoCapacity)
    [short] = meant.shortfalls
    assert (short.resource, short.group) == ("policy", "worker")
    assert "atlantis" in short.message
    assert await ledger(here) == before


async def test_a_stale_etag_ends_nothing_and_deleting_twice_is_deleting_once(here: Site) -> None:
    stub = here.clusters()
    made = await stub.Create(create("one", cluster_spec(), "r1"))
    async with asyncio.timeout(20):
        async for each in stub.Watch(clusters_pb2.WatchClusterRequest(name=made.name)):
            if each.state == cluster_pb2.Cluster.ACTIVE:
                break
    delete = clusters_pb2.DeleteClusterRequest(name=made.name, etag="of-another-day")
    before = await ledger(here)
    status = await refused(stub.Delete(delete))
    assert status.code == grpc.StatusCode.ABORTED.value[0]
    meant = from_status(status)
    assert isinstance(meant, errors.EtagStale)
    assert meant.name == made.name
    assert await ledger(here) == before
    once = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    twice = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name))
    assert once.end_requested_time == twice.end_requested_time
    async with asyncio.timeout(20):
        async for each in stub.Watch(clusters_pb2.WatchClusterRequest(name=made.name)):
            if each.state == cluster_pb2.Cluster.CANCELLED:
                break
    settled = await ledger(here)
    for _ in range(2):
        again = await stub.Delete(clusters_pb2.DeleteClusterRequest(name=made.name, etag="old"))
        assert again.state == cluster_pb2.Cluster.CANCELLED
    assert await ledger(here) == settled


async def test_what_does_not_exist_is_named(here: Site) -> None:
    stub = here.clusters()
    before = await ledger(here)
    name = "sites/north/tenants/demo/clusters/none"
    for call in (
        stub.Get(clusters_pb2.GetClusterRequest(name=name)),
        stub.Delete(clusters_pb2.DeleteClusterRequest(name=name)),
        stub.Watch(clusters_pb2.WatchClusterRequest(name=name)).read(),
    ):
        meant = from_status(await refused(call))
        assert isinstance(meant, errors.NotFound)
        assert meant.name == name
    assert await ledger(here) == before


@pytest.mark.parametrize(
    "name",
    ["", "one", "sites/north/clusters/one", "-/tenants/demo/clusters/One", "x" * 500_000],
    ids=["empty", "short", "without a tenant", "upper case", "500 KiB"],
)
async def test_a_malformed_name_is_refused_with_how_it_must_read(here: Site, name: str) -> None:
    """The bug: a long one came back whole in the answer, which then was too large to be read."""
    stub = here.clusters()
    for call in (
        stub.Get(clusters_pb2.GetClusterRequest(name=name)),
        stub.Delete(clusters_pb2.DeleteClusterRequest(name=name)),
    ):
        meant = from_status(await refused(call))
        assert isinstance(meant, errors.FieldInvalid)
        assert meant.field == "name"
        assert "must" in meant.problem or "use a-z" in meant.problem
        assert len(meant.problem) <= 1000


async def test_a_deadline_that_is_too_short_leaves_a_whole_cluster_or_none(here: Site) -> None:
    """Asked again with the same request id, it is made once."""
    stub = here.clusters()
    for turn, timeout_ms in enumerate((1, 2, 4, 8, 16, 32)):
        name = f"c{turn}"
        request = create(name, cluster_spec(count=1, pair_mbit_s=0), f"r{turn}")
        first = stub.Create(request, timeout=timeout_ms / 1000)
        assert await first.code() in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
        made = await stub.Create(request)
        assert made.name.endswith(f"/{name}")
    parts = (await here.etcd.range("parts/")).entries
    clusters = (await here.etcd.range("clusters/")).entries
    requests = (await here.etcd.range("requests/")).entries
    assert (len(parts), len(clusters), len(requests)) == (6, 6, 6)


async def test_whatever_user_data_holds_reaches_the_host_unchanged(here: Site) -> None:
    """Binary, and what means something to XML and YAML: the agent gets the user's own bytes."""
    stub = here.clusters()
    strange = (
        bytes(range(256)),
        b"]]>&amp;<!-- </domain> -->",
        "---\n- !!python/object:os.system\n... \u2028 \U0001f600 %YAML".encode(),
    )
    for turn, octets in enumerate(strange):
        spec = cluster_spec(count=1, pair_mbit_s=0)
        context = resources_pb2.Contextualization(user_data=octets)
        spec.groups[0].environment.contextualization.CopyFrom(context)
        await stub.Create(create(f"c{turn}", spec, f"r{turn}"))
    async with asyncio.timeout(10):
        while len(here.agents.wanted) < len(strange):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    arrived = {
        workspace.environment.contextualization.user_data
        for part in here.agents.wanted.values()
        for workspace in part.workspaces
    }
    assert arrived == set(strange)


async def test_a_watcher_that_vanishes_is_listened_for_no_more(here: Site) -> None:
    alice = here.domain.user("demo", "alice")
    made = await here.clusters().Create(create("one", cluster_spec(), "r1"))
    listeners = here.broker.ledger.bell._listeners
    before = len(listeners)
    watched = clusters_pb2.WatchClusterRequest(name=made.name)
    lines = [here.dial(alice) for _ in range(5)]
    streams = [clusters_pb2_grpc.ClustersStub(each).Watch(watched) for each in lines]
    for stream in streams:
        await stream.read()
    async with asyncio.timeout(10):
        while len(listeners) < before + 5:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for line in lines:
        await line.close()
    async with asyncio.timeout(10):
        while len(listeners) > before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
