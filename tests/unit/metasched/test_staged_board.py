"""What a search counts of items that are brought to where pieces go."""

import pytest

from intertie.metasched.domain.board import Piece, Placed
from intertie.metasched.domain.construct import Begun, Budget, constructed, earlier
from intertie.metasched.domain.construct import _in_window as in_window
from intertie.metasched.domain.costs import COST_SCALE
from intertie.metasched.domain.graph import FAR, FINE
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.staged_board import StagedBoard
from intertie.metasched.domain.transfers import Staging
from tests.unit.metasched.problems import group
from tests.unit.metasched.staging import item, staged

A, B, C = range(3)
TO_B = 3_000 * 8_388_608 / 1e6 / 3600 * 0.02


def given(*starts: int) -> Problem:
    """Three workers; what they need is at a, where none can be, and c is two links away."""
    return staged(
        {"a": 0, "b": 2, "c": 2},
        {("a", "b"): 100, ("b", "c"): 100},
        [item("data", 3_000, "a")],
        groups=[group(fewest=3)],
        starts=starts,
        forwards=("b",),
        prices={"a": 1.0, "b": 1.0, "c": 1.0},
    )


def a_board(slot_at: int) -> StagedBoard:
    problem = given(slot_at)
    return StagedBoard(problem, 0, [Piece("worker", 1)] * 3, Staging(problem))


def units(cost: float) -> pytest.approx:  # type: ignore[valid-type]
    return pytest.approx(cost * COST_SCALE * FINE, rel=1e-3)


def test_a_site_that_what_is_needed_does_not_reach_in_time_is_no_place() -> None:
    assert a_board(0).alone[0] == [FAR, FAR, FAR]
    assert [cost < FAR for cost in a_board(1).alone[0]] == [False, True, True]


def test_the_first_at_a_site_pays_for_what_is_brought_and_the_next_does_not() -> None:
    board, placed = a_board(2), Placed()
    assert board.opening(placed, 0, B) == units(TO_B)
    assert board.opening(placed, 0, C) == units(2 * TO_B)
    before = board.put(placed, 0, B)
    assert before is not None
    assert board.opening(placed, 1, B) == 0
    assert board.opening(placed, 1, C) == units(TO_B)  # from b, that has it by then
    board.take_back(placed, 0, before)
    assert (placed.brought, board.opening(placed, 1, B)) == ({}, units(TO_B))


def test_a_piece_is_not_put_where_transfers_no_longer_fit() -> None:
    """The one span is enough to bring it to b or c, and not to both."""
    board, placed = a_board(1), Placed()
    assert board.put(placed, 0, B) is not None
    assert board.put(placed, 1, C) is None
    assert (placed.where, placed.brought) == ({0: B}, {(0, B): 1})


def test_a_share_of_what_is_brought_is_in_the_bound_of_each() -> None:
    board = a_board(2)
    assert 3 * board.least_opening(0, C) == units(TO_B)


def test_a_layout_costs_what_its_plan_does() -> None:
    begun = constructed(given(2), steps=500)
    assert begun is not None
    search = begun.search
    assert search.best is not None
    plan = search.board.plan(search.best, optimal=False, bound=None)
    assert search.cost - 2 * search.board.site_cost == units(plan.cost)
    assert plan.cost == pytest.approx(3.0 + 2 * TO_B)


def test_windows_before_that_of_a_first_plan_are_searched_once_more() -> None:
    problem = given(0, 2, 3)
    found = in_window(problem, 2, {"worker": 3}, Budget(2_000, Staging(problem)))
    assert found is not None
    begun = earlier(problem, Begun(found, 2, whole=True, first=False), steps=500)
    assert (begun.slot, begun.first) == (1, True)
    assert earlier(problem, begun, steps=500) is begun
