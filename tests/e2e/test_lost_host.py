"""A host is lost: its guests are begun elsewhere once it is off, and it comes back with nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.bed import Testbed
from testbed.power import power_off, power_on
from tests.e2e.driver import User, alive, eventually, group, settings_added, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

REPOSITORY = Path(__file__).parents[2]
LOST_AFTER_S = 20
FENCED_WITHIN_S = 90
READY_WITHIN_S = 180
OF_NO_GUEST = ("file agent/cache/", "qdisc eth0 htb root")
"""What any host that had a guest keeps: images, and the root of its uplink's classes."""


@contextmanager
def fencing(bed: Testbed, site: str) -> Iterator[None]:
    """The site's broker fences lost hosts with the testbed's own power switch."""
    command = [
        "/usr/bin/env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "testbed.power",
        bed.places.instance, site,
    ]  # fmt: skip
    added = (
        f"[fencing]\nmethod = 'command'\nlost_after_s = {LOST_AFTER_S}\n"
        f"command = {json.dumps(command)}"
    )
    with settings_added(bed, f"{site}/broker", added):
        yield


def host_state(user: User, host: str) -> str:
    state: str = json.loads(user.do("host", "show", f"sites/north/hosts/{host}", "-o", "json"))[
        "state"
    ]
    return state


def test_a_lost_hosts_guest_goes_on_elsewhere_and_nothing_of_it_comes_back(user: User) -> None:
    north, bed = user.at("north"), user.testbed
    with fencing(bed, "north"):
        eventually(lambda: north.say("host", "list").code == 0, within_s=60, what="broker is back")
        clean = bed.inventory("north/n2")
        again = {"on_host_loss": "RESTART"}
        north.create("lossy", spec(group("w", 2, availability=again)))
        there = north.workspaces("lossy")
        [lost] = [label for label, each in there.items() if each["host"] == "n2"]
        [mate] = [label for label in there if label != lost]
        address = there[lost]["addresses"][0]["address"].partition("/")[0]
        north.in_guest("lossy", lost, "touch /root/written && sync")

        # Its agent alone dies: for its site the host is silent, and its guest runs on.
        bed.component("north/n2/nodeagent").kill9()
        try:
            [pid] = bed.guest_pids("north/n2")
            assert alive(pid)
            eventually(lambda: host_state(north, "n2") == "FENCED", within_s=FENCED_WITHIN_S)
            assert bed.guest_pids("north/n2") == []
            begun_anew(north, lost, there)
            north.in_guest("lossy", mate, f"ping -c 3 -W 5 {address}")
            said = north.ssh("lossy", lost, "ls /root/written")
            assert said.code != 0
            assert "No such file" in said.err + said.out
        finally:
            power_off(bed, "north/n2")
            power_on(bed, "north/n2")
        eventually(lambda: host_state(north, "n2") == "UP", within_s=60, what="n2 is back")
        assert bed.guest_pids("north/n2") == []
        left = {*bed.inventory("north/n2")}.difference(clean)
        assert {each for each in left if not each.startswith(OF_NO_GUEST)} == set()
        north.in_guest("lossy", mate, f"ping -c 3 -W 5 {address}")
        north.delete("lossy")


def begun_anew(user: User, label: str, before: dict[str, dict[str, Any]]) -> None:
    def is_ready() -> bool:
        each = user.workspaces("lossy")[label]
        return each["host"] == "n1" and bool(each.get("ready"))

    eventually(is_ready, within_s=READY_WITHIN_S, every_s=2, what=f"{label} is ready on n1")
    now = user.workspaces("lossy")
    assert now[label]["restarts"] == 1
    assert "because host n2 was lost" in now[label]["message"]
    assert now[label]["addresses"] == before[label]["addresses"]
    assert user.testbed.guest_pids("north/n1")
