from datetime import timedelta

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.layout import number_in, room
from intertie.common.names import mac_of
from intertie.common.part_spec import HostEntry, PairPromise
from intertie.common.spec import (
    BandwidthTerm,
    DiskTerm,
    LeaseTerms,
    Network,
    demand_of,
    layout,
    normalise,
)
from intertie.common.values import replace
from tests.unit.common.builders import NOW, two_groups

COUNTS = {"head": 1, "worker": 2}
SITE_OF = {"head-0": "north", "worker-0": "north", "worker-1": "south"}


def test_addresses_go_by_order_of_groups_and_indices_from_ten_upwards() -> None:
    laid = layout("uid", normalise(two_groups(), now=NOW), COUNTS, SITE_OF, "c1")
    assert [(each.workspace, each.site, each.address) for each in laid.members["net"]] == [
        ("head-0", "north", "10.1.0.10/24"),
        ("worker-0", "north", "10.1.0.11/24"),
        ("worker-1", "south", "10.1.0.12/24"),
    ]
    assert laid.nics["worker-1"][0].mac == mac_of("uid", "net", "worker", 1)
    assert laid.host_entries[2] == HostEntry(address="10.1.0.12", names=("worker-1.c1", "worker-1"))


def test_every_worker_is_promised_its_own_pair() -> None:
    laid = layout("uid", normalise(two_groups(), now=NOW), COUNTS, SITE_OF)
    term = BandwidthTerm(guarantee_mbit_s=20, cap_mbit_s=20)
    assert laid.pairs["net"] == (
        PairPromise(a="head-0", b="worker-0", bandwidth=term),
        PairPromise(a="head-0", b="worker-1", bandwidth=term),
    )


def test_a_workspace_has_another_name_on_each_further_network() -> None:
    side = Network(name="side", subnet="10.2.0.0/24")
    spec = two_groups()
    head, worker = spec.groups
    spec = replace(
        spec, groups=(head, replace(worker, networks=("net",))), networks=(*spec.networks, side)
    )
    laid = layout("uid", normalise(spec, now=NOW), COUNTS, SITE_OF, "c1")
    assert [(entry.address, entry.names[-1]) for entry in laid.host_entries] == [
        ("10.1.0.10", "head-0"),
        ("10.2.0.10", "head-0.side"),
        ("10.1.0.11", "worker-0"),
        ("10.1.0.12", "worker-1"),
    ]
    assert [member.workspace for member in laid.members["side"]] == ["head-0"]


def test_a_subnet_that_is_too_small_is_named() -> None:
    spec = two_groups()
    spec = replace(spec, networks=(Network(name="net", subnet="10.1.0.0/28"),))
    counts = {"head": 1, "worker": 5}
    with pytest.raises(FieldInvalid) as caught:
        layout("uid", normalise(spec, now=NOW), counts, {})
    assert caught.value.field == "spec.networks[0].subnet"


@pytest.mark.parametrize(
    ("subnet", "many"), [("10.0.0.0/28", 5), ("10.0.0.0/24", 245), ("10.0.0.0/30", 0)]
)
def test_room_in_a_subnet(subnet: str, many: int) -> None:
    assert room(subnet) == many


def test_defaults_are_filled_in() -> None:
    spec = normalise(two_groups(), now=NOW)
    head, worker = spec.groups
    assert head.networks == worker.networks == ("net",)
    assert head.allocation.pairs[0].network == "net"
    assert head.allocation.pairs[0].bandwidth.cap_mbit_s == 20
    assert (head.environment.architecture, head.environment.hypervisor) == ("x86_64", "any")
    assert spec.lease == LeaseTerms(duration=timedelta(hours=1))
    assert worker.allocation.disk == DiskTerm(), "left to the site"


def test_a_start_that_has_just_passed_is_now() -> None:
    spec = replace(two_groups(), lease=LeaseTerms(start_time=NOW - timedelta(seconds=9)))
    assert normalise(spec, now=NOW).lease.start_time == NOW


def test_demand_counts_caps_of_disks_and_guarantees_of_the_uplink() -> None:
    allocation = replace(
        two_groups().groups[0].allocation,
        disk=DiskTerm(guarantee_iops=100, cap_iops=300, guarantee_mib_s=10),
        nic=BandwidthTerm(guarantee_mbit_s=5, cap_mbit_s=50),
    )
    demand = demand_of(allocation, 2, 60)
    assert (demand.vcpus, demand.memory_mib, demand.disk_mib) == (1, 128, 64)
    assert (demand.iops, demand.throughput_mib_s) == (300, 10)
    assert demand.uplink_mbit_s == 2 * 5 + 60
    assert demand_of(allocation, 2).uplink_mbit_s == 2 * 5 + 20


def test_who_has_a_number_keeps_it_and_new_ones_get_free_ones() -> None:
    """That of worker-2 is taken while it is not there: its machine may still be."""
    spec = normalise(two_groups(), now=NOW)
    numbers = {"net": {"head-0": 10, "worker-0": 12, "worker-2": 11}}
    laid = layout("uid", spec, COUNTS, SITE_OF, "c1", numbers)
    assert {each.workspace: each.address for each in laid.members["net"]} == {
        "head-0": "10.1.0.10/24",
        "worker-0": "10.1.0.12/24",
        "worker-1": "10.1.0.13/24",
    }
    assert number_in("10.1.0.0/24", "10.1.0.12/24") == 12
    small = replace(spec, networks=(Network(name="net", subnet="10.1.0.0/28"),))
    gone = {"net": {f"worker-{number}": number for number in range(10, 15)}}
    with pytest.raises(FieldInvalid, match="ask again when they are gone"):
        layout("uid", small, COUNTS, SITE_OF, "c1", gone)
