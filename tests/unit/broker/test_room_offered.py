"""What a site offers to a lease over several sites that does not wait, and from when on there could
be more; and that a hold for then gets it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from intertie.broker.domain.giving_way import allotted_before_others, writes_of
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.offers import MAX_MOMENTS, Offer, offers_of
from intertie.broker.domain.records import Change
from intertie.broker.site_proto import offer_to_proto
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window, spread
from intertie.metasched.convert_parts import offer_from_proto
from tests.unit.broker.line import asks, written
from tests.unit.broker.samples import HOUR, NOW, POLICY, part_spec, workspace
from tests.unit.broker.test_giving_way import LATER, MINUTE, SAVE, SECOND, aside, running

QUICK = 4 * SECOND
"""To save one guest of 128 MiB a host, at 50 MiB/s, and the margin."""


def offered(
    here: LedgerView, *starts: datetime, now: datetime = LATER, before_others: bool = True
) -> tuple[Offer, ...]:
    windows = tuple(Window(each, each + HOUR) for each in starts)
    return offers_of(here, POLICY, windows, (), now=now, before_others=before_others)


def vcpus(offers: Sequence[Offer]) -> list[int]:
    return [sum(host.free.vcpus for host in each.hosts) for each in offers]


def held(here: LedgerView, count: int, start: datetime, *, now: datetime = LATER) -> list[str]:
    """Who gives way for a part of so many workspaces, and where that begins."""
    asked = part_spec(
        *(workspace(index=each) for each in range(count)), window=Window(start, start + HOUR)
    )
    _, gives_way = allotted_before_others(asked, here, POLICY, tenant="demo", now=now, alone=True)
    return [each.record.value.name.rpartition("/")[2] for each in gives_way]


def test_an_offer_says_from_when_on_there_could_be_more() -> None:
    here = running(8)
    now, then, later = offered(here, LATER, LATER + SAVE, LATER + MINUTE)
    assert vcpus([now, then, later]) == [0, 8, 8]
    assert now.room_from == (LATER + SAVE,)
    assert then.room_from == later.room_from == ()
    assert held(here, 8, now.room_from[0]) == ["a"]
    with pytest.raises(NoCapacity):
        held(here, 8, now.room_from[0], now=LATER + SECOND)


def test_it_says_so_only_to_those_that_others_give_way_to() -> None:
    [plain] = offered(running(8), LATER, before_others=False)
    assert plain.room_from == ()
    [empty] = offered(running(), LATER)
    assert empty.room_from == ()


def test_who_is_saved_sooner_is_out_of_the_way_sooner() -> None:
    """A bug: nothing counted as free before all could have been saved."""
    here = running(6, 2)
    almost = LATER + QUICK - timedelta(microseconds=1)
    now, none, soon, late = offered(here, LATER, almost, LATER + QUICK, LATER + 4 * SAVE)
    assert now.room_from == (LATER + QUICK, LATER + 9 * SECOND)
    assert soon.room_from == now.room_from[1:]
    assert vcpus([now, none, soon, late]) == [0, 0, 2, 8]
    assert held(here, 2, now.room_from[0]) == ["b"]
    assert held(here, 8, now.room_from[1]) == ["b", "a"]


def test_who_could_not_be_saved_in_time_is_not_asked() -> None:
    """A bug: it was put aside as well, where 32 others were before it."""
    here = running(2, 6)
    assert aside(asks(here, 2, now=LATER)) == ["b"], "the last in the order"
    assert held(here, 2, LATER + QUICK) == ["a"]


def test_what_is_being_saved_for_another_is_said_too() -> None:
    here = running(8)
    found = asks(here, 4, now=LATER)
    then = written(here, Change(writes=tuple(writes_of(found.aside, now=LATER))))
    now, later = offered(then, LATER + SECOND, LATER + SAVE, now=LATER + SECOND)
    assert now.room_from == (LATER + SAVE,)
    assert vcpus([now, later]) == [0, 8]


def test_who_is_over_before_it_were_saved_is_waited_for() -> None:
    here = running(8)
    last = NOW + 4 * HOUR - 5 * SECOND
    now, later = offered(here, last, last + 5 * SECOND, now=last)
    assert now.room_from == (last + 5 * SECOND,)
    assert vcpus([now, later]) == [0, 8]


def test_who_is_over_when_a_window_begins_takes_nothing_of_what_is_offered_for_it() -> None:
    """It was counted as put aside, and so its disk and its memory as kept for weeks."""
    here, starts = running(8), (LATER, NOW + 4 * HOUR, LATER + MINUTE)
    plain = offered(here, *starts, before_others=False)
    found = offered(here, *starts)
    assert [each.window.start for each in found] == [*starts]
    assert found[1].hosts == plain[1].hosts
    assert vcpus(found) == [0, 8, 8]


def test_who_is_being_saved_when_a_window_begins_could_have_been_sooner() -> None:
    here = running(8)
    found = asks(here, 8, now=LATER, start_time=LATER + HOUR)
    then = written(here, Change(writes=tuple(writes_of(found.aside, now=LATER))))
    [offer] = offered(then, LATER + HOUR - SECOND)
    assert vcpus([offer]) == [8]
    assert held(then, 8, LATER + HOUR - SECOND) == ["a"]


def test_moments_are_whole_seconds_and_few() -> None:
    here = running(8)
    part = LATER + timedelta(milliseconds=250)
    [now] = offered(here, part, now=part)
    assert now.room_from == (LATER + SAVE + SECOND,)
    many = [NOW + number * SECOND for number in range(100)]
    few = spread(many, MAX_MOMENTS)
    assert len(few) == MAX_MOMENTS
    assert (few[0], few[-1]) == (many[0], many[-1])
    assert list(few) == sorted(set(few))
    assert spread(many[:3], MAX_MOMENTS) == tuple(many[:3])


def test_it_is_on_the_wire_and_an_older_site_says_nothing() -> None:
    [now] = offered(running(8), LATER)
    sent = offer_to_proto(now)
    assert offer_from_proto(sent).room_from == now.room_from
    sent.ClearField("room_from")
    assert offer_from_proto(sent).room_from == ()
