"""How a lease with a deadline is put off so that it is still done in time: what its part becomes.

Such a part always has room on record for all that is left of it: its window, or one that is
promised. Whoever is admitted later counts that as he counts any other part.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

from intertie.broker.domain.amounts import host_key
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.pace import Paces
from intertie.broker.domain.part import Part
from intertie.broker.domain.stretches import LEAST, left_of, put_aside
from intertie.common.calendar import Calendar
from intertie.common.intervals import Window
from intertie.common.values import replace

SLACK = timedelta(seconds=30)
"""Room that is promised begins so much before it has to: a leader is to decide then that it goes
on, and may just be another one."""
TRIED = 8
"""Windows that one may be put off to, from the latest that there could be on."""


def put_off(
    part: Part,
    record: ClusterRecord,
    at: datetime,
    calendar: Calendar,
    paces: Paces,
    policy: Policy,
    *,
    now: datetime,
) -> Iterator[Part]:
    """The part as it leaves its room from `at` on to others, if there is room for it then, the
    latest first. One that no host has been told of begins later; any other is put aside."""
    if part.window.start > now and not part.generation:
        length = part.window.duration
        for start in _starts(part, record, part.window.start, length, calendar):
            if start > part.window.start:
                yield moved(part, record, start)
    if at <= part.window.start > now:
        return
    aside = put_aside(part, record, at, paces, policy, now=now)
    assert aside.keeping is not None
    assert part.keeping is not None
    over = aside.window.end
    ran = max(over - part.window.start - part.keeping.restore, timedelta())
    restore = paces.restore(part.spec, part.placed)
    length = SLACK + restore + max(left_of(record) - ran, LEAST)
    for start in _starts(part, record, over + aside.keeping.save, length, calendar):
        room = Window(start, start + length)
        yield replace(aside, keeping=replace(aside.keeping, promised=room, until=room.end))


def moved(part: Part, record: ClusterRecord, start: datetime) -> Part:
    """The part with a window from then on for all that is left of it, or until its deadline, at the
    price that was agreed on for the one that it had. That may have been shorter, where it went on
    late by the clock of a leader before. What is over of it costs what it did."""
    assert part.keeping is not None
    assert record.spec.lease.deadline is not None
    runs = start + part.keeping.restore
    end = min(runs + left_of(record), record.spec.lease.deadline)
    last = tuple(replace(each, window=Window(runs, end)) for each in part.price[-1:])
    return replace(
        part,
        spec=replace(part.spec, window=Window(start, end)),
        price=(*part.price[:-1], *last),
        charged=tuple(replace(each, until=min(each.until, start)) for each in part.charged),
        terms=part.terms + 1,
    )


def _starts(
    part: Part, record: ClusterRecord, earliest: datetime, length: timedelta, calendar: Calendar
) -> Iterator[datetime]:
    """The latest at which it is done in time, then those at which it is done when something else
    begins on its hosts."""
    deadline = record.spec.lease.deadline
    assert deadline is not None
    changes = {
        moment
        for host in part.hosts()
        for moment in calendar.moments(host_key(host, "vcpus"))
        if earliest + length <= moment < deadline
    }
    ends = (deadline, *sorted(changes, reverse=True))
    return (end - length for end in islice(ends, TRIED) if end - length >= earliest)
