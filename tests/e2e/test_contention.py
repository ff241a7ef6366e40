"""Promises between guests while another cluster floods what they share.

One site of two hosts whose uplinks are narrower than what emulated guests can send, so that it is
the network that is short, not the processors.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, eventually, group, spec, user_with_image
from tests.e2e.one_site import SITE, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

INSTANCE = "cont"
UPLINK_MBPS = 40
PROMISED, CAP = 10, 20
"""Mbit/s, each way, between the guests of `kept`."""
SECONDS = 8


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    hosts = tuple(HostSpec(name=name, uplink_mbps=UPLINK_MBPS) for name in ("n1", "n2"))
    with one_site(INSTANCE, *hosts) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Has two clusters over both hosts: `kept` with a promise, `flood` with none."""
    user = user_with_image(bed, tmp_path_factory.mktemp("contention"), endpoint=SITE)
    bandwidth = {"guarantee_mbit_s": PROMISED, "cap_mbit_s": CAP}
    promised = group("a", 2, pairs=[{"group": "a", "bandwidth": bandwidth}], max_per_host=1)
    user.create("kept", spec(promised))
    user.create("flood", spec(group("b", 2, max_per_host=1)))
    for name, label in (("kept", "a"), ("flood", "b")):
        where = {each["name"].rsplit("/", 1)[1]: each["host"] for each in _workspaces(user, name)}
        assert len(set(where.values())) == 2, f"{name} is on one host: {where}"
        assert set(where) == {f"{label}-0", f"{label}-1"}
    return user


def _workspaces(user: User, name: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = user.show(name)["workspaces"]
    return found


def measured(user: User, *, reverse: bool, seconds: int = SECONDS) -> float:
    """Mbit/s of `kept`, in its guest."""
    words = f"measure-bandwidth a-1 {seconds}{' reverse' if reverse else ''}"
    said = user.in_guest("kept", "a-0", words, timeout_s=seconds + 60)
    mbit_s: float = json.loads(said)["mbit_s"]
    return mbit_s


@contextmanager
def flooded(user: User, options: str) -> Iterator[None]:
    """`flood` sends from its first guest to its second, as hard as it can, until the end."""
    words = f"iperf3 --client b-1 --time 600 --interval 0 {options} >/dev/null 2>&1"
    process: subprocess.Popen[str] = user.start(
        "cluster", "ssh", "flood", "b-0", "--identity", str(user.key), "--", words
    )
    try:
        eventually(lambda: _flooding(user), within_s=30, what="the flood has begun")
        yield
    finally:
        user.ssh("flood", "b-0", "killall iperf3")
        process.kill()
        process.communicate()


def _flooding(user: User) -> bool:
    """The uplink carries far more than `kept` may."""

    def sent() -> int:
        path = Path("/sys/class/net/eth0/statistics/tx_bytes")
        said = [user.testbed.run(f"north/{host}", ["cat", str(path)]) for host in ("n1", "n2")]
        return sum(int(each.stdout) for each in said)

    before = sent()
    user.testbed.run("north/n1", ["sleep", "1"])
    return (sent() - before) * 8 / 1e6 > UPLINK_MBPS / 2


FLOODS = {"eight TCP streams": "--parallel 8", "UDP": "--udp --bitrate 200M --length 1400"}


MORE = pytest.mark.more_guests


@pytest.mark.parametrize(
    ("flood", "reverse"),
    [
        pytest.param("eight TCP streams", False, id="there-eight TCP streams"),
        pytest.param("UDP", True, id="back-UDP"),
        pytest.param("eight TCP streams", True, id="back-eight TCP streams", marks=MORE),
        pytest.param("UDP", False, id="there-UDP", marks=MORE),
    ],
)
def test_a_promise_holds_while_another_cluster_floods_the_uplink(
    user: User, flood: str, reverse: bool
) -> None:
    options = FLOODS[flood] + (" --reverse" if reverse else "")
    with flooded(user, options):
        found = measured(user, reverse=reverse)
    assert 0.9 * PROMISED <= found <= 1.1 * CAP


@pytest.mark.parametrize(
    "reverse", [pytest.param(False, id="there"), pytest.param(True, id="back", marks=MORE)]
)
def test_a_cap_holds_on_a_quiet_network(user: User, reverse: bool) -> None:
    found = measured(user, reverse=reverse)
    assert 0.9 * CAP <= found <= 1.1 * CAP


def test_what_is_not_used_of_a_promise_is_lent_and_comes_back_within_two_seconds(
    user: User,
) -> None:
    with flooded(user, FLOODS["eight TCP streams"]):
        lent = _uplink_mbit_s(user)
        words = "iperf3 --client a-1 --time 6 --omit 2 --json"
        said = json.loads(user.in_guest("kept", "a-0", words, timeout_s=60))
    assert lent > UPLINK_MBPS - PROMISED, "the flood has what the promise does not use"
    back = said["end"]["sum_received"]["bits_per_second"] / 1e6
    assert back >= 0.9 * PROMISED, "after its first two seconds"


def _uplink_mbit_s(user: User) -> float:
    """What the flood's sender puts on the wire of its host."""
    host = next(w["host"] for w in _workspaces(user, "flood") if w["name"].endswith("/b-0"))
    read = "s=$(cat /sys/class/net/eth0/statistics/tx_bytes); sleep 4; "
    read += "echo $(( $(cat /sys/class/net/eth0/statistics/tx_bytes) - s ))"
    said = user.testbed.run(f"north/{host}", ["sh", "-c", read])
    return int(said.stdout) * 8 / 4 / 1e6
