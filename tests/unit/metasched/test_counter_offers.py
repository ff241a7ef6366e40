"""The least change of each kind that is enough, on requests solved by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from intertie.common.explanation import CounterOffer
from intertie.common.spec import (
    Allocation,
    BandwidthTerm,
    ClusterSpec,
    DiskTerm,
    Environment,
    Group,
    GroupPlacement,
    LeaseTerms,
    Network,
    PairTerm,
    normalise,
)
from intertie.common.values import replace
from intertie.metasched.domain.conflicts import conflicts_of, verdict_of
from intertie.metasched.domain.counter_offers import (
    Ground,
    counter_offers_of,
    json_of,
    offer_of,
)
from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.levers import changed, levers_of, value_at
from intertie.metasched.domain.planner import LARGEST_MODEL, best_plan, model_size
from intertie.metasched.domain.problem import HostRoom, ImageFound, Offer
from intertie.metasched.domain.requirements import Times, What, asked_of
from tests.unit.metasched.problems import DIGEST, IMAGES, NOW, link, linked, offer, room, window

HOUR = timedelta(hours=1)


def workers(count: int = 3, **allocation: Any) -> ClusterSpec:
    """Of 1 vCPU each, on one network."""
    sizes = {"vcpus": 1, "memory_mib": 128, "disk_mib": 128, **allocation}
    environment = Environment(image="guest")
    group = Group(
        name="worker", count=count, environment=environment, allocation=Allocation(**sizes)
    )
    return ClusterSpec(
        groups=(group,),
        networks=(Network(name="lan", subnet="10.1.0.0/24"),),
        lease=LeaseTerms(duration=HOUR),
    )


def placed(spec: ClusterSpec, **placement: Any) -> ClusterSpec:
    group = replace(spec.groups[0], placement=GroupPlacement(**placement))
    return replace(spec, groups=(group,))


def ground_of(spec: ClusterSpec, sites: Mapping[str, Offer | Sequence[Offer]]) -> Ground:
    """One window, or as many as sites have offers for: the first is asked for."""
    offers = {name: [of] if isinstance(of, Offer) else list(of) for name, of in sites.items()}
    slots = len(next(iter(offers.values())))
    return Ground(
        spec=normalise(spec, now=NOW),
        windows=tuple(window(slot) for slot in range(slots)),
        offers=offers,
        times=Times(asked=(0,), later=tuple(range(1, slots))),
        cuts=(),
        now=NOW,
    )


def offered(
    spec: ClusterSpec, sites: Mapping[str, Offer | Sequence[Offer]], *, size: int = 10**9
) -> tuple[CounterOffer, ...]:
    ground = ground_of(spec, sites)
    asked = asked_of(ground.whole, ground.times, ("lan",), ground.spec.lease)
    feasibility = Feasibility(effort=60, each=5, size=10**9)
    found = conflicts_of(len(asked), verdict_of(ground.whole, ground.times, asked, feasibility))
    feasibility = Feasibility(effort=60, each=5, size=size)
    return counter_offers_of(ground, asked, found, feasibility=feasibility, effort=2.0)


def told(spec: ClusterSpec, sites: Mapping[str, Offer | Sequence[Offer]]) -> dict[str, list[str]]:
    """Values by message."""
    return {
        each.message: [change.value for change in each.changes] for each in offered(spec, sites)
    }


TWO = linked({"a": offer(4, 4), "b": offer(4)}, link())


@pytest.mark.parametrize(
    ("allocation", "message", "value"),
    [
        ({"vcpus": 7}, "4 vCPU instead of 7 for each worker", "4"),
        ({"memory_mib": 65537}, "65536 MiB of memory instead of 65537 for each worker", "65536"),
        ({"disk_mib": 70000}, "65536 MiB of disk instead of 70000 for each worker", "65536"),
        (
            {"nic": BandwidthTerm(guarantee_mbit_s=10001)},
            "10000 Mbit/s instead of 10001 for each NIC of worker",
            "10000",
        ),
    ],
)
def test_an_amount_is_the_most_that_fits(
    allocation: Mapping[str, Any], message: str, value: str
) -> None:
    assert told(workers(**allocation), TWO) == {message: [value]}


def test_a_rate_of_the_disk_changes_its_cap_and_what_would_be_above_it() -> None:
    message = "10000 MiB/s of disk instead of 10500 for each worker"
    term = DiskTerm(guarantee_mib_s=5000, cap_mib_s=10500)
    [offer_] = offered(workers(disk=term), TWO)
    assert offer_.message == message
    assert [(each.field, each.value) for each in offer_.changes] == [
        ("spec.groups[0].allocation.disk.cap_mib_s", "10000")
    ]
    term = DiskTerm(guarantee_mib_s=10400, cap_mib_s=10500)
    [offer_] = offered(workers(disk=term), TWO)
    assert [each.field.rpartition(".")[2] for each in offer_.changes] == [
        "guarantee_mib_s",
        "cap_mib_s",
    ]


def test_a_default_of_the_sites_is_told_as_what_could_be_said() -> None:
    slow = {"a": replace(offer(room(4, iops=70)), default_iops=100)}
    message = "70 operations a second of disk instead of 100 for each worker"
    assert told(workers(1), slow) == {message: ["70"]}


def test_a_larger_disk_is_offered_where_the_image_needs_it() -> None:
    large = {"guest": ImageFound(digest=DIGEST, virtual_mib=4096)}
    sites = linked({"a": offer(9, images=large), "b": offer(0)}, link())
    message = "4096 MiB of disk instead of 128 for each worker, as its image needs"
    assert told(workers(2), sites) == {message: ["4096"]}


def test_no_disk_is_offered_that_is_below_its_image() -> None:
    large = {"guest": ImageFound(digest=DIGEST, virtual_mib=4096)}
    small = {"a": offer(room(9, disk_mib=8191), images=large)}
    assert told(workers(2, disk_mib=5000), small) == {"1 worker instead of 2": ["1"]}
    roomier = {"a": offer(room(9, disk_mib=8192), images=large)}
    assert told(workers(2, disk_mib=5000), roomier) == {
        "4096 MiB of disk instead of 5000 for each worker": ["4096"],
        "1 worker instead of 2": ["1"],
    }


def test_as_many_as_fit_are_offered_and_of_a_range_the_least() -> None:
    assert told(workers(20), TWO) == {"12 worker instead of 20": ["12"]}
    group = replace(workers().groups[0], count=0, min_count=15, max_count=30)
    ranged = replace(workers(), groups=(group,))
    [offer_] = offered(ranged, TWO)
    assert [(each.field, each.value) for each in offer_.changes] == [
        ("spec.groups[0].min_count", "12")
    ]


def test_one_more_site_is_offered_else_all() -> None:
    alone = placed(workers(6), allow_sites=("b",))
    assert told(alone, TWO) == {
        "4 worker instead of 6": ["4"],
        "worker at a as well": ['["b", "a"]'],
    }
    three = linked({"a": offer(4), "b": offer(4), "c": offer(4)}, link())
    alone = placed(workers(10), allow_sites=("b",))
    assert told(alone, three)["worker at any site"] == ["[]"]
    denied = placed(workers(6), deny_sites=("a",))
    assert told(denied, TWO)["worker at a as well"] == ["[]"]


@pytest.mark.parametrize(
    ("placement", "count", "message", "value"),
    [
        ({"max_per_site": 3}, 8, "4 worker at one site instead of 3", "4"),
        ({"max_per_host": 2}, 10, "4 worker on one host instead of 2", "4"),
        ({"min_sites": 3}, 3, "worker at 2 or more sites instead of 3", "2"),
    ],
)
def test_bounds_on_sites_and_hosts_are_as_wide_as_they_have_to_be(
    placement: Mapping[str, Any], count: int, message: str, value: str
) -> None:
    assert told(placed(workers(count), **placement), TWO)[message] == [value]


def test_any_hypervisor_is_offered_and_no_other_architecture() -> None:
    spec = workers()
    environment = replace(spec.groups[0].environment, hypervisor="xen")
    xen = replace(spec, groups=(replace(spec.groups[0], environment=environment),))
    assert told(xen, TWO) == {"any hypervisor instead of xen for worker": ['"any"']}
    environment = replace(spec.groups[0].environment, architecture="riscv64")
    other = replace(spec, groups=(replace(spec.groups[0], environment=environment),))
    assert told(other, TWO) == {}


def test_the_widest_promise_that_a_link_keeps_is_offered() -> None:
    pairs = (PairTerm(group="worker", bandwidth=BandwidthTerm(guarantee_mbit_s=60)),)
    spread = placed(workers(3, pairs=pairs), min_sites=2)
    offers = told(spread, TWO)
    assert offers["50 Mbit/s instead of 60 between each worker and each worker on lan"] == ["50"]
    assert offers["2 worker instead of 3"] == ["2"]
    assert offers["worker at 1 or more sites instead of 2"] == ["1"]


def test_the_first_start_that_fits_is_offered_though_a_later_one_does_not() -> None:
    sites = {"a": [offer(1), offer(2), offer(4), offer(0), offer(4)]}
    offers = told(workers(3), sites)
    start = window(2).start.isoformat().replace("+00:00", "Z")
    assert offers == {
        "1 worker instead of 3": ["1"],
        "10 min later, at 2026-03-01 12:10:00Z": [f'"{start}"'],
    }


def test_what_is_offered_has_the_start_and_the_cost_of_its_plan() -> None:
    [offer_] = offered(workers(9), {"a": offer(4, price=0.5)})
    assert (offer_.start_time, offer_.cost) == (NOW, 4 * 0.5)


def test_what_is_offered_is_planned_as_the_request_would_be() -> None:
    """At more sites than the model is solved for: it costs what it will."""
    sites = linked(
        {f"s{at:03}": offer(*(4,) * 10, price=99 - at) for at in range(60)},
        link(),
    )
    ground = ground_of(workers(40, vcpus=5), sites)
    assert model_size(ground.whole) > LARGEST_MODEL
    asked = asked_of(ground.whole, ground.times, ("lan",), ground.spec.lease)
    (vcpus,) = (each for each in asked if each.what is What.VCPUS)
    (lever,) = levers_of(vcpus, ground.spec, ground.whole, ground.times)
    feasibility = Feasibility(effort=60, each=5, size=10**9)
    found = offer_of(ground, [lever], feasibility, effort=0.02)
    four = ground.after([lever.step(4)])
    assert four is not None
    planned = best_plan(four, effort=0.02)
    assert found is not None
    assert planned is not None
    assert (found.start_time, found.cost) == (planned.window.start, planned.cost)


def test_what_a_change_would_make_malformed_is_not_offered() -> None:
    """Fewer than the sites they are to be spread over."""
    spread = placed(workers(5, vcpus=4), min_sites=2)
    sites = linked({"a": offer(4), "b": offer(3)}, link())
    assert all("worker instead of" not in each for each in told(spread, sites))


def test_without_a_budget_nothing_is_offered() -> None:
    assert offered(workers(20), TWO, size=1) == ()


def test_a_host_of_another_kind_is_no_room() -> None:
    arm = HostRoom(free=room(9).free, architecture="aarch64", hypervisors=frozenset({"qemu"}))
    assert told(workers(6), {"a": offer(4, arm, images=IMAGES)}) == {"4 worker instead of 6": ["4"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (11, "11"),
        (("north", "south"), '["north", "south"]'),
        ((), "[]"),
        ("any", '"any"'),
        (timedelta(minutes=45), '"2700s"'),
        (timedelta(microseconds=2500), '"0.0025s"'),
        (datetime(2026, 3, 1, 13, tzinfo=UTC), '"2026-03-01T13:00:00Z"'),
    ],
)
def test_values_are_told_in_protobufs_json(value: Any, text: str) -> None:
    assert json_of(value) == text


def test_a_field_is_read_and_changed_by_its_path() -> None:
    spec = workers(3, pairs=(PairTerm(group="worker"),))
    path = "spec.groups[0].allocation.pairs[0].bandwidth.guarantee_mbit_s"
    assert value_at(spec, path) == 0
    after = changed(spec, {path: 7, "spec.placement.max_sites": 2})
    assert (value_at(after, path), after.placement.max_sites) == (7, 2)
    assert changed(after, {path: 0, "spec.placement.max_sites": 0}) == spec
