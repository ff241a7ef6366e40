"""A lease that waits, on its hosts: put aside at its window's end, and gone on with in the next.

Node agents alone, without a broker: the test writes the records that one would.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from intertie.api.nodeagent.v1 import records_pb2 as pb
from intertie.common.names import uid_of
from testbed.hosts import agent_data
from tests.e2e.agent_records import Member, eventually, workspace_uid
from tests.e2e.agent_site import HOSTS, MEMBERS, RUNNING, Site, two_hosts

pytestmark = [pytest.mark.e2e, pytest.mark.root]

A, B = MEMBERS
NEXT = Member(name="n-0", host="n1", number=4)
SUSPENDED = 9
HOUR = timedelta(hours=1)
BOOT = "cat /proc/sys/kernel/random/boot_id"
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/count; sleep 0.2; done"
PORT = 5000
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The first host has memory for one guest."""
    with two_hosts("kept", memory_mib=200) as made:
        yield made


def pool(site: Site, member: Member, part: str, what: str) -> Path:
    data = agent_data(site.testbed.places, "north", member.host)
    return data / "disks" / f"{workspace_uid(part, member)}.{what}"


def seen(site: Site, part: str, host: str) -> pb.SeenPart:
    found = site.records.seen(host, uid_of(part))
    return found or pb.SeenPart()


def guest(site: Site, part: str, host: str) -> pb.SeenWorkspace:
    return next(iter(seen(site, part, host).workspaces), pb.SeenWorkspace())


def begin(site: Site, part: str, member: Member, command: str) -> None:
    site.on(part, member, f"setsid sh -c '{command}' >/dev/null 2>&1 </dev/null & :")


def count(site: Site, part: str) -> int:
    return int(site.on(part, A, "cat /tmp/count").strip() or 0)


def networks(site: Site) -> list[list[str]]:
    others = ("file", "domain", "process")
    return [[each for each in on if not each.startswith(others)] for on in site.inventory()]


@pytest.mark.more_guests
def test_guests_are_put_aside_at_the_windows_end_and_go_on_in_the_next(site: Site) -> None:
    """With etcd away, and an agent and a libvirtd that are killed as memory is written; the room
    that it leaves is another guest's, and its own again when that is gone."""
    part, other = (f"sites/north/tenants/demo/parts/{uid_of(name)}" for name in ("kept", "next"))
    empty, before = site.inventory(), networks(site)
    site.want(part, kept=HOUR)
    site.wait_ready(part)
    booted = [site.on(part, each, BOOT).strip() for each in MEMBERS]
    begin(site, part, A, COUNT)
    begin(site, part, B, f"sleep 900 | nc -l -p {PORT} >/tmp/heard")
    said = "(echo one; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo two)"
    begin(site, part, A, f"{said} | nc b-0 {PORT}")
    eventually(
        lambda: "one" in site.on(part, B, "cat /tmp/heard"), "they are connected", within_s=60
    )
    counted = count(site, part)

    site.want(part, generation=2, lasts=timedelta(seconds=15), kept=HOUR)
    eventually(
        lambda: all(seen(site, part, host).generation == 2 for host in HOSTS),
        "the shorter window is known",
        within_s=12,
    )
    etcd = site.testbed.component("north/etcd-0")
    killed = {A: "north/n1/nodeagent", B: "north/n2/libvirtd"}
    etcd.stop()
    try:
        until = time.monotonic() + 60
        while killed and time.monotonic() < until:
            for member in tuple(killed):
                # Begun to be written; a file that was written in between is as good.
                if any(pool(site, member, part, each).exists() for each in ("saving", "saved")):
                    process = site.testbed.component(killed.pop(member))
                    process.kill9()
                    process.start()
            time.sleep(0.002)
        assert not killed, "memory is written at the window's end"
        eventually(
            lambda: all(pool(site, each, part, "saved").exists() for each in MEMBERS),
            "all is saved",
            within_s=120,
        )
        eventually(lambda: not site.pids(), "no guest runs", within_s=10)
        eventually(lambda: networks(site) == before, "its network is gone", within_s=30)
    finally:
        etcd.cont()

    def put_aside(generation: int) -> bool:
        told = [(guest(site, part, host).state, seen(site, part, host)) for host in HOSTS]
        return all(state == SUSPENDED and of.obeyed_generation == generation for state, of in told)

    eventually(lambda: put_aside(2), "the site is told", within_s=30)

    site.want(other, members=(NEXT,), vni=4712)
    eventually(lambda: guest(site, other, "n1").state == RUNNING, "it has the room", within_s=60)

    site.want(part, generation=3, kept=HOUR)
    eventually(lambda: guest(site, part, "n2").ready, "one goes on", within_s=60)
    eventually(
        lambda: "waits for memory: it needs 128 MiB" in guest(site, part, "n1").message,
        "the other one waits",
        within_s=30,
    )
    assert guest(site, part, "n1").state == SUSPENDED
    assert seen(site, part, "n1").obeyed_generation < 3

    site.want(other, members=(NEXT,), vni=4712, generation=2, gone=True)
    site.wait_ready(part)
    for host in HOSTS:
        restored = guest(site, part, host).restored
        assert restored.bytes > 4 * MIB
        assert restored.duration.ToTimedelta() > timedelta()
    eventually(
        lambda: all(seen(site, part, host).obeyed_generation == 3 for host in HOSTS),
        "all is obeyed",
        within_s=60,
    )
    assert [site.on(part, each, BOOT).strip() for each in MEMBERS] == booted
    assert count(site, part) > counted
    site.on(part, A, "touch /tmp/go")
    eventually(
        lambda: site.on(part, B, "cat /tmp/heard").split() == ["one", "two"],
        "the connection still carries",
        within_s=120,
    )
    site.want(part, generation=4, lasts=timedelta(seconds=3), kept=HOUR)
    eventually(lambda: put_aside(4), "and again, undisturbed", within_s=60)
    for host in HOSTS:
        saved = guest(site, part, host).saved
        assert 4 * MIB < saved.bytes < 256 * MIB
        assert saved.duration.ToTimedelta() > timedelta()
    site.want(part, generation=5, gone=True)
    site.wait_gone(part)
    assert not any(pool(site, each, part, "saved").exists() for each in MEMBERS)
    for name in (part, other):
        site.forget(name)
    eventually(lambda: site.inventory() == empty, "nothing is left", within_s=30)
