"""Malleable leases of a site and its queue: what they can do without is for the first in line, and
they get more of what nobody in line could use before they are over."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import islice

from intertie.broker.domain.beginning import Beginning, openings_of
from intertie.broker.domain.elsewhere import is_on_its_way
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import with_fewer, writes_of
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.malleable import Resized, grown, more_for
from intertie.broker.domain.openings import Openings
from intertie.broker.domain.preemptible import being_given_up, running_leases, with_no_other_terms
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.running import Running
from intertie.broker.domain.stretches import GIVEN_UP_WITHIN
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.leasing.lease import Lease
from intertie.common.values import replace

IN_LINE_AT_MOST = 16
"""Where more wait, nobody gets more: to see what of the room these could use costs too much."""
LOOKED_AT = 16
"""Of those that would get more, so many are tried at a time, in the policy's order."""
_S = timedelta(seconds=1)


def room_for(
    line: Sequence[Lease], view: LedgerView, policy: Policy, *, now: datetime
) -> Change | None:
    """Others go on with fewer workspaces, as few as are enough, so that the first of these that
    waits for room alone can begin once those are gone. None where it can without, or cannot for all
    that."""
    calendar = calendar_of(view, policy)
    openings = openings_of(view, line[:IN_LINE_AT_MOST], calendar, policy, now)
    opening = next((each for each in openings.values() if not each.held_up()), None)
    if opening is None:
        return None
    moments = (now, *being_given_up(view, now))
    if any(opening.take(_window(opening, at)) is not None for at in moments):
        return None
    by = now + GIVEN_UP_WITHIN

    def begins(_: LedgerView) -> None:
        if opening.take(_window(opening, by)) is None:
            raise NoCapacity(())

    found = with_fewer(begins, by, replace(view, demands=calendar), policy, now=now)
    if found is None:
        return None
    _, fewer = found
    return Change(writes=tuple(writes_of(fewer, now=now)), admitted_on=view.generation)


def more(
    line: Sequence[Lease],
    but: Collection[str],
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> tuple[Resized, Change] | None:
    """One that runs gets all that it may have and there is room for until it ends, beside the first
    start of each in line; None where none does, nor while one in line is on its way to hosts that
    have room for it now. `but`: names of clusters that do not."""
    may = _looked_at(but, view, policy, now=now)
    if not may or len(line) > IN_LINE_AT_MOST or any(_is_on_its_way(each, view) for each in line):
        return None
    calendar = calendar_of(view, policy)
    openings = openings_of(view, line, calendar, policy, now)
    with Openings(calendar, openings, now=now) as free:
        for lease in line:
            opening = openings[lease.request.name]
            at_s = free.earliest(lease, opening.span_s, free.now_s)
            if at_s is not None:
                free.take(lease, at_s, at_s + opening.full_s)
        beside = replace(view, demands=calendar)
        for record, part in may:
            after = grown(record.value, part, beside, policy, now=now)
            if after is not None:
                writes = (
                    Write(record=after.part, read_at=view.parts[part.name].revision),
                    Write(record=after.record, read_at=record.revision),
                )
                return after, Change(writes=writes, admitted_on=view.generation)
    return None


def looked_at(
    but: Collection[str], view: LedgerView, policy: Policy, *, now: datetime
) -> list[str]:
    """Names of the clusters for which `more` looks for room, but for those."""
    return [record.value.name for record, _ in _looked_at(but, view, policy, now=now)]


def _looked_at(
    but: Collection[str], view: LedgerView, policy: Policy, *, now: datetime
) -> list[Running]:
    running = [
        each
        for each in with_no_other_terms(running_leases(view, now=now), view)
        if each[0].value.name not in but
    ]
    return list(islice(more_for(running, view, policy, now=now), LOOKED_AT))


def _is_on_its_way(lease: Lease, view: LedgerView) -> bool:
    part = view.parts.get(view.clusters[lease.request.name].value.part)
    return part is not None and is_on_its_way(part.value, view.seen.get(part.value.uid, {}))


def _window(opening: Beginning, at: datetime) -> Window:
    return Window(at, at + opening.span_s * _S)
