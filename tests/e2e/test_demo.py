"""The newcomer's command: to the end, twice in a row, and interrupted wherever it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.bed import Testbed
from testbed.topology import default_topology

pytestmark = [pytest.mark.root, pytest.mark.e2e]

INSTANCE = "demotest"
ROOT = Path(__file__).resolve().parents[2]
MOMENTS = {
    "coming up": "come up on this machine",
    "images put": "is put into the store of each site",
    "cluster created": "planned, held and committed",
    "guests pinging": "Every guest pings every other",
    "being deleted": "The cluster is deleted",
}


@pytest.fixture(autouse=True)
def nothing_before_and_after() -> Iterator[None]:
    bed = Testbed.create(default_topology(), INSTANCE)
    bed.down()
    yield
    left = bed.leftovers()
    bed.down()
    assert left == []


def start(log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "testbed.demo", "--instance", INSTANCE],
        cwd=ROOT,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_for(log: Path, words: str, demo: subprocess.Popen[bytes], *, within_s: float) -> None:
    until = time.monotonic() + within_s
    while words not in log.read_text():
        assert demo.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def test_the_demo_runs_to_its_end_twice_in_a_row(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for number in (1, 2):
        log = tmp_path / f"demo{number}.log"
        demo = start(log)
        code = demo.wait(timeout=400)
        said = log.read_text()
        assert code == 0, said
        assert "nothing of it is left" in said
        assert "BROKEN" not in said
        record_property(f"demo_{number}", said.rsplit("The demo took", 1)[1].strip())


@pytest.mark.parametrize("words", MOMENTS.values(), ids=MOMENTS.keys())
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, words: str) -> None:
    log = tmp_path / "demo.log"
    demo = start(log)
    try:
        wait_for(log, words, demo, within_s=240)
        # As a terminal does it: to everyone in the foreground.
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(timeout=60) == 130, log.read_text()
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
