"""A sum over time as a step function, in blocks: what is asked of it does not go over every step.

Busy links have a step for every admission on them: 200,000 in one list made each admission move
and add up half of them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from intertie.common.intervals import Window

BLOCK = 256
"""Steps of a block that is made; one of twice as many is split. A host has a few hundred, so one
or two: there the cost is that of a plain list."""


FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)


class Bounds(NamedTuple):
    """Of windows: of their starts, the first bound in it and the second not; of their ends the
    other way round."""

    start_from: datetime = FIRST
    start_before: datetime = LAST
    end_after: datetime = FIRST
    end_until: datetime = LAST

    def contain(self, window: Window) -> bool:
        return (
            self.start_from <= window.start < self.start_before
            and self.end_after < window.end <= self.end_until
        )

    @classmethod
    def common(cls, several: Sequence["Bounds"]) -> "Bounds":
        """Of the windows that are in all of them; there is one at least."""
        starts_from, starts_before, ends_after, ends_until = zip(*several, strict=True)
        return cls(max(starts_from), min(starts_before), max(ends_after), min(ends_until))


class _Block:
    """Neighbouring steps, one at least: from `times[i]` on, `levels[i]` and `lift`."""

    __slots__ = ("_extremes", "levels", "lift", "times")

    def __init__(self, times: list[datetime], levels: list[int], lift: int = 0) -> None:
        self.times = times
        self.levels = levels
        self.lift = lift
        self._extremes: tuple[int, int] | None = None
        """Looked for when asked for: of the blocks that are changed, few ever are."""

    @property
    def highest(self) -> int:
        return (self._extremes or self._measured())[1]

    @property
    def lowest(self) -> int:
        return (self._extremes or self._measured())[0]

    def _measured(self) -> tuple[int, int]:
        self._extremes = min(self.levels), max(self.levels)
        return self._extremes

    def add(self, first: int, last: int, amount: int) -> None:
        """To the steps from `first` up to, not including, `last`."""
        if first == 0 and last == len(self.levels):
            self.lift += amount
        elif first < last:
            self.levels[first:last] = [level + amount for level in self.levels[first:last]]
            self._extremes = None

    def insert(self, place: int, time: datetime, level: int) -> None:
        self.times.insert(place, time)
        self.levels.insert(place, level)
        self._extremes = None

    def cut(self, first: int, last: int) -> None:
        """Forgets the steps from `first` up to, not including, `last`."""
        del self.times[first:last], self.levels[first:last]
        self._extremes = None

    def join(self, rest: "_Block") -> None:
        self.times += rest.times
        self.levels += [level + rest.lift - self.lift for level in rest.levels]
        self._extremes = None


class Profile:
    """0 before the first step, and the last level is 0. No two neighbours are equal, so the size
    is bounded by what is counted now."""

    __slots__ = ("_blocks", "_firsts")

    def __init__(self, changes: Mapping[datetime, int]) -> None:
        times: list[datetime] = []
        levels: list[int] = []
        level = 0
        for time, change in sorted(changes.items()):
            if change:
                level += change
                times.append(time)
                levels.append(level)
        self._blocks = [
            _Block(times[at : at + BLOCK], levels[at : at + BLOCK])
            for at in range(0, len(times), BLOCK)
        ]
        self._firsts = [each.times[0] for each in self._blocks]
        """Where each block begins."""

    def moments(self) -> tuple[datetime, ...]:
        """When the sum changes, in order."""
        return tuple(time for block in self._blocks for time in block.times)

    def peak(self, window: Window) -> int:
        """The highest sum at any moment of the window."""
        start, end = window.start, window.end
        at = bisect_right(self._firsts, start) - 1
        last = bisect_left(self._firsts, end, max(at, 0)) - 1
        if last < 0:
            return 0
        highest = 0
        if at >= 0:
            block = self._blocks[at]
            first = bisect_right(block.times, start) - 1
            if at == last:
                there = block.levels[first : bisect_left(block.times, end, first)]
                return max(max(there) + block.lift, 0)
            highest = max(0, max(block.levels[first:]) + block.lift)
        for between in range(at + 1, last):
            block = self._blocks[between]
            if block.highest + block.lift > highest:
                highest = block.highest + block.lift
        block = self._blocks[last]
        return max(highest, max(block.levels[: bisect_left(block.times, end)]) + block.lift)

    def look(self, window: Window) -> tuple[int, "Bounds"]:
        """The peak, and the windows that have the same steps in them and so the same peak."""
        if len(self._blocks) != 1:
            return self.peak(window), self._same_steps(window)
        [block] = self._blocks  # as of nearly all hosts: with the same two bisections for both
        times = block.times
        first = bisect_right(times, window.start)
        last = bisect_left(times, window.end, first)
        levels = block.levels[first - 1 if first else 0 : last]
        return max(max(levels) + block.lift, 0) if levels else 0, Bounds(
            times[first - 1] if first else FIRST,
            times[first] if first < len(times) else LAST,
            times[last - 1] if last else FIRST,
            times[last] if last < len(times) else LAST,
        )

    def _same_steps(self, window: Window) -> "Bounds":
        starts = self._around(window.start, bisect_right)
        ends = self._around(window.end, bisect_left)
        return Bounds(*starts, *ends)

    def _around(
        self, time: datetime, bisect: Callable[[list[datetime], datetime], int]
    ) -> tuple[datetime, datetime]:
        """The steps before and after, as the bisection tells them apart."""
        at = bisect(self._firsts, time) - 1
        if at < 0:
            return FIRST, self._firsts[0] if self._firsts else LAST
        times = self._blocks[at].times
        place = bisect(times, time)
        if place < len(times):
            return times[place - 1], times[place]
        return times[-1], self._firsts[at + 1] if at + 1 < len(self._firsts) else LAST

    def clear(self, limit: int, window: Window) -> datetime | None:
        """None where the sum is at most `limit` throughout the window. Else the first moment
        after it was last above, from which it is not: no window of that length that begins
        earlier, and not before this one, is clear. `limit` is 0 or more."""
        at = max(bisect_right(self._firsts, window.start) - 1, 0)
        last = bisect_left(self._firsts, window.end) - 1
        while last >= at:
            block = self._blocks[last]
            if block.highest + block.lift > limit:
                first = max(bisect_right(block.times, window.start) - 1, 0)
                place = bisect_left(block.times, window.end) - 1
                while place >= first:
                    if block.levels[place] + block.lift > limit:
                        return self._falls_to(limit, last, place)
                    place -= 1
            last -= 1
        return None

    def _falls_to(self, limit: int, at: int, place: int) -> datetime:
        """From that step on; in the end the sum is 0."""
        while True:
            block = self._blocks[at]
            if block.lowest + block.lift <= limit:
                for step in range(place, len(block.times)):
                    if block.levels[step] + block.lift <= limit:
                        return block.times[step]
            at, place = at + 1, 0

    def shift(self, window: Window, amount: int) -> None:
        """Adds, throughout the window."""
        if not amount:
            return
        at, first = self._step(window.start)
        blocks = len(self._blocks)
        last, end = self._step(window.end)
        if len(self._blocks) != blocks:
            at, first = self._find(window.start)
            blocks = len(self._blocks)
        if at == last:
            self._blocks[at].add(first, end, amount)
        else:
            self._blocks[at].add(first, len(self._blocks[at].times), amount)
            for between in self._blocks[at + 1 : last]:
                between.lift += amount
            self._blocks[last].add(0, end, amount)
        # The later one first: where the earlier one is stays as it was found, but in a block that
        # was joined to the one before it.
        self._forget_if_flat(last, end)
        if len(self._blocks) != blocks:
            at, first = self._find(window.start)
        self._forget_if_flat(at, first)

    def _find(self, time: datetime) -> tuple[int, int]:
        """The block that has, or would have, a step at `time`, and where in it."""
        at = bisect_right(self._firsts, time) - 1
        if at < 0:
            at = 0
        return at, bisect_left(self._blocks[at].times, time)

    def _before(self, at: int, place: int) -> int:
        """The level before that step."""
        if place:
            return self._blocks[at].levels[place - 1] + self._blocks[at].lift
        return self._blocks[at - 1].levels[-1] + self._blocks[at - 1].lift if at else 0

    def _step(self, time: datetime) -> tuple[int, int]:
        """Where the step at `time` is; made, without height, if there was none."""
        if not self._blocks:
            self._blocks, self._firsts = [_Block([time], [0])], [time]
            return 0, 0
        at, place = self._find(time)
        block = self._blocks[at]
        if place < len(block.times) and block.times[place] == time:
            return at, place
        block.insert(place, time, self._before(at, place) - block.lift)
        if not place:
            self._firsts[at] = time
        if len(block.times) > 2 * BLOCK:
            self._split(at)
            return self._find(time)
        return at, place

    def _split(self, at: int) -> None:
        block = self._blocks[at]
        rest = _Block(block.times[BLOCK:], block.levels[BLOCK:], block.lift)
        block.cut(BLOCK, len(block.times))
        self._blocks.insert(at + 1, rest)
        self._firsts.insert(at + 1, rest.times[0])

    def _forget_if_flat(self, at: int, place: int) -> None:
        block = self._blocks[at]
        if block.levels[place] + block.lift != self._before(at, place):
            return
        block.cut(place, place + 1)
        if not block.times:
            del self._blocks[at], self._firsts[at]
            return
        self._firsts[at] = block.times[0]
        if at and len(block.times) + len(self._blocks[at - 1].times) <= BLOCK:
            self._blocks[at - 1].join(block)
            del self._blocks[at], self._firsts[at]
