"""Leases over several sites that run when there is room at all of them.

One that is QUEUED is on record with its specification, and takes nothing at any site. To start it
is a co-allocation like any other; where that is refused, it is QUEUED as before.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.leasing.fairness import InUse
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.requests import BestEffort
from intertie.common.part_spec import Recallable
from intertie.common.quantities import Vector
from intertie.common.spec import DEFAULT_DURATION, ClusterSpec, least_demand
from intertie.common.values import replace
from intertie.metasched.domain.cluster import (
    PENDING,
    WAITED_TOO_LONG,
    WAITING,
    ClusterRecord,
    ClusterState,
    Failure,
    Waits,
)
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.queue_policy import QueuePolicy

SOON = timedelta(seconds=10)
"""A start that is foreseen is told anew where it moves by more."""
LEAST = timedelta(seconds=1)
"""No lease runs for less."""
_S = timedelta(seconds=1)
NOT_AS_OFFERED = "sites had less room than they had offered"


def nowhere(
    spec: ClusterSpec,
    reasons: tuple[str, ...],
    shortfalls: tuple[Shortfall, ...] = (),
    *,
    now: datetime,
) -> Plan:
    """The plan of a lease that has no site."""
    return Plan(
        window=spec.lease.window(now=now),
        sites=(),
        images={},
        optimal=False,
        reasons=reasons,
        shortfalls=shortfalls,
    )


def queued(record: ClusterRecord, *, now: datetime) -> ClusterRecord:
    """A cluster that is PLANNED, and waits from now on."""
    return replace(record.move(ClusterState.QUEUED, now=now), waits=Waits(since=now))


def queued_again(record: ClusterRecord, *, now: datetime) -> ClusterRecord:
    """One that could not be had at all of its sites. It keeps its place in the queue."""
    return replace(
        record.move(ClusterState.QUEUED, now=now),
        plan=nowhere(record.spec, (NOT_AS_OFFERED,), now=now),
        tx="",
        parts={},
    )


def check_queue(tenant: str, of_tenant: Iterable[ClusterRecord], policy: QueuePolicy) -> None:
    """NoCapacity where one more of its tenant's leases may not be QUEUED beside its others. One
    that is just being begun may be QUEUED again."""
    most = policy.queued_leases
    if most is None:
        return
    first = {ClusterState.QUEUED, *PENDING}
    waiting = sum(each.queues and each.state in first for each in of_tenant)
    if waiting < most:
        return
    short = Shortfall(
        site="",
        resource="quota_queued_leases",
        wanted=1,
        available=0,
        unit="leases",
        field="spec.lease.kind",
        message=(
            f"{waiting} leases of tenant {tenant} wait in the queue for several sites, and {most} "
            "may at one time; ask again when one has started, or delete one"
        ),
    )
    raise NoCapacity((short,))


def waits(record: ClusterRecord) -> bool:
    """For sites to have room."""
    return record.state in WAITING and record.end_requested_time is None and record.amend is None


def recallable_of(
    record: ClusterRecord, policy: QueuePolicy, *, aside: bool = False
) -> Recallable | None:
    """What its sites may do with it. `aside`: it is put aside at the end of its window. Kept for no
    longer than they have agreed to, whatever the operator lets leases wait by now; one with a
    deadline until the end of what they have promised it."""
    if record.waits is None:
        return None
    if (deadline := record.spec.lease.deadline) is not None:
        return Recallable(
            keep_for=timedelta(),
            ran=record.waits.ran,
            put_aside=aside,
            deadline=deadline,
            promised=record.plan.promised,
        )
    longest, agreed = policy.longest(record.spec), record.waits.keep_for
    return Recallable(
        keep_for=longest if agreed is None else min(longest, agreed),
        cancellable=record.spec.lease.cancellable,
        ran=record.waits.ran,
        put_aside=aside,
    )


def runs_for(spec: ClusterSpec) -> timedelta:
    """In all."""
    return spec.lease.duration or DEFAULT_DURATION


def left_of(record: ClusterRecord) -> timedelta:
    """Of running, when it next begins."""
    ran = record.waits.ran if record.waits is not None else timedelta()
    return max(runs_for(record.spec) - ran, LEAST)


def lease_of(record: ClusterRecord, *, counted: bool = False) -> Lease:
    """As order and backfilling see it; workspaces stand for nodes. What they take is only told
    where it is `counted`."""
    assert record.waits is not None
    request = BestEffort(
        name=record.name,
        nodes=max(1, sum(group.fewest for group in record.spec.groups)),
        duration_s=_up(runs_for(record.spec)),
        tenant=record.path.tenant,
        takes=least_demand(record.spec) if counted else Vector(),
    )
    return Lease(
        request=request,
        submit_s=seconds(record.create_time),
        since_s=seconds(record.waits.since),
        banked_s=min(_up(record.waits.ran), request.duration_s - 1),
    )


def in_order(
    records: Iterable[ClusterRecord], policy: QueuePolicy, in_use: InUse, *, now: datetime
) -> list[Lease]:
    """Who goes first."""
    now_s = seconds(now)
    leases = [lease_of(each, counted=policy.fairness.looks) for each in records]
    return policy.fairness.line(leases, lambda each: policy.order.rank(each, now_s), now_s, in_use)


def waited_too_long(record: ClusterRecord, policy: QueuePolicy, *, now: datetime) -> ClusterRecord:
    """The same, unless it has waited for longer than it may."""
    if record.waits is None or not record.queues or not waits(record):
        return record
    bound = policy.longest(record.spec)
    if now < record.waits.since + bound:
        return record
    failure = Failure(
        reason=WAITED_TOO_LONG,
        message=f"there was no room at its sites for {bound}, and it waits no longer",
        shortfalls=record.plan.shortfalls,
    )
    asked = record.ending(now=now, reason=WAITED_TOO_LONG, failure=failure)
    # Of one that is put aside its sites have something, which is taken away first.
    queued = record.state is ClusterState.QUEUED
    return asked.move(ClusterState.FAILED, now=now) if queued else asked


def told(
    record: ClusterRecord,
    foreseen: datetime | None,
    reasons: tuple[str, ...],
    shortfalls: tuple[Shortfall, ...],
) -> ClusterRecord:
    """The record with what it waits for; the same where that says nothing new."""
    assert record.waits is not None
    before = record.waits.foreseen
    moved = (before is None) is not (foreseen is None) or (
        before is not None and foreseen is not None and abs(foreseen - before) > SOON
    )
    said = record.plan.reasons, record.plan.shortfalls
    if not moved and said == (reasons, shortfalls):
        return record
    return replace(
        record,
        plan=replace(record.plan, reasons=reasons, shortfalls=shortfalls),
        waits=replace(record.waits, foreseen=foreseen if moved else before),
    )


def seconds(moment: datetime) -> int:
    """Whole ones since 1970, the last that had begun."""
    return int(moment.timestamp())


def _up(span: timedelta) -> int:
    return -(-span // _S)
