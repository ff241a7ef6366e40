"""A lease that is put aside on hosts that have no room for it, while others of the site have: it
goes to those first, as it is put aside, and goes on there.

Nothing is reserved for when it is there: it goes on as any other does then, where there is room.
So it is brought elsewhere a few times at most.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.amounts import fixed_amounts, with_room_for_memory
from intertie.broker.domain.beginning import Beginning
from intertie.broker.domain.board import Room
from intertie.broker.domain.fleet import Policy, SeenPart
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of, free_hosts
from intertie.broker.domain.migrating import (
    check_free_to_move,
    check_kept,
    check_room,
    may_take,
    on_its_way,
)
from intertie.broker.domain.pace import paces_of, to_send
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.placement import place
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.snapshots import under_way
from intertie.broker.domain.stretches import is_saved
from intertie.common.errors import DomainError, NoCapacity
from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.values import replace

TRIES = 2
"""From one stretch to the next."""
LOOKED_AT = 8
"""The first of those that wait."""
_S = timedelta(seconds=1)


def brought_elsewhere(
    view: LedgerView, names: Sequence[str], policy: Policy, *, now: datetime
) -> Change | None:
    """The first of these clusters, in their order, that is better gone on with elsewhere is on its
    way there; None where none is. One at a time, as it takes of what hosts send and write."""
    parts = {
        name: found for name in names[:LOOKED_AT] if (found := _put_aside(view, name)) is not None
    }
    waiting = (view.parts.get(each.value.part) for each in view.in_line())
    if any(each is not None and each.value.moving for each in waiting):
        return None
    for name, part in parts.items():
        after = _elsewhere(name, part.value, view, policy, now=now)
        if after is not None:
            write = Write(record=after, read_at=part.revision)
            return Change(writes=(write,), admitted_on=view.generation)
    return None


def is_on_its_way(part: Part, seen: Mapping[str, SeenPart]) -> bool:
    """It is not where it is to go on, or not all of its hosts say yet that it is."""
    went = part.keeping is not None and part.keeping.saved
    return bool(part.moving) or (went and not is_saved(part, seen))


def _put_aside(view: LedgerView, name: str) -> Versioned[Part] | None:
    part = view.parts.get(view.clusters[name].value.part)
    keeping = part.value.keeping if part is not None else None
    if keeping is None or keeping.until is None or keeping.moves >= TRIES:
        return None
    return part


def _elsewhere(
    name: str, part: Part, view: LedgerView, policy: Policy, *, now: datetime
) -> Part | None:
    """As few of it as are enough; None where it may not go, or had better wait where it is."""
    try:
        check_kept(part, view.seen.get(part.uid, {}), now=now)
        check_free_to_move(part, now=now)
    except DomainError:
        return None
    calendar = calendar_of(view, policy)
    paces = paces_of(view, policy)
    opening = Beginning(view.clusters[name].value, view, calendar, policy, paces, now)
    there = now + to_send([(part.spec, part.placed)], view)
    window = Window(there, there + opening.span_s * _S)
    full = {each.host for each in opening.short(window) if each.host}
    copied = under_way(part, view.seen.get(part.uid, {}))
    stays = copied.union(each.label for each in part.spec.workspaces if each.disks)
    on_full = [
        each.workspace for each in part.placed if each.host in full and each.workspace not in stays
    ]
    free = free_hosts(calendar, view, policy, window, now=now)
    found = None
    fewest, most = 1, len(on_full)
    while fewest <= most:
        count = (fewest + most) // 2
        labels = on_full[:count]
        try:
            placed = _placed(part, labels, full, free, view, policy)
            after = part
            for label in labels:
                host = hosts_of(placed)[label]
                after = on_its_way(part, after, label, host, aside=True, now=now)
            check_room(part, after, view, policy, now=now)
        except NoCapacity:
            most = count - 1  # nor for more
            continue
        if opening.would_fit(placed, window):
            found, most = after, count - 1
        else:
            fewest = count + 1
    if found is None or found.keeping is None:
        return None
    return replace(found, keeping=replace(found.keeping, moves=found.keeping.moves + 1))


def _placed(
    part: Part,
    labels: Sequence[str],
    full: set[str],
    free: Mapping[str, Vector],
    view: LedgerView,
    policy: Policy,
) -> tuple[Placed, ...]:
    """With those on hosts that have room for them to go on. `free`: what hosts have over that
    window. NoCapacity."""
    assert part.keeping is not None
    spec = with_room_for_memory(part.spec, part.keeping.mib_s)
    needs = {each.label: fixed_amounts(each) for each in spec.workspaces}
    fixed = {each.workspace: each.host for each in part.placed if each.workspace not in labels}
    free = dict(free)
    for each in part.placed:
        if each.host in free:
            # What is kept of it there is not free, and is its own.
            own = free[each.host].disk_mib + needs[each.workspace].disk_mib
            free[each.host] = replace(free[each.host], disk_mib=own)
    for label, host in fixed.items():
        if host in free:
            free[host] = free[host] - needs[label]
    here, facts = hosts_of(part.placed), view.fleet.facts
    moved = {
        (here[each.label], each.environment.hypervisor)
        for each in spec.workspaces
        if each.label in labels
    }
    rooms = {
        host: Room(facts=facts[host], free=room)
        for host, room in free.items()
        if host not in full
        and all(may_take(facts, source, host, asked, aside=True) for source, asked in moved)
    }
    return place(spec, rooms, site=policy.site, fixed=fixed)
