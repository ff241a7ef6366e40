"""What one gets without planning all at once: sites are filled one after another, and then it is
seen how long the data takes."""

from __future__ import annotations

from collections.abc import Callable

from intertie.metasched.domain.board import Board, Layout, Piece, Placed
from intertie.metasched.domain.graph import FAR
from intertie.metasched.domain.link_times import Path, soonest
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.transfers import Delivery, Move, Staging, with_moves

Stage = Callable[[Staging, list[Delivery], int], "list[Move] | None"]


def first_fit(problem: Problem, stage: Stage) -> Plan | None:
    """In the first window in which all fits, by which `stage` has brought there what is needed:
    each workspace at the first site with room for it, in the order of their names, that is in reach
    of those that have some."""
    staging = Staging(problem)
    pieces = [Piece(group.name, 1) for group in problem.groups for _ in range(group.fewest)]
    for slot in range(len(problem.windows)):
        board = Board(problem, slot, pieces)
        layout = _filled(board)
        if layout is None:
            continue
        moves = stage(staging, _wanted(staging, board, layout), slot)
        if moves is not None:
            plan = board.plan(layout, optimal=False, bound=None)
            return with_moves(plan, staging, moves)
    return None


def _filled(board: Board) -> Layout | None:
    placed = Placed()
    for piece in range(len(board.pieces)):
        for site, cost in enumerate(board.alone[piece]):
            near = cost < FAR and all(
                board.reach(tie).beside(placed.where[other])[site] < FAR
                for other, tie in board.ties[piece].items()
                if other in placed.where and tie.mbit_s >= 0
            )
            if near and board.put(placed, piece, site) is not None:
                break
        else:
            return None
    return board.laid_out(placed)


def _wanted(staging: Staging, board: Board, layout: Layout) -> list[Delivery]:
    """In the order of groups and of items."""
    found = {
        (item, site): None
        for piece, site in sorted(layout.where.items())
        for item in staging.missing(board.pieces[piece].group, site)
    }
    return list(found)


def one_after_another(staging: Staging, wanted: list[Delivery], slot: int) -> list[Move] | None:
    """Each begins when the one before has ended, from the nearest site that has it then."""
    links, until_us, at_us = staging.links, staging.until_us[slot], 0
    has = [dict.fromkeys(sites, 0) for sites in staging.at]
    moves: list[Move] = []
    for item, site in wanted:
        ways = [
            way
            for source in sorted(has[item])
            if (way := staging.way(item, until_us, site, source))
        ]
        if not ways or at_us >= until_us:
            return None
        _, path = min(ways, key=lambda each: (len(each[1][0]), each[0]))

        def free(begin_us: int, end_us: int, path: Path = path) -> tuple[int, Path] | None:
            mbit_s = min(links.least(begin_us, end_us)[link] for link in path[1])
            return (mbit_s, path) if mbit_s else None

        changes = [each for each in links.begins if at_us < each < until_us]
        size_mib = staging.items[item].size_mib
        found = soonest(size_mib, [at_us, *changes], [*changes, until_us], free)
        if found is None:
            return None
        begin_us, at_us, mbit_s, path = found
        moves.append(Move(item, path, mbit_s, begin_us, at_us))
        has[item][site] = at_us
    return moves


def beside_one_another(staging: Staging, wanted: list[Delivery], slot: int) -> list[Move] | None:
    """By the planner's own schedule."""
    if not wanted:
        return []
    staged = staging.scheduled(frozenset(wanted), slot)
    return None if staged is None else list(staged.moves)
