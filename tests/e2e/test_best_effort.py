"""A lease that waits for room gives way to one that does not, and goes on when that is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from testbed.bed import Testbed
from testbed.services import MEMORY_RESERVE_MIB
from testbed.topology import HostSpec
from tests.e2e.driver import User, eventually, group, spec, user_with_image
from tests.e2e.one_site import READY_WITHIN_S, SITE, begin, create_all, one_site

pytestmark = [pytest.mark.root, pytest.mark.e2e]

MEMORY_MIB = MEMORY_RESERVE_MIB + 200
HOSTS = tuple(HostSpec(name=name, memory_mib=MEMORY_MIB) for name in ("n1", "n2"))
"""Each has memory to promise for one guest."""
BOOT = "cat /proc/sys/kernel/random/boot_id"
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/count; sleep 0.2; done"
PORT = 5000
LABELS = ("a-0", "a-1")


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with one_site("besteffort", *HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    return user_with_image(bed, tmp_path_factory.mktemp("besteffort"), endpoint=SITE)


def pair(**lease: Any) -> dict[str, Any]:
    """Two guests, one on each host."""
    made = spec(group("a", 2, memory_mib=128, max_per_host=1))
    return {**made, "lease": {"duration": "1h", **lease}}


def pids(user: User) -> list[list[int]]:
    return [user.testbed.guest_pids(f"{SITE}/{host.name}") for host in HOSTS]


def states(user: User, name: str) -> set[str]:
    return {each["state"] for each in user.show(name)["workspaces"]}


def boots(user: User) -> list[str]:
    return [user.in_guest("work", each, BOOT).strip() for each in LABELS]


@pytest.mark.more_guests
def test_one_is_put_aside_with_its_memory_and_goes_on_after_the_other(user: User) -> None:
    """Processes and a TCP connection between its two hosts live through it."""
    create_all(user, {"work": pair(kind="BEST_EFFORT")})
    before, booted = pids(user), boots(user)
    begin(user, "work", "a-0", COUNT)
    begin(user, "work", "a-1", f"sleep 900 | nc -l -p {PORT} >/tmp/heard")
    said = "(echo one; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo two)"
    begin(user, "work", "a-0", f"{said} | nc a-1 {PORT}")
    eventually(
        lambda: "one" in user.in_guest("work", "a-1", "cat /tmp/heard"),
        within_s=30,
        what="they are connected",
    )
    counted = int(user.in_guest("work", "a-0", "cat /tmp/count"))

    create_all(user, {"urgent": pair()})
    assert user.show("urgent")["state"] == "ACTIVE"
    assert user.show("work")["state"] == "SUSPENDED"
    assert states(user, "work") == {"SUSPENDED"}
    # What ran has given its memory back: on each host there is one emulator, and another one.
    now = pids(user)
    assert [len(each) for each in now] == [1, 1]
    assert all(was != runs for was, runs in zip(before, now, strict=True))

    user.delete("urgent")
    eventually(
        lambda: (
            user.show("work")["state"] == "ACTIVE"
            and all(each.get("ready") for each in user.show("work")["workspaces"])
        ),
        within_s=READY_WITHIN_S,
        what="it goes on",
    )
    assert boots(user) == booted
    assert int(user.in_guest("work", "a-0", "cat /tmp/count")) > counted
    user.in_guest("work", "a-0", "touch /tmp/go")
    eventually(
        lambda: user.in_guest("work", "a-1", "cat /tmp/heard").split() == ["one", "two"],
        within_s=120,
        what="the connection still carries",
    )
    user.delete("work")
    assert pids(user) == [[], []]


@pytest.mark.more_guests
def test_one_with_a_range_has_what_others_leave_it(user: User) -> None:
    """Its second guest comes when another lease is over, and is gone when the next one comes; its
    first one runs on."""
    one = spec(group("a", memory_mib=128))
    create_all(user, {"first": one})
    wanted = {**group("w", memory_mib=128), "count": 0, "min_count": 1, "max_count": 2}
    lease = {"kind": "BEST_EFFORT", "duration": "1h"}
    create_all(user, {"many": {**spec(wanted), "lease": lease}})
    assert len(user.show("many")["workspaces"]) == 1
    booted = user.in_guest("many", "w-0", BOOT)

    user.delete("first")
    eventually(
        lambda: [each.get("ready") for each in user.show("many")["workspaces"]] == [True, True],
        within_s=READY_WITHIN_S,
        what="it has a second one",
    )
    user.in_guest("many", "w-0", "ping -c 2 -W 3 10.1.0.11")
    assert user.show("many")["terms"] == 1

    create_all(user, {"urgent": one})
    shown = user.show("many")
    assert (shown["state"], shown["terms"]) == ("ACTIVE", 2)
    [left] = shown["workspaces"]
    assert left["name"].endswith("/w-0")
    assert [len(each) for each in pids(user)] == [1, 1]
    assert user.in_guest("many", "w-0", BOOT) == booted
    user.delete("many")
    user.delete("urgent")
    assert pids(user) == [[], []]
