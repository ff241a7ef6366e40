"""Guests that run get other terms: measured inside them, and none of them is started again.

Node agents alone, without a broker: the test writes the records that one would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import pytest

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.common.names import DeviceNames, uid_of
from intertie.nodeagent.domain.domain_xml import memory_limit_mib
from testbed import cgroups
from tests.e2e.agent_records import Member, eventually, workspace_uid
from tests.e2e.agent_site import CAP_IOPS, ENDED, HOSTS, MEMBERS, RUNNING, Site, two_hosts

pytestmark = [pytest.mark.e2e, pytest.mark.root]

A, B = MEMBERS
NEW = Member(name="a-1", host="n1", number=2)
SECONDS = 5
OBEYED_WITHIN_S = 120
MIB = 1024 * 1024
TAKE_MEMORY = (
    "for each in /sys/devices/system/memory/memory*; do"
    " grep -q offline $each/state && echo online >$each/state; done"
)
"""What its owner types, where the guest's kernel was not told to do it by itself."""
TAKE_VCPUS = (
    "for each in /sys/devices/system/cpu/cpu*/online; do"
    " grep -q 0 $each && echo 1 >$each; done; cat /sys/devices/system/cpu/online"
)
SPIN_S = 6
SPIN = (
    'p=; for n in 1 2; do (while :; do :; done) & p="$p $!"; done; sleep 1;'
    " ran() { for q in $p; do read t _ </proc/$q/schedstat; echo ran $t; done; };"
    f" read a _ </proc/uptime; ran; sleep {SPIN_S}; ran; read b _ </proc/uptime; kill $p;"
    " echo from $a to $b"
)
"""Two loops that are busy, how long each has run, and for how long they were watched."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with two_hosts("terms", fault_points=True, memory_growth=2, vcpu_growth=2) as made:
        yield made


@pytest.fixture
def part(site: Site, request: pytest.FixtureRequest) -> Iterator[str]:
    with ready(site, request.node.name) as name:
        yield name


@pytest.fixture(scope="module")
def shared(site: Site) -> Iterator[str]:
    with ready(site, "shared") as name:
        yield name


@pytest.fixture
def lent(site: Site, shared: str) -> Iterator[str]:
    """One part for all tests that change neither memory nor vCPUs, since to boot takes most of
    their time. They come last: others count on no guests but their own."""
    yield shared
    agents_run(site)


@contextmanager
def ready(site: Site, label: str) -> Iterator[str]:
    """A part whose guests are, each with 1 vCPU, 128 MiB, a disk of 256 MiB at 100 IOPS and
    20 Mbit/s."""
    name = f"sites/north/tenants/demo/parts/{uid_of(label)}"
    site.want(name)
    site.wait_ready(name)
    obeyed(site, name, 1)
    try:
        yield name
    finally:
        agents_run(site)
        site.forget(name)


def agents_run(site: Site) -> None:
    for host in HOSTS:
        agent = site.testbed.component(site.agent_process(host))
        if agent.stopped:
            agent.kill9()
        if not agent.running:
            agent.start()


def seen(site: Site, part: str, host: str = A.host) -> pb.SeenPart:
    found = site.records.seen(host, uid_of(part))
    assert found is not None
    return found


def generation(site: Site, part: str) -> int:
    return seen(site, part).generation


def obeyed(site: Site, part: str, generation: int) -> None:
    def true() -> bool:
        return all(seen(site, part, host).obeyed_generation == generation for host in HOSTS)

    eventually(true, f"generation {generation} is obeyed", within_s=OBEYED_WITHIN_S)
    for host in HOSTS:
        for workspace in seen(site, part, host).workspaces:
            if workspace.state == ENDED:
                continue  # it is wanted no more, and what it used is told
            assert (workspace.state, workspace.pending, workspace.message) == (RUNNING, "", "")


def boots(site: Site, part: str) -> list[str]:
    """Another one for every start and reboot of a guest."""
    return [site.on(part, each, "cat /proc/sys/kernel/random/boot_id").strip() for each in MEMBERS]


def iops(site: Site, part: str) -> float:
    said = site.on(part, A, f"measure-iops {SECONDS}")
    found = re.search(r"\{.*\}", said)
    assert found is not None, said
    return float(json.loads(found[0])["iops"])


def mbit_s(site: Site, part: str) -> float:
    said = site.on(part, A, f"measure-bandwidth b-0 {SECONDS}")
    found = re.search(r'"mbit_s":([0-9.]+)', said)
    assert found is not None, said
    return float(found[1])


def disk_bytes(site: Site, part: str) -> int:
    return int(site.on(part, A, "blockdev --getsize64 /dev/vda"))


def weights(site: Site, part: str) -> dict[str, int]:
    """Of the first guest, from the kernel."""
    connection = libvirt.open(site.testbed.libvirt_uri(f"north/{A.host}"))
    try:
        name = DeviceNames.domain(workspace_uid(part, A))
        return dict(connection.lookupByName(name).schedulerParameters())
    finally:
        connection.close()


def memory_mib(site: Site, part: str, member: Member) -> float:
    """As its kernel counts it: less than it was given."""
    found = re.search(r"MemTotal: +(\d+) kB", site.on(part, member, "cat /proc/meminfo"))
    assert found is not None
    return int(found[1]) / 1024


def filled(mib: int) -> str:
    """Has a guest keep so much in its memory."""
    mount = f"mkdir -p /run/full; mount -t tmpfs -o size={mib + 8}m none /run/full"
    return f"{mount}; dd if=/dev/zero of=/run/full/x bs=1M count={mib} 2>&1; ls -l /run/full/x"


def limit_mib(site: Site, part: str, member: Member) -> int:
    """Of its emulator, from the kernel; 0 where nothing is limited."""
    if "memory" not in cgroups.controllers():
        return 0
    domain = DeviceNames.domain(workspace_uid(part, member))
    name = f"north-{member.host}"
    folder = cgroups.of_guest(site.testbed.places.cgroup_name, name, domain)["memory"]
    return int((folder / "memory.limit_in_bytes").read_text()) // MIB


def vcpus_ran_ns(site: Site, part: str, member: Member) -> list[int]:
    """By the host: of each vCPU's own thread."""
    connection = libvirt.open(site.testbed.libvirt_uri(f"north/{member.host}"))
    try:
        domain = connection.lookupByName(DeviceNames.domain(workspace_uid(part, member)))
        return [ran_ns for _, _, ran_ns, _ in domain.vcpus()[0]]
    finally:
        connection.close()


def processors(site: Site, part: str, member: Member) -> tuple[float, list[int]]:
    """How many two busy loops have, by the guest; and what each vCPU ran meanwhile, by the host."""
    before = vcpus_ran_ns(site, part, member)
    said = site.on(part, member, SPIN)
    after = vcpus_ran_ns(site, part, member)
    a0, b0, a1, b1 = (int(each) for each in re.findall(r"ran (\d+)", said))
    watched = re.search(r"from ([0-9.]+) to ([0-9.]+)", said)
    assert watched is not None, said
    seconds = float(watched[2]) - float(watched[1])
    ran = [now - then for then, now in zip(before, after, strict=True)]
    return (a1 - a0 + b1 - b0) / 1e9 / seconds, ran


def test_memory_and_vcpus_come_to_a_guest_that_runs_and_may_grow(site: Site, part: str) -> None:
    """Its site lets the second one have twice of both, and the first one no more than it has."""
    booted, pids = boots(site, part), site.pids()
    had_mib = memory_mib(site, part, B)
    limit = limit_mib(site, part, B)
    assert limit in (0, memory_limit_mib("qemu", 128, cache_mib=128))
    blocks = "ls -d /sys/devices/system/memory/memory* | wc -l"
    # What it may grow to is nowhere in it.
    assert site.on(part, B, blocks).strip() == "1"
    assert site.on(part, B, "cat /sys/devices/system/cpu/present").strip() == "0"
    one, _ = processors(site, part, B)
    assert 0.7 < one < 1.2

    site.want(part, generation=2, memory_mib=256, vcpus=2)
    eventually(
        lambda: seen(site, part, B.host).obeyed_generation == 2,
        "memory and a vCPU are plugged in",
        within_s=OBEYED_WITHIN_S,
    )
    waits = seen(site, part, A.host).workspaces[0].pending
    assert "256 MiB of memory at its next start" in waits
    assert "2 vCPUs at its next start; until then 1" in waits
    assert seen(site, part, A.host).obeyed_generation == 1
    # The guest has yet to make use of it, and is told of until it does.
    idle = "1 of its 2 vCPUs came while it ran and did not run yet"
    assert seen(site, part, B.host).workspaces[0].pending.startswith(idle)
    assert site.on(part, B, TAKE_VCPUS).strip() == "0-1"
    two, ran = processors(site, part, B)
    assert two > 1.5
    assert min(ran) > 0.4 * max(ran), ran
    eventually(
        lambda: not seen(site, part, B.host).workspaces[0].pending,
        "it is seen that its vCPU runs",
        within_s=OBEYED_WITHIN_S,
    )
    site.on(part, B, TAKE_MEMORY)
    assert memory_mib(site, part, B) == pytest.approx(had_mib + 128, abs=4)
    if limit:
        assert limit_mib(site, part, B) == limit + 128
    # More than it had can be used.
    fill = int(had_mib) + 16
    assert f" {fill * MIB} " in site.on(part, B, filled(fill))

    # Nobody takes it out of a guest that runs, which may need it.
    site.want(part, generation=3)
    eventually(
        lambda: seen(site, part, A.host).obeyed_generation == 3,
        "where nothing was changed, all is there",
        within_s=OBEYED_WITHIN_S,
    )
    eventually(
        lambda: (
            seen(site, part, B.host).workspaces[0].pending
            == "128 MiB of memory at its next start; until then 256;"
            " 1 vCPUs at its next start; until then 2"
        ),
        "what is pending is said",
        within_s=OBEYED_WITHIN_S,
    )
    assert seen(site, part, B.host).workspaces[0].state == RUNNING
    assert seen(site, part, B.host).obeyed_generation == 2
    assert boots(site, part) == booted
    assert site.pids() == pids


def test_what_waits_for_a_start_is_said_of_a_guest_that_goes_on(site: Site, part: str) -> None:
    booted, pids = boots(site, part), site.pids()
    site.want(part, generation=2, vcpus=2, memory_mib=192)

    def said() -> bool:
        [workspace] = seen(site, part).workspaces
        return bool(workspace.pending)

    eventually(said, "what is pending is said", within_s=OBEYED_WITHIN_S)
    [workspace] = seen(site, part).workspaces
    assert workspace.state == RUNNING
    assert "2 vCPUs at its next start; until then 1" in workspace.pending
    assert "192 MiB of memory at its next start; until then 128" in workspace.pending
    assert (seen(site, part).generation, seen(site, part).obeyed_generation) == (2, 1)
    assert site.on(part, A, "nproc").strip() == "1"
    if "cpu" in cgroups.controllers():
        assert weights(site, part)["cpu_shares"] == 2048

    # Each start is from the newest description: that of the guest whose emulator died, too.
    other = site.testbed.guest_pids(f"north/{B.host}")
    [pid] = site.testbed.guest_pids(f"north/{A.host}")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: seen(site, part).obeyed_generation == 2, "a start brought it", within_s=240)
    site.wait_ready(part)
    assert site.on(part, A, "nproc").strip() == "2"
    assert memory_mib(site, part, A) > 128
    assert boots(site, part)[1] == booted[1]
    assert site.testbed.guest_pids(f"north/{B.host}") == other
    assert pid in pids

    # Fewer wait as well, but have no more time from now on than those that are left would.
    site.want(part, generation=3, memory_mib=192)
    eventually(
        lambda: "1 vCPUs at its next start" in seen(site, part).workspaces[0].pending,
        "what is pending is said",
        within_s=OBEYED_WITHIN_S,
    )
    if "cpu" in cgroups.controllers():
        found = weights(site, part)
        assert (found["cpu_shares"], found["vcpu_quota"]) == (1024, 50_000)


def test_guests_get_more_and_less_of_what_can_be_changed_while_they_run(
    site: Site, lent: str
) -> None:
    booted, pids, terms = boots(site, lent), site.pids(), generation(site, lent)
    assert 0.8 * CAP_IOPS <= iops(site, lent) <= 1.15 * CAP_IOPS
    assert 0.85 * 20 <= mbit_s(site, lent) <= 1.05 * 20
    assert disk_bytes(site, lent) == 256 * MIB

    site.want(lent, generation=terms + 1, guarantee_mbit_s=40, cap_iops=300, disk_mib=512)
    obeyed(site, lent, terms + 1)
    assert 0.7 * 300 <= iops(site, lent) <= 1.15 * 300
    assert 0.7 * 40 <= mbit_s(site, lent) <= 1.05 * 40
    assert disk_bytes(site, lent) == 512 * MIB
    # The room that is new takes what is written there.
    last = "dd if=/dev/urandom of=/tmp/sent bs=4k count=16 2>/dev/null; "
    last += "dd if=/tmp/sent of=/dev/vda bs=4k seek=131056 conv=notrunc 2>/dev/null; sync; "
    last += "echo 3 >/proc/sys/vm/drop_caches; "
    last += "dd if=/dev/vda bs=4k skip=131056 count=16 2>/dev/null | cmp - /tmp/sent && echo SAME"
    assert "SAME" in site.on(lent, A, last)

    site.want(lent, generation=terms + 2, guarantee_mbit_s=10, cap_iops=60, disk_mib=512)
    obeyed(site, lent, terms + 2)
    assert 0.8 * 60 <= iops(site, lent) <= 1.15 * 60
    assert 0.85 * 10 <= mbit_s(site, lent) <= 1.05 * 10

    assert boots(site, lent) == booted
    assert site.pids() == pids


def test_workspaces_come_and_go_beside_others_that_go_on(site: Site, lent: str) -> None:
    booted, pids, terms = boots(site, lent), site.pids(), generation(site, lent)
    mib = disk_bytes(site, lent) // MIB
    site.want(lent, disk_mib=mib, generation=terms + 1, members=(*MEMBERS, NEW))
    eventually(
        lambda: [each.ready for each in seen(site, lent).workspaces] == [True, True],
        "the new one is ready",
        within_s=240,
    )
    obeyed(site, lent, terms + 1)
    assert set(pids) < set(site.pids())
    assert "1 packets received" in site.on(lent, NEW, "ping -c 1 -W 5 a-0")

    site.want(lent, disk_mib=mib, generation=terms + 2)
    obeyed(site, lent, terms + 2)
    assert site.pids() == pids
    assert boots(site, lent) == booted
    assert "1 packets received" in site.on(lent, A, "ping -c 1 -W 5 b-0")


def test_an_agent_that_is_killed_on_the_way_brings_its_guests_there_when_it_is_back(
    site: Site, lent: str
) -> None:
    booted, pids, terms = boots(site, lent), site.pids(), generation(site, lent)
    had = disk_bytes(site, lent)
    name = site.agent_process(A.host)
    agent = site.testbed.component(name)
    site.testbed.arm(name, "agent.obeying")
    site.want(lent, generation=terms + 1, cap_iops=300, disk_mib=had // MIB + 128)
    eventually(
        lambda: site.testbed.stands(name, "agent.obeying"),
        "the new record is on the agent's disk and nothing is done about it",
        within_s=30,
    )
    assert disk_bytes_of(site, lent) == had
    agent.kill9()
    agent.start()
    obeyed(site, lent, terms + 1)

    # And wherever else it is killed.
    for number in range(4):
        site.want(
            lent,
            generation=terms + 2 + number,
            cap_iops=100 + number,
            disk_mib=had // MIB + 192 + 64 * number,
        )
        time.sleep(0.4 * number)
        agent.kill9()
        agent.start()
        obeyed(site, lent, terms + 2 + number)
    assert disk_bytes(site, lent) == had + 384 * MIB
    assert 0.8 * 103 <= iops(site, lent) <= 1.15 * 103
    assert boots(site, lent) == booted
    assert site.pids() == pids


def disk_bytes_of(site: Site, part: str) -> int:
    """By libvirt: the agent, through which a guest is reached, stands still."""
    connection = libvirt.open(site.testbed.libvirt_uri(f"north/{A.host}"))
    try:
        name = DeviceNames.domain(workspace_uid(part, A))
        return int(connection.lookupByName(name).blockInfo("vda")[0])
    finally:
        connection.close()
