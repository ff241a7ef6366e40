"""Half-open spans of time."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from intertie.common.values import Struct


class Window(Struct, frozen=True):
    """`start` is in it, `end` is not: two windows that touch do not overlap."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a window's moments are aware")
        if not self.start < self.end:
            raise ValueError(f"a window ends after it starts: {self.start} to {self.end}")

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def contains(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def overlaps(self, other: "Window") -> bool:
        return self.start < other.end and other.start < self.end

    def intersect(self, other: "Window") -> "Window | None":
        """What both have in common; None where that is nothing."""
        if not self.overlaps(other):
            return None
        return Window(max(self.start, other.start), min(self.end, other.end))


def spread(moments: Sequence[datetime], most: int) -> tuple[datetime, ...]:
    """At most so many of them, 2 or more, evenly, with the first and the last."""
    if len(moments) <= most:
        return tuple(moments)
    last = len(moments) - 1
    return tuple(moments[number * last // (most - 1)] for number in range(most))
