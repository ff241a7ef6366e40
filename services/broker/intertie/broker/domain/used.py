"""What workspaces have used, as their hosts count it, and what of it belongs into a record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from intertie.broker.domain.counted import Used, UsedAt
from intertie.broker.domain.fleet import SeenPart
from intertie.broker.domain.part import Part
from intertie.common.intervals import Window
from intertie.common.values import Struct

LATE = timedelta(minutes=1)
"""By so much the last reading may be older than the end of a period. Hosts tell each half minute;
before its end a guest is off, and is read once more within seconds of it."""


class UsedIn(Struct, frozen=True, kw_only=True):
    """What a workspace used over a period, as far as that is known."""

    workspace: str
    used: Used | None
    """None: nothing is known. Its `read_time` is up to when it is."""
    unknown: bool
    """Of some of the period nothing is known, or nothing at all."""


Known = dict[tuple[str, str], Used]
"""By host and workspace."""


def known_of(part: Part, seen: Mapping[str, SeenPart]) -> Known:
    """The newest of what is on record with the part and of what hosts say now. A host is heard on
    what it has, or has not given up yet, and on nothing else."""
    known = {(each.host, each.workspace): each.used for each in part.used}
    placed = (part.placed, *(shed.placed for shed in part.shed))
    there = {(each.host, each.workspace) for terms in placed for each in terms}
    there.update((each.host, each.workspace) for each in part.left)
    for host, report in seen.items():
        for each in report.workspaces:
            if each.used is None or (host, each.name) not in there:
                continue
            before = known.get((host, each.name))
            if before is None or before.read_time < each.used.read_time:
                known[host, each.name] = each.used
    return known


def on_record(known: Known) -> tuple[UsedAt, ...]:
    return tuple(
        UsedAt(host=host, workspace=workspace, used=used)
        for (host, workspace), used in sorted(known.items(), key=lambda each: each[0])
    )


def written_after(written: Iterable[UsedAt], known: Known) -> tuple[UsedAt, ...]:
    """What all records say, with the one that says what is known now. Of whom nothing is known any
    more it stays: it may come back, and its host goes on counting where it was."""
    before = {(each.host, each.workspace): each.used for each in written}
    return on_record(before | known)


def used_in(
    period: Window, workspaces: Sequence[str], written: Iterable[UsedAt], known: Known
) -> Iterator[UsedIn]:
    """Of the workspaces that were reserved, and of others that have used something since the record
    before: what is known now beyond what was `written`. A host that counts less than it did has
    lost its count: what it had not told is not known, and nothing is written twice."""
    before = {(each.host, each.workspace): each.used for each in written}
    names = dict.fromkeys((*workspaces, *(workspace for _, workspace in sorted(known))))
    for name in names:
        of_it = {key: used for key, used in known.items() if key[1] == name}
        pieces = [_beyond(before.get(key), used) for key, used in sorted(of_it.items())]
        lost = any(fell for _, fell in pieces)
        found = _sum([piece for piece, _ in pieces])
        if name in workspaces:
            late = found is None or found.read_time < period.end - LATE
            yield UsedIn(workspace=name, used=found, unknown=late or lost)
        elif found is not None and found.amounts() != Used.NOTHING:
            yield UsedIn(workspace=name, used=found, unknown=lost)


def _beyond(before: Used | None, now: Used) -> tuple[Used, bool]:
    if before is None:
        return now, False
    if any(new < old for old, new in zip(before.amounts(), now.amounts(), strict=True)):
        return Used(read_time=now.read_time), True
    return now.less(before), False


def _sum(pieces: Sequence[Used]) -> Used | None:
    """Known up to when the host is heard that was heard last: a workspace is at one at a time."""
    found: Used | None = None
    for each in pieces:
        found = found.plus(each) if found else each
    return found
