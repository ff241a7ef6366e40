"""What is done about a guest that runs and is to have other terms."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.common.terms import DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.guest_terms import (
    MEMORY_SLOTS,
    CapDisk,
    Change,
    GrowDisk,
    Lacking,
    LetGoOn,
    LimitMemory,
    PlugMemory,
    PlugVcpus,
    Running,
    WeighCpu,
    lacking,
    most_memory_mib,
    most_vcpus,
    terms_of,
)
from tests.unit.nodeagent.parts import WORKSPACE

HAS = Running(terms=terms_of(WORKSPACE.allocation, cgroups=True))
"""2 vCPUs, 512 MiB, a disk of 1024 MiB, 300 IOPS, 50 MiB/s."""


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert lacking(HAS, HAS.terms) == Lacking()


@pytest.mark.parametrize(
    ("wanted", "change"),
    [
        ({"cap_iops": 400}, CapDisk(iops=400, mib_s=50)),
        ({"cap_iops": 200, "cap_mib_s": 60}, CapDisk(iops=200, mib_s=60)),
        ({"cap_iops": 0}, CapDisk(iops=0, mib_s=50)),
        ({"disk_mib": 2048}, GrowDisk(mib=2048)),
        ({"cpu_shares": 512}, WeighCpu(shares=512, quota_us=100_000)),
    ],
)
def test_what_can_be_done_while_it_runs_is(wanted: dict[str, Any], change: Change) -> None:
    assert lacking(HAS, replace(HAS.terms, **wanted)) == Lacking(changes=(change,))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"memory_mib": 1024}, "1024 MiB of memory at its next start; until then 512"),
        ({"memory_mib": 256}, "256 MiB of memory at its next start; until then 512"),
        ({"disk_mib": 512}, "its disk stays at 1024 MiB: none is made smaller"),
    ],
)
def test_what_cannot_be_done_is_said(wanted: dict[str, Any], said: str) -> None:
    assert lacking(HAS, replace(HAS.terms, **wanted)) == Lacking(waits=(said,))


def test_more_vcpus_wait_for_a_start_and_weigh_from_now_on() -> None:
    allocation = replace(WORKSPACE.allocation, vcpus=4)
    assert lacking(HAS, terms_of(allocation, cgroups=True)) == Lacking(
        changes=(WeighCpu(shares=4096, quota_us=100_000),),
        waits=("4 vCPUs at its next start; until then 2",),
    )


def test_fewer_vcpus_wait_for_a_start_and_get_no_more_time_than_they_would_from_now_on() -> None:
    allocation = replace(WORKSPACE.allocation, vcpus=1)
    assert lacking(HAS, terms_of(allocation, cgroups=True)) == Lacking(
        changes=(WeighCpu(shares=1024, quota_us=50_000),),
        waits=("1 vCPUs at its next start; until then 2",),
    )


def test_nobody_asks_for_shares_on_a_host_that_keeps_to_none() -> None:
    allocation = replace(WORKSPACE.allocation, vcpus=4)
    has = Running(terms=terms_of(WORKSPACE.allocation, cgroups=False))
    found = lacking(has, terms_of(allocation, cgroups=False))
    assert found.changes == ()
    assert len(found.waits) == 1


def test_a_disk_that_is_given_no_cap_is_capped_at_what_it_is_guaranteed() -> None:
    disk = DiskTerm(guarantee_iops=70, guarantee_mib_s=3)
    terms = terms_of(replace(WORKSPACE.allocation, disk=disk), cgroups=True)
    assert (terms.cap_iops, terms.cap_mib_s) == (70, 3)


def test_a_change_says_what_comes_of_it() -> None:
    said = [str(each) for each in (CapDisk(iops=9, mib_s=0), GrowDisk(mib=7))]
    assert said == ["a disk of at most 9 IOPS and any MiB/s", "a disk of 7 MiB"]
    assert (str(PlugVcpus(total=3)), str(LetGoOn())) == ("3 vCPUs", "a guest that goes on")
    assert str(WeighCpu(shares=5, quota_us=50_000)) == "5 CPU shares, and 50% of each vCPU"


def test_more_vcpus_come_to_a_guest_that_has_room_for_them() -> None:
    has, wanted = replace(HAS, most_vcpus=4), replace(HAS.terms, vcpus=4, cpu_shares=4096)
    weighs = WeighCpu(shares=4096, quota_us=100_000)
    assert lacking(has, wanted) == Lacking(changes=(weighs, PlugVcpus(total=4)))


@pytest.mark.parametrize(("vcpus", "most"), [(5, 4), (3, 2), (1, 4)])
def test_vcpus_wait_for_a_start_where_none_are_plugged_in_for_them(vcpus: int, most: int) -> None:
    """More than it may have, no room for any, and fewer: none is taken out."""
    found = lacking(replace(HAS, most_vcpus=most), replace(HAS.terms, vcpus=vcpus))
    assert found.waits == (f"{vcpus} vCPUs at its next start; until then 2",)
    assert not any(isinstance(each, PlugVcpus) for each in found.changes)


def test_what_a_guest_does_not_make_use_of_is_said_and_is_not_its_host_s_to_do() -> None:
    said = "1 of its 2 vCPUs came while it ran and did not run yet: its kernel has to bring them"
    found = lacking(replace(HAS, idle_vcpus=1), HAS.terms)
    assert (found.changes, found.waits) == ((), ())
    [left] = found.left_to_guest
    assert left.startswith(said)


def test_a_guest_that_was_paused_for_a_change_and_forgotten_goes_on() -> None:
    assert lacking(replace(HAS, stands_still=True), HAS.terms).changes == (LetGoOn(),)


@pytest.mark.parametrize(
    ("vcpus", "growth", "host", "most"),
    [(2, 1, 8, 2), (2, 4, 8, 8), (2, 4, 6, 6), (1, 16, 64, 16), (8, 4, 4, 8)],
)
def test_a_guest_has_so_many_times_its_vcpus_and_no_more_than_its_host(
    vcpus: int, growth: int, host: int, most: int
) -> None:
    assert most_vcpus(vcpus, growth, host_vcpus=host) == most


def test_an_emulator_is_held_to_what_goes_with_the_guest_s_memory() -> None:
    """An agent may have been killed while a module came."""
    assert lacking(replace(HAS, limit_off=True), HAS.terms).changes == (LimitMemory(),)


def grown(*modules: int, most_mib: int = 1024) -> Running:
    """512 MiB and these modules."""
    has = replace(HAS.terms, memory_mib=512 + sum(modules))
    return Running(terms=has, most_memory_mib=most_mib, modules=modules)


@pytest.mark.parametrize(
    ("has", "memory_mib", "changes"),
    [
        (grown(), 640, [PlugMemory(mib=128, total_mib=640)]),
        (grown(), 1024, [PlugMemory(mib=512, total_mib=1024)]),
        (grown(256), 1024, [PlugMemory(mib=256, total_mib=1024)]),
    ],
)
def test_memory_comes_by_modules_to_a_guest_that_has_room_for_them(
    has: Running, memory_mib: int, changes: list[Change]
) -> None:
    wanted = replace(HAS.terms, memory_mib=memory_mib)
    assert lacking(has, wanted) == Lacking(changes=tuple(changes))


@pytest.mark.parametrize(
    ("has", "memory_mib"),
    [
        (grown(), 1152),  # more than it may have
        (grown(), 600),  # no whole block
        (grown(*[128] * MEMORY_SLOTS, most_mib=8192), 3072),  # no slot
        (grown(), 384),  # less than it started with
        (grown(256), 512),  # no module is taken out
    ],
)
def test_memory_waits_for_a_start_where_modules_do_not_make_it_up(
    has: Running, memory_mib: int
) -> None:
    said = f"{memory_mib} MiB of memory at its next start; until then {has.terms.memory_mib}"
    wanted = replace(HAS.terms, memory_mib=memory_mib)
    assert lacking(has, wanted) == Lacking(waits=(said,))


@pytest.mark.parametrize(
    ("memory_mib", "growth", "most"),
    [(512, 1, 512), (512, 2, 1024), (200, 2, 328), (112, 2, 112), (112, 3, 240)],
)
def test_a_guest_grows_by_whole_blocks_up_to_so_many_times_what_it_starts_with(
    memory_mib: int, growth: int, most: int
) -> None:
    assert most_memory_mib(memory_mib, growth) == most
