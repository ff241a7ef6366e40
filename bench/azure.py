"""Virtual machines that tenants of a public cloud asked for together, as a trace has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from intertie.common.errors import FieldInvalid
from intertie.common.quantities import Vector

ARRIVALS, DURATIONS = "v1.dev.txt", "v1.dev.c2100000.txt"
FLAVOURS, INTERVALS = "flav_map.txt", "v1.interval_map.txt"
FILES = (ARRIVALS, DURATIONS, FLAVOURS, INTERVALS)
BIN_S = 300
"""A line of the trace."""
END = "|"
"""Of a batch."""
MIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one tenant asked for at one time: all of it is wanted together, until the last of its
    machines ends."""

    id: int
    arrival_s: int
    """From the first line on."""
    duration_s: int
    counts: Mapping[str, int]
    """Of each flavour."""

    @property
    def end_s(self) -> int:
        return self.arrival_s + self.duration_s

    @property
    def machines(self) -> int:
        return sum(self.counts.values())


def read_flavours(folder: Path) -> dict[str, Vector]:
    """FieldInvalid where the file has not what it is to have; so for the next."""
    try:
        return dict(map(_flavour, _lines(folder / FLAVOURS)))
    except ValueError as error:
        raise FieldInvalid(FLAVOURS, f"is no table of flavours: {error}") from error


def read_batches(folder: Path, flavours: Mapping[str, Vector]) -> tuple[Batch, ...]:
    """In order of arrival. Of a duration the trace has an interval, of which the end counts; and of
    what ran on at the trace's end, how long it had run by then."""
    try:
        return tuple(_batches(folder, flavours))
    except (ValueError, KeyError) as error:
        raise FieldInvalid(ARRIVALS, f"is no trace of batches: {error!r}") from error


def _batches(folder: Path, flavours: Mapping[str, Vector]) -> Iterator[Batch]:
    longest_s = _intervals(folder)
    first_s: int | None = None
    number = 0
    lines = zip(_lines(folder / ARRIVALS), _lines(folder / DURATIONS), strict=True)
    for asked, lasted in lines:
        (at, names), (same, spans) = asked.split(" ", 1), lasted.split(" ", 1)
        if at != same:
            raise ValueError(f"{at} in one file is {same} in the other")
        if first_s is None:
            first_s = int(at)
        machines: list[str] = []
        longest = 0
        for name, span in zip(names.split(","), spans.split(","), strict=True):
            if name != END:
                if name not in flavours:
                    raise ValueError(f"no flavour is called {name}")
                machines.append(name)
                longest = max(longest, longest_s[int(span[1:])])
            elif machines:
                yield Batch(
                    id=number,
                    arrival_s=int(at) - first_s,
                    duration_s=longest,
                    counts=dict(sorted(Counter(machines).items())),
                )
                number += 1
                machines, longest = [], 0


def _intervals(folder: Path) -> dict[int, int]:
    """The longest of each, and a line of the trace at least."""
    found: dict[int, int] = {}
    for line in _lines(folder / INTERVALS):
        seconds, number = map(int, line.split())
        found[number] = max(found.get(number, BIN_S), seconds)
    return found


def _flavour(line: str) -> tuple[str, Vector]:
    amounts, name = line.split()
    vcpus, gib = amounts.split(",")
    return name, Vector(vcpus=int(vcpus), memory_mib=round(float(gib) * MIB))


def _lines(path: Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8").splitlines()
