"""What `cluster show` says while guests send and write is what the guests see."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.driver import User, eventually, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

SECONDS = 24
PAIR = ("PAIR_BANDWIDTH", "head-0", "worker-0")
LINK = ("LINK_BANDWIDTH", "north", "south")
READING_S = 4
"""A reading is a mean over so long before its time."""
STANDS_MBIT_S = 0.5
"""A reading stands, for up to 30 s, while newer ones differ by less: 5 % of the promise."""
STANDS_IOPS = 5


def measured(user: User, kind: str, source: str, target: str = "") -> dict[str, Any]:
    """The reading of one direction, or nothing before the first."""
    for guarantee in user.show("busy")["guarantees"]:
        for each in guarantee.get("measured", []) if guarantee["kind"] == kind else []:
            if (each.get("from", ""), each.get("to", "")) == (source, target):
                found: dict[str, Any] = each
                return found
    return {}


def while_it_runs(user: User, command: str, *direction: str) -> tuple[Any, list[dict[str, Any]]]:
    """What the command in head-0 said, and the readings of the time while it ran.

    Those that lie wholly within it; where none was told anew in that time, the one that stood at
    its end.
    """
    ssh = ("cluster", "ssh", "busy", "head-0", "--identity", str(user.key), "--", command)
    began = datetime.now(UTC).timestamp() + 2
    running = user.start(*ssh)
    readings: dict[str, dict[str, Any]] = {}
    try:
        while running.poll() is None:
            reading = measured(user, *direction)
            readings[reading.get("measured_time", "")] = reading
            time.sleep(0.5)
        out, err = running.communicate(timeout=10)
    finally:
        running.kill()
    ended = datetime.now(UTC).timestamp() - 2
    assert running.returncode == 0, err
    within = [
        each
        for moment, each in readings.items()
        if moment and began + READING_S <= datetime.fromisoformat(moment).timestamp() <= ended
    ]
    standing = [moment for moment in readings if moment and moment <= told(ended)]
    assert standing, f"no reading by {told(ended)}: {sorted(readings)}"
    return json.loads(out), within or [readings[max(standing)]]


def told(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def mean(readings: list[dict[str, Any]]) -> float:
    return sum(float(each.get("value", 0)) for each in readings) / len(readings)


def two_guests(user: User, **more: Any) -> None:
    """head-0 at north, worker-0 at south, and a first reading of what they send."""
    pair = {"group": "worker", "bandwidth": {"guarantee_mbit_s": 10, "cap_mbit_s": 15}}
    head = group("head", sites=["north"], pairs=[pair], **more)
    user.create("busy", spec(head, group("worker", sites=["south"])))
    eventually(lambda: measured(user, *PAIR), within_s=30, what="a first reading")


def test_show_says_what_guests_measure_and_whether_it_is_kept(user: User) -> None:
    two_guests(user, disk={"guarantee_iops": 100, "cap_iops": 150})
    what_is_kept_is_said_to_be(user)
    what_is_broken_is_said_to_be_and_only_while_it_is(user)


def what_is_kept_is_said_to_be(user: User) -> None:
    idle = [each for term in user.show("busy")["guarantees"] for each in term.get("measured", [])]
    assert not any("below_since" in each for each in idle), idle

    said, readings = while_it_runs(user, f"measure-bandwidth worker-0 {SECONDS}", *PAIR)
    assert mean(readings) == pytest.approx(said["mbit_s"], rel=0.1, abs=STANDS_MBIT_S)
    assert not any("below_since" in each for each in readings), readings
    link = measured(user, *LINK)
    assert link["value"] > 0.5 * said["mbit_s"]

    said, readings = while_it_runs(user, f"measure-iops {SECONDS}", "DISK_IOPS", "head-0")
    assert mean(readings) == pytest.approx(said["iops"], rel=0.1, abs=STANDS_IOPS)
    assert not any("below_since" in each for each in readings), readings

    table = user.do("cluster", "show", "busy")
    [line] = [each for each in table.splitlines() if "head-0 to worker-0" in each]
    assert line.split()[:2] == ["pair", "bandwidth"]
    assert "Mbit/s" in line.split("15 Mbit/s")[1], table


def what_is_broken_is_said_to_be_and_only_while_it_is(user: User) -> None:
    """The gateway's class lets through less than was promised: a fault that no agent makes."""
    narrow_to(user, mbit_s=3)
    began = datetime.now(UTC).timestamp()
    said, readings = while_it_runs(user, f"measure-bandwidth worker-0 {SECONDS}", *PAIR)
    assert said["mbit_s"] < 4
    assert mean(readings) == pytest.approx(said["mbit_s"], rel=0.1, abs=STANDS_MBIT_S)
    since = {each["below_since"] for each in readings}
    assert len(since) == 1, readings
    assert datetime.fromisoformat(since.pop()).timestamp() >= began - READING_S
    eventually(
        lambda: not any("below_since" in measured(user, *way) for way in (PAIR, LINK)),
        within_s=20,
        what="nobody asks for it any more",
    )


def narrow_to(user: User, *, mbit_s: int) -> None:
    """The rate and the ceiling of every class on north's WAN that has packets of its own."""
    gateway = "north/n1"
    shown = user.testbed.run(gateway, ["tc", "class", "show", "dev", "wan0"]).stdout
    leaves = re.findall(r"class htb (1:\w+) parent (1:\w+) leaf", shown)
    assert len(leaves) == 3, shown
    for number, parent in leaves:
        words = ["parent", parent, "classid", number, "htb"]
        rate = ["rate", f"{mbit_s}mbit", "ceil", f"{mbit_s}mbit"]
        user.testbed.run(gateway, ["tc", "class", "change", "dev", "wan0", *words, *rate])
