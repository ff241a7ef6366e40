"""A virtual cluster of this site alone, and the lease on it."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum

from intertie.broker.domain.fleet import (
    MigrationOutcome,
    SeenPart,
    SeenWorkspace,
    WorkspaceState,
)
from intertie.broker.domain.guarantees import MeasuredPart, guarantees_of, measured_of
from intertie.broker.domain.moving import Moving
from intertie.broker.domain.part import Moved, Part, PartState
from intertie.broker.domain.snapshots import snapshot_of
from intertie.broker.domain.stretch import Stretch
from intertie.common.actions import AS_BEGUN, Switched
from intertie.common.errors import IllegalMove, Shortfall
from intertie.common.etag import etag_of
from intertie.common.guarantees import Guarantee, Measured
from intertie.common.intervals import Window
from intertie.common.part_spec import PartNic
from intertie.common.refund import RefundItem
from intertie.common.snapshot import Snapshot
from intertie.common.spec import DEFAULT_DURATION, ClusterSpec
from intertie.common.values import Struct, replace
from intertie.common.ways import Way

CANCELLED = "CANCELLED"
WINDOW_OVER = "WINDOW_OVER"
WORKSPACE_FAILED = "WORKSPACE_FAILED"
HOST_LOST = "HOST_LOST"
"""Reasons for which a part ends."""
PREEMPTED = "PREEMPTED"
"""Why a lease ends that is cancelled for others, as its terms allow."""
WAITED_TOO_LONG = "WAITED_TOO_LONG"
"""Why a lease ends that did not get room for longer than it may wait."""
DEADLINE_MISSED = "DEADLINE_MISSED"
"""Why a lease ends that was promised to be done by then, and is not: a host or its site failed."""


class ClusterState(Enum):
    REQUESTED = "REQUESTED"
    PLANNED = "PLANNED"
    HELD = "HELD"
    QUEUED = "QUEUED"
    SCHEDULED = "SCHEDULED"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    ENDED = "ENDED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


NEXT: dict[ClusterState, frozenset[ClusterState]] = {
    ClusterState.REQUESTED: frozenset({ClusterState.PLANNED, ClusterState.REJECTED}),
    ClusterState.PLANNED: frozenset(
        {
            ClusterState.HELD,
            ClusterState.QUEUED,
            ClusterState.SCHEDULED,
            ClusterState.CANCELLED,
            ClusterState.REJECTED,
        }
    ),
    ClusterState.HELD: frozenset(
        {ClusterState.SCHEDULED, ClusterState.CANCELLED, ClusterState.REJECTED}
    ),
    ClusterState.QUEUED: frozenset(
        {ClusterState.SCHEDULED, ClusterState.CANCELLED, ClusterState.FAILED}
    ),
    ClusterState.SCHEDULED: frozenset(
        {
            ClusterState.ACTIVE,
            ClusterState.SUSPENDED,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
    ),
    ClusterState.ACTIVE: frozenset(
        {
            ClusterState.SUSPENDED,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
    ),
    ClusterState.SUSPENDED: frozenset(
        {
            ClusterState.SCHEDULED,
            ClusterState.ENDED,
            ClusterState.CANCELLED,
            ClusterState.FAILED,
        }
    ),
    ClusterState.ENDED: frozenset(),
    ClusterState.REJECTED: frozenset(),
    ClusterState.CANCELLED: frozenset(),
    ClusterState.FAILED: frozenset(),
}
"""Every edge there is. A cluster of one site is written down when it is SCHEDULED, or QUEUED where
it waits: the states before that are passed within the one transaction that admits it, and REJECTED
is an error."""

STATE_AFTER: dict[str, ClusterState] = {
    CANCELLED: ClusterState.CANCELLED,
    WINDOW_OVER: ClusterState.ENDED,
    WORKSPACE_FAILED: ClusterState.FAILED,
    HOST_LOST: ClusterState.FAILED,
    WAITED_TOO_LONG: ClusterState.FAILED,
    PREEMPTED: ClusterState.CANCELLED,
    DEADLINE_MISSED: ClusterState.FAILED,
}


class Failure(Struct, frozen=True, kw_only=True):
    reason: str
    message: str
    shortfalls: tuple[Shortfall, ...] = ()


class Waits(Struct, frozen=True, kw_only=True):
    """How a lease stands that runs when there is room."""

    since: datetime
    """It has waited without a break; of one that runs, when it last began to wait."""
    images: tuple[tuple[str, str], ...]
    """Digests, by the names that its owner gave: found when it was asked for."""
    ran: timedelta = timedelta()
    """In stretches that are over."""
    foreseen: datetime | None = None
    """When it would start, by the last look; None: not within sight."""
    resized: datetime | None = None
    """When it last got more workspaces, or was left with fewer, while it ran."""


class ClusterRecord(Struct, frozen=True, kw_only=True):
    name: str
    uid: str
    spec: ClusterSpec
    """Normalised; images as the owner named them."""
    owner: str
    state: ClusterState
    part: str
    window: Window
    counts: tuple[tuple[str, int], ...]
    cost: float
    reasons: tuple[str, ...]
    shortfalls: tuple[Shortfall, ...]
    create_time: datetime
    end_requested_time: datetime | None = None
    end_time: datetime | None = None
    failure: Failure | None = None
    terms: int = 0
    """The number of the terms in force: how often it was amended."""
    waits: Waits | None = None
    """Of one that runs when there is room. `window` is then the stretch that it is in or was in
    last; before the first, that of its request."""

    @property
    def over(self) -> bool:
        return not NEXT[self.state]

    @property
    def in_line(self) -> bool:
        """It is for the queue to say what becomes of it next."""
        return self.waits is not None and not self.over

    def move(self, to: ClusterState, *, now: datetime) -> "ClusterRecord":
        """The cluster after one step. `now` is given, never asked for."""
        if to not in NEXT[self.state]:
            raise IllegalMove(f"{self.name}: {self.state.name} to {to.name}")
        return replace(self, state=to, end_time=None if NEXT[to] else now)


class WorkspaceView(Struct, frozen=True, kw_only=True):
    """One machine as it was last seen."""

    label: str
    group: str
    index: int
    host: str
    nics: tuple[PartNic, ...]
    image_digest: str
    state: WorkspaceState
    message: str = ""
    ready: bool = False
    ready_time: datetime | None = None
    staging_done_bytes: int = 0
    staging_total_bytes: int = 0
    pending: str = ""
    switched: Switched = AS_BEGUN
    restarts: int = 0
    """On another host, because its own was lost."""
    snapshot: Snapshot | None = None
    """The newest that was asked for."""
    migrating_to: str = ""


class ClusterView(Struct, frozen=True, kw_only=True):
    """The record with what the agents last said of its workspaces."""

    record: ClusterRecord
    site: str
    workspaces: tuple[WorkspaceView, ...]
    guarantees: tuple[Guarantee, ...]
    price: tuple[Stretch, ...] = ()
    refunds: tuple[RefundItem, ...] = ()

    @property
    def etag(self) -> str:
        """Changes with the record and with every change of a workspace. What is measured changes
        all the time, and who wants to end what was seen does not mean that."""
        return etag_of(self.record, self.workspaces)


class PartView(Struct, frozen=True, kw_only=True):
    part: Part
    workspaces: tuple[WorkspaceView, ...]
    measured: tuple[Measured, ...] = ()
    ways: tuple[Way, ...] = ()
    """To other sites of its cluster."""

    @property
    def etag(self) -> str:
        """As that of a cluster: what its hosts measure is not in it."""
        return etag_of(self.part, self.workspaces)


def workspaces_of(part: Part, seen: Mapping[str, SeenPart]) -> tuple[WorkspaceView, ...]:
    """Every workspace of the part with what its own host, and no other, says of it."""
    told: dict[tuple[str, str], SeenWorkspace] = {
        (host, each.name): each for host, report in seen.items() for each in report.workspaces
    }
    return tuple(_workspaces(part, told))


def _workspaces(
    part: Part, told: Mapping[tuple[str, str], SeenWorkspace]
) -> Iterator[WorkspaceView]:
    for each in part.spec.workspaces:
        host = part.host_of(each.label)
        said = told.get((host, each.label))
        snapshot = snapshot_of(part, each.label, said)
        if part.over:
            said = SeenWorkspace(name=each.label, state=WorkspaceState.ENDED)
        if said is None:
            said = SeenWorkspace(name=each.label, state=WorkspaceState.PLANNED)
        moved, moving = part.moved_of(each.label), part.moving_of(each.label)
        if moving is not None and _is_taken(told.get((moving.host, each.label)), moving):
            said = told[moving.host, each.label]
        silent = next((since for name, since in part.silent if name == host), None)
        message = _silent(host, silent) if silent else said.message
        yield WorkspaceView(
            label=each.label,
            group=each.group,
            index=each.index,
            host=host,
            nics=each.nics,
            image_digest=each.environment.image,
            state=said.state,
            message=message or _unmoved(part, each.label) or (_begun_anew(moved) if moved else ""),
            ready=said.ready,
            ready_time=said.ready_time,
            staging_done_bytes=said.staging_done_bytes,
            staging_total_bytes=said.staging_total_bytes,
            pending=said.pending,
            switched=part.switch_of(each.label),
            restarts=moved.times if moved else 0,
            snapshot=snapshot,
            migrating_to=moving.host if moving is not None else "",
        )


def _is_taken(said: SeenWorkspace | None, moving: Moving) -> bool:
    """It runs where it was to go; that its part says so takes a moment."""
    found = said.migration if said is not None else None
    return (
        found is not None
        and found.number == moving.number
        and found.outcome is MigrationOutcome.TAKEN
    )


def _unmoved(part: Part, label: str) -> str:
    return next((why for each, why in part.unmoved if each == label), "")


def _silent(host: str, since: datetime) -> str:
    when = since.isoformat(timespec="seconds")
    return f"its host {host} has been silent since {when}: what is said here is what it said last"


def _begun_anew(moved: Moved) -> str:
    when = moved.at.isoformat(timespec="seconds")
    return f"begun anew at {when} with a new disk, because host {moved.host} was lost"


def part_view(
    part: Part,
    seen: Mapping[str, SeenPart],
    measured: Mapping[str, MeasuredPart],
    ways: tuple[Way, ...] = (),
) -> PartView:
    return PartView(
        part=part,
        workspaces=workspaces_of(part, seen),
        measured=measured_of(part, measured),
        ways=ways,
    )


def view_of(
    record: ClusterRecord,
    part: Part | None,
    seen: Mapping[str, SeenPart],
    measured: Mapping[str, MeasuredPart],
    *,
    site: str,
) -> ClusterView:
    """`seen` and `measured`: what agents say of its workspaces and of its promises, by host."""
    return ClusterView(
        record=record,
        site=site,
        workspaces=workspaces_of(part, seen) if part else (),
        guarantees=tuple(guarantees_of(part.spec, measured_of(part, measured))) if part else (),
        price=part.price if part else (),
        refunds=part.refunds if part else (),
    )


def failed(workspaces: Iterable[WorkspaceView]) -> tuple[WorkspaceView, ...]:
    return tuple(each for each in workspaces if each.state is WorkspaceState.FAILED)


def settled(
    record: ClusterRecord,
    part: Part | None,
    workspaces: tuple[WorkspaceView, ...],
    *,
    now: datetime,
) -> ClusterRecord:
    """What the record becomes by what has happened to its part; the same when nothing has.

    ACTIVE once every workspace was ready at one time; its last state once nothing is left on
    any host. A failure is written where it is found, see `lost`.
    """
    if record.over or record.state is ClusterState.QUEUED:
        return record
    if part is None or part.state is PartState.ENDED:
        reason = part.end_reason if part else WINDOW_OVER
        if part is not None and _missed(record, part):
            reason = DEADLINE_MISSED
        over = record.move(STATE_AFTER.get(reason, ClusterState.CANCELLED), now=now)
        return _after_all(over, record.state, part, reason)
    if (
        record.state is ClusterState.SCHEDULED
        and part.end_requested_time is None
        and workspaces
        and all(each.ready and _runs(record, each) for each in workspaces)
    ):
        return record.move(ClusterState.ACTIVE, now=now)
    return record


def without_host(
    record: ClusterRecord, why: str, shortfalls: tuple[Shortfall, ...], *, now: datetime
) -> ClusterRecord:
    """A cluster that has lost a host, and cannot go on without it."""
    return replace(
        record.move(ClusterState.FAILED, now=now),
        failure=Failure(reason=HOST_LOST, message=why, shortfalls=shortfalls),
        end_requested_time=record.end_requested_time or now,
    )


def _runs(record: ClusterRecord, workspace: WorkspaceView) -> bool:
    """One that was put aside is ready as it was, and has yet to go on."""
    return record.waits is None or workspace.state is not WorkspaceState.SUSPENDED


def stretch_of(part: Part) -> timedelta:
    """For how long the owner's machines run in the part's window, as far as its end is known."""
    ends = (part.window.end, part.end_requested_time)
    end = min(each for each in ends if each is not None)
    restore = part.keeping.restore if part.keeping is not None else timedelta()
    return max(end - part.window.start - restore, timedelta())


def _after_all(
    record: ClusterRecord, before: ClusterState, part: Part | None, reason: str
) -> ClusterRecord:
    """What it has run, and why it ends before it has run for as long as it was to."""
    if record.waits is None or part is None:
        return record
    if before is not ClusterState.SUSPENDED:
        record = replace(record, waits=replace(record.waits, ran=_ran(record, part)))
    if (said := _WHY.get(reason)) is not None:
        record = replace(record, failure=Failure(reason=reason, message=said))
    return record


def _ran(record: ClusterRecord, part: Part) -> timedelta:
    assert record.waits is not None
    return record.waits.ran + stretch_of(part)


def _missed(record: ClusterRecord, part: Part) -> bool:
    """It was to be done by a moment, and its time was over before it was."""
    lease = record.spec.lease
    if lease.deadline is None or part.end_reason not in (WINDOW_OVER, WAITED_TOO_LONG):
        return False
    return record.state is ClusterState.SUSPENDED or _ran(record, part) < (
        lease.duration or DEFAULT_DURATION
    )


_WHY = {
    DEADLINE_MISSED: "it was not done by its deadline, though there was room for it: its site or "
    "a host of it could not go on with it in time",
    PREEMPTED: "others came that do not wait, and it is cancellable",
    WAITED_TOO_LONG: "it was put aside, found no room to go on for as long as it may wait, and "
    "what was kept of it is gone",
}


def lost(
    record: ClusterRecord, workspaces: Iterable[WorkspaceView], *, now: datetime
) -> ClusterRecord:
    """A cluster of which a workspace has failed is FAILED as a whole."""
    said = "; ".join(
        f"{each.label} on {each.host}: {each.message or 'failed'}" for each in failed(workspaces)
    )
    ended = record.move(ClusterState.FAILED, now=now)
    return replace(
        ended,
        failure=Failure(reason=WORKSPACE_FAILED, message=said),
        end_requested_time=record.end_requested_time or now,
    )
