"""Promises of disks of one host while other guests of it read and write as much as they may.

What the guest measures is compared with what QEMU counts of its disk. Sizes are such that emulated
guests reach their caps, so that it is the cap that holds them back and not the processor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, group, spec, user_with_image
from tests.e2e.one_site import SITE, begin, between, counters, create_all, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

PROMISED_IOPS, CAP_IOPS = 150, 200
PROMISED_MIB_S, CAP_MIB_S = 6, 8
GUESTS = 3
POOL_IOPS, POOL_MIB_S = GUESTS * CAP_IOPS, GUESTS * CAP_MIB_S
HOST = HostSpec(name="n1", memory_mib=1536, pool_iops=POOL_IOPS, pool_mib_s=POOL_MIB_S)
SECONDS = 5
LARGE = 128 * 1024
"""Bytes of a request whose cap is the throughput: CAP_IOPS of them are more than CAP_MIB_S."""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a guest asks its disk for, in requests of one size."""

    large: bool
    mode: str

    @property
    def cap(self) -> int:
        return CAP_MIB_S if self.large else CAP_IOPS

    @property
    def promised(self) -> int:
        return PROMISED_MIB_S if self.large else PROMISED_IOPS

    def command(self) -> str:
        return large(self.mode, SECONDS) if self.large else f"measure-iops {SECONDS} {self.mode}"

    def amount(self, said: str) -> float:
        """IOPS, or MiB/s, that the guest has counted."""
        if not self.large:
            return float(json.loads(said)["iops"])
        # Of each worker: requests, all that took; then how long it ran, in ns.
        rows = [line.split() for line in said.splitlines()]
        requests = sum(int(row[8]) for row in rows)
        return requests * LARGE / MIB / (max(int(row[9]) for row in rows) / 1e9)


def large(mode: str, seconds: int) -> str:
    """What `measure-iops` does, in large requests; without quotes."""
    write = "-WWW" if mode == "write" else ""
    one = f"ioping -q -B -D -A {write} -i 0 -s {LARGE} -o $at -S $size -w {seconds} $disk"
    return (
        "read -r disk </run/intertie/disk; at=$((64 * 1024 * 1024)); "
        "size=$(($(cat /sys/block/${disk##*/}/size) * 512 - at)); "
        f"for worker in 1 2 3 4; do {one} & done; wait"
    )


LOADS = {
    "IOPS read": Load(large=False, mode="read"),
    "IOPS written": Load(large=False, mode="write"),
    "MiB/s read": Load(large=True, mode="read"),
    "MiB/s written": Load(large=True, mode="write"),
}


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("disk", HOST) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Has `kept` with a promise, and `flood` with caps only, which take all that is left."""
    user = user_with_image(bed, tmp_path_factory.mktemp("disk"), endpoint=SITE)
    term = {
        "guarantee_iops": PROMISED_IOPS,
        "cap_iops": CAP_IOPS,
        "guarantee_mib_s": PROMISED_MIB_S,
        "cap_mib_s": CAP_MIB_S,
    }
    caps = {"cap_iops": CAP_IOPS, "cap_mib_s": CAP_MIB_S}
    kept, flood = group("a", disk=term), group("b", GUESTS - 1, disk=caps)
    create_all(user, {"kept": spec(kept), "flood": spec(flood)})
    return user


def measured(user: User, load: Load) -> tuple[float, float]:
    """What `kept` gets of its disk: by its own count and by QEMU's, a second."""
    before = counters(user.testbed, "n1")["kept/a-0"]
    said = user.in_guest("kept", "a-0", load.command(), timeout_s=SECONDS + 60)
    after = counters(user.testbed, "n1")["kept/a-0"]
    done = (after.disk_bytes - before.disk_bytes) / MIB
    if not load.large:
        done = after.disk_operations - before.disk_operations
    return load.amount(said), done / SECONDS


def test_a_cap_holds_and_a_neighbours_flood_costs_a_tenth_at_most(user: User) -> None:
    alone = {name: measured(user, load) for name, load in LOADS.items()}
    for name, load in LOADS.items():
        for found in alone[name]:
            assert 0.9 * load.cap <= found <= 1.1 * load.cap, (name, alone)

    begin(user, "flood", "b-0", "measure-iops 600 read")
    begin(user, "flood", "b-1", large("write", 600))
    began = counters(user.testbed, "n1")
    flooded = {name: measured(user, load) for name, load in LOADS.items()}
    ended = counters(user.testbed, "n1")

    for name, load in LOADS.items():
        for found, before in zip(flooded[name], alone[name], strict=True):
            assert found >= 0.9 * before, (name, alone, flooded)
            assert found >= 0.9 * load.promised, (name, flooded)
    seconds, _ = between(began["flood/b-0"], ended["flood/b-0"])
    done = ended["flood/b-0"].disk_operations - began["flood/b-0"].disk_operations
    octets = ended["flood/b-1"].disk_bytes - began["flood/b-1"].disk_bytes
    assert done >= 0.9 * CAP_IOPS * seconds, "it was a flood"
    assert octets >= 0.9 * CAP_MIB_S * MIB * seconds, "it was a flood"


def test_pool_iops_are_admitted_by_caps_and_never_exceeded(user: User) -> None:
    one_more = spec(group("c", disk={"cap_iops": 1, "cap_mib_s": 1}))
    said = user.say(*user.create_args("more", one_more))
    assert said.code == 1
    assert "NO_CAPACITY" in said.err
    assert "iops" in said.err
    assert "throughput" in said.err

    for where in ("kept/a-0", "flood/b-0", "flood/b-1"):
        cluster, workspace = where.split("/")
        begin(user, cluster, workspace, "killall ioping; measure-iops 600 write")
    before = counters(user.testbed, "n1")
    time.sleep(SECONDS)
    after = counters(user.testbed, "n1")
    least_s, most_s = between(before["kept/a-0"], after["kept/a-0"])
    done = sum(after[each].disk_operations - before[each].disk_operations for each in after)
    # QEMU lets through a tenth of a second's worth at once.
    most = POOL_IOPS * (most_s + 0.1) + GUESTS * most_s
    assert 0.9 * POOL_IOPS * least_s <= done <= most, (least_s, most_s)
