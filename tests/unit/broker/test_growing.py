"""Who gives way for other terms of a lease that stands: whoever can be saved before they take
more."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.broker.domain.amending import Amendment, amend_before_others
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fewest import GivesWay
from intertie.broker.domain.giving_way import RoomToBeMade
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part, PartState
from intertie.common.amend_rules import DURATION, GROUPS
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import PartName
from intertie.common.spec import ClusterSpec, LeaseTerms
from intertie.common.values import replace
from tests.fakes.clock import START
from tests.unit.broker.line import (
    best_effort,
    by_deadline,
    in_time,
    part_of,
    start,
    view,
    waits,
    with_records,
)
from tests.unit.broker.recalling import Recalling, terms
from tests.unit.broker.samples import HOUR, NOW, POLICY, part_spec, workspace
from tests.unit.broker.standing import admitted, group, spec
from tests.unit.broker.test_giving_way import LATER, MINUTE


def standing(
    here: LedgerView, count: int, *, start_time: datetime | None = None
) -> tuple[LedgerView, ClusterRecord, Part]:
    """With a lease that does not wait, for an hour."""
    lease = LeaseTerms(start_time=start_time, duration=HOUR)
    record, part = admitted("one", spec(group(count=count), lease=lease), here, now=NOW)
    return with_records(here, part), record, part


def waiting(here: LedgerView, count: int, hours: float = 4, **lease: Any) -> LedgerView:
    record = waits("work", best_effort(count, hours * HOUR, **lease))
    return start(with_records(here, record), "work")


def changed(
    here: LedgerView,
    record: ClusterRecord,
    part: Part,
    asked: ClusterSpec,
    *paths: str,
    alone: bool = True,
) -> tuple[Amendment, tuple[GivesWay, ...]]:
    after, aside = amend_before_others(
        record, part, asked, paths, here, POLICY, now=LATER, alone=alone
    )
    assert after is not None
    return after, aside


def of(count: int, hours: float = 1) -> ClusterSpec:
    return spec(group(count=count), lease=LeaseTerms(duration=hours * HOUR))


def test_for_one_that_lasts_longer_a_lease_is_put_off_that_has_time() -> None:
    """Its deadline allows it. A bug: an Update made nobody give way, whatever it took and when."""
    here, record, part = standing(view([]), 8)
    here, aside = in_time("late", by_deadline(8, deadline=NOW + 4 * HOUR), here)
    assert not aside
    assert part_of(here, "late").window == Window(NOW + HOUR, NOW + 2 * HOUR)
    after, aside = changed(here, record, part, of(8, hours=2), DURATION)
    assert after.part.window == Window(NOW, NOW + 2 * HOUR)
    assert "1 lease gives way that may have to" in after.record.reasons
    [moved] = aside
    assert moved.after.window == Window(NOW + 3 * HOUR, NOW + 4 * HOUR)
    with pytest.raises(NoCapacity):
        changed(here, record, part, of(8, hours=3.5), DURATION)


def test_for_one_to_come_that_is_larger_others_run_until_they_have_to_be_saved() -> None:
    at = NOW + HOUR / 2
    here, record, part = standing(view([]), 2, start_time=at)
    here = waiting(here, 6)
    after, aside = changed(here, record, part, of(8), GROUPS)
    assert after.part.window == part.window
    assert len(after.part.placed) == 8
    [gives_way] = aside
    save = paced(gives_way)
    assert gives_way.after.window.end == at - save
    with pytest.raises(RoomToBeMade):
        changed(here, record, part, of(8), GROUPS, alone=False)


def paced(gives_way: GivesWay) -> timedelta:
    assert gives_way.after.keeping is not None
    return gives_way.after.keeping.save


def test_for_more_at_once_only_those_give_way_that_are_cancelled() -> None:
    """Nobody can be saved before. The refusal says so, and what can be had instead."""
    here, record, part = standing(view([]), 4)
    kept = waiting(here, 4)
    with pytest.raises(NoCapacity) as refused:
        changed(kept, record, part, of(6), GROUPS)
    assert refused.value.shortfalls[-1].message == (
        "north: leases that may have to give way cannot be saved by 2026-03-01T12:10:00+00:00, "
        "when the new terms would take more; what is made as a cluster of its own begins when they "
        "are"
    )
    with pytest.raises(NoCapacity) as refused:
        changed(here, record, part, of(9), GROUPS)
    assert not any("of its own" in each.message for each in refused.value.shortfalls)

    gone = waiting(here, 4, cancellable=True)
    found, aside = changed(gone, record, part, of(6), GROUPS)
    assert len(found.part.placed) == 6
    [cancelled] = aside
    assert (cancelled.after.window.end, cancelled.after.end_reason) == (LATER, "PREEMPTED")


def test_for_more_at_once_one_with_a_deadline_begins_later_that_has_not_begun() -> None:
    """Nothing of it has to be saved."""
    here, _, _ = standing(view([]), 4)
    lease = LeaseTerms(duration=2 * HOUR)
    record, part = admitted("two", spec(group(count=2), lease=lease), here, now=NOW)
    here = with_records(here, part)
    here, _ = in_time("late", by_deadline(6, deadline=NOW + 4 * HOUR), here)
    assert part_of(here, "late").window == Window(NOW + HOUR, NOW + 2 * HOUR)
    after, aside = changed(here, record, part, of(4, hours=2), GROUPS)
    assert len(after.part.placed) == 4
    assert [each.after.window for each in aside] == [Window(NOW + 3 * HOUR, NOW + 4 * HOUR)]


def test_where_there_is_room_or_less_is_asked_for_nobody_is_asked() -> None:
    here, record, part = standing(view([]), 2)
    here = waiting(here, 4, cancellable=True)
    for asked, paths in ((of(4), [GROUPS]), (of(1), [GROUPS]), (of(2, hours=3), [DURATION])):
        _, aside = changed(here, record, part, asked, *paths, alone=False)
        assert not aside


def test_both_longer_and_larger_is_had_where_either_is_made_room_for() -> None:
    here, record, part = standing(view([]), 4)
    here, _ = in_time("late", by_deadline(8, deadline=NOW + 4 * HOUR), here)
    after, aside = changed(here, record, part, of(6, hours=2), GROUPS, DURATION)
    assert len(after.part.placed) == 6
    assert [each.after.window.end for each in aside] == [NOW + 4 * HOUR]


async def test_held_for_a_lease_over_several_sites_others_give_way_in_time() -> None:
    """In the transaction that holds it; with the terms that are not in force yet nobody is lost."""
    here = Recalling()
    here.alive()
    window = Window(START + 30 * MINUTE, START + 60 * MINUTE)
    there = [workspace(index=each) for each in range(2)]
    here.standing = replace(here.standing, name=str(PartName("north", "demo", "a1")))
    await here.hold(part_spec(*there, window=window), "a1", replaces=None)
    standing = await here.commit("a1", 0)
    assert standing.state is PartState.CONFIRMED

    may = await here.hold_other(terms(6), "t9")
    here.standing = replace(here.standing, name=may.name)
    await here.commit("t9", 0)
    here.standing = replace(here.standing, name=standing.name)
    await here.clock.advance(600)
    here.alive()
    more = [workspace(index=each) for each in range(8)]
    await here.hold(part_spec(*more, window=window), "b1")
    [work] = [each.value for each in await here.ledger.parts() if each.value.keeping is not None]
    assert work.keeping is not None
    assert work.recalled_end == window.start - work.keeping.save
    held = await here.part()
    assert held.bound
    assert held.spec == standing.spec
    assert await here.vcpus(30 * MINUTE) == 8
