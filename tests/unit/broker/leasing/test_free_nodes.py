"""Free nodes over time."""

from intertie.common.leasing.free_nodes import FreeNodes

# 10 nodes; 4 are taken until 100, 3 more from 50 to 200.
TAKEN = ((0, 100, 4), (50, 200, 3))


def test_what_is_free_at_a_moment_is_what_no_span_takes_then() -> None:
    profile = FreeNodes(0, 10, TAKEN)
    assert [profile.free(at) for at in (0, 49, 50, 99, 100, 199, 200, 9999)] == [
        6, 6, 3, 3, 7, 7, 10, 10,
    ]  # fmt: skip


def test_the_least_of_a_window_does_not_know_its_end() -> None:
    profile = FreeNodes(0, 10, TAKEN)
    assert profile.least(0, 50) == 6
    assert profile.least(0, 51) == 3
    assert profile.least(100, 5000) == 7


def test_the_past_is_left_out() -> None:
    profile = FreeNodes(60, 10, ((0, 60, 9), (0, 100, 4)))
    assert profile.free(60) == 6


def test_the_earliest_start_is_the_first_that_stays_free_for_long_enough() -> None:
    profile = FreeNodes(0, 10, TAKEN)
    assert profile.earliest(6, 50, 0) == 0
    assert profile.earliest(6, 51, 0) == 100
    assert profile.earliest(8, 1, 0) == 200
    assert profile.earliest(3, 1000, 20) == 20
    assert profile.earliest(11, 1, 0) is None


def test_more_may_be_planned_than_there_is() -> None:
    profile = FreeNodes(0, 10, ((0, 100, 8), (50, 60, 5)))
    assert profile.free(55) == -3
    assert profile.earliest(2, 51, 0) == 60


def test_what_is_taken_later_counts_too() -> None:
    profile = FreeNodes(0, 10, TAKEN)
    profile.take(6, 0, 30)
    assert [profile.free(at) for at in (0, 30, 50)] == [0, 6, 3]
    assert profile.earliest(1, 1, 0) == 30
