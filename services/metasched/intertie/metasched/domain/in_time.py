"""Leases over several sites that are done by a deadline, and may be put aside on the way.

A site may put such a lease aside only where all of its sites have room on record in which it goes
on at the latest: that is promised to it beside its window, and agreed on with it.
"""

from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.spec import ClusterSpec
from intertie.common.values import replace
from intertie.metasched.domain.amending import DECIDED_BEFORE
from intertie.metasched.domain.cluster import (
    DEADLINE_MISSED,
    ClusterRecord,
    ClusterState,
    Failure,
)
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.waiting import LEAST, runs_for

SLACK = timedelta(seconds=60)
"""Room that is promised begins so much before it has to: all sites are to be asked then, and their
coordinator may just be another replica."""
POOL_MIB_S = 50
"""At which guests' memory comes back at a site that declares no other pace. One that takes longer
refuses what is promised."""
TRIED = 4
"""Windows in which it might go on, from the first one after its window to the last in time."""


def rooms_after(spec: ClusterSpec, plan: Plan) -> tuple[Window, ...]:
    """In which it could go on in time if it were put aside, the earliest first. None of a lease
    without a deadline, or with too near a one."""
    if spec.lease.deadline is None:
        return ()
    length = SLACK + max(_restore(spec, plan) + runs_for(spec), DECIDED_BEFORE)
    first, last = plan.window.end, spec.lease.deadline - length
    if last < first:
        return ()
    step = (last - first) / (TRIED - 1)
    starts = dict.fromkeys((*(first + number * step for number in range(TRIED - 1)), last))
    return tuple(Window(each, each + length) for each in starts)


def with_promise(plan: Plan, room: Window | None) -> Plan:
    said = () if room is None else (f"its sites may put it aside: {goes_on_by(room)}",)
    return replace(plan, promised=room, reasons=(*plan.reasons, *said))


def goes_on_by(room: Window) -> str:
    return f"it goes on by {room.start.isoformat(timespec='seconds')}"


def is_due(record: ClusterRecord, *, now: datetime) -> bool:
    """It is put aside, and what it was promised has come."""
    promised = record.plan.promised
    aside = record.state is ClusterState.SUSPENDED
    return aside and promised is not None and promised.contains(now)


def is_urgent(record: ClusterRecord, *, now: datetime) -> bool:
    """It has just become due, or can be done in time for a minute yet: what was promised is for all
    of it, with what it has run."""
    promised, waits = record.plan.promised, record.waits
    if promised is None or waits is None or not is_due(record, now=now):
        return False
    since = now - promised.start
    return since < SLACK or waits.ran <= since < waits.ran + SLACK


def out_of_time(record: ClusterRecord, *, now: datetime) -> ClusterRecord:
    """The same, unless it is put aside, and what it was promised is over."""
    promised = record.plan.promised
    if record.state is not ClusterState.SUSPENDED or promised is None or now < promised.end:
        return record
    why = "what it had was not saved, or a site did not answer, in what it was promised"
    return record.ending(now=now, reason=DEADLINE_MISSED, failure=failure_of(why))


def window_on(record: ClusterRecord, whole: Window) -> tuple[Window | None, Window | None]:
    """The window in which it goes on, of one that would be in `whole` if nothing bounded it; and
    what stays promised after it. None where that would be no time."""
    promised = record.plan.promised
    if promised is None:
        return whole, None
    # Where going on takes longer than it was to, so much of it is missed.
    end = min(whole.end, promised.end)
    if end < whole.start + LEAST:
        return None, None
    return Window(whole.start, end), promised if end <= promised.start else None


def beside_promise(record: ClusterRecord, window: Window) -> Window:
    """What of the window there has to be room for: from when it was promised some it has that."""
    promised = record.plan.promised
    if promised is None or not window.start < promised.start < window.end:
        return window
    return Window(window.start, promised.start)


def missed(record: ClusterRecord) -> ClusterRecord:
    """The same, unless its windows are over, it was to be done in time, and has not run for as long
    as it was to. Its last window is counted in what it has run."""
    if record.spec.lease.deadline is None or record.waits is None or record.end_reason:
        return record
    if record.waits.ran >= runs_for(record.spec):
        return record
    return replace(record, end_reason=DEADLINE_MISSED, failure=failure_of("it began too late"))


def failure_of(why: str) -> Failure:
    said = f"it was not done by its deadline, though there was room for it: {why}"
    return Failure(reason=DEADLINE_MISSED, message=said)


def _restore(spec: ClusterSpec, plan: Plan) -> timedelta:
    """How long it takes where most of its memory is at one host, as it is planned."""
    memory_mib = {group.name: group.allocation.memory_mib for group in spec.groups}
    most = max(
        (
            sum(memory_mib[group] * count for group, count in host.items())
            for site in plan.sites
            for host in site.packing
        ),
        default=0,
    )
    return timedelta(seconds=-(-most // POOL_MIB_S) + 1)
