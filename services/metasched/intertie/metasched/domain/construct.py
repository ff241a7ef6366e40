"""A first plan at once: pieces put beside one another, from several places to begin with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from intertie.metasched.domain.board import Board, Piece
from intertie.metasched.domain.graph import FAR
from intertie.metasched.domain.packing import fits_at_all
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.search import Search

MOST_PIECES = 64
"""Of which a cluster is made at first; then of single workspaces, if that does not fit."""
MOST_SINGLES = 256
"""What is more than that in pieces is not searched for."""
STARTS = 24
"""Sites that are begun with, the most promising first, even where something is found already."""
DIVE_STEPS, DIVE_WIDTH = 40, 3
"""From each: how long it is looked for, and how many sites are tried for one piece."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A search that has found something, and whether it is for all that is wanted."""

    search: Search
    slot: int
    whole: bool


def stands(problem: Problem) -> bool:
    """Whether some of the cluster is there already, or has to be where it was."""
    return bool(problem.standing or problem.least or problem.reserved)


def can_be_searched(problem: Problem) -> bool:
    """Whether the least that is wanted comes in few enough pieces."""
    fewest = {group.name: group.fewest for group in problem.groups}
    return next(_cuts(fewest), None) is not None


def constructed(problem: Problem, *, steps: int) -> Begun | None:
    """In the first window in which all that is wanted was placed; else, in the one where most of
    it was. None where nothing was found in so many steps in all, or where some of the cluster
    stands already: what stays is not searched for here."""
    if stands(problem):
        return None
    budget = Budget(steps)
    most = {group.name: group.most for group in problem.groups}
    for slot in range(len(problem.windows)):
        found = _in_window(problem, slot, most, budget)
        if found is not None:
            return Begun(found, slot, whole=True)
    if all(group.fewest == group.most for group in problem.groups):
        return None
    best: Begun | None = None
    budget, placed = Budget(steps), 0
    for slot in range(len(problem.windows)):
        found, count = _as_many_as_fit(problem, slot, budget)
        if found is not None and count > placed:
            best, placed = Begun(found, slot, whole=False), count
    return best


@dataclass(slots=True)
class Budget:
    """Steps that are left."""

    steps: int


def _in_window(
    problem: Problem, slot: int, counts: Mapping[str, int], budget: Budget
) -> Search | None:
    """A layout of so many of each group."""
    if budget.steps <= 0 or not fits_at_all(problem, slot, counts):
        return None
    for pieces in _cuts(counts):
        search = Search(Board(problem, slot, pieces))
        _dive(search, budget.steps)
        budget.steps -= search.steps + len(pieces)  # a board of so many takes its time as well
        if search.best is not None:
            return search
    return None


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


def _cuts(counts: Mapping[str, int]) -> Iterator[list[Piece]]:
    """Into pieces of as many workspaces as there have to be in one, then of one."""
    total = sum(counts.values())
    size = min(max(-(-total // MOST_PIECES), 1), max(counts.values(), default=1) or 1)
    for each in dict.fromkeys((size, 1)):
        pieces = [
            Piece(group, min(each, count - done))
            for group, count in counts.items()
            for done in range(0, count, each)
        ]
        if len(pieces) <= MOST_SINGLES:
            yield pieces


def _dive(search: Search, steps: int) -> None:
    """From the most promising sites; and from all others until something is found."""
    board, first = search.board, search.first()
    alone, graph = board.alone[first], board.graph
    room = [sum(graph.free[link] for _, link in near) for near in graph.near]
    sites = sorted(
        (at for at, cost in enumerate(alone) if cost < FAR),
        key=lambda at: (alone[at], -room[at], at),
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
