"""Which of the leases that wait for room at several sites start now, and when the others would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from intertie.common.errors import Shortfall
from intertie.common.intervals import Window
from intertie.common.leasing.backfilling import Backfilling
from intertie.common.leasing.lease import Lease
from intertie.metasched.domain.explain import shortfalls
from intertie.metasched.domain.in_time import goes_on_by
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.rooms import Rooms
from intertie.metasched.domain.rounds import Start, round_of

LOOKED_AT = 8
"""The first of those that wait may start in one pass, and are told when they would: each costs its
sites an offer of ten windows, and some solutions of its problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What sites offer to the first that wait."""

    starts: tuple[datetime, ...]
    problems: Mapping[str, Problem]
    """By the lease's name; a window for each start."""

    def rooms(self, effort: float) -> Rooms:
        return Rooms(self.problems, self.starts, partial(best_plan, effort=effort))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    foreseen: datetime | None
    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...]


def starting(
    line: Sequence[Lease], looked: Looked, backfilling: Backfilling, *, effort: float
) -> list[Start]:
    """Those that have room and put off nobody before them."""

    def span(lease: Lease) -> int:
        return lease.left_s(0)

    free = looked.rooms(effort)
    begun = backfilling.starts(line, free, free.untaken(), span, span, free.now_s)
    return round_of(line, begun, free)


def outlooks(
    line: Sequence[Lease],
    promised: Mapping[str, Window],
    looked: Looked,
    *,
    now: datetime,
    effort: float,
) -> dict[str, Outlook]:
    """What becomes of each, if nothing else comes: it gets the first start that puts off none
    before it. `promised`: by name, when it goes on at the latest."""
    rooms = looked.rooms(effort)
    found: dict[str, Outlook] = {}
    for before, lease in enumerate(line):
        name = lease.request.name
        room = promised.get(name)
        latest = room.start if room is not None else None
        sure = (goes_on_by(room),) if room is not None else ()
        if before >= LOOKED_AT:
            said = f"{LOOKED_AT} or more are before it in the queue"
            found[name] = Outlook(foreseen=latest, reasons=(said, *sure), shortfalls=())
            continue
        at_s = rooms.earliest(lease, lease.left_s(0), rooms.now_s)
        foreseen = rooms.moment(at_s) if at_s is not None else None
        short = () if foreseen == now else rooms.short(lease, partial(shortfalls, effort=effort))
        if latest is not None:
            foreseen = min(foreseen or latest, latest)
        if at_s is not None:
            rooms.take(lease, at_s, at_s + lease.left_s(0))
        line_said = f"{before} before it in the queue" if before else "first in the queue"
        found[name] = Outlook(
            foreseen=foreseen,
            reasons=(line_said, *(() if short else ("there is room for it",)), *sure),
            shortfalls=short,
        )
    return found
