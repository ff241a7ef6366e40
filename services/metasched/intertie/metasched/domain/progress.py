"""What parts make of a cluster over sites, as time goes by."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.common.values import replace
from intertie.metasched.domain.cluster import (
    CANCELLED,
    DEADLINE_MISSED,
    LIVE,
    PART_LOST,
    PREEMPTED,
    STANDING,
    WAITED_TOO_LONG,
    WINDOW_OVER,
    WORKSPACE_FAILED,
    ClusterRecord,
    ClusterState,
    Failure,
    PartSeen,
    WorkspaceSeen,
    WorkspaceState,
    priced,
)
from intertie.metasched.domain.in_time import failure_of, missed
from intertie.metasched.domain.lost_sites import given_up

PATIENCE = timedelta(seconds=20)
"""A workspace that is FAILED for so long without a break is lost, as at the brokers: agents try
again by themselves what may come right, a restart of libvirtd for one."""

_STATE_AFTER = {
    CANCELLED: ClusterState.CANCELLED,
    WORKSPACE_FAILED: ClusterState.FAILED,
    PART_LOST: ClusterState.FAILED,
    WAITED_TOO_LONG: ClusterState.FAILED,
    PREEMPTED: ClusterState.CANCELLED,
    DEADLINE_MISSED: ClusterState.FAILED,
}


def failing(
    parts: Mapping[str, PartSeen], since: Mapping[str, datetime], *, now: datetime
) -> dict[str, datetime]:
    """Since when each workspace that is FAILED has been so, by label; `since` is what this was
    before. A site that is silent neither ends a failure nor begins one."""
    failed = {
        each.label: part.current
        for part in parts.values()
        for each in part.workspaces
        if each.state is WorkspaceState.FAILED
    }
    return {
        label: since.get(label, now)
        for label, current in failed.items()
        if current or label in since
    }


def progressed(
    record: ClusterRecord,
    parts: Mapping[str, PartSeen],
    *,
    now: datetime,
    failing_since: Mapping[str, datetime],
    unplaced: str | None = None,
) -> ClusterRecord:
    """The cluster as its parts make it: ACTIVE once all workspaces are ready, at its end once
    no site has anything left. A workspace that its site says has FAILED for all of
    PATIENCE, or a part that a site gave up inside the window, ends the whole cluster.

    `parts` has what is known, by site; a site that never answered is not in it.
    `failing_since` is of `failing`; who does not keep it gives an empty one, and ends nothing
    for a workspace that failed. `unplaced`: why what lost sites had cannot be had elsewhere; None:
    it is, or is not known to be impossible, so such a site ends nothing.
    """
    if record.state not in STANDING:
        return record
    record = priced(record, parts)
    lost = given_up(record, parts, now=now)
    if unplaced is None:
        parts = {site: part for site, part in parts.items() if site not in lost}
    known = len(parts) == len(record.parts)
    for site, part in parts.items():
        failure: Failure | None
        failed = _failed(part, failing_since, now=now)
        if failed is not None or part.end_reason == WORKSPACE_FAILED:
            what = f"{failed.label}: {failed.message}" if failed else "a workspace failed"
            failure = Failure(reason=WORKSPACE_FAILED, message=f"{site}: {what}")
            record = record.ending(now=now, reason=WORKSPACE_FAILED, failure=failure)
        elif part.over and (failure := waiting_over(record, site, part)) is not None:
            record = record.ending(now=now, reason=failure.reason, failure=failure)
        elif part.over and part.end_reason != WINDOW_OVER and now < record.window.end:
            why = part.end_reason or "it is not known there"
            if part.end_message:
                why = f"{why}: {part.end_message}"
            message = f"{site} ended its part: {why}"
            if unplaced and site in lost:
                message = f"{message}; and what it had cannot be had elsewhere: {unplaced}"
            failure = Failure(reason=PART_LOST, message=message)
            record = record.ending(now=now, reason=PART_LOST, failure=failure)
    if known and all(part.over for part in parts.values()):
        if record.state is not ClusterState.SUSPENDED:
            record = missed(has_run(record))
        return record.move(_STATE_AFTER.get(record.end_reason, ClusterState.ENDED), now=now)
    if is_aside(record, now=now):
        after = has_run(record).move(ClusterState.SUSPENDED, now=now)
        return replace(after, plan=replace(after.plan, reasons=("put aside for others",)))
    if (
        record.state is ClusterState.SCHEDULED
        and known
        and all(_runs(record, w) for part in parts.values() for w in part.workspaces)
        and any(part.workspaces for part in parts.values())
    ):
        return record.move(ClusterState.ACTIVE, now=now)
    return record


def waiting_over(record: ClusterRecord, site: str, part: PartSeen) -> Failure | None:
    """Of a lease that waits: why it is over once a site has nothing of it any more. None: for
    another reason, or it has run for as long as it was to."""
    if record.waits is None:
        return None
    if part.end_reason == PREEMPTED:
        said = f"others came to {site} that do not wait, and it is cancellable"
        return Failure(reason=PREEMPTED, message=said)
    if part.end_reason == WAITED_TOO_LONG and record.spec.lease.deadline is not None:
        return failure_of(f"{site} has kept what it had until the end of what it was promised")
    if part.end_reason == WAITED_TOO_LONG:
        said = f"it was put aside, and {site} has kept what it had for as long as it could"
        return Failure(reason=WAITED_TOO_LONG, message=said)
    if record.waits.aside and record.end_requested_time is None:
        why = part.end_reason or "it is not known there"
        return Failure(reason=PART_LOST, message=f"{site} has nothing of it any more: {why}")
    return None


def is_aside(record: ClusterRecord, *, now: datetime) -> bool:
    """Its stretch is over, and what it has is kept."""
    return (
        record.state in LIVE
        and record.waits is not None
        and record.waits.aside
        and record.end_requested_time is None
        and now >= record.window.end
    )


def has_run(record: ClusterRecord) -> ClusterRecord:
    """With its window in what it has run, as far as the end of that is known; waiting from then
    on."""
    if record.waits is None:
        return record
    ends = (record.window.end, record.end_requested_time)
    end = min(each for each in ends if each is not None)
    ran = max(end - record.window.start - record.waits.restore, timedelta())
    waits = replace(record.waits, ran=record.waits.ran + ran, since=end, foreseen=None)
    return replace(record, waits=waits)


def _runs(record: ClusterRecord, workspace: WorkspaceSeen) -> bool:
    """One that was put aside is ready as it was, and has yet to go on."""
    saved = record.waits is not None and workspace.state is WorkspaceState.SUSPENDED
    return workspace.ready and not saved


def _failed(
    part: PartSeen, failing_since: Mapping[str, datetime], *, now: datetime
) -> WorkspaceSeen | None:
    """A workspace that the site says now is FAILED, and that was so for PATIENCE."""
    for each in part.workspaces if part.current else ():
        since = failing_since.get(each.label)
        if each.state is WorkspaceState.FAILED and since and now - since >= PATIENCE:
            return each
    return None
