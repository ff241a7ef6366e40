"""Points at which a process can be stopped: their table, and what reaching one does."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from intertie.common import points
from intertie.common.points import POINTS, reach, stop_in

SERVICES = Path(__file__).parents[3] / "services"

REACHES = """
import sys
from pathlib import Path
from intertie.common.points import reach, stop_in
stop_in(Path(sys.argv[1]))
for name in ("broker.held", "broker.resolved", "broker.resolved"):
    reach(name)
    Path(sys.argv[1], f"{name}.passed").touch()
"""


def reached_in_code() -> Iterator[tuple[str, str]]:
    """Service and point of every call of `reach`."""
    for path in SERVICES.glob("*/intertie/*/**/*.py"):
        service = path.relative_to(SERVICES).parts[0]
        if service in ("api", "common"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "reach":
                [name] = node.args
                assert isinstance(name, ast.Constant), f"{path}: a point is named in so many words"
                yield service, str(name.value)


def test_every_point_is_reached_at_one_place_of_its_own_service() -> None:
    found = sorted(reached_in_code())
    assert sorted(name for _, name in found) == sorted(POINTS)
    prefix = {"nodeagent": "agent"}
    assert all(name.startswith(prefix.get(service, service) + ".") for service, name in found)


def test_every_point_says_how_things_stand_there() -> None:
    assert len(POINTS) >= 25
    assert all(each.endswith(".") and each.count(".") >= 1 for each in POINTS.values())
    assert len(set(POINTS.values())) == len(POINTS)


@pytest.fixture
def no_folder() -> Iterator[None]:
    yield
    points._folder = None


@pytest.mark.usefixtures("no_folder")
def test_a_service_that_may_be_stopped_says_so_at_its_start(tmp_path: Path) -> None:
    with capture_logs() as logs:
        stop_in(None)
    assert logs == []
    with capture_logs() as logs:
        stop_in(tmp_path)
    assert [(each["log_level"], each["event"]) for each in logs] == [("warning", "points.armed")]


@pytest.mark.usefixtures("no_folder")
def test_points_that_are_not_armed_are_passed(tmp_path: Path) -> None:
    (tmp_path / "broker.held").touch()
    reach("broker.held")
    assert (tmp_path / "broker.held").exists(), "without the setting, a file means nothing"
    stop_in(tmp_path)
    reach("broker.resolved")


def test_a_process_stops_at_an_armed_point_once_and_goes_on_when_told(tmp_path: Path) -> None:
    (tmp_path / "broker.resolved").touch()
    process = subprocess.Popen([sys.executable, "-c", REACHES, str(tmp_path)], stderr=-3)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended"
        assert {path.name for path in tmp_path.iterdir()} == {
            "broker.held.passed",
            "broker.resolved.standing",
        }
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=30) == 0
        assert (tmp_path / "broker.resolved.passed").exists()
    finally:
        process.kill()
        process.wait()
