"""Spans of time as people write them: `1h`, `30m`, `90s`, `250ms`, `1h30m`."""

from __future__ import annotations

import re

_UNITS = {
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
"""Nanoseconds in each, longest first."""
_TERM = re.compile(r"([0-9]{1,18})(ms|us|ns|d|h|m|s)")
_MOST_NS = 315_576_000_000 * 1_000_000_000
"""What a Duration can hold: some 10,000 years."""


def parse_span(text: str) -> int | None:
    """Nanoseconds, or None where `text` is no span. Units go from long to short, each once."""
    total, position, left = 0, 0, list(_UNITS)
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None or term[2] not in left:
            return None
        left = left[left.index(term[2]) + 1 :]
        total += int(term[1]) * _UNITS[term[2]]
        position = term.end()
    return total if text and total <= _MOST_NS else None


def format_span(nanoseconds: int) -> str:
    """The shortest form that `parse_span` reads back: `1h30m`; nothing at all is `0s`."""
    if nanoseconds < 0:
        return f"-{format_span(-nanoseconds)}"
    words = []
    for unit, size in _UNITS.items():
        count, nanoseconds = divmod(nanoseconds, size)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words) or "0s"
