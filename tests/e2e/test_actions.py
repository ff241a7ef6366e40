"""Guests that their owner switches off and on, holds, and puts aside with their memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from intertie.client.spans import parse_span
from intertie.nodeagent.loops.usage import PERIOD_S
from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, eventually, group, spec, user_with_image
from tests.e2e.one_site import SITE, begin, create_all, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

HOSTS = tuple(HostSpec(name=name, memory_mib=1536) for name in ("n1", "n2"))
BOOT = "cat /proc/sys/kernel/random/boot_id"
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/count; sleep 0.2; done"
DISK = "$(cat /run/intertie/disk)"
"""Of what a guest of this image keeps, the root is none."""
PORT = 5000


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("actions", *HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    """With two guests on two hosts, each with a process that counts."""
    user = user_with_image(bed, tmp_path_factory.mktemp("actions"), endpoint=SITE)
    pair = group("a", 2)
    pair["placement"] = {"max_per_host": 1}
    create_all(user, {"pair": spec(pair)})
    for label in ("a-0", "a-1"):
        begin(user, "pair", label, COUNT)
    return user


def count(user: User, label: str) -> int:
    return int(user.in_guest("pair", label, "cat /tmp/count").strip() or 0)


def boots(user: User) -> dict[str, str]:
    return {each: user.in_guest("pair", each, BOOT).strip() for each in ("a-0", "a-1")}


def states(user: User) -> dict[str, Any]:
    return {
        each["name"].rpartition("/")[2]: each["state"] for each in user.show("pair")["workspaces"]
    }


def running(user: User) -> int:
    return sum(len(user.testbed.guest_pids(f"{SITE}/{host.name}")) for host in HOSTS)


def test_they_go_on_from_memory_with_what_they_did_and_said(user: User) -> None:
    """Processes, open files and a TCP connection between two hosts live through it, and through
    the end of the agents."""
    before = boots(user)
    begin(user, "pair", "a-1", f"sleep 900 | nc -l -p {PORT} >/tmp/heard")
    said = "(echo one; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo two)"
    begin(user, "pair", "a-0", f"{said} | nc a-1 {PORT}")
    eventually(
        lambda: "one" in user.in_guest("pair", "a-1", "cat /tmp/heard"),
        within_s=30,
        what="they are connected",
    )
    counted = count(user, "a-0")

    assert user.do("cluster", "suspend", "pair").endswith("/pair\n")
    assert states(user) == {"a-0": "SUSPENDED", "a-1": "SUSPENDED"}
    assert running(user) == 0
    time.sleep(3 * PERIOD_S)  # for which it is counted as suspended
    for host in HOSTS:
        agent = user.testbed.component(f"{SITE}/{host.name}/nodeagent")
        agent.kill9()
        agent.start()
    user.do("cluster", "resume", "pair")
    assert boots(user) == before
    assert count(user, "a-0") > counted
    user.in_guest("pair", "a-0", "touch /tmp/go")
    eventually(
        lambda: user.in_guest("pair", "a-1", "cat /tmp/heard").split() == ["one", "two"],
        within_s=60,
        what="the connection still carries",
    )


def test_one_stands_still_and_goes_on(user: User) -> None:
    user.do("cluster", "pause", "pair", "a-1")
    assert states(user) == {"a-0": "RUNNING", "a-1": "PAUSED"}
    again = user.say("cluster", "start", "pair", "a-1")
    assert again.code == 1
    assert "ACTION_ILLEGAL" in again.err
    assert "STOP, REBOOT, RESUME, SUSPEND, SNAPSHOT" in again.err
    user.do("cluster", "resume", "pair", "a-1")
    counted = count(user, "a-1")
    eventually(lambda: count(user, "a-1") > counted, within_s=30, what="it goes on")


def test_off_and_on_and_anew_with_what_is_on_its_disk(user: User) -> None:
    before = boots(user)
    user.in_guest("pair", "a-0", f"echo kept | dd of={DISK} bs=1M seek=100 conv=notrunc; sync")
    user.do("cluster", "stop", "pair", "a-0")
    assert states(user) == {"a-0": "STOPPED", "a-1": "RUNNING"}
    assert running(user) == 1
    user.do("cluster", "start", "pair", "a-0")
    assert user.in_guest("pair", "a-0", f"dd if={DISK} bs=1M skip=100 | head -c 4") == "kept"
    started = boots(user)
    assert started["a-0"] != before["a-0"]
    user.do("cluster", "reboot", "pair", "a-0")
    rebooted = boots(user)
    assert rebooted["a-0"] != started["a-0"]
    assert rebooted["a-1"] == before["a-1"]
    user.do("cluster", "delete", "pair")
    assert running(user) == 0
    it_is_written_down_what_they_used(user)


def it_is_written_down_what_they_used(user: User) -> None:
    """Over the end of the agents, over guests that were suspended, switched off and started anew,
    by counters that each time begin at nothing."""

    def last() -> dict[str, Any] | None:
        found: list[dict[str, Any]] = json.loads(user.do("-o", "json", "usage", "list"))
        return found[-1] if found and found[-1].get("final") else None

    eventually(lambda: last() is not None, within_s=150, what="it is written down")
    record = last()
    assert record is not None
    used = {each["workspace"]: each for each in record["used"]}
    assert set(used) == {"a-0", "a-1"}
    for label, each in used.items():
        assert not each.get("unknown"), each
        amounts = each["used"]
        seconds = {
            key: (parse_span(amounts[key]) or 0) / 1e9 for key in ("cpu_time", "suspended_time")
        }
        assert seconds["cpu_time"] > 5, (label, "a boot by emulation takes more")
        assert 0 < seconds["suspended_time"] < 600
        assert int(amounts["disk_bytes"]) > 1 << 20
        assert int(amounts["disk_operations"]) > 10
        assert int(amounts["sent_bytes"]) > 100
        assert int(amounts["received_bytes"]) > 100
    assert used["a-0"]["used"]["cpu_time"] != used["a-1"]["used"]["cpu_time"]
    exported = dict(
        line.split(": ", 1)
        for line in user.do("usage", "export").split("%%")[0].splitlines()
        if ": " in line
    )
    assert int(exported["SuspendDuration"]) > 0
    assert 5 < int(exported["CpuDuration"]) != int(exported["WallDuration"])
    user.do("usage", "verify")
