"""The scheduler on four nodes, with cases that were worked out by hand."""

import pytest

from intertie.common.errors import FieldInvalid, NameTaken
from intertie.common.leasing.preemption import LeastDone
from tests.unit.broker.leasing.sites import Site


def test_a_lease_runs_for_as_long_as_it_asked_for() -> None:
    site = Site()
    site.submit(5, "a", 4, 100)
    site.submit(6, "b", 4, 10)
    assert site.to_the_end() == ["5 start a", "105 end a", "105 start b", "115 end b"]


def test_nodes_of_a_lease_that_ends_early_go_to_the_next() -> None:
    site = Site()
    site.submit(0, "a", 3, 100)
    site.submit(0, "b", 2, 100)
    site.end(30, "a")
    assert site.said == ["0 start a", "30 end a", "30 start b"]


def test_a_reservation_has_leases_suspended_just_in_time_and_they_go_on_after_it() -> None:
    """Suspend and resume take 10 s each: a runs from 0 to 90 and from 210, 110 of its 200 left."""
    site = Site()
    assert site.reserve(0, "r", 2, 100, 100) == 0
    site.submit(0, "a", 3, 200)
    assert site.to_the_end() == [
        "0 start a",
        "90 suspend a",
        "100 suspended a",
        "100 start r",
        "200 end r",
        "200 resume a",
        "210 resumed a",
        "320 end a",
    ]


def test_a_lease_that_is_suspended_goes_on_elsewhere_where_its_nodes_are_taken() -> None:
    site = Site()
    site.submit(0, "a", 2, 200)
    site.submit(0, "b", 2, 110)
    site.reserve(0, "r", 2, 100, 500)
    site.to_the_end()
    nodes = {(event.kind.value, event.lease): event.nodes for event in site.events}
    assert nodes["start", "b"] == nodes["suspended", "b"] == nodes["start", "r"] == (2, 3)
    assert nodes["resume", "b"] == nodes["end", "a"] == (0, 1)


def test_a_lease_goes_on_on_its_own_nodes_where_they_are_free() -> None:
    """b had 2 and 3, and all are free when it goes on: nothing has to be moved."""
    site = Site()
    site.submit(0, "a", 2, 50)
    site.submit(0, "b", 2, 500)
    site.reserve(60, "r", 4, 100, 50)
    site.to_the_end()
    nodes = {(event.kind.value, event.lease): event.nodes for event in site.events}
    assert nodes["start", "b"] == nodes["resume", "b"] == (2, 3)


def test_with_suspend_off_who_gives_way_starts_again_from_nothing() -> None:
    site = Site(suspension=None, preemption=LeastDone())
    site.submit(0, "a", 2, 200)
    site.submit(20, "b", 2, 200)
    site.reserve(50, "r", 2, 100, 50)
    assert site.to_the_end() == [
        "0 start a",
        "20 start b",
        "100 cancel b",
        "100 start r",
        "150 end r",
        "150 start b",
        "200 end a",
        "350 end b",
    ]


def test_with_suspend_off_no_lease_starts_that_a_reservation_would_cancel() -> None:
    site = Site(suspension=None)
    site.reserve(0, "r", 2, 100, 50)
    site.submit(0, "a", 3, 101)
    site.submit(1, "b", 3, 99)
    assert site.to_the_end() == [
        "1 start b",
        "100 end b",
        "100 start r",
        "150 end r",
        "150 start a",
        "251 end a",
    ]


def test_a_lease_does_not_start_so_late_that_it_could_not_be_suspended_in_time() -> None:
    """It would run for less than a minute, and be suspended for 10 s, before 60."""
    site = Site()
    site.reserve(0, "r", 4, 60, 100)
    site.submit(0, "a", 1, 500)
    assert site.said == []
    assert site.to_the_end()[-2:] == ["160 start a", "660 end a"]


def test_a_reservation_that_does_not_fit_is_told_how_many_nodes_it_lacks() -> None:
    site = Site()
    assert site.reserve(0, "r1", 3, 100, 50) == 0
    assert site.reserve(0, "r2", 3, 149, 50) == 2
    assert site.reserve(0, "r3", 3, 150, 50) == 0


def test_a_reservation_is_refused_for_which_leases_cannot_give_way_in_time() -> None:
    site = Site()
    site.submit(0, "a", 3, 100)
    assert site.reserve(20, "r1", 2, 29, 10) == 1
    assert site.reserve(20, "r2", 2, 30, 10) == 0
    assert site.said == ["0 start a", "20 suspend a"]


def test_a_lease_that_resumes_cannot_give_way_before_it_runs() -> None:
    """It resumes from 110 to 120, and is suspended by 130 at the earliest."""
    site = Site()
    site.reserve(0, "r", 4, 100, 10)
    site.submit(0, "a", 4, 500)
    site.until(115)
    assert site.said[-1] == "110 resume a"
    assert site.reserve(115, "r1", 1, 129, 10) == 1
    assert site.reserve(115, "r2", 1, 130, 10) == 0
    site.until(131)
    assert site.said[-4:] == ["120 resumed a", "120 suspend a", "130 suspended a", "130 start r2"]


def test_a_reservation_that_ends_early_gives_its_nodes_back() -> None:
    site = Site()
    site.reserve(0, "r", 4, 0, 100)
    site.submit(1, "a", 4, 10)
    site.end(40, "r")
    assert site.said == ["0 start r", "40 end r", "40 start a"]


def test_a_step_that_comes_late_takes_no_node_twice() -> None:
    """Nobody called from 0 to 120: the suspend for the reservation is late, and so is its start."""
    site = Site()
    site.reserve(0, "r", 4, 100, 100)
    site.submit(0, "a", 4, 500)
    site.step(120)
    assert site.said == ["0 start a", "120 suspend a"]
    site.until(131)
    assert site.said[2:] == ["130 suspended a", "130 start r"]


def test_what_can_never_be_is_refused_with_the_field() -> None:
    site = Site()
    with pytest.raises(FieldInvalid, match="nodes: is 5; there are 4"):
        site.submit(0, "a", 5, 10)
    with pytest.raises(FieldInvalid, match="duration_s"):
        site.submit(0, "a", 1, 0)
    with pytest.raises(FieldInvalid, match="start_s"):
        site.reserve(10, "r", 1, 9, 10)
    site.submit(10, "a", 1, 10)
    with pytest.raises(NameTaken):
        site.submit(10, "a", 1, 10)
    site.reserve(10, "r", 1, 50, 10)
    with pytest.raises(NameTaken):
        site.submit(10, "r", 1, 10)
    with pytest.raises(KeyError):
        site.end(11, "nobody")


def test_a_name_is_free_again_once_its_lease_is_over() -> None:
    site = Site()
    site.submit(0, "a", 1, 10)
    site.submit(20, "a", 1, 10)
    assert site.to_the_end() == ["0 start a", "10 end a", "20 start a", "30 end a"]


def test_who_would_have_nodes_now_or_never_is_told_at_once() -> None:
    """An immediate lease: a reservation that begins now."""
    site = Site()
    site.submit(0, "a", 3, 100)
    assert site.reserve(5, "now", 2, 5, 10) == 1
    assert site.reserve(5, "less", 1, 5, 10) == 0
    assert site.said == ["0 start a", "5 start less"]
