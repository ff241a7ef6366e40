"""What a part takes, and when and how large a cluster is admitted."""

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.amounts import amounts_of
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.planning import Image, allot, check_disks, draft, elsewhere
from intertie.broker.domain.site_caps import with_site_defaults
from intertie.common.errors import FieldInvalid, NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.spec import (
    Affinity,
    AffinityKind,
    Allocation,
    ClusterSpec,
    DiskTerm,
    Environment,
    Group,
    GroupPlacement,
    LeaseTerms,
    Network,
    Placement,
)
from intertie.common.values import replace
from tests.unit.broker.samples import DIGEST, HOUR, NOW, POLICY, facts, part, part_spec, workspace

NAME = ClusterName.parse("sites/north/tenants/demo/clusters/one")


def view(*parts: Part, hosts: tuple[str, ...] = ("n1", "n2"), **changes: Any) -> LedgerView:
    known = [facts(host, **changes) for host in hosts]
    return LedgerView(
        parts={each.name: Versioned(value=each, revision=1) for each in parts},
        fleet=Fleet.of(known, POLICY),
    )


def full(part_id: str, host: str, window: Window, state: PartState = PartState.CONFIRMED) -> Part:
    return part(
        part_id,
        state,
        spec=part_spec(workspace(vcpus=4), window=window),
        placed=(Placed(workspace="w-0", host=host),),
    )


def spec(lease: LeaseTerms = LeaseTerms(), **group: Any) -> ClusterSpec:  # noqa: B008 (frozen)
    values: dict[str, Any] = {
        "name": "w",
        "count": 1,
        "environment": Environment(image=DIGEST),
        "allocation": Allocation(vcpus=2, memory_mib=128, disk_mib=128),
        "networks": ("lan",),
    }
    return ClusterSpec(
        groups=(Group(**{**values, **group}),),
        networks=(Network(name="lan", subnet="10.1.0.0/24"),),
        lease=lease,
    )


def test_a_part_takes_caps_of_disks_and_pairs_only_between_hosts() -> None:
    of = part_spec(
        workspace("w", 0, disk=DiskTerm()),
        workspace("w", 1, disk=DiskTerm(guarantee_iops=50)),
        workspace("w", 2),
        pairs=(("w-0", "w-1", 30), ("w-0", "w-2", 7)),
        remote=("v-0",),
        link_mbit_s=20,
    )
    host_of = {"w-0": "n1", "w-1": "n1", "w-2": "n2"}
    amounts = amounts_of(with_site_defaults(of, POLICY), host_of, "n1")
    assert amounts["host/n1/iops"] == 500 + 50
    assert amounts["host/n1/throughput_mib_s"] == 200
    assert amounts["host/n1/uplink_mbit_s"] == 7 + 20
    assert amounts["host/n2/uplink_mbit_s"] == 7
    assert (amounts["link/south/egress"], amounts["link/south/ingress"]) == (20, 20)


def test_memory_reserve_and_overcommit_are_the_operators() -> None:
    policy = replace(POLICY, cpu_overcommit=2.5, memory_reserve_mib=256)
    promisable = policy.promisable(facts("n1"))
    assert (promisable.vcpus, promisable.memory_mib) == (10, 2048 - 256)


def test_a_silent_host_gets_nothing_new_and_keeps_what_it_has() -> None:
    silent = view(report_time=NOW - timedelta(seconds=16))
    with pytest.raises(NoCapacity) as refused:
        allot(part_spec(workspace()), silent, POLICY, tenant="demo", now=NOW)
    assert refused.value.shortfalls[0].resource == "hosts"
    just_alive = view(report_time=NOW - timedelta(seconds=15))
    assert allot(part_spec(workspace()), just_alive, POLICY, tenant="demo", now=NOW).placed


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (PartState.HELD, True),
        (PartState.PREPARED, True),
        (PartState.CONFIRMED, True),
        (PartState.ENDED, False),
        (PartState.RELEASED, False),
        (PartState.EXPIRED, False),
    ],
)
def test_what_counts_against_capacity(state: PartState, counts: bool) -> None:
    window = Window(NOW, NOW + HOUR)
    known = view(full("t1", "n1", window, state), hosts=("n1",))
    if counts:
        with pytest.raises(NoCapacity):
            allot(part_spec(workspace()), known, POLICY, tenant="demo", now=NOW)
    else:
        assert allot(part_spec(workspace()), known, POLICY, tenant="demo", now=NOW).placed


def test_a_part_whose_end_is_asked_for_counts_until_it_is_over() -> None:
    ending = full("t1", "n1", Window(NOW, NOW + HOUR)).ending(now=NOW, reason="CANCELLED")
    with pytest.raises(NoCapacity):
        allot(part_spec(workspace()), view(ending, hosts=("n1",)), POLICY, tenant="demo", now=NOW)


def test_a_network_leaves_the_site_only_by_a_gateway() -> None:
    of = part_spec(workspace(), remote=("v-0",))
    assert allot(of, view(), POLICY, tenant="demo", now=NOW).gateway == "n1"
    with pytest.raises(NoCapacity) as refused:
        allot(of, view(hosts=("n2",)), POLICY, tenant="demo", now=NOW)
    assert refused.value.shortfalls[0].resource == "reachability"


def test_a_link_that_is_not_there() -> None:
    no_links = replace(POLICY, links=())
    of = part_spec(workspace(), remote=("v-0",), link_mbit_s=10)
    with pytest.raises(NoCapacity) as refused:
        allot(of, view(), no_links, tenant="demo", now=NOW)
    assert [each.resource for each in refused.value.shortfalls] == ["reachability"]


def test_the_gateways_uplink_carries_what_is_reserved() -> None:
    of = part_spec(workspace(), remote=("v-0",), link_mbit_s=150)
    little = view(capacity=replace(facts("n1").capacity, uplink_mbit_s=100))
    with pytest.raises(NoCapacity) as refused:
        allot(of, little, POLICY, tenant="demo", now=NOW)
    [found] = refused.value.shortfalls
    assert (found.host, found.resource, found.wanted, found.available) == ("n1", "uplink", 150, 100)


def test_as_many_as_fit() -> None:
    wide = spec(count=0, min_count=1, max_count=10)
    found = draft(NAME, "u", wide, view(), POLICY, now=NOW)
    assert dict(found.counts) == {"w": 4}
    assert found.shortfalls
    most_here = replace(wide.groups[0], placement=GroupPlacement(max_per_site=3))
    bounded = draft(NAME, "u", replace(wide, groups=(most_here,)), view(), POLICY, now=NOW)
    assert dict(bounded.counts) == {"w": 3}


def test_the_start_is_put_off_to_the_first_moment_at_which_it_fits() -> None:
    first, second = Window(NOW, NOW + HOUR), Window(NOW, NOW + 2 * HOUR)
    known = view(full("t1", "n1", first), full("t2", "n2", second))
    patient = spec(LeaseTerms(duration=HOUR, max_delay=3 * HOUR))
    found = draft(NAME, "u", patient, known, POLICY, now=NOW)
    assert found.allotment.spec.window == Window(NOW + HOUR, NOW + 2 * HOUR)
    assert "later" in found.reasons[1]
    hasty = spec(LeaseTerms(duration=HOUR, max_delay=HOUR - timedelta(seconds=1)))
    with pytest.raises(NoCapacity):
        draft(NAME, "u", hasty, known, POLICY, now=NOW)


def test_a_cluster_right_after_another() -> None:
    """Windows are half-open: one that ends as the other starts takes nothing from it."""
    known = view(full("t1", "n1", Window(NOW, NOW + HOUR)), hosts=("n1",))
    after = spec(LeaseTerms(start_time=NOW + HOUR, duration=HOUR))
    assert draft(NAME, "u", after, known, POLICY, now=NOW).allotment.placed


@pytest.mark.parametrize(
    ("placement", "alone"),
    [
        (GroupPlacement(), True),
        (GroupPlacement(allow_sites=("north", "south")), True),
        (GroupPlacement(allow_sites=("south",)), False),
        (GroupPlacement(deny_sites=("north",)), False),
        (GroupPlacement(min_sites=2), False),
        (GroupPlacement(min_sites=1, max_per_site=1), True),
    ],
)
def test_when_a_site_can_serve_alone(placement: GroupPlacement, alone: bool) -> None:
    short = elsewhere(spec(placement=placement), "north")
    assert (short is None) is alone
    assert short is None or short.group == spec().groups[0].name


def test_a_site_gives_no_groups_alone_that_are_to_be_at_different_sites() -> None:
    asked = replace(spec(), groups=(spec().groups[0], replace(spec().groups[0], name="x")))
    names = tuple(each.name for each in asked.groups)
    for kind in AffinityKind:
        affinity = Affinity(groups=names, kind=kind)
        short = elsewhere(replace(asked, placement=Placement(affinities=(affinity,))), "north")
        assert (short is not None) is (kind is AffinityKind.APART)
        assert short is None or (short.group, short.resource) == (names[0], "policy")


def test_a_site_holds_no_more_networks_than_one_transaction_takes() -> None:
    """A bug: between about 125 and 256 of them, the store refused what had been admitted."""
    networks = tuple(Network(name=f"n{n}", subnet=f"10.1.{n}.0/24") for n in range(65))
    assert elsewhere(replace(spec(), networks=networks[:64]), "north") is None
    assert "64 networks" in str(elsewhere(replace(spec(), networks=networks), "north"))


def test_a_disk_smaller_than_its_image_names_the_field_and_the_size() -> None:
    image = Image(digest=DIGEST, size_bytes=1, virtual_size_bytes=(200 << 20) + 1)
    with pytest.raises(FieldInvalid) as refused:
        check_disks(spec(), {DIGEST: image})
    assert refused.value.field == "spec.groups[0].allocation.disk_mib"
    assert "201" in refused.value.problem


def test_of_very_many_ends_those_before_it_could_fit_are_not_tried() -> None:
    """A bug: of all moments at which something ends, 64 were tried, though nothing could be free
    on any host that would do until much later."""
    free_again = NOW + HOUR
    little = [
        part(
            f"l{number}",
            spec=part_spec(workspace(), window=Window(NOW, NOW + timedelta(seconds=number))),
            placed=(Placed(workspace="w-0", host="n2"),),
        )
        for number in range(1, 200)
    ]
    known = view(full("t1", "n1", Window(NOW, free_again)), *little, hosts=("n1",), report_time=NOW)
    found = draft(
        NAME, "u", spec(LeaseTerms(duration=HOUR, max_delay=2 * HOUR)), known, POLICY, now=NOW
    )
    assert found.allotment.spec.window == Window(free_again, free_again + HOUR)
    soon = LeaseTerms(duration=HOUR, max_delay=HOUR - timedelta(seconds=1))
    with pytest.raises(NoCapacity):
        draft(NAME, "u", spec(soon), known, POLICY, now=NOW)
