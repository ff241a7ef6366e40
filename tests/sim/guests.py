"""What must hold of guests: what hosts had of them, at every moment, and not what records say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.services import CAPACITY

if TYPE_CHECKING:
    from tests.sim.record import Record

RUNS = frozenset({"start", "restore", "restored", "resume", "change", "save"})
"""After which a guest has its memory and its processors, and may write to its disk."""
BEGINS = frozenset({"start", "restore"})
MOMENT_S = 1.0
"""A pass of an agent stops one guest and starts another in any order."""
LATE_S = 10.0
"""So long guests may have more processors than their host: clocks are 0.9 s off, passes 2 s apart,
and an agent that was cut off begins others while it saves what it was to have saved before."""
MOVES = {"save": "it is being saved", "restore": "it is being restored"}


@dataclass(slots=True)
class _There:
    host: str
    vcpus: int
    memory_mib: int


def broken_guests(record: Record) -> Iterator[str]:
    """A workspace runs once at most, nothing is started on a disk that is being written to, and a
    host's guests have no more than it has, but for moments. Processors, at which agents do not look
    (ADR 20), may be late by more, and by as long as an agent stands still between what it starts
    and what it saves."""
    running: dict[tuple[str, str], _There] = {}
    moving: dict[tuple[str, str], str] = {}
    saved: dict[tuple[str, str, str], bool] = {}
    """Whether what is kept of its memory is as new as its disk."""
    last, crowded = 0.0, dict[tuple[str, str], float]()
    for each in record.guests:
        if each.at > last + MOMENT_S:
            yield from _too_much(running, last)
        yield from _too_long(record, running, crowded, last, each.at)
        last = each.at
        key, what = (each.site, each.domain), each.what
        at = f"{each.at:.3f} {each.site}/{each.host}"
        there = running.get(key)
        if what in BEGINS and there is not None:
            where = "it runs there" if there.host == each.host else f"it runs on {there.host}"
            yield f"{at}: {what} of {each.domain}, and {where} already: two writers on one disk"
        if what == "resume" and key in moving:
            yield f"{at}: {what} of {each.domain}, and {moving[key]}: two writers on one disk"
        if what == "restore" and not saved.get((*key, each.host)):
            yield f"{at}: {each.domain} goes on from a memory that is older than its disk"
        if what in ("saved", "start", "resume"):
            saved[(*key, each.host)] = what == "saved"
        if what in MOVES:
            moving[key] = MOVES[what]
        elif what != "change":
            moving.pop(key, None)
        if what in RUNS:
            # One whose memory is moved stands still.
            vcpus = 0 if what in MOVES else each.vcpus
            running[key] = _There(each.host, vcpus, each.memory_mib)
        elif there is not None and there.host == each.host:
            del running[key]


def _too_much(running: dict[tuple[str, str], _There], at: float) -> Iterator[str]:
    use: Counter[tuple[str, str]] = Counter()
    for (site, _), each in running.items():
        use[site, each.host] += each.memory_mib
    for (site, host), amount in use.items():
        if amount > (most := CAPACITY["memory_mib"]):
            yield f"{at:.3f} {site}/{host}: guests have {amount} of {most} MiB"


def _too_long(
    record: Record,
    running: dict[tuple[str, str], _There],
    crowded: dict[tuple[str, str], float],
    since: float,
    until: float,
) -> Iterator[str]:
    """`crowded`: since when hosts are whose guests have more processors than they have."""
    use: Counter[tuple[str, str]] = Counter()
    for (site, _), each in running.items():
        use[site, each.host] += each.vcpus
    for where in [each for each in crowded if use[each] <= CAPACITY["vcpus"]]:
        del crowded[where]
    for (site, host), amount in use.items():
        if amount <= (most := CAPACITY["vcpus"]):
            continue
        begin = crowded.setdefault((site, host), since)
        if begin + LATE_S < until and not _stands(record, site, host, begin):
            crowded[site, host] = until
            what = f"guests have {amount} of {most} vCPUs for {until - begin:.1f} s"
            yield f"{begin:.3f} {site}/{host}: {what}"


def _stands(record: Record, site: str, host: str, at: float) -> bool:
    """Whether the host's agent stood still then."""
    agent = f"agent-{site}-{host}"
    return any(
        each.service == agent and each.begin - MOMENT_S <= at <= each.end + MOMENT_S
        for each in record.paused
    )
