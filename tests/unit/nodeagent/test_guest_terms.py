"""What is done about a guest that runs and is to have other terms."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.common.terms import DiskTerm
from intertie.common.values import replace
from intertie.nodeagent.domain.guest_terms import (
    CapDisk,
    Change,
    GrowDisk,
    Lacking,
    WeighCpu,
    lacking,
    terms_of,
)
from tests.unit.nodeagent.parts import WORKSPACE

HAS = terms_of(WORKSPACE.allocation, cgroups=True)
"""2 vCPUs, 512 MiB, a disk of 1024 MiB, 300 IOPS, 50 MiB/s."""


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert lacking(HAS, HAS) == Lacking()


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
    assert lacking(HAS, replace(HAS, **wanted)) == Lacking(changes=(change,))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"memory_mib": 1024}, "1024 MiB of memory at its next start; until then 512"),
        ({"memory_mib": 256}, "256 MiB of memory at its next start; until then 512"),
        ({"disk_mib": 512}, "its disk stays at 1024 MiB: none is made smaller"),
    ],
)
def test_what_cannot_be_done_is_said(wanted: dict[str, Any], said: str) -> None:
    assert lacking(HAS, replace(HAS, **wanted)) == Lacking(waits=(said,))


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
    found = lacking(
        terms_of(WORKSPACE.allocation, cgroups=False), terms_of(allocation, cgroups=False)
    )
    assert found.changes == ()
    assert len(found.waits) == 1


def test_a_disk_that_is_given_no_cap_is_capped_at_what_it_is_guaranteed() -> None:
    disk = DiskTerm(guarantee_iops=70, guarantee_mib_s=3)
    terms = terms_of(replace(WORKSPACE.allocation, disk=disk), cgroups=True)
    assert (terms.cap_iops, terms.cap_mib_s) == (70, 3)


def test_a_change_says_what_comes_of_it() -> None:
    said = [str(each) for each in (CapDisk(iops=9, mib_s=0), GrowDisk(mib=7))]
    assert said == ["a disk of at most 9 IOPS and any MiB/s", "a disk of 7 MiB"]
    assert str(WeighCpu(shares=5, quota_us=50_000)) == "5 CPU shares, and 50% of each vCPU"
