"""What a guest says is untrusted."""

from __future__ import annotations

import json

import pytest

from intertie.nodeagent.domain.guest import MAX_LINE_BYTES, ReadyLines, is_ready

READY = json.dumps({"event": "ready", "nonce": "n"}).encode()


def test_ready_is_heard_however_the_line_is_cut_up() -> None:
    lines = ReadyLines("n")
    heard = [lines.feed(bytes([octet])) for octet in b"noise\n" + READY + b"\n"]
    assert heard == [False] * (len(heard) - 1) + [True]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"ready",
        b"[]",
        b'{"event": "ready"}',
        b'{"event": "ready", "nonce": "other"}',
        b'{"event": "no", "nonce": "n"}',
        b"[" * 60_000,
        b"\xff\xfe",
    ],
)
def test_everything_else_is_not_ready(line: bytes) -> None:
    assert not is_ready(line, "n")


def test_no_nonce_is_no_pass() -> None:
    assert not is_ready(b'{"event": "ready", "nonce": ""}', "")


def test_a_line_without_end_is_thrown_away_and_the_next_one_heard() -> None:
    lines = ReadyLines("n")
    for _ in range(100):
        assert not lines.feed(b"x" * 4096)
        assert len(lines._kept) <= MAX_LINE_BYTES
    assert not lines.feed(READY + b"\n")
    assert lines.feed(READY + b"\n")
