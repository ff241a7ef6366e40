"""Leases that are done by a moment: what is kept for them, how others make them wait, and when that
is over."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from intertie.broker.domain.cluster import DEADLINE_MISSED, ClusterState, settled
from intertie.broker.domain.deadlines import draft_in_time, sooner
from intertie.broker.domain.giving_way import Admissible, writes_of
from intertie.broker.domain.in_time import SLACK
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.planning import pinned
from intertie.broker.domain.queueing import outlooks, starting, stretches_over
from intertie.broker.domain.records import Change
from intertie.broker.domain.usage import next_period, reserved_window
from intertie.common.errors import FieldInvalid, NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.spec import normalise
from intertie.common.values import replace
from tests.unit.broker.line import (
    IMAGES,
    asks,
    best_effort,
    by_deadline,
    in_time,
    name_of,
    part_of,
    saved,
    start,
    view,
    waits,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, NOW, POLICY

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
SAVE = 12 * SECOND
"""Of four times 128 MiB on a host, at 50 MiB/s, and the margin; as long to come back."""


def with_one(hours: float, *, before: LedgerView | None = None, count: int = 8) -> LedgerView:
    """`one` takes all eight vCPUs for an hour, and is to be done in so many."""
    asked = by_deadline(count, deadline=NOW + hours * HOUR)
    return in_time("one", asked, before or view([]))[0]


def after(here: LedgerView, found: Admissible, *, now: datetime) -> LedgerView:
    """With who gives way, and the other counted."""
    allotment = found.draft.allotment
    other = replace(
        part_of(here, "one"),
        name="sites/north/tenants/demo/parts/other",
        spec=allotment.spec,
        placed=allotment.placed,
        keeping=None,
    )
    here = written(here, Change(writes=tuple(writes_of(found.aside, now=now))))
    return with_records(here, other)


def told(here: LedgerView, cluster_id: str) -> LedgerView:
    """Its hosts know of it."""
    part = replace(part_of(here, cluster_id), generation=1)
    return with_records(here, part)


def passed(here: LedgerView, *, now: datetime) -> LedgerView:
    for change in list(stretches_over(here, now=now)):
        here = written(here, change)
    return here


def test_it_begins_at_once_where_there_is_room() -> None:
    part = part_of(with_one(1), "one")
    assert part.window == Window(NOW, NOW + HOUR)
    assert [each.kind for each in part.price] == ["deadline"]
    assert [each.allocation.disk_mib for each in part.spec.workspaces] == [128] * 8, "as asked for"


def test_it_begins_when_there_is_room_and_no_later_than_it_has_to() -> None:
    full = start(view([waits("full", best_effort(8, HOUR))]), "full")
    here, aside = in_time("one", by_deadline(8, deadline=NOW + 2 * HOUR), full)
    assert part_of(here, "one").window == Window(NOW + HOUR, NOW + 2 * HOUR)
    assert not aside, "there was room without"
    here, aside = in_time("one", by_deadline(8, deadline=NOW + 1.5 * HOUR), full)
    assert part_of(here, "one").window == Window(NOW + HOUR / 2, NOW + 1.5 * HOUR)
    assert [each.after.window.end for each in aside] == [NOW + HOUR / 2 - SAVE]


def test_nothing_is_reserved_before_it_begins() -> None:
    """A bug: records of usage had all of it from when it was admitted, an hour before."""
    full = start(view([waits("full", best_effort(8, HOUR))]), "full")
    here, _ = in_time("one", by_deadline(8, deadline=NOW + 2 * HOUR), full)
    part = part_of(here, "one")
    assert part.window.start == NOW + HOUR
    assert reserved_window(part) == part.window
    assert next_period(part, None) == part.window


def test_one_for_which_there_is_no_schedule_is_refused_with_what_is_short() -> None:
    here = with_one(1.5)
    with pytest.raises(NoCapacity) as refusal:
        in_time("two", by_deadline(1, deadline=NOW + 1.9 * HOUR), here)
    assert "vcpus" in {each.resource for each in refusal.value.shortfalls}
    two, _ = in_time("two", by_deadline(1, deadline=NOW + 2 * HOUR), here)
    assert part_of(two, "two").window.start == NOW + HOUR


def test_the_time_of_asking_counts() -> None:
    asked = normalise(by_deadline(1, deadline=NOW + HOUR), now=NOW)
    late = NOW + SECOND
    with pytest.raises(FieldInvalid, match=r"spec\.lease\.deadline"):
        draft_in_time(
            ClusterName.parse(name_of("one")),
            "one",
            pinned(asked, IMAGES, POLICY),
            view([]),
            POLICY,
            now=late,
        )


def test_it_is_put_aside_with_room_for_all_the_rest_in_time() -> None:
    here, now = told(with_one(4), "one"), NOW + 20 * MINUTE
    found = asks(here, 8, now=now)
    assert found.draft.allotment.spec.window.start == now + SAVE
    here = after(here, found, now=now)
    part = part_of(here, "one")
    assert part.window.end == now
    assert part.keeping is not None
    room = Window(NOW + 4 * HOUR - 40 * MINUTE - SAVE - SLACK, NOW + 4 * HOUR)
    assert part.keeping.promised == room
    assert part.ends == room.end
    calendar = calendar_of(here, POLICY)
    assert calendar.free("host/n1/vcpus", room) == 0, "it is kept for it"
    assert calendar.free("host/n1/vcpus", Window(now + 2 * HOUR, room.start)) == 4
    with pytest.raises(NoCapacity):
        asks(here, 1, now=now, start_time=room.start - HOUR + SECOND)
    assert not asks(here, 8, now=now, start_time=room.start - HOUR).aside


def test_it_goes_on_as_soon_as_it_can_run_to_its_end_and_at_the_latest_as_promised() -> None:
    here, now = told(with_one(4), "one"), NOW + 20 * MINUTE
    here = after(here, asks(here, 8, now=now), now=now)
    here = saved(passed(here, now=now + SAVE), "one")
    assert not starting(here, POLICY, now=now + SAVE), "the other has it all"
    outlook = outlooks(here, POLICY, now=now + SAVE)[name_of("one")]
    assert outlook.foreseen == now + SAVE + HOUR
    assert any("at the latest" in each for each in outlook.reasons)
    free = now + SAVE + HOUR
    assert starting(here, POLICY, now=free) == [name_of("one")]
    on = part_of(start(here, "one", now=free), "one")
    assert on.window == Window(free, free + SAVE + 40 * MINUTE)
    assert on.keeping is not None
    assert (on.keeping.until, on.keeping.promised) == (None, None)
    assert [each.kind for each in on.price] == ["deadline", "deadline"]


def test_who_must_go_on_does_so_before_all_that_is_in_line() -> None:
    here, now = told(with_one(2.5), "one"), NOW + 20 * MINUTE
    here = saved(passed(after(here, asks(here, 8, now=now), now=now), now=now), "one")
    first = waits("first", best_effort(8), now=NOW - HOUR)
    here = replace(here, clusters={**here.clusters, **view([first]).clusters})
    part = part_of(here, "one")
    assert part.keeping is not None
    assert part.keeping.promised is not None
    due = part.keeping.promised.start
    assert starting(here, POLICY, now=due)[0] == name_of("one")
    on = start(here, "one", now=due + SLACK)
    assert part_of(on, "one").window.end == NOW + 2.5 * HOUR


def test_once_it_could_not_be_done_in_time_it_gives_way_to_nobody() -> None:
    here = told(with_one(1.5), "one")
    with pytest.raises(NoCapacity):
        asks(here, 1, now=NOW + MINUTE)
    with pytest.raises(NoCapacity):
        asks(here, 1, now=NOW + MINUTE, start_time=NOW + HOUR / 2)


def test_an_hour_fits_in_between_and_a_second_more_does_not() -> None:
    """The other takes an hour, and saving, restoring and slack have to fit beside it."""
    spare = HOUR + 2 * SAVE + SLACK
    least = told(with_one((HOUR + spare) / HOUR), "one")
    assert asks(least, 8, now=NOW + MINUTE).aside
    less = told(with_one((HOUR + spare - SECOND) / HOUR), "one")
    with pytest.raises(NoCapacity):
        asks(less, 8, now=NOW + MINUTE)


def test_one_that_no_host_knows_of_begins_later_as_a_whole() -> None:
    full = start(view([waits("full", best_effort(8, HOUR))]), "full")
    here = with_one(5, before=full)
    found = asks(here, 8, now=NOW, start_time=NOW + HOUR)
    [moved] = found.aside
    assert moved.after.window == Window(NOW + 4 * HOUR, NOW + 5 * HOUR)
    assert moved.after.price[-1].window == moved.after.window
    assert found.draft.allotment.spec.window.start == NOW + HOUR, "there is nothing to save"
    known = told(here, "one")
    with pytest.raises(NoCapacity):
        asks(known, 8, now=NOW, start_time=NOW + HOUR)


def test_it_is_not_put_off_to_where_there_is_no_room() -> None:
    full = start(view([waits("full", best_effort(8, HOUR))]), "full")
    here = with_one(3, before=full)
    here = after(here, asks(here, 8, now=NOW, start_time=NOW + 2 * HOUR), now=NOW)
    assert part_of(here, "one").window.start == NOW + HOUR, "it was in nobody's way"
    with pytest.raises(NoCapacity):
        asks(here, 8, now=NOW, start_time=NOW + HOUR)


def test_others_that_could_not_be_saved_in_time_do_not_help() -> None:
    full = start(view([waits("full", best_effort(8, 4 * HOUR))]), "full")
    now = NOW + MINUTE
    with pytest.raises(NoCapacity):
        in_time("one", by_deadline(8, deadline=now + HOUR + SAVE - SECOND), full, now=now)
    here, aside = in_time("one", by_deadline(8, deadline=now + HOUR + SAVE), full, now=now)
    assert part_of(here, "one").window == Window(now + SAVE, now + SAVE + HOUR)
    assert len(aside) == 1


def test_it_goes_on_only_where_it_can_run_to_its_end() -> None:
    here, now = told(with_one(6), "one"), NOW + 20 * MINUTE
    here = saved(passed(after(here, asks(here, 8, now=now), now=now), now=now), "one")
    over = now + SAVE + HOUR
    begins = over + 40 * MINUTE
    found = asks(here, 8, now=now, start_time=begins)
    assert not found.aside
    third = replace(
        here.parts["sites/north/tenants/demo/parts/other"].value,
        name="sites/north/tenants/demo/parts/third",
        spec=found.draft.allotment.spec,
    )
    assert not starting(with_records(here, third), POLICY, now=over)
    assert starting(here, POLICY, now=over)


def test_best_effort_ones_give_way_first() -> None:
    here = with_one(4, count=4)
    late = waits("late", best_effort(4, 4 * HOUR))
    here = start(replace(here, clusters={**here.clusters, **view([late]).clusters}), "late")
    found = asks(here, 4, now=NOW + MINUTE)
    assert [each.record.value.name for each in found.aside] == [name_of("late")]
    both = asks(here, 8, now=NOW + MINUTE)
    assert len(both.aside) == 2


def test_it_begins_sooner_where_there_is_room_by_then() -> None:
    full = start(view([waits("full", best_effort(8, HOUR))]), "full")
    here = with_one(3, before=full)
    assert sooner(here, POLICY, now=NOW) is None
    gone = {name: each for name, each in here.parts.items() if name == part_of(here, "one").name}
    now = NOW + MINUTE
    here = replace(here, parts=gone)
    on_its_way = replace(here, amended=frozenset(gone))
    assert sooner(on_its_way, POLICY, now=now) is None, "other terms of it are counted"
    change = sooner(here, POLICY, now=now)
    assert change is not None
    there = written(here, change)
    assert part_of(there, "one").window == Window(now, now + HOUR)
    assert there.clusters[name_of("one")].value.window == part_of(there, "one").window
    assert change.admitted_on is not None


def test_one_that_went_on_late_by_another_clock_goes_on_sooner_for_all_that_is_left() -> None:
    """A leader whose clock is minutes ahead has it go on until its deadline, and no longer; the
    next one has the time for all of it, and what is over costs no more for that."""
    here, now = told(with_one(2.5), "one"), NOW + 20 * MINUTE
    here = passed(after(here, asks(here, 8, now=now), now=now), now=now)
    here = saved(here, "one")
    put_aside = part_of(here, "one")
    deadline, ahead = NOW + 2.5 * HOUR, NOW + 2.4 * HOUR
    here = start(here, "one", now=ahead)
    assert part_of(here, "one").window == Window(ahead, deadline), "it went on too late"
    now = NOW + 1.4 * HOUR
    change = sooner(here, POLICY, now=now)
    assert change is not None
    part = part_of(written(here, change), "one")
    assert part.window == Window(now, now + SAVE + 40 * MINUTE)
    stretches = [each.window for each in part.price]
    assert stretches == [put_aside.price[0].window, Window(now + SAVE, part.window.end)]
    assert [each.until for each in part.charged] == [put_aside.window.end, now]


def test_one_that_a_host_kept_from_going_on_says_that_it_missed_its_deadline() -> None:
    here, now = told(with_one(2.5), "one"), NOW + 20 * MINUTE
    here = passed(after(here, asks(here, 8, now=now), now=now), now=now)
    part = part_of(here, "one")
    assert part.keeping is not None
    assert part.keeping.promised is not None
    assert starting(here, POLICY, now=part.keeping.promised.start), "it is due"
    with pytest.raises(NoCapacity, match="still being saved"):
        start(here, "one", now=part.keeping.promised.start)
    over = part.move(PartState.ENDED, now=part.ends, reason="WAITED_TOO_LONG")
    record = settled(here.clusters[name_of("one")].value, over, (), now=part.ends)
    assert record.state is ClusterState.FAILED
    assert record.failure is not None
    assert record.failure.reason == DEADLINE_MISSED
    whole = part_of(with_one(2), "one").move(PartState.ENDED, now=NOW + HOUR, reason="WINDOW_OVER")
    done = settled(with_one(2).clusters[name_of("one")].value, whole, (), now=NOW + HOUR)
    assert (done.state, done.failure) == (ClusterState.ENDED, None)


def test_what_takes_longer_to_come_back_than_it_was_to_runs_until_its_deadline() -> None:
    here, now = told(with_one(2.5), "one"), NOW + 20 * MINUTE
    here = passed(after(here, asks(here, 8, now=now), now=now), now=now)
    here = saved(here, "one")
    part = part_of(here, "one")
    assert part.keeping is not None
    assert part.keeping.promised is not None
    slow = replace(POLICY, queue=replace(POLICY.queue, pool_mib_s=5))
    on = part_of(start(here, "one", now=part.keeping.promised.start, policy=slow), "one")
    assert on.window.end == NOW + 2.5 * HOUR
    record = here.clusters[name_of("one")].value
    over = on_time(on)
    assert (
        settled(replace(record, state=ClusterState.ACTIVE), over, (), now=over.window.end).state
        is ClusterState.FAILED
    )


def on_time(part: Part) -> Part:
    return part.move(PartState.ENDED, now=part.window.end, reason="WINDOW_OVER")
