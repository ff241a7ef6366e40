"""A cluster over two sites, whose image and data are at a third one, over links that another
cluster floods: all is there in time, and the other one has what it was promised."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from testbed.bed import Testbed
from tests.e2e.driver import (
    User,
    corpus_bytes,
    eventually,
    group,
    meshed,
    put_at_one_site,
    spec,
    standing,
    user_with_image,
)

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.more_guests]

LINK_MBPS = 100
PROMISED = 20
LEAD_S = 100
LATE_S = 5
DATA_MIB = 200
SMALL, LARGE = 112, 300
"""MiB of memory of a guest. North has room for the first kind only."""


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with standing(meshed(LINK_MBPS, north=500, south=800, west=800), "three") as made:
        yield made


@pytest.fixture(scope="module")
def user(bed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> User:
    folder = tmp_path_factory.mktemp("three")
    user = user_with_image(bed, folder)
    put_at_one_site(user, "north", folder, data_mib=DATA_MIB)
    return user


def test_all_is_there_in_time_while_another_cluster_floods_the_link_and_has_its_promise(
    user: User, record_property: Callable[[str, object], None]
) -> None:
    pair = {"group": "worker", "bandwidth": {"guarantee_mbit_s": PROMISED, "cap_mbit_s": 90}}
    head = group("head", sites=["north"], pairs=[pair])
    user.create("other", spec(head, group("worker", sites=["south"])))

    start = datetime.now(UTC) + timedelta(seconds=LEAD_S)
    asked = spec(group("worker", 2, image="far", memory_mib=LARGE, max_per_host=1))
    asked["lease"]["start_time"] = start.isoformat()
    asked["datasets"] = [{"name": "corpus", "source": "corpus", "disk": {"cap_iops": 400}}]
    user.create("brought", asked, wait=False)
    shown = user.show("brought")
    assert sorted(each["site"] for each in shown["workspaces"]) == ["south", "west"]
    planned = shown["plan"]["transfers"]
    ways = sorted((each["from_site"], each["to_site"]) for each in planned)
    assert ways == [("north", "south")] * 2 + [("north", "west")] * 2
    for each in planned:
        assert _moment(each["end_time"]) <= start

    south = [each for each in planned if each["to_site"] == "south"]
    begins = min(_moment(each["begin_time"]) for each in south)
    ends = max(_moment(each["end_time"]) for each in south)
    _sleep_until(begins + timedelta(seconds=3))
    seconds = int((ends - datetime.now(UTC)).total_seconds()) - 3
    assert seconds > 5, planned
    said = user.in_guest("other", "head-0", f"measure-bandwidth worker-0 {seconds}", timeout_s=200)
    kept = json.loads(said)["mbit_s"]
    record_property("kept_mbit_s", kept)
    record_property("rates_mbit_s", [each["mbit_s"] for each in planned])
    # What is left of the link, and a little for what is between two passes of the gateway.
    most = LINK_MBPS - max(each["mbit_s"] for each in south)
    assert 0.9 * PROMISED <= kept <= 1.1 * most, planned

    eventually(lambda: _arrived(user), within_s=LEAD_S, what="all is there")
    assert datetime.now(UTC) <= start
    _sleep_until(start)
    eventually(
        lambda: {each.get("state") for each in user.show("brought")["workspaces"]} == {"RUNNING"},
        within_s=LATE_S,
        what="both run",
    )
    late = (datetime.now(UTC) - start).total_seconds()
    record_property("began_after_s", late)
    assert late <= LATE_S

    def ready() -> bool:
        return all(each.get("ready") for each in user.show("brought")["workspaces"])

    eventually(ready, within_s=180, what="both are ready")
    for each in ("worker-0", "worker-1"):
        assert corpus_bytes(user, "brought", each) == DATA_MIB << 20


def _arrived(user: User) -> bool:
    transfers = user.show("brought")["plan"]["transfers"]
    assert not any(each.get("message") for each in transfers), transfers
    return all(each.get("done") for each in transfers)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _sleep_until(moment: datetime) -> None:
    time.sleep(max((moment - datetime.now(UTC)).total_seconds(), 0))
