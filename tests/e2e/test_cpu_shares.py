"""Shares of an overcommitted host: its guests want four times the processor time that it has."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import cgroups
from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, group, spec, user_with_image
from tests.e2e.one_site import SITE, begin, between, counters, create_all, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

HOST = HostSpec(name="n1", vcpus=1, memory_mib=1024, pool_iops=4000)
OVERCOMMIT = 4.0
VCPUS = {"small/a-0": 1, "small/a-1": 1, "large/b-0": 2}
"""What is promised of the host: one half and two quarters."""
SECONDS = 20
BEGUN_S = 6
"""They begin late, so that those that burn do not keep the others from it."""
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    if "cpu" not in cgroups.controllers():
        pytest.skip("no cgroups with CPU shares can be made here")
    with one_site("shares", HOST, cpu_overcommit=OVERCOMMIT) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    user = user_with_image(bed, tmp_path_factory.mktemp("shares"), endpoint=SITE)
    create_all(user, {"small": spec(group("a", 2)), "large": spec(group("b", vcpus=2))})
    return user


def on_one_processor(bed: Testbed) -> None:
    """As on a host that has but one: over several, the kernel weighs shares on each by itself, and
    what comes of all of them is by chance up to a fifth off."""
    [one, *_] = sorted(os.sched_getaffinity(0))
    for pid in bed.guest_pids("north/n1"):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {one})


@pytest.mark.more_guests
def test_guests_of_an_overcommitted_host_share_it_as_promised(user: User) -> None:
    said = user.say(*user.create_args("more", spec(group("c"))))
    assert "NO_CAPACITY" in said.err
    assert "vcpus" in said.err

    for where, vcpus in VCPUS.items():
        cluster, workspace = where.split("/")
        burn = "while :; do :; done & " * vcpus
        begin(user, cluster, workspace, f"sleep {BEGUN_S}; {burn} wait")
    on_one_processor(user.testbed)
    time.sleep(BEGUN_S)
    before = counters(user.testbed, "n1")
    time.sleep(SECONDS)
    after = counters(user.testbed, "n1")
    least_s, most_s = between(before["large/b-0"], after["large/b-0"])
    used = {each: (after[each].cpu_ns - before[each].cpu_ns) / 1e9 for each in VCPUS}
    together = sum(used.values())
    # Others may use this machine too, so the guests need not get all that the host may use.
    assert 0.5 * HOST.vcpus * least_s <= together <= 1.05 * HOST.vcpus * most_s, used
    for each, vcpus in VCPUS.items():
        promised = vcpus / sum(VCPUS.values())
        assert used[each] / together == pytest.approx(promised, rel=TOLERANCE), used
