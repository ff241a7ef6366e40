"""A site of a cluster is lost while it runs: what was there begins anew at a third site, with all
that it was promised, and what the lost site still has ends when it is back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from testbed.bed import Testbed
from tests.e2e.driver import (
    User,
    alive,
    corpus_bytes,
    eventually,
    group,
    meshed,
    put_at_one_site,
    settings_added,
    spec,
    standing,
    user_with_image,
)

pytestmark = [pytest.mark.root, pytest.mark.e2e]

LOST_AFTER_S = 20
REPLANNED_WITHIN_S = 30
READY_WITHIN_S = 180
PROMISED = 20
DATA_MIB = 20
LEAD_S = 60


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with standing(meshed(100, north=500, south=500, west=500), "lost") as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    """North alone has the image that the worker boots, and what it reads."""
    folder = tmp_path_factory.mktemp("lost")
    user = user_with_image(bed, folder)
    put_at_one_site(user, "north", folder, data_mib=DATA_MIB)
    return user


@contextmanager
def soon_lost(user: User) -> Iterator[None]:
    """The meta-scheduler takes a silent site for lost as soon as it may."""
    added = f"[losses]\nsite_lost_after_s = {LOST_AFTER_S}"
    with settings_added(user.testbed, "meta/metasched", added):
        eventually(lambda: user.say("site", "list").code == 0, within_s=60, what="it is back")
        yield


def test_what_was_at_a_lost_site_begins_anew_at_a_third(
    user: User, record_property: Callable[[str, object], None]
) -> None:
    bed = user.testbed
    pair = {"group": "worker", "bandwidth": {"guarantee_mbit_s": PROMISED, "cap_mbit_s": 40}}
    asked = spec(
        group("head", sites=["north"], pairs=[pair]),
        group(
            "worker",
            image="far",
            sites=["south", "west"],
            availability={"on_site_loss": "REPLACE"},
        ),
    )
    asked["datasets"] = [{"name": "corpus", "source": "corpus", "groups": ["worker"]}]
    with soon_lost(user):
        start = datetime.now(UTC) + timedelta(seconds=LEAD_S)
        asked["lease"]["start_time"] = start.isoformat()
        user.create("moved", asked)
        there = user.workspaces("moved")
        lost = there["worker-0"]["site"]
        [other] = {"south", "west"} - {lost}
        address = there["worker-0"]["addresses"][0]["address"].partition("/")[0]
        user.in_guest("moved", "worker-0", "touch /root/written && sync")
        user.in_guest("moved", "head-0", f"echo here > /tmp/here; ping -c 2 -W 5 {address}")
        host = f"{lost}/{lost[0]}1"
        [pid] = bed.guest_pids(host)
        dead = [bed.component(f"{lost}/broker"), bed.component(f"{host}/nodeagent")]
        try:
            for each in dead:
                each.kill9()

            def replanned() -> bool:
                shown = user.show("moved")
                assert shown["state"] == "ACTIVE"
                return bool(user.workspaces("moved")["worker-0"]["site"] == other)

            took = eventually(
                replanned, within_s=LOST_AFTER_S + REPLANNED_WITHIN_S, what="it is planned anew"
            )
            record_property("replanned_after_s", took)
            plan = user.show("moved")["plan"]
            brought = {each["digest"] for each in plan["transfers"] if each["to_site"] == other}
            assert len(brought) == 2
            reason = plan["reasons"][0]
            assert reason == f"{lost} is lost: anew worker-0 at {other}"
            took = eventually(
                lambda: user.workspaces("moved")["worker-0"].get("ready"),
                within_s=READY_WITHIN_S,
                every_s=2,
                what="the new one is ready",
            )
            record_property("ready_after_s", took)
            # The old one runs on where nobody hears it: its name and address are the new one's.
            assert alive(pid)
            now = user.workspaces("moved")
            assert now["worker-0"]["addresses"] == there["worker-0"]["addresses"]
            user.in_guest("moved", "head-0", f"cat /tmp/here; ping -c 3 -W 5 {address}")
            said = user.ssh("moved", "worker-0", "ls /root/written")
            assert said.code != 0
            assert "No such file" in said.err + said.out
            measured = user.in_guest(
                "moved", "head-0", "measure-bandwidth worker-0 10", timeout_s=120
            )
            assert corpus_bytes(user, "moved", "worker-0") == DATA_MIB << 20
            mbit_s = json.loads(measured)["mbit_s"]
            record_property("mbit_s", mbit_s)
            assert mbit_s >= 0.9 * PROMISED
        finally:
            for each in dead:
                each.start()
        eventually(lambda: not bed.guest_pids(host), within_s=90, what="the old one has ended")
        user.in_guest("moved", "head-0", f"ping -c 3 -W 5 {address}")
        assert user.show("moved")["state"] == "ACTIVE"
        user.delete("moved")


@pytest.mark.more_guests
def test_what_is_behind_a_lost_link_begins_anew_at_a_third_site(
    user: User, record_property: Callable[[str, object], None]
) -> None:
    """All sites answer, so the old one hears at once that it is over."""
    bed = user.testbed
    either = {"on_site_loss": "REPLACE", "on_link_loss": "MOVE"}
    asked = spec(
        group("head", sites=["north"]),
        group("worker", sites=["south", "west"], availability=either),
    )
    with soon_lost(user):
        user.create("cut", asked)
        there = user.workspaces("cut")
        behind = there["worker-0"]["site"]
        [other] = {"south", "west"} - {behind}
        address = there["worker-0"]["addresses"][0]["address"].partition("/")[0]
        user.in_guest("cut", "head-0", f"echo here > /tmp/here; ping -c 2 -W 5 {address}")
        bed.cut_link("north", behind)
        try:
            took = eventually(
                lambda: user.workspaces("cut")["worker-0"]["site"] == other,
                within_s=LOST_AFTER_S + REPLANNED_WITHIN_S,
                what="it is planned anew",
            )
            record_property("link_replanned_after_s", took)
            reason = user.show("cut")["plan"]["reasons"][0]
            one, two = sorted(("north", behind))
            assert reason == f"the link between {one} and {two} is lost: anew worker-0 at {other}"
            eventually(
                lambda: user.workspaces("cut")["worker-0"].get("ready"),
                within_s=READY_WITHIN_S,
                every_s=2,
                what="the new one is ready",
            )
            user.in_guest("cut", "head-0", f"cat /tmp/here; ping -c 3 -W 5 {address}")
            host = f"{behind}/{behind[0]}1"
            eventually(lambda: not bed.guest_pids(host), within_s=90, what="the old one has ended")
        finally:
            bed.heal_link("north", behind)
        user.delete("cut")
