"""A lease that waits runs in stretches: each is a window of its part, and to be put aside and to go
on are windows that end earlier and later."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.broker.domain.cluster import PREEMPTED, ClusterRecord, ClusterState, stretch_of
from intertie.broker.domain.fleet import Policy, SeenPart
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.pace import Paces, still
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.price import until
from intertie.common.intervals import Window
from intertie.common.spec import DEFAULT_DURATION, ClusterSpec
from intertie.common.values import replace

LEAST = timedelta(seconds=1)
"""No stretch begins that would run for less."""
TICK = timedelta(milliseconds=1)
"""One that is broken off at once still has an end after its start."""
LATE = timedelta(seconds=30)
"""What has not been saved in time is counted for so much longer, again and again."""
GIVEN_UP_WITHIN = timedelta(seconds=5)
"""For hosts to hear that workspaces are given up, and to end them; then others are promised what
they had."""


def runs_for(spec: ClusterSpec) -> timedelta:
    """In all."""
    return spec.lease.duration or DEFAULT_DURATION


def must_be_done(spec: ClusterSpec) -> bool:
    """By a deadline."""
    return spec.lease.deadline is not None


def runs_whole(spec: ClusterSpec) -> bool:
    """It begins no stretch that is not to its end: of one that is cancellable nothing would be
    left, and what one with a deadline is promised is for all the rest of it at once."""
    return spec.lease.cancellable or must_be_done(spec)


def left_of(record: ClusterRecord) -> timedelta:
    """Of running, when its next stretch begins."""
    assert record.waits is not None
    return max(runs_for(record.spec) - record.waits.ran, LEAST)


def longest_wait(spec: ClusterSpec, policy: Policy) -> timedelta:
    """The lease's own where it has one, and never more than its site's."""
    return min(spec.lease.max_wait or policy.queue.longest_wait, policy.queue.longest_wait)


def stretch(
    part: Part, record: ClusterRecord, room: Window, paces: Paces, policy: Policy, *, again: bool
) -> Part | None:
    """The part as it runs within `room`: to its end where that is long enough, else until it has
    to be saved so that all is free at the end of it; None where that is no time. `again`: it goes
    on from memory."""
    save = save_of(part, record, paces)
    restore = paces.restore(part.spec, part.placed) if again else timedelta()
    keeping = Keeping(mib_s=policy.queue.pool_mib_s, save=save, restore=restore)
    end = room.start + restore + left_of(record)
    last = part.keeping.promised if part.keeping is not None else None
    # Where going on takes longer than it was to, so much of it is missed.
    if end > room.end and last is not None and last.end == room.end:
        end = room.end
    if (deadline := record.spec.lease.deadline) is not None:
        end = min(end, deadline)
    if end > room.end and runs_whole(record.spec):
        return None
    if end > room.end:
        end = room.end - save
        keeping = replace(keeping, until=end + longest_wait(record.spec, policy))
    if end < room.start + restore + LEAST:
        return None
    spec = replace(part.spec, window=Window(room.start, end))
    return replace(part, spec=spec, keeping=keeping)


def save_of(part: Part, record: ClusterRecord, paces: Paces) -> timedelta:
    """How long it takes to save it; 0 of one that is cancelled instead."""
    if record.spec.lease.cancellable:
        return timedelta()
    return paces.save(part.spec, part.placed)


def may_give_way(part: Part, *, now: datetime) -> bool:
    """It runs, and its site may put it aside."""
    terms = part.spec.recallable
    return (
        part.keeping is not None
        and (terms is None or terms.may_be_put_aside)
        and part.state is PartState.CONFIRMED
        and part.end_requested_time is None
        and part.amend is None
        and now < part.window.end
    )


def put_aside(
    part: Part, record: ClusterRecord, at: datetime, paces: Paces, policy: Policy, *, now: datetime
) -> Part:
    """The part with an earlier end, `at` and not before now. Its memory is kept from there on, but
    of one that is cancelled instead. A coordinator elsewhere is to see it, and counts its terms."""
    assert part.keeping is not None
    end = max(at, now, part.window.start + TICK)
    after = cut(part, end)
    if record.spec.lease.cancellable:
        return replace(after, end_reason=PREEMPTED)
    keeping = replace(
        part.keeping,
        save=save_of(part, record, paces),
        again=paces.restore(part.spec, part.placed),
        until=end + longest_wait(record.spec, policy),
    )
    return replace(after, keeping=keeping)


def cut(part: Part, end: datetime) -> Part:
    """The part with that earlier end."""
    own = not part.coordinator
    return replace(
        part,
        spec=replace(part.spec, window=Window(part.window.start, end)),
        price=until(part.price, end),
        terms=part.terms + 1 if own else part.terms,
        recalled_end=None if own else end,
    )


def window_changed(record: ClusterRecord, part: Part) -> ClusterRecord:
    return replace(record, window=part.window, terms=part.terms)


def suspended(record: ClusterRecord, part: Part, *, now: datetime) -> ClusterRecord:
    """Its stretch is over, and it is kept. The same where it is not."""
    if record.state not in (ClusterState.SCHEDULED, ClusterState.ACTIVE):
        return record
    if not is_kept(part, now=now):
        return record
    assert record.waits is not None
    ran = record.waits.ran + stretch_of(part)
    return replace(
        record.move(ClusterState.SUSPENDED, now=now),
        waits=replace(record.waits, since=part.window.end, ran=ran, foreseen=None),
        reasons=("put aside for others",),
        shortfalls=(),
    )


def is_kept(part: Part, *, now: datetime) -> bool:
    """It is between two stretches."""
    return (
        part.keeping is not None
        and part.keeping.until is not None
        and part.state is PartState.CONFIRMED
        and part.end_requested_time is None
        and part.window.end <= now < part.keeping.until
    )


def is_saved(part: Part, seen: Mapping[str, SeenPart]) -> bool:
    """Every host says that it has obeyed what it was told last, and that nothing of it runs."""
    return all(
        host in seen
        and seen[host].obeyed_generation >= part.generation
        and all(map(still, seen[host].workspaces))
        for host in part.hosts()
    )


def given_up_or_late(part: Part, *, now: datetime) -> Part:
    """What its hosts have not given up in time counts on, as it is there. The same where all have,
    or still may, or end all of it by themselves."""
    if now >= part.ends or all(each.until is None or each.until > now for each in part.shed):
        return part
    late = now + LATE
    shed = tuple(
        each if each.until is None or each.until > now else replace(each, until=late)
        for each in part.shed
    )
    return replace(part, shed=shed)


def saved_or_late(part: Part, seen: Mapping[str, SeenPart], *, now: datetime) -> Part:
    """As it counts by what its hosts say: once all is saved nothing is taken for that any more, and
    what is not in time counts on, as it is there. The same where that is on record."""
    if not is_kept(part, now=now):
        return part
    if is_saved(part, seen):
        return counted_till(part, now)
    assert part.keeping is not None
    if part.keeping.saved or now < part.window.end + part.keeping.save:
        return part
    return replace(part, keeping=replace(part.keeping, save=now - part.window.end + LATE))


def counted_till(part: Part, now: datetime) -> Part:
    """As it would count had it been known when it would be saved. What counts of it from then on
    because it was late is no room of its own: others may have been promised that."""
    keeping = part.keeping
    if keeping is None or keeping.until is None or part.window.end + keeping.save <= now:
        return part
    return replace(part, keeping=replace(keeping, save=max(now - part.window.end, TICK)))


def takes_longer(part: Part, than: Part) -> bool:
    """To be saved, or to be given up, by what is counted of it."""
    assert part.keeping is not None
    assert than.keeping is not None
    return part.keeping.save > than.keeping.save or part.shed is not than.shed
