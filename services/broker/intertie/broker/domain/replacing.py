"""What becomes of a part that has something on a lost host: another placement, or its end."""

from collections.abc import Collection, Iterator
from datetime import datetime

from intertie.broker.domain.amounts import with_room_for_memory
from intertie.broker.domain.board import Room
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import more_of, shortfalls_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.part import Moved, Part, PartState
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.placement import place
from intertie.broker.domain.planning import free_hosts_over
from intertie.broker.domain.terms import AmendState
from intertie.broker.domain.used import known_of, on_record
from intertie.common.calendar import Calendar
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.spec import OnHostLoss
from intertie.common.values import Struct, replace


class Replaced(Struct, frozen=True, kw_only=True):
    """The part with other hosts for what was on those."""

    part: Part


class Over(Struct, frozen=True, kw_only=True):
    """The part cannot go on, and why."""

    why: str
    shortfalls: tuple[Shortfall, ...] = ()


def concerned(part: Part, hosts: Collection[str]) -> bool:
    """It counts, its end is not asked for, and something of it is on one of the hosts."""
    if not part.counted or part.end_requested_time is not None:
        return False
    return part.gateway in hosts or any(each.host in hosts for each in part.placed)


def without(
    part: Part, lost: Collection[str], view: LedgerView, policy: Policy, *, now: datetime
) -> Replaced | Over | None:
    """All of the part that was on lost hosts goes elsewhere, with all that it is promised, or none
    of it; None while nothing can be done: its fate, or that of its next terms, is with its
    coordinator. Those say where its workspaces are, and must not say it of what was moved since.

    The hosts must be known not to run anything of it, now or when they come back. Other terms that
    are held for it go, as they would be on those hosts too; prepared ones are decided first."""
    if part.bound:
        return None
    part = part.let_go(AmendState.RELEASED)
    if _may_run_elsewhere(part, lost):
        return None
    found = _found(part, lost, view, policy, now=now)
    if isinstance(found, Over) and part.state is not PartState.CONFIRMED:
        return None
    return found


def _found(
    part: Part, lost: Collection[str], view: LedgerView, policy: Policy, *, now: datetime
) -> Replaced | Over:
    names = ", ".join(sorted(host for host in part.hosts() if host in lost))
    begun = _has_begun(part, now=now)
    if part.gateway in lost:
        return Over(why=f"host {part.gateway} was lost, the gateway that other sites know")
    if part.keeping is not None and now >= part.window.end:
        return Over(why=f"host {names} was lost, and with it the memory that was kept there")
    ends = [label for label in _labels_on(part, lost) if begun and _ends(part, label)]
    if ends:
        return Over(why=f"host {names} was lost, and with it {', '.join(ends)}")
    try:
        return Replaced(part=_placed_anew(part, lost, view, policy, now=now))
    except NoCapacity as error:
        return Over(
            why=f"host {names} was lost, and there is no room for what was on it: {error}",
            shortfalls=error.shortfalls,
        )


def _may_run_elsewhere(part: Part, lost: Collection[str]) -> bool:
    """Something of the part that was on a lost host was on its way to another one, which has not
    said what there is of it: that is decided, and obeyed, first."""
    for each in part.placed:
        if each.host not in lost:
            continue
        if part.moving_of(each.workspace) is not None:
            return True
        others = [hosts_of(shed.placed).get(each.workspace, "") for shed in part.shed]
        others += [left.host for left in part.left if left.workspace == each.workspace]
        if any(host and host != each.host and host not in lost for host in others):
            return True
    return False


def _has_begun(part: Part, *, now: datetime) -> bool:
    """Hosts that were never told of it run nothing of it, whatever time it is."""
    return part.generation > 0 and now >= part.window.start


def _labels_on(part: Part, hosts: Collection[str]) -> Iterator[str]:
    return (each.workspace for each in part.placed if each.host in hosts)


def _ends(part: Part, label: str) -> bool:
    workspace = next(each for each in part.spec.workspaces if each.label == label)
    return workspace.allocation.availability.on_host_loss is OnHostLoss.END


def _placed_anew(
    part: Part, lost: Collection[str], view: LedgerView, policy: Policy, *, now: datetime
) -> Part:
    """NoCapacity where it does not fit over all of the time that is left."""
    calendar = calendar_of(view, policy)
    rooms = _rooms(part, lost, view, policy, calendar, now=now)
    fixed = {each.workspace: each.host for each in part.placed if each.host not in lost}
    spec = part.spec
    if part.keeping is not None and part.keeping.has_room:
        spec = with_room_for_memory(spec, part.keeping.mib_s)
    placed = place(spec, rooms, site=policy.site, fixed=fixed)
    after = replace(
        part,
        placed=placed,
        moved=_moved(part, placed, now=now),
        used=on_record(known_of(part, view.seen.get(part.uid, {}))),
    )
    there = hosts_of(placed)
    unmoved = tuple(each for each in part.unmoved if there.get(each[0]) == part.host_of(each[0]))
    after = replace(after, unmoved=unmoved)
    before, terms = demands_of(part, policy.admission), demands_of(after, policy.admission)
    if short := shortfalls_of(policy.site, calendar, more_of(before, terms, since=now)):
        raise NoCapacity(short)
    return after


def _rooms(
    part: Part,
    lost: Collection[str],
    view: LedgerView,
    policy: Policy,
    calendar: Calendar,
    *,
    now: datetime,
) -> dict[str, Room]:
    """What of the other hosts is free for as long as it takes that: of one that is put aside, all
    until its memory is in the pools, and in what is promised to it; and disk until it is kept no
    more."""
    start, used, last, keeping = (
        max(part.window.start, now),
        part.window.end,
        part.ends,
        part.keeping,
    )
    if keeping is not None and keeping.until is not None:
        used = min(used + keeping.save, keeping.until)
    windows = [Window(start, used)]
    if keeping is not None and keeping.promised is not None:
        windows.append(keeping.promised)
        last = keeping.promised.end
    found = free_hosts_over(calendar, view, policy, windows, Window(start, last), now=now)
    return {
        host: Room(facts=view.fleet.facts[host], free=free)
        for host, free in found.items()
        if host not in lost
    }


def _moved(part: Part, placed: tuple[Placed, ...], *, now: datetime) -> tuple[Moved, ...]:
    """Of a workspace that has not begun nobody need know that it was to be elsewhere."""
    if not _has_begun(part, now=now):
        return part.moved
    moved = {each.workspace: each for each in part.moved}
    for each in placed:
        host = part.host_of(each.workspace)
        if host != each.host:
            known = moved.get(each.workspace)
            times = known.times + 1 if known else 1
            moved[each.workspace] = Moved(workspace=each.workspace, times=times, host=host, at=now)
    return tuple(moved.values())
