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
MOVES = {"save": "it is being saved", "restore": "it is being restored"}


@dataclass(slots=True)
class _There:
    host: str
    vcpus: int
    memory_mib: int


def broken_guests(record: Record) -> Iterator[str]:
    """A workspace runs once at most, nothing is started on a disk that is being written to, and a
    host's guests have no more than it has, but for moments. An agent that stands still between
    what it starts and what it saves has both with their processors: those are what agents do not
    look at (ADR 20)."""
    running: dict[tuple[str, str], _There] = {}
    moving: dict[tuple[str, str], str] = {}
    saved: dict[tuple[str, str, str], bool] = {}
    """Whether what is kept of its memory is as new as its disk."""
    last = 0.0
    for each in record.guests:
        if each.at > last + MOMENT_S:
            yield from _too_much(record, running, last)
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


def _too_much(record: Record, running: dict[tuple[str, str], _There], at: float) -> Iterator[str]:
    use: Counter[tuple[str, str, str]] = Counter()
    for (site, _), each in running.items():
        use[site, each.host, "vcpus"] += each.vcpus
        use[site, each.host, "memory_mib"] += each.memory_mib
    for (site, host, what), amount in use.items():
        if amount > CAPACITY[what] and not (what == "vcpus" and _stands(record, site, host, at)):
            yield f"{at:.3f} {site}/{host}: guests have {amount} of {CAPACITY[what]} {what}"


def _stands(record: Record, site: str, host: str, at: float) -> bool:
    """Whether the host's agent stood still then."""
    agent = f"agent-{site}-{host}"
    return any(
        each.service == agent and each.begin - MOMENT_S <= at <= each.end + MOMENT_S
        for each in record.paused
    )
