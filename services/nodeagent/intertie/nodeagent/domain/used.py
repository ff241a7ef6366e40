"""What workspaces have used, added up from counters that begin anew whenever their guest or its
NICs are made anew, and over restarts of the agent.

What was used between the last reading and the end of what was read is lost; it is never guessed.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.common.values import Struct, field, replace

GUEST = "guest"
"""Key of the guest's own counters, beside its taps by their names."""


class Mark(Struct, frozen=True, kw_only=True):
    """Counters that begin at 0 together, as they were read."""

    made: str
    """Another one, when they began anew."""
    counts: tuple[int, ...]


class Tally(Struct, frozen=True, kw_only=True):
    """Of one workspace, since it first was on this host."""

    part_uid: str
    workspace: str
    read_time: datetime
    cpu_ns: int = 0
    disk_operations: int = 0
    disk_bytes: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    suspended: timedelta = timedelta()
    was_suspended: bool = False
    marks: Mapping[str, Mark] = field(default_factory=dict)


class Tallies(Struct, frozen=True, kw_only=True):
    """All of a host, by uid of the workspace, as they are kept."""

    tallies: Mapping[str, Tally]


def guest_mark(made: str, *, cpu_ns: int, disk_operations: int, disk_bytes: int) -> Mark:
    return Mark(made=made, counts=(cpu_ns, disk_operations, disk_bytes))


def nic_mark(made: str, *, sent_bytes: int, received_bytes: int) -> Mark:
    return Mark(made=made, counts=(sent_bytes, received_bytes))


def counted(tally: Tally, marks: Mapping[str, Mark], *, suspended: bool, at: datetime) -> Tally:
    """With what was used since the last reading. What was not read now is known as it was: its
    guest is off, or libvirt silent. Time counts as suspended between two readings of which both
    saw the workspace so."""
    at = max(at, tally.read_time)
    guest, nics = (0, 0, 0), (0, 0)
    for key, mark in marks.items():
        gained = _gained(tally.marks.get(key), mark)
        if key == GUEST:
            guest = _three(gained)
        else:
            nics = (nics[0] + gained[0], nics[1] + gained[1])
    still = at - tally.read_time if suspended and tally.was_suspended else timedelta()
    return replace(
        tally,
        read_time=at,
        cpu_ns=tally.cpu_ns + guest[0],
        disk_operations=tally.disk_operations + guest[1],
        disk_bytes=tally.disk_bytes + guest[2],
        sent_bytes=tally.sent_bytes + nics[0],
        received_bytes=tally.received_bytes + nics[1],
        suspended=tally.suspended + still,
        was_suspended=suspended,
        marks={**tally.marks, **marks},
    )


def _gained(last: Mark | None, now: Mark) -> tuple[int, ...]:
    """All that they count where they began anew since, which is also seen from one that fell."""
    if last is None or last.made != now.made or len(last.counts) != len(now.counts):
        return now.counts
    if any(new < old for old, new in zip(last.counts, now.counts, strict=True)):
        return now.counts
    return tuple(new - old for old, new in zip(last.counts, now.counts, strict=True))


def _three(counts: tuple[int, ...]) -> tuple[int, int, int]:
    cpu_ns, operations, octets = counts
    return cpu_ns, operations, octets
