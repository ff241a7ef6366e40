"""Hosts that stop reporting: when one is lost, and when it may come back.

Silence is what this leader has watched itself, by a clock that never jumps. A leader that is new,
was paused or could not look begins anew with every host: while it was away nobody was silent.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum

from intertie.broker.domain.fleet import ALIVE_FOR, HostFacts
from intertie.broker.domain.link_reservations import LinkReservation
from intertie.common.errors import IllegalMove
from intertie.common.values import Struct, field, replace

LONGEST_GAP = timedelta(seconds=10)
"""Between two looks, for what is seen at the second to say anything of the time between."""


class HostState(Enum):
    UP = "UP"
    SILENT = "SILENT"
    FENCING = "FENCING"
    FENCED = "FENCED"


NEXT: dict[HostState, frozenset[HostState]] = {
    HostState.UP: frozenset({HostState.SILENT}),
    HostState.SILENT: frozenset({HostState.UP, HostState.FENCING}),
    HostState.FENCING: frozenset({HostState.UP, HostState.FENCED}),
    HostState.FENCED: frozenset({HostState.UP}),
}
"""Every edge there is. docs/states.md is drawn from this table by a test."""

HELD = frozenset({HostState.FENCING, HostState.FENCED})
"""Nothing new is placed there, whatever the host says of itself."""


class HostRecord(Struct, frozen=True, kw_only=True):
    name: str
    """Of the host."""
    state: HostState = HostState.UP
    epoch: int = 0
    """How often it was begun to be fenced."""
    since: datetime
    why: str = ""
    reserved: tuple[LinkReservation, ...] = ()
    """Of a gateway: what it leaves of links for others than clusters' networks."""

    def move(self, to: HostState, *, now: datetime, why: str = "") -> "HostRecord":
        """The host after one step. `now` is given, never asked for."""
        if to not in NEXT[self.state]:
            raise IllegalMove(f"{self.name}: {self.state.name} to {to.name}")
        epoch = self.epoch + (to is HostState.FENCING)
        return replace(self, state=to, epoch=epoch, since=now, why=why)


class Heard(Struct, frozen=True, kw_only=True):
    """When a host last gave a sign of life, as far as this leader knows."""

    revision: int
    """Of its facts."""
    at: float
    """On the steady clock, in seconds."""
    itself: bool = False
    """It was seen to report; else it is only since then that somebody watches."""

    def silent_for(self, *, at: float) -> timedelta:
        return timedelta(seconds=at - self.at)

    def is_back(self, *, at: float) -> bool:
        return self.itself and self.silent_for(at=at) <= ALIVE_FOR


class Vigil(Struct, frozen=True, kw_only=True):
    """All that a leader has seen of its hosts' signs of life."""

    heard: Mapping[str, Heard] = field(default_factory=dict)
    looked: float | None = None

    def look(self, facts: Iterable[HostFacts], *, at: float) -> "Vigil":
        """After another look at what hosts report, at a moment of the steady clock."""
        gap = self.looked is None or at - self.looked > LONGEST_GAP.total_seconds()
        known = {} if gap else self.heard
        return Vigil(heard={each.host: _heard(known, each, at) for each in facts}, looked=at)


def _heard(known: Mapping[str, Heard], facts: HostFacts, at: float) -> Heard:
    before = known.get(facts.host)
    if before is None:
        return Heard(revision=facts.revision, at=at)
    if before.revision == facts.revision:
        return before
    return Heard(revision=facts.revision, at=at, itself=True)


class Watched(Struct, frozen=True, kw_only=True):
    """What the next step of a host is judged by."""

    record: HostRecord
    facts: HostFacts
    silent_for: timedelta
    is_back: bool
    has_parts: bool
    """Something that counts is on it, or was told to it."""


def next_of(
    watched: Watched, *, lost_after: timedelta, fences: bool, many: bool, now: datetime
) -> HostRecord | None:
    """What becomes of the host by what is seen of it; None: it stays as it is. FENCED is not among
    it: that is for a fence to say.

    `many`: more than half of the site's hosts are silent, and nothing is fenced for that."""
    record = watched.record
    match record.state:
        case HostState.UP if watched.silent_for >= lost_after:
            return record.move(HostState.SILENT, now=now, why="it does not report")
        case HostState.SILENT | HostState.FENCING if watched.is_back:
            return record.move(HostState.UP, now=now, why="it reports again")
        case HostState.SILENT if many:
            return _because(record, "not fenced while more than half of the hosts are silent")
        case HostState.SILENT if fences:
            return record.move(HostState.FENCING, now=now, why="it does not report")
        case HostState.SILENT:
            return _because(record, "no way to fence is set, so nothing of it is begun elsewhere")
        case HostState.FENCED if watched.is_back and not watched.has_parts:
            if watched.facts.fenced_epoch == record.epoch:
                return record.move(HostState.UP, now=now, why="it is back, and runs nothing")
    return None


def let_go(record: HostRecord, *, now: datetime) -> HostRecord:
    """Of a host that is admitted no more, and has nothing that counts. The record stays for its
    epoch: were it to begin anew, an agent could have obeyed the next one already."""
    return record.move(HostState.UP, now=now, why="it is admitted no more")


def _because(record: HostRecord, why: str) -> HostRecord | None:
    return None if record.why == why else replace(record, why=why)


def are_many(hosts: Iterable[Watched]) -> bool:
    """More than half are silent, of those that are not fenced: then it may be the watcher who is
    cut off."""
    left = [each for each in hosts if each.record.state is not HostState.FENCED]
    silent = [
        each
        for each in left
        if each.record.state is not HostState.UP or each.silent_for > ALIVE_FOR
    ]
    return 2 * len(silent) > len(left)
