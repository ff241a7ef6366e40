"""Two hosts flood a third, to which a fourth has a promise: what no sender's classes can see.

Uplinks are narrower than what emulated guests can send, so that it is the receiver's downlink that
is short, not the processors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.bed import Testbed
from testbed.topology import HostSpec
from tests.e2e.driver import User, eventually, group, spec, user_with_image
from tests.e2e.one_site import SITE, begin, create_all, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

UPLINK_MBPS = 20
PROMISED, CAP = 5, 8
"""Mbit/s, each way, between the guests of `kept`."""
HOSTS = tuple(HostSpec(name=f"n{number}", uplink_mbps=UPLINK_MBPS) for number in range(1, 5))
SECONDS = 10
SETTLED_S = 6
"""A flood is seen within two periods of the receiver, and met within two more."""
SECOND_SERVER = 5202
"""Of iperf3, which serves one client a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    receiver: str
    """The host of `a-1`."""
    sink: str
    """The guest of `flood` there."""
    flooders: dict[str, str]
    """The guests of `flood` on the two hosts that have no guest of `kept`, to their hosts."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("incast", *HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    user = user_with_image(bed, tmp_path_factory.mktemp("incast"), endpoint=SITE)
    pair = {"group": "a", "bandwidth": {"guarantee_mbit_s": PROMISED, "cap_mbit_s": CAP}}
    kept = group("a", 2, pairs=[pair], max_per_host=1)
    flood = group("b", len(HOSTS), max_per_host=1)
    create_all(user, {"kept": spec(kept), "flood": spec(flood)})
    return user


@pytest.fixture(scope="module")
def roles(user: User) -> Roles:
    def hosts(cluster: str) -> dict[str, str]:
        shown = user.show(cluster)["workspaces"]
        return {each["name"].rsplit("/", 1)[1]: each["host"] for each in shown}

    kept, flood = hosts("kept"), hosts("flood")
    assert len(set(kept.values())) == len(kept)
    assert len(set(flood.values())) == len(flood)
    on = {host: guest for guest, host in flood.items()}
    return Roles(
        receiver=kept["a-1"],
        sink=on[kept["a-1"]],
        flooders={guest: host for guest, host in flood.items() if host not in kept.values()},
    )


def measured(user: User) -> float:
    """Mbit/s of `kept`, in its guest."""
    said = user.in_guest("kept", "a-0", f"measure-bandwidth a-1 {SECONDS}", timeout_s=SECONDS + 60)
    mbit_s: float = json.loads(said)["mbit_s"]
    return mbit_s


def arriving_mbit_s(user: User, host: str, seconds: int = 3) -> float:
    path = Path("/sys/class/net/eth0/statistics/rx_bytes")
    read = f"s=$(cat {path}); sleep {seconds}; echo $(( $(cat {path}) - s ))"
    said = user.testbed.run(f"{SITE}/{host}", ["sh", "-c", read])
    return int(said.stdout) * 8 / seconds / 1e6


def classes(user: User, host: str) -> int:
    said = user.testbed.run(f"{SITE}/{host}", ["tc", "class", "show", "dev", "eth0"])
    return len(said.stdout.splitlines())


@pytest.mark.more_guests
def test_a_promise_to_a_host_that_two_others_flood_holds_and_what_is_left_is_theirs(
    user: User, roles: Roles
) -> None:
    assert measured(user) >= 0.9 * CAP, "on a quiet network"
    before = {host: classes(user, host) for host in roles.flooders.values()}

    begin(user, "flood", roles.sink, f"iperf3 --server --port {SECOND_SERVER}")
    for guest, port in zip(roles.flooders, (5201, SECOND_SERVER), strict=True):
        options = f"--udp --bitrate {2 * UPLINK_MBPS}M --length 1400 --time 600 --port {port}"
        begin(user, "flood", guest, f"iperf3 --client {roles.sink} {options}")
    eventually(
        lambda: arriving_mbit_s(user, roles.receiver, 1) > UPLINK_MBPS / 2,
        within_s=30,
        what="the flood has begun",
    )
    time.sleep(SETTLED_S)
    assert measured(user) >= 0.85 * PROMISED
    # Beside the promise, and 10 % that are kept free for it, nothing is taken from the flood: what
    # the promise took while it was used comes back to the others, a step a period.
    time.sleep(SETTLED_S)
    assert arriving_mbit_s(user, roles.receiver) >= 0.7 * UPLINK_MBPS
    assert all(classes(user, host) > before[host] for host in before), "held back at its senders"

    for guest in roles.flooders:
        user.in_guest("flood", guest, "killall iperf3")
    eventually(
        lambda: {host: classes(user, host) for host in before} == before,
        within_s=20,
        what="nobody is held back any more",
    )
    assert measured(user) >= 0.9 * CAP
