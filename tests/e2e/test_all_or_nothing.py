"""A site that refuses, is away, or dies between hold and decision: the whole cluster or nothing."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from intertie.api.broker.v1 import part_pb2, parts_pb2, parts_pb2_grpc
from tests.e2e.driver import User, eventually, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

OVER = {"RELEASED", "EXPIRED", "ENDED"}
BOTH = spec(group("a", sites=["north"]), group("b", sites=["south"]))


def live(user: User, site: str) -> dict[str, str]:
    """State by the co-allocation's id, of parts that count against capacity; as operators see."""
    table = tomllib.loads(user.testbed.client("ops", operator=True).read_text())
    own = table["endpoints"][site]
    credentials = grpc.ssl_channel_credentials(
        root_certificates=Path(own["roots"]).read_bytes(),
        private_key=Path(own["key"]).read_bytes(),
        certificate_chain=Path(own["certificate"]).read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", own["server_name"])]
    with grpc.secure_channel(own["address"], credentials, options=options) as channel:
        asked = parts_pb2.ListPartsRequest(parent=f"sites/{site}/tenants/-", page_size=1000)
        parts = parts_pb2_grpc.PartsStub(channel).List(asked, timeout=10).parts
    states = {part.tx: part_pb2.Part.State.Name(part.state) for part in parts}
    return {tx: state for tx, state in states.items() if state not in OVER}


def nothing_is_held(user: User) -> bool:
    return not live(user, "north") and not live(user, "south")


def goes_away(asking: subprocess.Popen[str]) -> None:
    """The caller, who would ask the next coordinator for the same again, and get it."""
    asking.kill()
    asking.communicate()


@pytest.fixture
def pausing(user: User) -> Iterator[Any]:
    """Restarts the meta-scheduler so that it waits at a point of the commit."""
    metasched = user.testbed.component("meta/metasched")

    def pause_at(point: str, seconds: int = 60) -> None:
        metasched.environment["INTERTIE_FAULT_PAUSE"] = f"{point}:{seconds}"
        metasched.restart()
        metasched.environment.pop("INTERTIE_FAULT_PAUSE")

    yield pause_at
    metasched.environment.pop("INTERTIE_FAULT_PAUSE", None)
    metasched.restart()


def test_a_site_that_refuses_leaves_nothing_and_says_what_is_short(user: User) -> None:
    big = group("b", 3, sites=["south"], memory_mib=1500)
    said = user.say(*user.create_args("big", spec(group("a", sites=["north"]), big)))
    assert said.code == 1
    assert "NO_CAPACITY" in said.err
    for word in ("south", "memory", "4500 MiB", "3584 MiB"):
        assert word in said.err
    assert nothing_is_held(user)


def test_a_site_that_is_away_leaves_nothing(user: User) -> None:
    broker = user.testbed.component("south/broker")
    broker.kill9()
    try:
        said = user.say(*user.create_args("away", BOTH))
    finally:
        broker.start()
    assert said.code == 1
    assert "SITE_UNREACHABLE" in said.err
    eventually(lambda: nothing_is_held(user), within_s=45, what="holds given back")


@pytest.mark.parametrize(
    ("point", "whole"),
    [
        ("after_prepare", False),
        ("after_decide", True),
    ],
)
def test_a_coordinator_killed_in_the_middle_leaves_the_whole_or_nothing(
    user: User, pausing: Any, point: str, whole: bool
) -> None:
    name = point.replace("_", "-")
    user.created.append(name)
    pausing(point)
    asking = user.start(*user.create_args(name, BOTH, "--no-wait"))
    try:
        both = {"PREPARED"}
        eventually(
            lambda: all(set(live(user, site).values()) == both for site in ("north", "south")),
            within_s=30,
            what="parts PREPARED at both sites",
        )
        goes_away(asking)
        user.testbed.component("meta/metasched").kill9()
        user.testbed.component("meta/metasched").start()
        if whole:
            eventually(
                lambda: all(
                    set(live(user, site).values()) == {"CONFIRMED"} for site in ("north", "south")
                ),
                within_s=30,
                what="COMMIT applied at both sites",
            )
            assert user.show(name)["state"] in {"SCHEDULED", "ACTIVE"}
        else:
            eventually(lambda: nothing_is_held(user), within_s=45, what="nothing held")
    finally:
        asking.kill()
        asking.communicate()


def all_or_nothing(user: User) -> bool:
    """The same at both sites, and nothing undecided. A broker that was just started may not
    answer yet."""
    try:
        north, south = live(user, "north"), live(user, "south")
    except grpc.RpcError:
        return False
    return north == south and set(north.values()) <= {"CONFIRMED"}


@pytest.mark.more_guests
@pytest.mark.parametrize(
    ("trouble", "point"),
    [
        (trouble, point)
        for point in ("after_prepare", "after_decide")
        for trouble in ("killed", "stopped", "cut off")
    ],
)
def test_a_site_lost_in_the_middle_takes_part_in_the_outcome(
    user: User, pausing: Any, point: str, trouble: str
) -> None:
    """The coordinator lives and goes on without knowing; the site comes back later."""
    name = f"{trouble.replace(' ', '-')}-{point.replace('_', '-')}"
    user.created.append(name)
    pausing(point, 5)
    south = user.testbed.component("south/broker")
    asking = user.start(*user.create_args(name, BOTH, "--no-wait"))
    try:
        eventually(
            lambda: "PREPARED" in live(user, "south").values(),
            within_s=30,
            every_s=0.2,
            what="south PREPARED",
        )
        if trouble == "killed":
            south.kill9()
        elif trouble == "stopped":
            south.stop()
        else:
            user.testbed.cut_link("meta", "south")
        asking.wait(timeout=90)
        if trouble == "killed":
            south.start()
        elif trouble == "stopped":
            south.cont()
        else:
            user.testbed.heal_link("meta", "south")
        eventually(lambda: all_or_nothing(user), within_s=60, what="all or nothing")
        if point == "after_decide":
            assert set(live(user, "south").values()) == {"CONFIRMED"}
    finally:
        if south.running:
            south.cont()
        else:
            south.start()
        user.testbed.heal_link("meta", "south")
        if asking.poll() is None:
            asking.kill()
        asking.communicate()


@pytest.mark.more_guests
def test_a_site_killed_between_hold_and_decision_takes_part_in_the_outcome(
    user: User, pausing: Any
) -> None:
    user.created.append("site-dies")
    pausing("after_prepare")
    asking = user.start(*user.create_args("site-dies", BOTH, "--no-wait"))
    try:
        eventually(
            lambda: set(live(user, "south").values()) == {"PREPARED"},
            within_s=30,
            what="south PREPARED",
        )
        goes_away(asking)
        south = user.testbed.component("south/broker")
        south.kill9()
        user.testbed.component("meta/metasched").restart()
        south.start()
        eventually(lambda: nothing_is_held(user), within_s=60, what="aborted at both sites")
    finally:
        asking.kill()
        asking.communicate()
