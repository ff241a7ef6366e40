"""A cluster at a site that lacks its image, which is brought there before it starts."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbed.guest import guest_image
from tests.e2e.driver import User, eventually, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

IMAGE = "north-alone"
LEAD_S = 60


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
    user: User, image: str
) -> None:
    start = datetime.now(UTC) + timedelta(seconds=LEAD_S)
    asked = spec(group("worker", sites=["south"], image=image))
    asked["lease"]["start_time"] = start.isoformat()
    user.create("brought", asked, wait=False)
    (planned,) = user.show("brought")["plan"]["transfers"]
    assert (planned["from_site"], planned["to_site"]) == ("north", "south")
    assert _moment(planned["end_time"]) <= start

    def arrived() -> dict[str, Any]:
        (transfer,) = user.show("brought")["plan"]["transfers"]
        assert not transfer.get("message"), transfer
        return dict(transfer) if transfer.get("done") else {}

    eventually(arrived, within_s=LEAD_S + 30, what="it is there")
    done = datetime.now(UTC)
    assert done <= start + timedelta(seconds=5)
    assert arrived()["done_bytes"] == planned["size_bytes"]

    def runs() -> bool:
        (one,) = user.show("brought")["workspaces"]
        assert one["state"] not in ("FAILED", "ENDED"), one
        return one.get("state") == "RUNNING" and bool(one.get("ready"))

    eventually(runs, within_s=LEAD_S + 120, what="it runs")
    assert user.in_guest("brought", "worker-0", "hostname").strip() == "worker-0"
    stored = user.at("south").do("-o", "json", "image", "list")
    assert planned["digest"] in stored


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
