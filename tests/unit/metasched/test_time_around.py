"""Windows around those that are asked for, and when what is short would be free."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.common.errors import Shortfall
from intertie.common.intervals import Window
from intertie.metasched.domain.candidates import MOST_WINDOWS
from intertie.metasched.domain.problem import Offer
from intertie.metasched.domain.time_around import (
    between,
    between_durations,
    later_than,
    shorter_than,
)
from intertie.metasched.domain.until import with_until
from tests.unit.metasched.problems import NOW, group, link, linked, offer, problem, window

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.mark.parametrize("start", [NOW, NOW + 17 * SECOND, NOW + timedelta(microseconds=5)])
@pytest.mark.parametrize("horizon", [HOUR, 24 * HOUR])
def test_later_ones_are_as_long_and_up_to_the_horizon(start: datetime, horizon: timedelta) -> None:
    asked = [Window(start, start + HOUR), Window(start + 10 * MINUTE, start + 70 * MINUTE)]
    later = later_than(asked, slot=5 * MINUTE, horizon=horizon)
    latest = asked[-1].start
    assert 0 < len(later) < MOST_WINDOWS
    assert all(each.duration == HOUR for each in later)
    assert all(latest < each.start <= latest + horizon for each in later)
    starts = [each.start for each in later]
    assert starts == sorted(set(starts))
    assert all(each.second == each.microsecond == 0 for each in starts)
    assert latest + horizon - starts[-1] < 2 * max(5 * MINUTE, horizon / 60)


def test_between_two_starts_there_is_every_minute() -> None:
    found = between(NOW, Window(NOW + 10 * MINUTE, NOW + 70 * MINUTE))
    assert [each.start - NOW for each in found] == [n * MINUTE for n in range(1, 10)]
    assert {each.duration for each in found} == {HOUR}
    assert between(NOW, Window(NOW + MINUTE, NOW + HOUR)) == ()


def test_shorter_ones_begin_at_the_same_time_the_longest_first() -> None:
    found = shorter_than(Window(NOW, NOW + HOUR))
    spans = [each.duration for each in found]
    assert {each.start for each in found} == {NOW}
    assert spans == sorted(spans, reverse=True)
    assert spans[0] == HOUR * 31 / 32 - timedelta(milliseconds=500)
    assert spans[-1] == HOUR / 32 - timedelta(milliseconds=500)
    assert all(span % SECOND == timedelta() for span in spans)
    [one] = shorter_than(Window(NOW, NOW + 2 * SECOND))
    assert one.duration == SECOND
    assert shorter_than(Window(NOW, NOW + SECOND)) == ()


def test_between_two_durations_there_is_every_second() -> None:
    longer, shorter = Window(NOW, NOW + HOUR), Window(NOW, NOW + HOUR - 5 * SECOND)
    spans = [HOUR - each.duration for each in between_durations(longer, shorter)]
    assert spans == [n * SECOND for n in range(1, 5)]
    assert between_durations(longer, Window(NOW, NOW + HOUR - SECOND)) == ()


def test_what_is_short_is_enough_from_the_first_window_that_has_it_in_total() -> None:
    def of(vcpus: int, mbit_s: int) -> Offer:
        return offer(vcpus, vcpus, links={"b": link(mbit_s)})

    sites = linked({"a": [offer(1)] * 4, "b": [offer(0)] * 4}, link())
    sites["a"] = [of(1, 10), of(2, 10), of(3, 30), of(9, 90)]
    given = problem([group()], sites)

    def until(**short: Any) -> datetime | None:
        fields: dict[str, Any] = {"site": "a", "resource": "vcpus", "unit": "vCPU", **short}
        told = Shortfall(**fields)
        [after] = with_until([told], given, (1, 2, 3))
        return after.until

    assert until(wanted=4) == window(1).start
    assert until(wanted=5) == window(2).start
    assert until(wanted=99) is None
    assert until(site="", wanted=18) == window(3).start, "all sites together"
    assert until(resource="link_egress", unit="Mbit/s", peer="b", wanted=20) == window(2).start
    assert until(resource="link_egress", unit="Mbit/s", peer="c", wanted=1) is None
    assert until(resource="image", unit="", wanted=0) is None
    assert until(host="n1", wanted=1) is None, "of one host nobody knows"
