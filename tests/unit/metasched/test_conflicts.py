"""Which requirements cannot be met together: each that there is, on problems solved by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from intertie.common.quantities import Vector
from intertie.common.spec import LeaseTerms
from intertie.common.values import replace
from intertie.metasched.domain.conflicts import (
    Conflicts,
    conflicts_of,
    shrunk,
    verdict_of,
)
from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.problem import HostRoom, ImageFound, LatencyLimit, Problem
from intertie.metasched.domain.requirements import Times, asked_of
from tests.unit.metasched.problems import (
    IMAGES,
    NOW,
    OTHER_DIGEST,
    group,
    link,
    linked,
    offer,
    problem,
    promise,
    room,
)

HEAD, WORKER = "spec.groups[0]", "spec.groups[1]"
COUNT, MEMORY = f"{HEAD}.count", f"{HEAD}.allocation.memory_mib"
VCPUS, ALLOW = f"{HEAD}.allocation.vcpus", f"{HEAD}.placement.allow_sites"
PAIR, LATENCY = "spec.pairs", "spec.latency"
NETWORK, MAX_SITES = "spec.networks[0]", "spec.placement.max_sites"
START, DURATION = "spec.lease.max_delay", "spec.lease.duration"


def told(
    given: Problem, times: Times | None = None, lease: LeaseTerms | None = None
) -> tuple[list[set[str]], list[set[str]]]:
    """Conflicts, and ways of giving up what is enough, by fields."""
    times = times or Times(asked=tuple(range(len(given.windows))))
    asked = asked_of(given, times, ("lan",), lease)
    fields = [each.field for each in asked]
    assert len(set(fields)) == len(fields)
    assert all(each.message for each in asked)
    feasibility = Feasibility(effort=60, each=5, size=10**9)
    found = conflicts_of(len(asked), verdict_of(given, times, asked, feasibility))
    assert all(enough <= each for each, enough in zip(found.sets, found.enough, strict=True))

    def named(sets: Sequence[frozenset[int]]) -> list[set[str]]:
        return [{fields[number] for number in each} for each in sets]

    return named(found.sets), named(found.ways)


def alone(given: Problem, *fields: str) -> None:
    """There is one conflict, and any one of it is enough."""
    sets, ways = told(given)
    assert sets == [set(fields)]
    assert sorted(ways, key=sorted) == sorted(({each} for each in fields), key=sorted)


def of(name: str, amount: int) -> Vector:
    return replace(Vector(vcpus=1, memory_mib=256, disk_mib=512), **{name: amount})


@pytest.mark.parametrize(
    ("name", "amount", "field"),
    [
        ("vcpus", 9, "vcpus"),
        ("memory_mib", 65537, "memory_mib"),
        ("disk_mib", 65537, "disk_mib"),
        ("iops", 10001, "disk.cap_iops"),
        ("throughput_mib_s", 10001, "disk.cap_mib_s"),
        ("uplink_mbit_s", 10001, "nic.guarantee_mbit_s"),
    ],
)
def test_an_amount_that_no_host_has_stands_alone(name: str, amount: int, field: str) -> None:
    alone(problem([group(need=of(name, amount))], {"a": offer(8)}), f"{HEAD}.allocation.{field}")


def test_too_many_of_a_size_are_too_many_or_too_large() -> None:
    alone(problem([group(fewest=3, vcpus=2)], {"a": offer(5)}), COUNT, VCPUS)


def test_a_default_of_all_sites_is_asked_for_by_saying_nothing() -> None:
    full = replace(offer(room(8, iops=50)), default_iops=60)
    alone(problem([group()], {"a": full}), f"{HEAD}.allocation.disk.cap_iops")


def test_the_least_of_a_range_is_named() -> None:
    given = problem([group(fewest=3, most=9, count_field="min_count")], {"a": offer(2)})
    alone(given, f"{HEAD}.min_count")


def test_a_site_that_may_not_be_used_is_named_with_what_is_short_at_the_other() -> None:
    sites = {"a": offer(1), "b": offer(9)}
    alone(problem([group(vcpus=2, allow_sites=("a",))], sites), ALLOW, VCPUS)
    denying = problem([group(vcpus=2, deny_sites=("b",))], sites)
    alone(denying, f"{HEAD}.placement.deny_sites", VCPUS)


def test_an_image_is_named_with_the_sites_that_are_allowed() -> None:
    sites = {"a": offer(9, images={}), "b": offer(9)}
    image = f"{HEAD}.environment.image"
    alone(problem([group(allow_sites=("a",))], sites), ALLOW, image)
    alone(problem([group()], {"a": offer(9, images={})}), image)


def test_one_content_for_all_of_a_group_is_named_with_what_divides_them() -> None:
    other = {"guest": ImageFound(digest=OTHER_DIGEST, virtual_mib=64)}
    sites = linked({"a": offer(1), "b": offer(1, images=other)}, link())
    alone(problem([group(fewest=2)], sites), f"{HEAD}.environment.image", COUNT)


def test_a_disk_below_its_image_is_named_with_it() -> None:
    large = {"guest": ImageFound(digest=IMAGES["guest"].digest, virtual_mib=4096)}
    disk, image = f"{HEAD}.allocation.disk_mib", f"{HEAD}.environment.image"
    alone(problem([group()], {"a": offer(9, images=large)}), disk, image)


def test_a_kind_of_host_that_is_nowhere_is_named() -> None:
    arm = HostRoom(free=room(9).free, architecture="aarch64", hypervisors=frozenset({"kvm"}))
    alone(problem([group()], {"a": offer(arm)}), f"{HEAD}.environment.architecture")
    alone(problem([group(hypervisor="kvm")], {"a": offer(9)}), f"{HEAD}.environment.hypervisor")


def test_spread_over_more_sites_than_there_are_is_named() -> None:
    sites = linked({"a": offer(9), "b": offer(0)}, link())
    spread = problem([group(fewest=2, min_sites=2)], sites)
    alone(spread, f"{HEAD}.placement.min_sites")
    roomier = linked({"a": offer(9), "b": offer(1)}, link())
    spread = problem([group(fewest=2, min_sites=2, vcpus=2)], roomier)
    alone(spread, VCPUS, f"{HEAD}.placement.min_sites")


def test_bounds_on_one_site_and_one_host_are_named_with_the_count() -> None:
    at_one = f"{HEAD}.placement.max_per_site"
    on_one = f"{HEAD}.placement.max_per_host"
    alone(problem([group(fewest=3, max_per_site=2)], {"a": offer(9)}), at_one, COUNT)
    alone(problem([group(fewest=3, max_per_host=1)], {"a": offer(4, 4)}), on_one, COUNT)


def test_too_few_sites_in_all_are_named() -> None:
    sites = linked({"a": offer(2), "b": offer(2)}, link())
    alone(problem([group(fewest=3)], sites, max_sites=1), MAX_SITES, COUNT)


def divided(**more: object) -> Problem:
    """A head that is at a alone and a worker that is at b alone."""
    groups = [group("head", allow_sites=("a",)), group(allow_sites=("b",))]
    sites = linked({"a": offer(9), "b": offer(9)}, link(15, ms=5))
    return problem(groups, sites, **more)


def test_bandwidth_over_a_link_is_named_with_what_divides_them() -> None:
    asked = replace(promise("head", "worker", 20), field=PAIR)
    given = divided(promises=(asked,))
    alone(given, PAIR, NETWORK, ALLOW, f"{WORKER}.placement.allow_sites")


def test_a_latency_is_named_with_what_divides_them() -> None:
    near = timedelta(milliseconds=2)
    limit = LatencyLimit(a="head", b="worker", network="lan", most=near, field=LATENCY)
    given = divided(limits=(limit,))
    alone(given, LATENCY, NETWORK, ALLOW, f"{WORKER}.placement.allow_sites")


def test_sites_without_a_link_are_named_by_the_network() -> None:
    given = divided()
    apart = tuple(
        replace(site, offers=tuple(replace(each, links={}) for each in site.offers))
        for site in given.sites
    )
    alone(replace(given, sites=apart), NETWORK, ALLOW, f"{WORKER}.placement.allow_sites")


def test_a_network_is_not_enough_to_give_up_for_a_group_that_cannot_reach_its_own() -> None:
    """A bug: without it the group was on none, which nobody can ask for."""
    apart = {"a": offer(2, links={}), "b": offer(2, links={})}
    sets, ways = told(problem([group("head"), group(fewest=3)], apart))
    assert sets == [{f"{WORKER}.count"}]
    assert ways == [{f"{WORKER}.count"}]


def at(slots: int) -> tuple[Problem, Times]:
    """What fits from the second window on; what is shorter is its last one."""
    given = problem([group(vcpus=4)], {"a": [offer(3), *[offer(4)] * slots]})
    return given, Times(asked=(0,), later=tuple(range(1, slots)), shorter=(slots,))


def test_when_and_for_how_long_are_requirements_as_well() -> None:
    given, times = at(3)
    sets, ways = told(given, times, LeaseTerms(duration=timedelta(hours=1)))
    assert sets == [{VCPUS, START, DURATION}]
    assert ways == [{VCPUS}, {START}, {DURATION}]


@pytest.mark.parametrize(
    ("lease", "field"),
    [
        (LeaseTerms(), "max_delay"),
        (LeaseTerms(start_time=NOW), "start_time"),
        (LeaseTerms(start_time=NOW, max_delay=timedelta(hours=1)), "max_delay"),
        (LeaseTerms(deadline=NOW + timedelta(hours=3)), "deadline"),
    ],
)
def test_the_field_that_bounds_the_start_is_named(lease: LeaseTerms, field: str) -> None:
    given, times = at(2)
    assert told(given, replace(times, shorter=()), lease)[0] == [{VCPUS, f"spec.lease.{field}"}]


def test_an_end_that_is_given_is_named_as_that() -> None:
    given, times = at(1)
    lease = LeaseTerms(end_time=NOW + timedelta(hours=1))
    assert told(given, replace(times, later=()), lease)[0] == [{VCPUS, "spec.lease.end_time"}]


def test_two_causes_are_two_conflicts_and_one_of_each_is_given_up() -> None:
    groups = [group("head", vcpus=9), group(need=of("memory_mib", 99999))]
    sets, ways = told(problem(groups, {"a": offer(8, 8)}))
    memory = f"{WORKER}.allocation.memory_mib"
    assert sorted(map(sorted, sets)) == [[VCPUS], [memory]]
    assert ways == [{VCPUS, memory}]


def test_what_is_in_both_of_two_conflicts_is_enough_to_give_up() -> None:
    given = problem([group(fewest=3, vcpus=2, max_per_host=1)], {"a": offer(5)})
    sets, ways = told(given)
    per_host = f"{HEAD}.placement.max_per_host"
    assert sorted(map(sorted, sets)) == sorted([sorted({COUNT, VCPUS}), sorted({COUNT, per_host})])
    assert ways == [{COUNT}]


def test_where_nothing_at_all_can_be_had_nothing_is_named() -> None:
    given, times = problem([group()], {"a": offer()}), Times(asked=(0,))
    asked = asked_of(given, times)
    feasibility = Feasibility(effort=9, each=9, size=10**9)
    found = conflicts_of(len(asked), verdict_of(given, times, asked, feasibility))
    assert found == Conflicts()


def test_what_can_be_had_by_now_is_in_no_conflict_and_needs_no_change() -> None:
    """Sites may have more to give when they are asked again, to explain a refusal."""
    assert conflicts_of(3, lambda _: True) == Conflicts()


def test_without_a_budget_nothing_is_claimed() -> None:
    given = problem([group(vcpus=9)], {"a": offer(8)})
    times = Times(asked=(0,))
    asked = asked_of(given, times)
    for feasibility in (
        Feasibility(effort=9, each=9, size=1),
        Feasibility(effort=0, each=9, size=10**9),
    ):
        found = conflicts_of(len(asked), verdict_of(given, times, asked, feasibility))
        assert found == Conflicts()


def test_a_conflict_that_may_be_larger_than_it_has_to_be_is_not_told() -> None:
    """2 and 5 are in conflict; of what has 2 and not 7 nobody knows."""

    def verdict(kept: frozenset[int]) -> bool | None:
        if 2 in kept and 7 not in kept:
            return None
        return not {2, 5} <= kept

    assert shrunk(range(9), verdict) is None
    assert conflicts_of(9, verdict) == Conflicts()
    assert shrunk(range(9), lambda kept: not {2, 5} <= kept) == frozenset({2, 5})


def test_where_nobody_knows_what_would_be_enough_none_is_marked() -> None:
    """2 and 5 are in conflict; whether it could be had without either nobody knows."""

    def verdict(kept: frozenset[int]) -> bool | None:
        return False if {2, 5} <= kept else None if len(kept) > 2 else True

    found = conflicts_of(4 + 2, verdict)
    assert found == Conflicts(sets=(frozenset({2, 5}),), enough=(frozenset(),))
