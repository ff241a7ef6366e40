"""Leases that are done by a moment: admitted with room on record for all of them, and begun sooner
where there is room."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.counted_as import counted_as
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.giving_way import Admissible, draft_before_others
from intertie.broker.domain.in_time import moved
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import Draft, draft
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.stretches import must_be_done, runs_for, window_changed
from intertie.common.errors import FieldInvalid, NoCapacity
from intertie.common.names import ClusterName
from intertie.common.spec import Allocation, ClusterSpec, LeaseTerms
from intertie.common.values import replace

SOONER = timedelta(seconds=10)
"""One begins sooner if it is by more."""
LOOKED_AT = 64
"""Those that have not begun and are looked at in one pass, the first to come."""


def draft_in_time(
    name: ClusterName,
    uid: str,
    spec: ClusterSpec,
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
    alone: bool = True,
) -> tuple[Admissible, Keeping]:
    """The earliest window that there is room for, so that it is done in time. Where there is none,
    others that wait give way: for the latest one, or else for the first. `spec` is pinned.
    NoCapacity says what is short now; FieldInvalid where the deadline cannot be met any more;
    RoomToBeMade as `draft_before_others`."""
    deadline, lasts = spec.lease.deadline, runs_for(spec)
    assert deadline is not None
    latest = deadline - lasts
    if latest < now:
        raise FieldInvalid(
            "spec.lease.deadline", "is earlier than it could be done; give a later one"
        )
    pool = policy.queue.pool_mib_s
    first = LeaseTerms(duration=lasts, max_delay=latest - now)
    roomy = replace(_with_room_for_memory(spec, pool), lease=first)
    try:
        found = Admissible(draft=draft(name, uid, roomy, view, policy, now=now))
    except NoCapacity as refusal:
        last = replace(roomy, lease=LeaseTerms(start_time=latest, duration=lasts))
        for asked in (last, roomy):
            try:
                found = draft_before_others(
                    name, uid, asked, view, policy, now=now, alone=alone, patient=False
                )
            except NoCapacity:
                continue
            if found.draft.allotment.spec.window.end <= deadline:
                break
        else:
            raise refusal from None
    allocations = {group.name: group.allocation for group in spec.groups}
    plain = _as_asked(found.draft, allocations)
    allotment = plain.allotment
    save = paces_of(view, policy).save(allotment.spec, allotment.placed)
    return replace(found, draft=plain), Keeping(mib_s=pool, save=save)


def sooner(view: LedgerView, policy: Policy, *, now: datetime) -> Change | None:
    """One that has not begun begins now, where it is to: the first that has room there."""
    later = sorted(_not_begun(view, now=now), key=lambda each: each[1].value.window.start)
    if not later:
        return None
    calendar = calendar_of(view, policy)
    alive = {facts.host for facts in view.fleet.alive(now=now)}
    for record, part in later[:LOOKED_AT]:
        if not alive.issuperset(part.value.hosts()):
            continue
        after = moved(part.value, record.value, now)
        name = part.value.name
        with counted_as(calendar, {name: part.value}, {name: after}, policy.admission):
            fits = all(
                calendar.free(key, demand.window) >= 0
                for demand in demands_of(after, policy.admission)
                for key in demand.amounts
            )
        if fits:
            known = replace(
                window_changed(record.value, after),
                reasons=(f"{policy.site} has room for it sooner",),
            )
            return Change(
                writes=(
                    Write(record=after, read_at=part.revision),
                    Write(record=known, read_at=record.revision),
                ),
                admitted_on=view.generation,
            )
    return None


def _not_begun(
    view: LedgerView, *, now: datetime
) -> Iterator[tuple[Versioned[ClusterRecord], Versioned[Part]]]:
    for each in view.in_line():
        record, part = each.value, view.parts.get(each.value.part)
        if part is None or record.state is not ClusterState.SCHEDULED:
            continue
        if record.part in view.amended:
            continue  # it counts by other terms, which are on their way
        ending = record.end_requested_time or part.value.end_requested_time
        if must_be_done(record.spec) and not ending and part.value.window.start > now + SOONER:
            yield each, part


def _with_room_for_memory(spec: ClusterSpec, mib_s: int) -> ClusterSpec:
    """As `amounts.with_room_for_memory`, of a part that is not made yet."""

    def roomy(has: Allocation) -> Allocation:
        disk = replace(has.disk, cap_mib_s=max(has.disk.cap_mib_s, mib_s))
        return replace(has, disk_mib=has.disk_mib + has.memory_mib, disk=disk)

    return replace(
        spec,
        groups=tuple(replace(each, allocation=roomy(each.allocation)) for each in spec.groups),
    )


def _as_asked(found: Draft, allocations: Mapping[str, Allocation]) -> Draft:
    spec = found.allotment.spec
    spec = replace(
        spec,
        workspaces=tuple(
            replace(each, allocation=allocations[each.group]) for each in spec.workspaces
        ),
    )
    return replace(found, allotment=replace(found.allotment, spec=spec))
