"""What a meta-scheduler answers to a request that no plan can serve; nothing is left anywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from intertie.api.cluster.v1 import cluster_pb2
from intertie.api.types.v1 import resources_pb2
from intertie.cli.remedies import REMEDIES
from intertie.common import errors
from intertie.common.etcd.client import Etcd
from tests.fakes.site_brokers import CLOCK, Federation, create
from tests.integration.refusals import refusal
from tests.integration.test_metasched import two_groups

pytestmark = pytest.mark.etcd

Spec = cluster_pb2.ClusterSpec
LEFT = ("parts/", "clusters/", "requests/", "vni/", "wanted/", "txs/")


@pytest.fixture
def here(two_sites: Federation) -> Federation:
    return two_sites


async def left_behind(here: Federation) -> list[str]:
    """Keys of parts, clusters, requests and transactions, at both sites and the meta-scheduler."""
    stores = [site.settings.etcd for site in here.sites.values()] + [here.settings.etcd]
    found: list[str] = []
    for settings in stores:
        etcd = await Etcd.connect(settings)
        for prefix in LEFT:
            found += [f"{settings.prefix}/{e.key}" for e in (await etcd.range(prefix)).entries]
        await etcd.close()
    return found


def nowhere(spec: Spec) -> None:
    spec.groups[1].placement.allow_sites[:] = ["atlantis"]


def denied_everywhere(spec: Spec) -> None:
    spec.groups[1].placement.allow_sites[:] = []
    spec.groups[1].placement.deny_sites[:] = ["north", "south"]


def too_near(spec: Spec) -> None:
    bound = spec.networks[0].latency.add(groups=["head", "worker"])
    bound.max_latency.FromTimedelta(timedelta(microseconds=4999))


TOO_WIDE_MBIT_S = 150
"""Each of two pairs: together more than the link has, and less than a host's uplink."""


def too_wide(spec: Spec) -> None:
    spec.groups[1].allocation.pairs[0].bandwidth.guarantee_mbit_s = TOO_WIDE_MBIT_S


def no_such_hypervisor(spec: Spec) -> None:
    spec.groups[1].environment.hypervisor = "xen"


FIELDS = {
    "latency": "spec.networks[0].latency[0].max_latency",
    "link_egress": "spec.groups[1].allocation.pairs[0].bandwidth.guarantee_mbit_s",
}
CASES: list[tuple[str, Callable[[Spec], None], str, str]] = [
    ("a group no known site may host", nowhere, "policy", "worker"),
    ("a group denied everywhere", denied_everywhere, "policy", "worker"),
    ("a latency no link has", too_near, "latency", "head"),
    ("a bandwidth no link has", too_wide, "link_egress", "worker"),
    ("a hypervisor no host has", no_such_hypervisor, "hosts", "xen"),
]


@pytest.mark.parametrize("validate_only", [False, True], ids=["create", "plan"])
async def test_what_no_plan_can_serve_is_named_and_leaves_nothing(
    here: Federation, validate_only: bool
) -> None:
    stub = here.clusters()
    for case, change, resource, named in CASES:
        spec = two_groups()
        change(spec)
        refused = await refusal(stub.Create(create("c1", spec, validate_only=validate_only)))
        assert isinstance(refused, errors.NoCapacity), case
        told = [each for each in refused.shortfalls if each.resource == resource]
        assert told, (case, refused.shortfalls)
        assert any(named in f"{each.group} {each.message}" for each in told), (case, told)
        assert {each.field for each in told} == {FIELDS.get(resource, "")}, (case, told)
        assert REMEDIES[refused.reason]
    assert await left_behind(here) == []


async def test_wrong_fields_are_named_and_leave_nothing(here: Federation) -> None:
    stub = here.clusters()
    unknown = two_groups()
    unknown.groups[1].environment.image = "nothing"
    missing = await refusal(stub.Create(create("c1", unknown)))
    assert isinstance(missing, errors.ImageNotReady)
    assert missing.field == "spec.groups[1].environment.image"
    small = two_groups()
    small.groups[1].allocation.disk_mib = 63
    tight = await refusal(stub.Create(create("c1", small)))
    assert isinstance(tight, errors.FieldInvalid)
    assert tight.field == "spec.groups[1].allocation.disk_mib"
    assert "64" in tight.problem
    inverted = two_groups()
    inverted.groups[1].allocation.disk.CopyFrom(
        resources_pb2.DiskTerm(guarantee_iops=100, cap_iops=50)
    )
    below = await refusal(stub.Create(create("c1", inverted)))
    assert isinstance(below, errors.FieldInvalid)
    assert "raise it" in below.problem
    waits = two_groups()
    waits.lease.Clear()
    waits.lease.kind = cluster_pb2.LeaseTerms.DEADLINE
    waits.lease.duration.FromSeconds(6 * 3600)
    waits.lease.deadline.FromDatetime(CLOCK.now() + timedelta(hours=5))
    late = await refusal(stub.Create(create("c1", waits)))
    assert isinstance(late, errors.FieldInvalid)
    assert late.field == "spec.lease.deadline"
    for name in ("a" * 64, "größe", ""):
        named = await refusal(stub.Create(create(name, two_groups(), "r1")))
        assert isinstance(named, errors.FieldInvalid)
        assert named.field == "cluster_id"
    assert await left_behind(here) == []
