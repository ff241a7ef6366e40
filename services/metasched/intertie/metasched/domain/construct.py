"""A first plan at once: pieces put beside one another, from several places to begin with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from intertie.common.spec import AffinityKind
from intertie.common.values import replace
from intertie.metasched.domain.board import Board, Piece, Placed
from intertie.metasched.domain.candidates import hindrance
from intertie.metasched.domain.graph import FAR
from intertie.metasched.domain.packing import fits_at_all, places_for
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.search import Search
from intertie.metasched.domain.staged_board import StagedBoard
from intertie.metasched.domain.transfers import Staging

MOST_PIECES = 64
"""Of which a cluster is made at first; then of single workspaces, if that does not fit."""
MOST_SINGLES = 256
"""What is more than that in pieces is not searched for."""
STARTS = 24
"""Sites that are begun with, the most promising first, even where something is found already."""
DIVE_STEPS, DIVE_WIDTH = 40, 3
"""From each: how long it is looked for, and how many sites are tried for one piece."""

A_WINDOW = 4
"""Of the steps that are left, such a part is made in one window of a problem that has items: that
an earlier one cannot be kept is then found out by trying."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A search that has found something, and whether it is for all that is wanted."""

    search: Search
    slot: int
    whole: bool
    first: bool
    """It is in the first window in which it could be."""


def stands(problem: Problem) -> bool:
    """Whether some of the cluster is there already, or has to be where it was."""
    return bool(problem.standing or problem.least or problem.reserved)


def can_be_searched(problem: Problem) -> bool:
    """Whether the least that is wanted comes in few enough pieces."""
    fewest = {group.name: group.fewest for group in problem.groups}
    return next(_cuts(problem, fewest), None) is not None


def constructed(problem: Problem, *, steps: int) -> Begun | None:
    """In the first window in which all that is wanted was placed; else, in the one where most of
    it was. None where nothing was found in so many steps in all, or where some of the cluster
    stands already: what stays is not searched for here."""
    if stands(problem):
        return None
    staging = Staging(problem) if problem.items else None
    budget = Budget(steps, staging)
    most = {group.name: group.most for group in problem.groups}
    slots = slots_in_time(problem, most, staging)
    for slot in slots:
        found = _in_window(problem, slot, most, budget)
        if found is not None:
            return Begun(found, slot, whole=True, first=slot == slots[0])
    if all(group.fewest == group.most for group in problem.groups):
        return None
    best: Begun | None = None
    budget, placed = Budget(steps, staging), 0
    fewest = {group.name: group.fewest for group in problem.groups}
    for slot in slots_in_time(problem, fewest, staging):
        found, count = _as_many_as_fit(problem, slot, budget)
        if found is not None and count > placed:
            best, placed = Begun(found, slot, whole=False, first=False), count
    return best


def earlier(problem: Problem, begun: Begun, *, steps: int) -> Begun:
    """The same in the first window before it that has a layout, where so many steps are made in
    each of them; else what there is. Only of what is wanted in all, and where items are brought:
    else all that there is to try was tried."""
    board = begun.search.board
    if not isinstance(board, StagedBoard) or not begun.whole:
        return begun
    most = {group.name: group.most for group in problem.groups}
    slots = slots_in_time(problem, most, board.staging)
    for slot in slots:
        if slot == begun.slot:
            break
        found = _in_window(problem, slot, most, Budget(A_WINDOW * steps, board.staging))
        if found is not None:
            return Begun(found, slot, whole=True, first=slot == slots[0])
    return begun


def slots_in_time(
    problem: Problem, counts: Mapping[str, int], staging: Staging | None
) -> list[int]:
    """The windows by which each group can have what it needs at so many places that it could be
    there, were it alone. In all others there is no plan; where nothing is brought, none is left
    out."""
    slots = list(range(len(problem.windows)))
    if staging is None:
        return slots
    return [slot for slot in slots if _could_be_in_time(problem, counts, staging, slot)]


def _could_be_in_time(
    problem: Problem, counts: Mapping[str, int], staging: Staging, slot: int
) -> bool:
    for group in problem.groups:
        left = counts[group.name]
        for at, site in enumerate(problem.sites):
            if left <= 0:
                break
            in_time = staging.ready_us(group.name, at) <= staging.until_us[slot]
            if in_time and hindrance(group, site) is None:
                left -= places_for(group, site, slot, left)
        if left > 0:
            return False
    return True


@dataclass(slots=True)
class Budget:
    """Steps that are left, and what is the same for all that is tried."""

    steps: int
    staging: Staging | None = None


def _in_window(
    problem: Problem, slot: int, counts: Mapping[str, int], budget: Budget
) -> Search | None:
    """A layout of so many of each group."""
    if budget.steps <= 0 or not fits_at_all(problem, slot, counts):
        return None
    steps = budget.steps if budget.staging is None else budget.steps // A_WINDOW
    for pieces, of in product(_cuts(problem, counts), _cost_first_where_bound(problem)):
        search = Search(_board(of, slot, pieces, budget.staging))
        _dive(search, min(steps, budget.steps))
        budget.steps -= search.steps + len(pieces)  # a board of so many takes its time as well
        if search.best is not None:
            return search
    return None


def _cost_first_where_bound(problem: Problem) -> list[Problem]:
    """As it is; and, where it has a budget, with cost before sites: at the fewest sites it may cost
    more than that."""
    if problem.max_cost is None or not problem.fewest_sites:
        return [problem]
    return [problem, replace(problem, fewest_sites=False)]


def _board(problem: Problem, slot: int, pieces: Sequence[Piece], staging: Staging | None) -> Board:
    if staging is None:
        return Board(problem, slot, pieces)
    return StagedBoard(problem, slot, pieces, staging)


def _as_many_as_fit(problem: Problem, slot: int, budget: Budget) -> tuple[Search | None, int]:
    """The fewest, and then of each group in turn as many more as there is room for."""
    counts = {group.name: group.fewest for group in problem.groups}
    found = _in_window(problem, slot, counts, budget)
    if found is None:
        return None, 0
    for group in problem.groups:
        least, most = group.fewest, group.most
        while least < most:
            middle = (least + most + 1) // 2
            larger = _in_window(problem, slot, counts | {group.name: middle}, budget)
            if larger is None:
                most = middle - 1
            else:
                found, least = larger, middle
        counts[group.name] = least
    return found, sum(counts.values())


def _cuts(problem: Problem, counts: Mapping[str, int]) -> Iterator[list[Piece]]:
    """Into pieces of as many workspaces as there have to be in one, then of one. What is to be at
    one site is not divided."""
    total = sum(counts.values())
    size = min(max(-(-total // MOST_PIECES), 1), max(counts.values(), default=1) or 1)
    whole = {name for each in problem.of_kind(AffinityKind.TOGETHER) for name in each.groups}
    for each in dict.fromkeys((size, 1)):
        pieces = [
            Piece(group, min(step, count - done))
            for group, count in counts.items()
            for step in ((max(count, 1) if group in whole else each),)
            for done in range(0, count, step)
        ]
        if len(pieces) <= MOST_SINGLES:
            yield pieces


def _dive(search: Search, steps: int) -> None:
    """From the most promising sites; and from all others until something is found."""
    board, first = search.board, search.first()
    alone, graph, empty = board.alone[first], board.graph, Placed()
    room = [sum(graph.free[link] for _, link in near) for near in graph.near]
    sites = sorted(
        (at for at, cost in enumerate(alone) if cost < FAR),
        key=lambda at: (alone[at] + board.opening(empty, first, at), -room[at], at),
    )
    pieces = range(len(board.pieces))
    bound = search.bound()
    for number, site in enumerate(sites):
        enough = number >= STARTS or search.steps >= STARTS * DIVE_STEPS
        if search.best is not None and (enough or search.cost <= bound):
            return
        if search.steps >= steps:
            return
        search.run(
            pieces,
            {},
            steps=max(DIVE_STEPS, 2 * len(pieces)),
            width=DIVE_WIDTH,
            start=(first, site),
        )
