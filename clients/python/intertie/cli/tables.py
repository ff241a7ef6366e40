"""What all tables have in common."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table

GOOD, BAD, WAITING = "green", "red", "yellow"


def table(*titles: str, right: Sequence[str] = ()) -> Table:
    """Without lines, so that the same text serves a person and a pipe."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left", no_wrap=True)
    return made


def moment(time: Timestamp) -> str:
    if not time.seconds:
        return ""
    return instant(datetime.fromtimestamp(time.seconds, tz=UTC))


def instant(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
