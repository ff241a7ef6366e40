"""A guest that eats its memory, beside one that goes on as before."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from intertie.nodeagent.domain.domain_xml import memory_limit_mib
from testbed import cgroups
from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, eventually, group, spec, user_with_image
from tests.e2e.one_site import SITE, begin, counters, create_all, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

HOST = HostSpec(name="n1", vcpus=2, memory_mib=1024)
EATER_MIB = 320
"""More than an emulator has of the machine before its guest eats: what boots, and its own."""
CAP_IOPS = 200
SECONDS = 6
MIB = 1024 * 1024
EATING = "while :; do tail /dev/zero; done"
"""Holds all that was read while no line has ended: until the guest's kernel kills it, and again."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("memory", HOST) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    user = user_with_image(bed, tmp_path_factory.mktemp("memory"), endpoint=SITE)
    disk = {"guarantee_iops": CAP_IOPS}
    eater = group("b", memory_mib=EATER_MIB, disk=disk)
    create_all(user, {"kept": spec(group("a", disk=disk)), "eater": spec(eater)})
    return user


def resident_mib(user: User) -> int:
    """What the emulator of the guest that eats has of the machine's memory."""
    domain = counters(user.testbed, "n1")["eater/b-0"].domain
    for pid in user.testbed.guest_pids(f"{SITE}/n1"):
        with open(f"/proc/{pid}/cmdline") as words, open(f"/proc/{pid}/status") as status:
            if domain in words.read():
                row = next(line for line in status if line.startswith("VmRSS:"))
                return int(row.split()[1]) // 1024
    raise AssertionError(f"no emulator of {domain}")


def test_a_guest_that_eats_its_memory_harms_no_other(user: User) -> None:
    def iops() -> float:
        said = user.in_guest("kept", "a-0", f"measure-iops {SECONDS}", timeout_s=SECONDS + 60)
        return float(json.loads(said)["iops"])

    bed = user.testbed
    daemons = [bed.component(f"{SITE}/n1/{name}") for name in ("libvirtd", "nodeagent")]
    pids, guests = [each.pid for each in daemons], bed.guest_pids(f"{SITE}/n1")
    before = resident_mib(user)
    assert before < EATER_MIB, "it has not eaten yet"
    alone = iops()

    begin(user, "eater", "b-0", EATING)
    eventually(lambda: resident_mib(user) >= EATER_MIB, within_s=60, what="it has eaten")
    flooded = iops()
    begin(user, "kept", "a-0", "while :; do :; done")
    began = counters(bed, "n1")
    time.sleep(SECONDS)
    ended = counters(bed, "n1")
    eaten = resident_mib(user)

    assert flooded >= 0.9 * alone
    assert flooded >= 0.9 * CAP_IOPS
    used = {each: ended[each].cpu_ns - began[each].cpu_ns for each in ended}
    # One vCPU each: the same share, however much the eater's kernel has to do.
    assert used["kept/a-0"] >= 0.85 * used["eater/b-0"], used
    assert eaten <= memory_limit_mib("qemu", EATER_MIB)
    assert [each.pid for each in daemons] == pids
    assert bed.guest_pids(f"{SITE}/n1") == guests
    assert user.in_guest("kept", "a-0", "echo here").strip() == "here"


def test_an_emulator_that_takes_more_than_its_guest_was_given_is_held_by_the_host(
    user: User,
) -> None:
    """A process in the emulator's cgroup stands for an emulator that a guest made eat."""
    if "memory" not in cgroups.controllers():
        pytest.skip("no cgroups with memory limits can be made here")
    bed = user.testbed
    domain = counters(bed, "n1")["eater/b-0"].domain
    folder = cgroups.of_guest(bed.places.cgroup_name, f"{SITE}-n1", domain)["memory"]
    limit_mib = int((folder / "memory.limit_in_bytes").read_text()) // MIB
    assert limit_mib == memory_limit_mib("qemu", EATER_MIB)

    program = f"b'1' * {2 * limit_mib * MIB}"
    eats = f'echo $$ >{folder}/cgroup.procs && exec python3 -c "{program}"'
    ate = subprocess.run(["sh", "-c", eats], check=False, timeout=60)
    assert ate.returncode == -9, "killed by the kernel"
    assert user.in_guest("kept", "a-0", "echo here").strip() == "here"
    assert bed.component(f"{SITE}/n1/nodeagent").running
