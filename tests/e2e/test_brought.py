"""A cluster at a site that lacks its image, which is brought there before it starts."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbed.guest import guest_image
from tests.e2e.driver import User, eventually, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.more_guests]

IMAGE = "north-alone"
LEAD_S = 60


DATA = b"\x1f\x8b" + os.urandom(40 * 1024 * 1024 - 2)
"""Begins like gzip: what it looks like is nobody's business."""
FIND = 'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = corpus ] && echo ${d##*/}; done; true'


@pytest.fixture
def corpus(user: User, tmp_path: Path) -> str:
    """A data set, likewise."""
    path = tmp_path / "corpus"
    path.write_bytes(DATA)
    user.at("north").do("image", "put", "corpus", str(path), "--data")
    return "corpus"


@pytest.fixture
def image(user: User, tmp_path: Path) -> str:
    """At north, and of no content that south has."""
    path = tmp_path / "image.qcow2"
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", "-o", "cluster_size=2M", str(guest_image()), path],
        check=True,
        timeout=120,
    )  # fmt: skip
    user.at("north").do("image", "put", IMAGE, str(path))
    return IMAGE


def test_an_image_is_brought_at_its_rate_before_the_start_that_was_planned(
    user: User, image: str, corpus: str
) -> None:
    start = datetime.now(UTC) + timedelta(seconds=LEAD_S)
    asked = spec(group("worker", sites=["south"], image=image))
    asked["lease"]["start_time"] = start.isoformat()
    asked["datasets"] = [{"name": "corpus", "source": corpus, "disk": {"cap_iops": 200}}]
    user.create("brought", asked, wait=False)
    planned = user.show("brought")["plan"]["transfers"]
    assert len(planned) == 2
    for each in planned:
        assert (each["from_site"], each["to_site"]) == ("north", "south")
        assert _moment(each["end_time"]) <= start

    def arrived() -> bool:
        transfers = user.show("brought")["plan"]["transfers"]
        assert not any(each.get("message") for each in transfers), transfers
        return all(each.get("done") for each in transfers)

    eventually(arrived, within_s=LEAD_S + 30, what="it is there")
    done = datetime.now(UTC)
    assert done <= start + timedelta(seconds=5)
    for each in user.show("brought")["plan"]["transfers"]:
        assert each["done_bytes"] == each["size_bytes"]

    def runs() -> bool:
        (one,) = user.show("brought")["workspaces"]
        assert one["state"] not in ("FAILED", "ENDED"), one
        return one.get("state") == "RUNNING" and bool(one.get("ready"))

    eventually(runs, within_s=LEAD_S + 120, what="it runs")
    assert user.in_guest("brought", "worker-0", "hostname").strip() == "worker-0"
    disk = user.in_guest("brought", "worker-0", FIND).strip()
    read = user.in_guest("brought", "worker-0", f"sha256sum </dev/{disk}", timeout_s=120)
    assert read.split()[0] == hashlib.sha256(DATA).hexdigest()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
