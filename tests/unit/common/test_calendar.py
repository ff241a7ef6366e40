from datetime import UTC, datetime, timedelta

import pytest

from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CPU, LINK = "host/n1/vcpus", "link/south/egress"


def window(start: int, end: int) -> Window:
    return Window(NOON + timedelta(minutes=start), NOON + timedelta(minutes=end))


def demand(key: str, start: int, end: int, vcpus: int) -> Demand:
    return Demand(key, window(start, end), {CPU: vcpus})


def test_the_peak_is_the_highest_sum_at_one_moment_not_of_the_window() -> None:
    calendar = Calendar({CPU: 4}, [demand("a", 0, 10, 2), demand("b", 10, 20, 3)])
    assert calendar.peak(CPU, window(0, 20)) == 3
    assert calendar.free(CPU, window(0, 20)) == 1
    assert calendar.free(CPU, window(0, 10)) == 2


def test_what_ends_as_another_begins_does_not_meet_it() -> None:
    calendar = Calendar({CPU: 4}, [demand("a", 0, 10, 4)])
    assert calendar.fits(demand("b", 10, 20, 4))
    assert calendar.fits(demand("b", -10, 0, 4))
    assert not calendar.fits(demand("b", 9, 20, 1))
    assert not calendar.fits(demand("b", -10, 1, 1))


def test_a_window_inside_a_demand_sees_it() -> None:
    calendar = Calendar({CPU: 4}, [demand("a", 0, 100, 3)])
    assert calendar.peak(CPU, window(40, 50)) == 3


def test_shortfalls_name_each_resource_that_is_short_and_what_is_left_of_it() -> None:
    calendar = Calendar({CPU: 4, LINK: 100}, [demand("a", 0, 10, 3)])
    wanted = Demand("b", window(5, 15), {CPU: 2, LINK: 101, "host/n1/memory_mib": 1})
    assert calendar.shortfalls(wanted) == (
        (CPU, 2, 1),
        (LINK, 101, 100),
        ("host/n1/memory_mib", 1, 0),
    )


def test_capacity_that_has_shrunk_leaves_less_than_nothing() -> None:
    calendar = Calendar({CPU: 2}, [demand("a", 0, 10, 3)])
    assert calendar.free(CPU, window(0, 10)) == -1
    assert calendar.shortfalls(demand("b", 0, 10, 1)) == ((CPU, 1, 0),)
    assert calendar.fits(demand("nothing", 0, 10, 0))


def test_removing_gives_back_exactly_what_was_taken() -> None:
    calendar = Calendar({CPU: 4}, [demand("a", 0, 10, 1)])
    calendar.add(demand("b", 5, 15, 2))
    calendar.remove("a")
    assert "a" not in calendar
    assert calendar.peak(CPU, window(0, 5)) == 0
    assert calendar.peak(CPU, window(0, 20)) == 2
    calendar.remove("b")
    assert calendar.free(CPU, window(0, 20)) == 4


def test_a_key_is_counted_once() -> None:
    calendar = Calendar({CPU: 4}, [demand("a", 0, 10, 1)])
    with pytest.raises(ValueError, match="counted already"):
        calendar.add(demand("a", 20, 30, 1))
    with pytest.raises(KeyError):
        calendar.remove("b")


def test_nothing_gives_capacity_by_taking_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="takes -1"):
        demand("a", 0, 10, -1)
