"""A lease gives way by migration: workspaces of it go, while they run, to other hosts of the site
that have room for all of their terms, and those that they leave are another lease's.

Until it is known that they are there the part counts both ways (`demands.demands_of`): as it does
then, and as it does if it is put aside, which it is where they do not get there. So the other lease
has its room on record whatever becomes of a migration.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.amounts import fixed_amounts, host_key, with_room_for_memory
from intertie.broker.domain.cluster import PREEMPTED, ClusterRecord
from intertie.broker.domain.fleet import Policy, SeenPart, WorkspaceState
from intertie.broker.domain.keeping import ANSWERED_WITHIN, Vacating
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.migrating import (
    check_free_to_move,
    check_goes_whole,
    check_room,
    on_its_way,
    place_for,
)
from intertie.broker.domain.pace import Paces, to_send
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.snapshots import under_way
from intertie.broker.domain.stretches import LATE, cut, must_be_done, put_aside
from intertie.common.actions import Power
from intertie.common.calendar import Calendar
from intertie.common.errors import DomainError
from intertie.common.intervals import Window
from intertie.common.quantities import DIMENSIONS
from intertie.common.values import replace

GOES = "it goes to other hosts, as another lease needs its room"
HAS_GONE = "it went to other hosts, as another lease needed its room"


def on_its_way_out(
    part: Part,
    record: ClusterRecord,
    at: datetime,
    others: Sequence[Part],
    paces: Paces,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> Part | None:
    """The part with those of its workspaces on their way that are where others are promised more
    than there is beside it, as the book counts them. It is put aside `at`, or when they could have
    been there if that is later; None where one of them cannot go. `others`: who goes as well."""
    if not _may_go(part, record, now=now):
        return None
    calendar = calendar_of(view, policy)
    leaves = tuple(_in_the_way(part, calendar, now=now))
    if not leaves or not _run(part, leaves, view.seen.get(part.uid, {})):
        return None
    beside = [(each.spec, _to_go(each)) for each in others if each.name != part.name]
    there = now + to_send([*beside, (part.spec, leaves)], view)
    aside = put_aside(part, record, max(at, there + ANSWERED_WITHIN), paces, policy, now=now)
    keeping = None if record.spec.lease.cancellable else aside.keeping
    vacating = Vacating(leaves=leaves, by=aside.window.end, keeping=keeping)
    if vacating.free_from >= part.window.end:
        return None
    assert part.keeping is not None
    spec = with_room_for_memory(part.spec, part.keeping.mib_s) if keeping else part.spec
    window = Window(now, part.window.end)
    after = replace(part, vacating=replace(vacating, leaves=()))
    try:
        check_goes_whole(part, [each.workspace for each in leaves])
        for number, each in enumerate(leaves, start=1):
            label = each.workspace
            host = place_for(
                part, after, label, "", spec, window, view, policy, aside=False, now=now
            )
            after = on_its_way(part, after, label, host, aside=False, now=now)
            after = replace(after, vacating=replace(vacating, leaves=leaves[:number]))
        check_room(part, after, view, policy, now=now)
    except DomainError:
        return None
    return after


def _may_go(part: Part, record: ClusterRecord, *, now: datetime) -> bool:
    """A best-effort lease of this site alone that runs, with nothing else on its way. One that is
    saved at its window's end in any case is not worth it, nor one that is about to end."""
    keeping = part.keeping
    if keeping is None or keeping.until is not None or part.coordinator:
        return False
    if must_be_done(record.spec) or part.moving or now < part.window.start:
        return False
    try:
        check_free_to_move(part, now=now)
    except DomainError:
        return False
    return part.vacating is None


def _in_the_way(part: Part, calendar: Calendar, *, now: datetime) -> Iterator[Placed]:
    """On each host where too much is promised while it runs, the first that are enough."""
    window = Window(now, part.window.end)
    for host in dict.fromkeys(each.host for each in part.placed):
        lacks = {each: -calendar.free(host_key(host, each), window) for each in DIMENSIONS}
        for workspace in part.spec.workspaces:
            if part.host_of(workspace.label) != host:
                continue
            if all(amount <= 0 for amount in lacks.values()):
                break
            yield Placed(workspace=workspace.label, host=host)
            for dimension, amount in fixed_amounts(workspace).items():
                lacks[dimension] -= amount


def _run(part: Part, leaves: Sequence[Placed], seen: Mapping[str, SeenPart]) -> bool:
    """As their hosts say; and no image is being made of any of them."""
    copied = under_way(part, seen)
    running = {
        (each.name, host)
        for host, report in seen.items()
        for each in report.workspaces
        if each.state is WorkspaceState.RUNNING
    }
    return all(
        (each.workspace, each.host) in running
        and part.switch_of(each.workspace).power is Power.ON
        and each.workspace not in copied
        for each in leaves
    )


def _to_go(part: Part) -> tuple[Placed, ...]:
    """Those of them that are not there yet."""
    host_of = hosts_of(part.placed)
    return tuple(
        Placed(workspace=each.workspace, host=host_of[each.workspace]) for each in part.moving
    )


def goes(part: Part) -> bool:
    """To other hosts, instead of being put aside."""
    return part.vacating is not None and not part.vacating.called_off


def called_off(part: Part, since: datetime, *, now: datetime) -> Part:
    """Others need what it was to have at the other hosts too: it is put aside, so that there is
    room `since` then, or as soon as what is on its way has been broken off. No later than it was to
    be; the same where that is on record already."""
    vacating = part.vacating
    assert vacating is not None
    save = vacating.keeping.save if vacating.keeping is not None else timedelta()
    by = min(vacating.by, max(since - save, now + ANSWERED_WITHIN))
    if vacating.called_off and by == vacating.by:
        return part
    return replace(part, vacating=replace(_later(vacating, by), called_off=True))


def vacated(part: Part, *, now: datetime) -> Part:
    """What becomes of it once nothing of it is on its way any more: it runs on where it is, or is
    put aside. What is not decided in time counts on, as it may be there. The same until then."""
    vacating = part.vacating
    if vacating is None or part.state is not PartState.CONFIRMED or now >= part.window.end:
        return part
    if part.end_requested_time is not None:
        return part
    if part.moving:
        if now < vacating.free_from:
            return part
        late = vacating.late + now - vacating.free_from + LATE
        return replace(part, vacating=replace(vacating, late=late))
    after = replace(part, vacating=None)
    if not (vacating.called_off or part.vacates_in_vain()):
        return after
    vacating = _later(vacating, max(vacating.by, now))
    after = cut(after, vacating.by)
    if vacating.keeping is None:
        return replace(after, end_reason=PREEMPTED)
    return replace(after, keeping=vacating.keeping)


def _later(vacating: Vacating, by: datetime) -> Vacating:
    """Or sooner."""
    keeping = vacating.keeping
    if keeping is not None and keeping.until is not None:
        keeping = replace(keeping, until=keeping.until + (by - vacating.by))
    return replace(vacating, by=by, keeping=keeping)
