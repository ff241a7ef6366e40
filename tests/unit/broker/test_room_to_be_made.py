"""Others give way for one lease at a time, and whatever is decided meanwhile, the book counts what
its records say."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from intertie.broker.domain.book import Book
from intertie.broker.domain.giving_way import (
    Admissible,
    RoomToBeMade,
    allotted_before_others,
    draft_before_others,
    writes_of,
)
from intertie.broker.domain.ledger import counted_demands
from intertie.broker.domain.queueing import started
from intertie.broker.domain.records import Change, Write
from intertie.common.calendar import Calendar
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.names import ClusterName
from intertie.common.quantities import DIMENSIONS
from intertie.common.spec import LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.line import best_effort, confirmed, name_of, view, waits
from tests.unit.broker.samples import HOUR, NOW, POLICY, part_spec, workspace
from tests.unit.broker.standing import group, spec
from tests.unit.broker.test_giving_way import LATER, running


class Site:
    """A book, eight of whose eight processors are had by a lease that would give way."""

    def __init__(self) -> None:
        self.here = running(8)
        self.book = Book.of(self.here)

    def draft(
        self, name: str, count: int, *, start: datetime, lasts: timedelta, alone: bool = True
    ) -> Admissible:
        lease = LeaseTerms(duration=lasts, start_time=start)
        asked = normalise(spec(group(count=count), lease=lease), now=LATER)
        return draft_before_others(
            ClusterName.parse(name_of(name)),
            name,
            asked,
            self.book.view(self.here.fleet, self.here.seen),
            POLICY,
            now=LATER,
            alone=alone,
        )

    def change(self, name: str, found: Admissible) -> Change:
        part = confirmed(f"c{name}", found.draft.allotment, now=LATER)
        return Change(
            writes=(Write(record=part), *writes_of(found.aside, now=LATER)),
            admitted_on=self.book.generation,
        )

    def counts_what_is_on_record(self) -> bool:
        seen = self.book.view(self.here.fleet, self.here.seen)
        said = Calendar({}, counted_demands(seen, self.book.admission))
        have = self.book.demands
        return all(
            have.moments(key) == said.moments(key)
            and all(
                have.peak(key, Window(*between)) == said.peak(key, Window(*between))
                for between in pairwise(said.moments(key))
            )
            for key in (f"host/{host}/{of}" for host in ("n1", "n2") for of in DIMENSIONS)
        )


def test_another_may_not_be_decided_while_one_that_makes_room_is_on_its_way() -> None:
    """A bug: what one was put aside for was taken out of the book by who came next, and stayed so,
    and a third was given the same processors."""
    site = Site()
    first = site.draft("u1", 7, start=LATER + 2 * HOUR, lasts=HOUR)
    assert len(first.aside) == 1
    change = site.change("u1", first)
    site.book.reserve(change)
    with pytest.raises(NoCapacity):
        site.draft("u2", 7, start=LATER + HOUR, lasts=HOUR / 2)
    site.book.apply(change, 7)
    assert site.counts_what_is_on_record()
    second = site.draft("u2", 7, start=LATER + HOUR, lasts=HOUR / 2)
    assert len(second.aside) == 1
    change = site.change("u2", second)
    site.book.reserve(change)
    site.book.apply(change, 8)
    assert site.counts_what_is_on_record()


def test_who_is_not_alone_is_told_before_anything_is_looked_at() -> None:
    site = Site()
    with pytest.raises(RoomToBeMade):
        site.draft("u1", 7, start=LATER + HOUR, lasts=HOUR, alone=False)
    found = site.draft("u1", 7, start=LATER + 9 * HOUR, lasts=HOUR, alone=False)
    assert not found.aside, "there is room then as it is"
    assert site.counts_what_is_on_record()


def test_a_hold_that_begins_at_once_is_refused_at_once() -> None:
    """It waited for its turn to make room, to be refused for what was known: who gives way for it
    is saved before its window begins."""
    site = Site()
    view = site.book.view(site.here.fleet, site.here.seen)
    for start, refusal in ((LATER, NoCapacity), (LATER + HOUR, RoomToBeMade)):
        asked = part_spec(*(workspace(index=each) for each in range(7)))
        asked = replace(asked, window=Window(start, start + 2 * HOUR))
        with pytest.raises(refusal):
            allotted_before_others(asked, view, POLICY, tenant="demo", now=LATER, alone=False)


def test_one_whose_end_was_asked_for_meanwhile_does_not_begin() -> None:
    """A bug: the pass had found that it would, before it was deleted."""
    record = replace(waits("a", best_effort(2, HOUR)), end_requested_time=NOW)
    with pytest.raises(NoCapacity):
        started(view([record]), record.name, POLICY, "seed", now=NOW)
