"""A lease over two sites gives way at both for a lease of one, and goes on at both: when there is
room, or in time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from testbed.bed import Testbed
from testbed.services import MEMORY_RESERVE_MIB
from testbed.topology import HostSpec, SiteSpec, Topology, WanLink
from tests.e2e.driver import User, eventually, group, spec, standing, user_with_image
from tests.e2e.one_site import READY_WITHIN_S, begin, create_all

pytestmark = [pytest.mark.root, pytest.mark.e2e]

MEMORY_MIB = MEMORY_RESERVE_MIB + 200
"""A host has memory to promise for one guest."""
BOOT = "cat /proc/sys/kernel/random/boot_id"
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/count; sleep 0.2; done"
HOSTS = ("north/n1", "south/s1")
LABELS = ("a-0", "b-0")


def site(name: str) -> SiteSpec:
    host = HostSpec(name=f"{name[0]}1", memory_mib=MEMORY_MIB, gateway=True)
    return SiteSpec(name=name, hosts=(host,))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    links = (WanLink(a="north", b="south", mbps=200, latency_ms=5.0),)
    topology = Topology(sites=(site("north"), site("south")), links=links)
    with standing(topology, "asidetwo") as bed:
        yield user_with_image(bed, tmp_path_factory.mktemp("asidetwo"))


def pids(bed: Testbed) -> list[list[int]]:
    return [bed.guest_pids(each) for each in HOSTS]


def both() -> dict[str, object]:
    return spec(
        group("a", memory_mib=128, sites=["north"]), group("b", memory_mib=128, sites=["south"])
    )


def counted(user: User) -> list[int]:
    return [int(user.in_guest("work", each, "cat /tmp/count")) for each in LABELS]


def test_it_is_put_aside_at_both_sites_for_one_and_goes_on_with_its_memory(user: User) -> None:
    create_all(user, {"work": {**both(), "lease": {"kind": "BEST_EFFORT", "duration": "1h"}}})
    boots = [user.in_guest("work", each, BOOT) for each in LABELS]
    for each in LABELS:
        begin(user, "work", each, COUNT)
    eventually(lambda: min(counted(user)) > 0, within_s=30, what="both count")
    before = counted(user)

    south = user.at("south")
    south.create("urgent", spec(group("u", memory_mib=128)), wait=False)
    eventually(
        lambda: user.show("work")["state"] == "SUSPENDED", within_s=60, what="it is put aside"
    )
    eventually(lambda: pids(user.testbed)[0] == [], within_s=60, what="north's is saved too")
    eventually(
        lambda: all(each.get("ready") for each in south.show("urgent")["workspaces"]),
        within_s=READY_WITHIN_S,
        what="the other one runs where south's was",
    )
    assert user.show("work")["state"] == "SUSPENDED"

    south.delete("urgent")
    eventually(
        lambda: user.show("work")["state"] == "ACTIVE", within_s=READY_WITHIN_S, what="it goes on"
    )
    eventually(
        lambda: all(mine > had for mine, had in zip(counted(user), before, strict=True)),
        within_s=60,
        what="what ran goes on",
    )
    assert [user.in_guest("work", each, BOOT) for each in LABELS] == boots
    user.in_guest("work", "a-0", "ping -c 2 -W 3 b-0")
    user.delete("work")
    assert pids(user.testbed) == [[], []]


@pytest.mark.more_guests
def test_one_with_a_deadline_goes_on_as_it_was_promised_and_is_done_in_time(user: User) -> None:
    """South is another's until just before it has to go on."""
    deadline = datetime.now(UTC) + timedelta(seconds=450)
    lease = {"kind": "DEADLINE", "duration": "3m", "deadline": deadline.isoformat()}
    create_all(user, {"due": {**both(), "lease": lease}})
    boots = [user.in_guest("due", each, BOOT) for each in LABELS]
    south = user.at("south")
    latest = next(each for each in user.show("due")["plan"]["reasons"] if "it goes on by" in each)
    until = {"end_time": latest.rpartition(" ")[2]}
    urgent = {**spec(group("u", memory_mib=128)), "lease": until}
    south.create("urgent", urgent, wait=False)
    eventually(
        lambda: user.show("due")["state"] == "SUSPENDED", within_s=60, what="it is put aside"
    )
    eventually(lambda: pids(user.testbed)[0] == [], within_s=60, what="north's is saved too")
    eventually(
        lambda: user.show("due")["state"] == "ACTIVE", within_s=200, what="it goes on in time"
    )
    shown = user.show("due")
    assert datetime.fromisoformat(shown["window"]["end_time"]) <= deadline
    assert [user.in_guest("due", each, BOOT) for each in LABELS] == boots
    user.in_guest("due", "a-0", "ping -c 2 -W 3 b-0")
    eventually(
        lambda: user.show("due")["state"] == "ENDED", within_s=200, what="it is done in time"
    )
    assert datetime.now(UTC) < deadline + timedelta(seconds=10)
    assert user.show("due")["run_time"] == "3m"
    eventually(lambda: pids(user.testbed) == [[], []], within_s=30, what="nothing is left")
