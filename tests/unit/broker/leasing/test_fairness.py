"""Whose turn it is, by hand."""

import pytest

from intertie.common.errors import FieldInvalid
from intertie.common.leasing.fairness import AllAlike, DominantResource, Fairness, InUse
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.order import FirstCome, Order, ShortestFirst
from intertie.common.leasing.requests import BestEffort
from intertie.common.quantities import Vector

DAY = 86_400
NOW = 10 * DAY
SITE = Vector(vcpus=10, memory_mib=100, disk_mib=1000)


def lease(
    name: str, vcpus: int = 1, *, submit_s: int = NOW, duration_s: int = 3600, **more: int
) -> Lease:
    """Of the tenant that its name begins with."""
    takes = Vector(vcpus=vcpus, **more)
    request = BestEffort(
        name=name, nodes=1, duration_s=duration_s, tenant=name.partition("-")[0], takes=takes
    )
    return Lease(request=request, submit_s=submit_s)


def line(
    *leases: Lease,
    has: dict[str, Vector] | None = None,
    fairness: Fairness | None = None,
    order: Order | None = None,
    capacity: Vector = SITE,
) -> list[str]:
    fair, by = fairness or DominantResource(), order or FirstCome()
    in_use = InUse(capacity=capacity, by_tenant=has or {})
    found = fair.line(leases, lambda each: by.rank(each, NOW), NOW, in_use)
    return [each.request.name for each in found]


def test_the_example_of_the_paper() -> None:
    """Of 9 vCPUs and 18 of memory a's tasks take 1 and 4, b's 3 and 1: three of a and two of b
    run, at two thirds of memory and two thirds of vCPUs."""
    tasks = [lease(f"a-{n}", 1, memory_mib=4) for n in range(4)]
    tasks += [lease(f"b-{n}", 3, memory_mib=1) for n in range(4)]
    found = line(*tasks, capacity=Vector(vcpus=9, memory_mib=18))
    assert found[:5] == ["a-0", "b-0", "a-1", "b-1", "a-2"]


def test_who_has_less_goes_first_and_what_was_picked_counts() -> None:
    found = line(
        lease("a-1", 2), lease("a-2", 2), lease("b-1", 3), has={"a": Vector(vcpus=2, disk_mib=1)}
    )
    assert found == ["b-1", "a-1", "a-2"]
    found = line(lease("a-1", 2), lease("a-2", 2), lease("b-1", 3), lease("b-2", 3))
    assert found == ["a-1", "b-1", "a-2", "b-2"]


@pytest.mark.parametrize("much", [{"memory_mib": 50}, {"disk_mib": 500}, {"vcpus": 5}])
def test_the_largest_share_counts_of_whichever_it_is(much: dict[str, int]) -> None:
    has = {"a": Vector(**much), "b": Vector(vcpus=4, memory_mib=40, disk_mib=400)}
    assert line(lease("a-1"), lease("b-1"), has=has) == ["b-1", "a-1"]


def test_of_what_nobody_knows_the_capacity_nothing_is_said() -> None:
    has = {"a": Vector(vcpus=5), "b": Vector(memory_mib=10)}
    found = line(lease("a-1"), lease("b-1"), has=has, capacity=Vector(memory_mib=100))
    assert found == ["a-1", "b-1"]


def test_waiting_counts_as_share_that_one_has_less() -> None:
    """Half a day is half of everything: a has 0.4 more."""
    has = {"a": Vector(vcpus=4)}
    sooner = lease("a-1", submit_s=NOW - DAY // 2)
    assert line(lease("b-1"), sooner, has=has) == ["a-1", "b-1"]
    later = lease("a-1", submit_s=NOW - DAY // 4)
    assert line(lease("b-1"), later, has=has) == ["b-1", "a-1"]


def test_who_has_waited_for_a_day_longer_goes_first_whatever_its_tenant_has() -> None:
    has = {"a": Vector(vcpus=99), "b": Vector()}
    old = lease("a-1", submit_s=NOW - DAY - 1)
    assert line(lease("b-1"), old, has=has) == ["a-1", "b-1"]


def test_what_it_has_run_was_no_waiting() -> None:
    ran = lease("a-1", submit_s=NOW - DAY, duration_s=DAY)
    ran.banked_s = DAY - 1
    assert line(lease("b-1"), ran, has={"a": Vector(vcpus=1)}) == ["b-1", "a-1"]


def test_within_a_tenant_the_order_counts() -> None:
    asked = lease("a-long", duration_s=900), lease("a-short", duration_s=60), lease("b-1", 3)
    assert line(*asked, order=ShortestFirst()) == ["a-short", "b-1", "a-long"]


def test_where_all_are_alike_the_order_alone_counts() -> None:
    asked = lease("a-1", 9, submit_s=1), lease("b-1", submit_s=3), lease("a-2", submit_s=2)
    has = {"a": Vector(vcpus=9)}
    assert line(*asked, has=has, fairness=AllAlike()) == ["a-1", "a-2", "b-1"]


def test_patience_is_at_least_a_second() -> None:
    with pytest.raises(FieldInvalid):
        DominantResource(patience_s=0)
