"""Branch and bound over where pieces go: all of a few of them, or the best beginnings of many."""

from collections.abc import Collection, Mapping
from operator import add

from intertie.metasched.domain.board import Board, Layout, Placed
from intertie.metasched.domain.graph import FAR

AT_ONE_SITE = 1 << 40
"""Of what is promised to a piece, by which it is put next: more than anything promised."""


class Search:
    """Keeps the best layout that it has met. What it does is counted in steps, not in time: a step
    is a piece that is put somewhere; to find ways for all that is sent is ten,
    and so is a transfer."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.best: Layout | None = None
        self.steps = 0
        self._until = 0
        self._width = 0
        self._near = [
            [
                (other, board.reach(tie), board.least(tie))
                for other, tie in ties.items()
                if tie.mbit_s > 0
                or tie.together
                or (tie.mbit_s == 0 and (tie.most_us is not None or not board.graph.whole))
            ]
            for ties in board.ties
        ]
        """Of each piece: others, and what the tie to each costs, and costs at least."""
        self._weight = [sum(max(tie.mbit_s, 0) for tie in ties.values()) for ties in board.ties]

    @property
    def cost(self) -> int:
        return self.best.cost if self.best is not None else FAR

    def first(self) -> int:
        """The piece to begin with: the one of which most is promised."""
        pieces = self.board.pieces
        return max(range(len(pieces)), key=lambda at: (self._weight[at], pieces[at].count, -at))

    def bound(self) -> int:
        """No layout costs less: each piece at its cheapest site, each tie at its least."""
        ties = sum(least for near in self._near for _, _, least in near) // 2
        board = self.board
        total = ties + board.site_cost
        for piece, costs in enumerate(board.alone):
            if not board.staged:
                total += min(costs)
            else:
                total += min(c + board.least_opening(piece, s) for s, c in enumerate(costs))
        return total

    def run(
        self,
        free: Collection[int],
        where: Mapping[int, int],
        *,
        steps: int,
        width: int,
        start: tuple[int, int] | None = None,
    ) -> bool:
        """Puts the free pieces beside the others, which are where they are, with `start` first,
        trying no more than `width` sites for one after another. Whether it became better."""
        board, placed, before, cost = self.board, Placed(), self.best, 0
        for piece, site in where.items():
            if piece not in free:
                cost += board.opening(placed, piece, site)
                if board.put(placed, piece, site) is None:
                    return False
        cost += board.site_cost * len(placed.on)
        for piece, site in placed.where.items():
            cost += board.alone[piece][site]
            cost += sum(
                reach.beside(site)[placed.where[other]]
                for other, reach, _ in self._near[piece]
                if other < piece and other in placed.where
            )
        costs: dict[int, list[int]] = {}
        inner = 0
        for piece in free:
            here = board.alone[piece]
            for other, reach, least in self._near[piece]:
                if other in placed.where:
                    here = list(map(add, here, reach.beside(placed.where[other])))
                elif other < piece:
                    inner += least
            costs[piece] = here
        self._until, self._width = self.steps + steps, width
        if start is not None:
            piece, there = start
            costs[piece] = [c if site == there else FAR for site, c in enumerate(costs[piece])]
        order = self._in_order(free, placed.where, start)
        mins = {piece: min(here) for piece, here in costs.items()}
        self._put_next(order, 0, placed, costs, mins, cost, inner)
        return self.best is not before

    def _in_order(
        self, free: Collection[int], done: Collection[int], start: tuple[int, int] | None
    ) -> list[int]:
        """Each beside those before it to which most is promised; what is to be at one site, next
        to one another."""
        order = [] if start is None else [start[0]]
        left = {piece: (0, self._weight[piece], -piece) for piece in free if piece not in order}
        for known in (*done, *order):
            self._weigh(left, known)
        while left:
            piece = max(left, key=left.__getitem__)
            del left[piece]
            order.append(piece)
            self._weigh(left, piece)
        return order

    def _weigh(self, left: dict[int, tuple[int, int, int]], known: int) -> None:
        for other, tie in self.board.ties[known].items():
            if other in left and (tie.mbit_s > 0 or tie.together):
                near, weight, last = left[other]
                near += AT_ONE_SITE if tie.together else tie.mbit_s
                left[other] = near, weight, last

    def _put_next(
        self,
        order: list[int],
        at: int,
        placed: Placed,
        costs: Mapping[int, list[int]],
        mins: Mapping[int, int],
        cost: int,
        inner: int,
    ) -> None:
        """`costs`: of each piece that is left, at each site, beside those that are placed; `inner`:
        what is between those that are left, at least."""
        if at == len(order):
            self.steps += 10
            found = self.board.laid_out(placed)
            if found is not None and found.cost < self.cost:
                self.best = found
            return
        board, piece, later, tried = self.board, order[at], order[at + 1 :], 0
        here = costs[piece]
        most = self.cost - cost - inner - sum(mins[each] for each in later)
        on, dear = placed.on, board.site_cost
        if board.spread:
            found_at = [(c, s) for s, c in enumerate(here) if c < most and c < FAR and s not in on]
        else:
            found_at = [
                (c if s in on else c + dear, s) for s, c in enumerate(here) if c < most and c < FAR
            ]
        if board.opens:
            found_at = [(c + board.opening(placed, piece, s), s) for c, s in found_at]
        found_at.sort()
        for dearer, site in found_at:
            new_costs, new_mins, new_inner = dict(costs), dict(mins), inner
            for other, reach, least in self._near[piece]:
                if other in costs and other not in placed.where:
                    column = list(map(add, costs[other], reach.beside(site)))
                    new_costs[other], new_mins[other] = column, min(column)
                    new_inner -= least
            new_cost = cost + dearer
            at_least = new_cost + new_inner + sum(new_mins[each] for each in later)
            if at_least >= min(self.cost, FAR):
                continue
            before = board.put(placed, piece, site)
            self.steps += 10 * board.transfers_tried()
            if before is None:
                continue
            self.steps += 1
            self._put_next(order, at + 1, placed, new_costs, new_mins, new_cost, new_inner)
            board.take_back(placed, piece, before)
            tried += 1
            if self.steps > self._until or tried >= self._width:
                return
