"""The leases of a site that run when there is room: who starts now, and what the others wait for.

A lease that is QUEUED is on record with its specification, and takes nothing. To start it is an
admission like any other, of a part with an ordinary window.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.beginning import Beginning, openings_of
from intertie.broker.domain.cluster import (
    WAITED_TOO_LONG,
    ClusterRecord,
    ClusterState,
    Failure,
    Waits,
)
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.elsewhere import brought_elsewhere
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.in_use import in_use
from intertie.broker.domain.ledger import Capacities, LedgerView, Versioned, calendar_of
from intertie.broker.domain.malleable import Resized
from intertie.broker.domain.networks import NetworkId
from intertie.broker.domain.openings import Openings, seconds
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.planning import Image, why_not_more
from intertie.broker.domain.preemptible import free_from
from intertie.broker.domain.price import amount_of, asked_for, shortened
from intertie.broker.domain.records import Change, Unchanged, Write
from intertie.broker.domain.refusing import check_queue
from intertie.broker.domain.resizing import more, room_for
from intertie.broker.domain.stretch import Stretch
from intertie.broker.domain.stretches import (
    given_up_or_late,
    longest_wait,
    must_be_done,
    runs_for,
    saved_or_late,
    suspended,
    takes_longer,
    window_changed,
)
from intertie.broker.domain.tariff import BEST_EFFORT, DEADLINE
from intertie.broker.domain.vacating import HAS_GONE, vacated
from intertie.broker.domain.vnis import free_vnis
from intertie.common.calendar import Calendar
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.requests import BestEffort
from intertie.common.names import ClusterName, PartName
from intertie.common.quantities import Vector
from intertie.common.spec import ClusterSpec, least_demand
from intertie.common.values import Struct, replace

LOOKED_AT = 64
"""The first of those that wait may start in one pass; to look at one costs up to a millisecond."""
FORESEEN = 16
"""The first of those that wait are told when they would start, as things stand."""
SOON = timedelta(seconds=10)
"""A start that is foreseen is told anew where it moves by more."""


class Outlook(Struct, frozen=True, kw_only=True):
    """What one that waits is told."""

    foreseen: datetime | None
    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...]


def queued(
    name: ClusterName,
    uid: str,
    spec: ClusterSpec,
    images: Mapping[str, Image],
    view: LedgerView,
    policy: Policy,
    *,
    owner: str,
    now: datetime,
) -> ClusterRecord:
    """A cluster that waits from now on. `spec` is normalised. NoCapacity where the tenant
    has as many QUEUED as it may, or the site could not have all of it if it had nothing else."""
    check_queue(name.tenant, _queued_of(name.tenant, view), policy)
    empty = LedgerView(fleet=view.fleet)
    record = ClusterRecord(
        name=str(name),
        uid=uid,
        spec=spec,
        owner=owner,
        state=ClusterState.QUEUED,
        part=str(PartName(policy.site, name.tenant, f"c{uid}")),
        window=spec.lease.window(now=now),
        counts=(),
        cost=0.0,
        reasons=(f"{policy.site} looks for room",),
        shortfalls=(),
        create_time=now,
        waits=Waits(since=now, images=digests(images)),
    )
    calendar = calendar_of(empty, policy)
    part, counts, _ = Beginning(
        record, empty, calendar, policy, paces_of(empty, policy), now
    ).begin()
    asked = asked_for(part.spec, view, policy, now=now, kind=BEST_EFFORT)
    return replace(record, counts=counts, cost=amount_of((asked,)))


def digests(images: Mapping[str, Image]) -> tuple[tuple[str, str], ...]:
    return tuple((each, image.digest) for each, image in images.items())


def lease_of(record: ClusterRecord, *, counted: bool = False) -> Lease:
    """As order and backfilling see it; workspaces stand for nodes. What they take is only told
    where it is `counted`."""
    assert record.waits is not None
    request = BestEffort(
        name=record.name,
        nodes=max(1, sum(group.fewest for group in record.spec.groups)),
        duration_s=_up(runs_for(record.spec)),
        tenant=ClusterName.parse(record.name).tenant,
        takes=least_demand(record.spec) if counted else Vector(),
    )
    return Lease(
        request=request,
        submit_s=seconds(record.create_time),
        since_s=seconds(record.waits.since),
        banked_s=min(_up(record.waits.ran), request.duration_s - 1),
    )


def waiting(view: LedgerView) -> list[Versioned[ClusterRecord]]:
    return [each for each in view.in_line() if _waits(each.value)]


def _waits(record: ClusterRecord) -> bool:
    """For a stretch to begin."""
    states = ClusterState.QUEUED, ClusterState.SUSPENDED
    return record.state in states and record.end_requested_time is None


def starting(view: LedgerView, policy: Policy, *, now: datetime) -> list[str]:
    """Names of those that start or go on now, in their order, and before them those for which
    what they were promised has come. Whether each still fits is for `started`."""
    in_order = _in_order(view, policy, now=now)
    due = [each.request.name for each in in_order if _is_due(view, each.request.name, now=now)]
    leases = [each for each in in_order if each.request.name not in due][:LOOKED_AT]
    if not leases:
        return due
    calendar = calendar_of(view, policy)
    openings = openings_of(view, leases, calendar, policy, now)
    others = _among_themselves(view, policy)
    with Openings(calendar, openings, now=now) as free:
        begun = policy.queue.backfilling.starts(
            leases,
            free,
            Openings(others, openings_of(view, leases, others, policy, now), now=now),
            lambda each: openings[each.request.name].span_s,
            lambda each: openings[each.request.name].full_s,
            free.now_s,
        )
    return [*due, *(each.request.name for each in begun)]


def brought(view: LedgerView, policy: Policy, *, now: datetime) -> Change | None:
    """One of those that wait is on its way to hosts on which it can go on; None where none is to
    be."""
    names = [each.request.name for each in _in_order(view, policy, now=now)]
    return brought_elsewhere(view, names, policy, now=now)


def room_made(view: LedgerView, policy: Policy, *, now: datetime) -> Change | None:
    """Some that run go on with fewer workspaces, for the first in line; None where none does."""
    return room_for(_in_order(view, policy, now=now), view, policy, now=now)


def given_more(
    view: LedgerView, policy: Policy, but: Collection[str], *, now: datetime
) -> tuple[Resized, Change] | None:
    """One that runs gets more workspaces; None where none does. `but`: names of those that do
    not."""
    return more(_in_order(view, policy, now=now), but, view, policy, now=now)


def outlooks(view: LedgerView, policy: Policy, *, now: datetime) -> dict[str, Outlook]:
    """What becomes of those that wait, if nothing else comes: each gets the first start that puts
    off none before it."""
    leases = _in_order(view, policy, now=now)
    calendar = calendar_of(view, policy)
    openings = openings_of(view, leases[:FORESEEN], calendar, policy, now)
    found: dict[str, Outlook] = {}
    with Openings(calendar, openings, now=now) as free:
        for before, lease in enumerate(leases):
            name = lease.request.name
            promised = _promised(view, name)
            if before >= FORESEEN and promised is None:
                said = f"{FORESEEN} or more are before it in the queue of {policy.site}"
                found[name] = Outlook(foreseen=None, reasons=(said,), shortfalls=())
                continue
            opening = openings[name]
            short = opening.short(Window(now, now + opening.span_s * _S))
            at_s = free.earliest(lease, opening.span_s, free.now_s)
            if at_s is not None:
                free.take(lease, at_s, at_s + opening.full_s)
            foreseen = free.moment(at_s) if at_s is not None else None
            reasons = _reasons(policy.site, before, short)
            if promised is not None:
                foreseen = min(foreseen or promised.start, promised.start)
                reasons = (*reasons, f"it has room from {_told(promised.start)} on at the latest")
            found[name] = Outlook(
                foreseen=foreseen,
                reasons=reasons,
                shortfalls=short,
            )
    return found


def told(record: ClusterRecord, outlook: Outlook) -> ClusterRecord:
    """The record with that outlook; the same where it says nothing new."""
    assert record.waits is not None
    before, after = record.waits.foreseen, outlook.foreseen
    moved = (before is None) is not (after is None) or (
        before is not None and after is not None and abs(after - before) > SOON
    )
    said = record.reasons, record.shortfalls
    if not moved and said == (outlook.reasons, outlook.shortfalls):
        return record
    return replace(
        record,
        reasons=outlook.reasons,
        shortfalls=outlook.shortfalls,
        waits=replace(record.waits, foreseen=after if moved else before),
    )


def started(view: LedgerView, name: str, policy: Policy, seed: str, *, now: datetime) -> Change:
    """The lease begins a stretch: its first, or it goes on. NoCapacity where it does not fit any
    more, or waits no more."""
    found = view.clusters[name]
    record = found.value
    if not _waits(record):
        raise NoCapacity(())
    assert record.waits is not None
    calendar = calendar_of(view, policy)
    opening = openings_of(view, [lease_of(record)], calendar, policy, now)[name]
    part, counts, short = opening.begin()
    kind = DEADLINE if must_be_done(record.spec) else BEST_EFFORT
    account = view.accounts.get(part.name)
    price = (*part.price, _price_of(part, view, policy, now=now, kind=kind))
    part = replace(part, price=shortened(price, account.value if account else None))
    before = view.parts.get(part.name)
    vnis = () if before else free_vnis(view, len(part.spec.networks))
    if before is None:
        ids = zip(part.spec.networks, vnis, strict=True)
        part = replace(
            part,
            seed=seed,
            network_ids=tuple(NetworkId(network=net.name, vni=vni) for net, vni in ids),
        )
    after = replace(
        record.move(ClusterState.SCHEDULED, now=now),
        window=part.window,
        counts=counts,
        terms=part.terms,
        reasons=(f"{policy.site} has room for it", *why_not_more(record.spec, dict(counts))),
        shortfalls=short,
        waits=replace(record.waits, foreseen=None),
    )
    return Change(
        writes=(
            Write(record=part, read_at=before.revision if before else 0),
            Write(record=after, read_at=found.revision),
        ),
        admitted_on=view.generation,
        vnis=tuple((each, part.uid) for each in vnis),
    )


def _price_of(part: Part, view: LedgerView, policy: Policy, *, now: datetime, kind: str) -> Stretch:
    """Of a stretch: what saving and going on take is not the owner's."""
    assert part.keeping is not None
    runs = Window(part.window.start + part.keeping.restore, part.window.end)
    spec = replace(part.spec, window=runs)
    return asked_for(spec, view, policy, now=now, kind=kind)


def stretches_over(view: LedgerView, *, now: datetime) -> Iterator[Change]:
    """Notes that those whose stretch is over are put aside, that nothing is taken any more for
    saving what is saved, and that what is not saved in time still counts. That takes nothing that
    is not taken; but who is admitted after it counts it, so it is decided like an admission."""
    kept = list(view.recallables())
    for each in view.in_line():
        found = view.parts.get(each.value.part)
        if found is None:
            continue
        record = suspended(each.value, found.value, now=now)
        if record is not each.value:
            same = Unchanged(kind=Part, name=found.value.name, read_at=found.revision)
            yield Change(writes=(Write(record=record, read_at=each.revision),), unchanged=(same,))
        kept.append(found)
        if (change := _vacated(each, found, view, now=now)) is not None:
            yield change
    for part in kept:
        after = saved_or_late(part.value, view.seen.get(part.value.uid, {}), now=now)
        after = given_up_or_late(after, now=now)
        if after is not part.value:
            yield Change(
                writes=(Write(record=after, read_at=part.revision),),
                admitted_on=view.generation if takes_longer(after, part.value) else None,
            )


def _vacated(
    cluster: Versioned[ClusterRecord], found: Versioned[Part], view: LedgerView, *, now: datetime
) -> Change | None:
    """Of one that gives way by migration, what has become of that."""
    part = vacated(found.value, now=now)
    if part is found.value:
        return None
    write = Write(record=part, read_at=found.revision)
    if part.vacating is not None:  # late
        return Change(writes=(write,), admitted_on=view.generation)
    record = window_changed(cluster.value, part)
    if part.window == found.value.window:
        record = replace(record, reasons=(HAS_GONE,))
    record = suspended(record, part, now=now)
    return Change(
        writes=(write, Write(record=record, read_at=cluster.revision)),
        admitted_on=view.generation if _is_saved_later(part, found.value) else None,
    )


def _is_saved_later(part: Part, than: Part) -> bool:
    """It is put aside, and is not saved by when it was to be: it takes more than was counted."""
    return part.window != than.window and free_from(part) > free_from(than)


def waited_too_long(record: ClusterRecord, policy: Policy, *, now: datetime) -> ClusterRecord:
    """The same, unless it has waited for longer than it may."""
    if record.waits is None or record.state is not ClusterState.QUEUED:
        return record
    bound = longest_wait(record.spec, policy)
    if now < record.waits.since + bound:
        return record
    failure = Failure(
        reason=WAITED_TOO_LONG,
        message=f"it found no room at {policy.site} for {bound}, and waits no longer",
        shortfalls=record.shortfalls,
    )
    return replace(
        record.move(ClusterState.FAILED, now=now), failure=failure, end_requested_time=now
    )


def _queued_of(tenant: str, view: LedgerView) -> int:
    records = (each.value for each in view.in_line())
    queued = (each for each in records if each.state is ClusterState.QUEUED)
    return sum(ClusterName.parse(each.name).tenant == tenant for each in queued)


_S = timedelta(seconds=1)


def _up(span: timedelta) -> int:
    return -(-span // _S)


def _promised(view: LedgerView, name: str) -> Window | None:
    """From when to when at the latest it goes on."""
    part = view.parts.get(view.clusters[name].value.part)
    keeping = part.value.keeping if part is not None else None
    return keeping.promised if keeping is not None else None


def _is_due(view: LedgerView, name: str, *, now: datetime) -> bool:
    promised = _promised(view, name)
    return promised is not None and promised.contains(now)


def _told(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _among_themselves(view: LedgerView, policy: Policy) -> Calendar:
    """The site as it is without any lease that does not wait."""
    parts = (view.parts.get(each.value.part) for each in view.in_line())
    counted = (each.value for each in parts if each is not None and each.value.counted)
    demands = (each for part in counted for each in demands_of(part, policy.admission))
    return Calendar(Capacities(view.fleet, policy), demands)


def _in_order(view: LedgerView, policy: Policy, *, now: datetime) -> list[Lease]:
    """Those that wait: who goes first."""
    now_s, queue = seconds(now), policy.queue
    return queue.fairness.line(
        [lease_of(each.value, counted=queue.fairness.looks) for each in waiting(view)],
        lambda each: queue.order.rank(each, now_s),
        now_s,
        in_use(view, policy, now=now),
    )


def _reasons(site: str, before: int, short: Sequence[Shortfall]) -> tuple[str, ...]:
    line = f"{before} before it in the queue of {site}" if before else f"first in line at {site}"
    return (line,) if short else (line, "there is room for it, and it is kept for others")
