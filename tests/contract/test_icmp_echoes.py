"""A gateway sees by ICMP that the way to another one is lost, and found again: real packets
between two namespaces, and an agent's own watch in one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from intertie.common.clock import SystemClock
from testbed.places import NETNS
from testbed.sweep import unmount_if_empty
from tests.contract.test_traffic_classes import ip

pytestmark = pytest.mark.root

HERE, THERE = f"it-ways-{os.getpid()}-1", f"it-ways-{os.getpid()}-2"
OWN, OTHER, NOBODY = "10.9.1.1", "10.9.1.2", "10.9.1.3"

LOST_S = 5
"""In which a way is lost; one look is a second."""
_LATE_S = 0.06
"""Answers are there for so long before somebody reads them, and it is not their round trip."""

WATCH = """
import json, resource, sys
import structlog
from intertie.common.clock import SystemClock
from intertie.nodeagent.adapters.icmp_echoes import IcmpEchoes
from intertie.nodeagent.loops.ways import WayWatcher
from tests.unit.nodeagent.test_ways import part_to

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

class Seconds(SystemClock):
    passed = 0.0

    def monotonic(self):
        return self.passed

clock = Seconds()
parts = [part_to(*sys.argv[3:])]
echoes = IcmpEchoes(sys.argv[1], sys.argv[2], clock)
watcher = WayWatcher(lambda: parts, echoes, clock)
files = resource.getrlimit(resource.RLIMIT_NOFILE)
for line in sys.stdin:
    command = line.strip()
    if command == "forget":
        parts = []
    elif command == "no files":
        echoes.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, files[1]))
    elif command == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    watcher.sweep()
    clock.passed += 1
    told = {
        each.address: [
            each.round_trip and each.round_trip.total_seconds(),
            each.lost_since and each.lost_since.timestamp(),
        ]
        for each in watcher.told()
    }
    print(json.dumps([told, watcher.changed.is_set()]), flush=True)
    watcher.changed.clear()
"""


class Gateway:
    """The watch of an agent whose WAN is `eth0` of a namespace. A second of its clock passes with
    each look."""

    def __init__(self, *addresses: str) -> None:
        self.news: list[bool] = []
        path = os.pathsep.join((".", *filter(None, [os.environ.get("PYTHONPATH")])))
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", HERE, sys.executable, "-c", WATCH, "eth0", OWN, *addresses],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def look(self, times: int = 1, *, command: str = "") -> dict[str, Any]:
        """What is told after the last of them: round trip and loss, by address."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told: dict[str, Any] = {}
        for _ in range(times):
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
            told, news = json.loads(self._process.stdout.readline())
            self.news.append(news)
            time.sleep(_LATE_S)  # the kernel answers in its own time
        return told

    def lost(self, times: int) -> bool:
        told = self.look(times)
        return OTHER in told and told[OTHER][1] is not None

    def answered(self) -> bool:
        """Sooner or later: a device that has just come up may want a moment."""
        return any(self.look().get(OTHER, [None])[0] is not None for _ in range(200))


def connect() -> None:
    ip("", f"link add name eth0 netns {HERE} type veth peer name eth0 netns {THERE}")
    for name, address in ((HERE, OWN), (THERE, OTHER)):
        ip(name, f"addr add {address}/24 dev eth0\nlink set eth0 up")


@pytest.fixture
def hosts() -> Iterator[None]:
    try:
        ip("", f"netns add {HERE}\nnetns add {THERE}")
        connect()
        yield
    finally:
        for name in (HERE, THERE):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        unmount_if_empty(NETNS)


def answers(there: bool) -> None:
    """Whether the other end answers echoes at all; all else of it goes on."""
    setting = f"net.ipv4.icmp_echo_ignore_all={int(not there)}"
    argv = ["ip", "netns", "exec", THERE, "sysctl", "-qw", setting]
    subprocess.run(argv, check=True, capture_output=True)


def test_a_link_that_is_cut_is_lost_since_its_last_answer_and_found_when_it_is_healed(
    hosts: None,
) -> None:
    with Gateway(OTHER, NOBODY) as gateway:
        clock = SystemClock()
        began = clock.now().timestamp()
        told = gateway.look(12)
        took, since = told[OTHER]
        assert 0 < took < _LATE_S
        assert since is None
        assert NOBODY not in told, "who has never answered is unknown"
        answered = clock.now().timestamp()
        ip(THERE, "link set eth0 down")
        assert not gateway.lost(LOST_S - 1)
        assert gateway.lost(3)
        took, since = gateway.look()[OTHER]
        assert took is None
        assert began < since < answered
        assert gateway.news.count(True) == 1
        ip(THERE, "link set eth0 up")
        assert gateway.answered()
        told = gateway.look(12)  # the first probe waits for the other's address to be asked for
        assert told[OTHER][1] is None
        assert 0 < told[OTHER][0] < _LATE_S
        assert gateway.news.count(True) == 2
        assert gateway.look(2, command="forget") == {}


def test_a_device_that_is_gone_is_a_lost_way_and_another_one_in_its_place_is_taken(
    hosts: None,
) -> None:
    with Gateway(OTHER) as gateway:
        assert gateway.answered()
        ip(HERE, "link del eth0")
        assert gateway.lost(LOST_S + 2)
        connect()
        assert gateway.answered()


@pytest.mark.parametrize("undo", ["link set eth0 {}", "addr {} 10.9.1.1/24 dev eth0"])
def test_one_that_is_down_or_has_lost_its_address_too(hosts: None, undo: str) -> None:
    words = ("down", "up") if "link" in undo else ("del", "add")
    with Gateway(OTHER) as gateway:
        assert gateway.answered()
        ip(HERE, undo.format(words[0]))
        assert gateway.lost(LOST_S + 2)
        ip(HERE, undo.format(words[1]))
        assert gateway.answered()


def test_where_echoes_are_never_answered_nothing_is_said(hosts: None) -> None:
    answers(False)
    with Gateway(OTHER) as gateway:
        assert gateway.look(20) == {}
        answers(True)
        assert gateway.answered()
        assert not any(gateway.news)


def test_an_agent_that_can_open_no_socket_takes_nothing_for_lost(hosts: None) -> None:
    with Gateway(OTHER) as gateway:
        assert gateway.answered()
        gateway.look(command="no files")
        assert gateway.look(20)[OTHER] == [None, None]
        gateway.look(command="files")
        assert gateway.answered()
        assert not any(gateway.news)


def test_what_answers_no_probe_is_no_answer(hosts: None) -> None:
    """Replies to probes that nobody has sent, from the right address."""
    forge = (
        "import socket\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:\n"
        "    for number in range(2000):\n"
        f"        raw.sendto(bytes([*[0] * 7, number % 8, *[0] * 8]), ({OWN!r}, 0))\n"
    )
    answers(False)
    with Gateway(OTHER) as gateway:
        gateway.look(2)
        argv = ["ip", "netns", "exec", THERE, sys.executable, "-c", forge]
        subprocess.run(argv, check=True, capture_output=True)
        assert gateway.look(20) == {}
