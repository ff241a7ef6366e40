import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from intertie.common import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_line_of_json_with_service_and_what_is_bound(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("broker", "info")
    with structlog.contextvars.bound_contextvars(request_id="r-1", caller="alice"):
        logs.get_logger().info("hold.placed", part="p1")
    logs.get_logger().info("later")
    first, second = written(capsys)
    assert first["event"] == "hold.placed"
    assert first["service"] == "broker"
    assert first["request_id"] == "r-1"
    assert first["caller"] == "alice"
    assert first["part"] == "p1"
    assert "request_id" not in second


def test_below_the_level_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("broker", "warning")
    logs.get_logger().info("quiet")
    logs.get_logger().warning("loud")
    assert [each["event"] for each in written(capsys)] == ["loud"]


def test_secrets_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("broker")
    logs.get_logger().info("odd", user_data=b"password", token="t0p", part="p1")
    [line] = written(capsys)
    assert line["user_data"] == line["token"] == "(hidden)"
    assert line["part"] == "p1"


def test_libraries_write_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("broker")
    logging.getLogger("grpc").warning("channel %s", "lost")
    [line] = written(capsys)
    assert line["event"] == "channel lost"
    assert line["logger"] == "grpc"
    assert line["service"] == "broker"


def test_a_line_is_written_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Half a surrogate, as a file's name may have one, a number that no 64 bits hold, and what is
    no JSON at all."""
    logs.configure("broker")
    for value in ("\ud800", 1 << 70, object, float("nan"), {1: 2}, {"a", "b"}):
        logs.get_logger().info("odd", value=value)
    assert [each["event"] for each in written(capsys)] == ["odd"] * 6
