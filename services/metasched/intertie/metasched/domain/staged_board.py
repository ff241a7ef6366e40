"""The pieces of a problem that has items: what each needs is brought to where it goes."""

from collections.abc import Sequence

from intertie.common.values import replace
from intertie.metasched.domain.board import Board, Layout, Piece, Placed
from intertie.metasched.domain.graph import FAR
from intertie.metasched.domain.packing import Packing
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.transfers import Delivery, Staging, with_moves


class StagedBoard(Board):
    """A board on which a piece may be put only where all that is needed so far can still be there
    in time."""

    staged = True

    def __init__(
        self, problem: Problem, slot: int, pieces: Sequence[Piece], staging: Staging
    ) -> None:
        self.staging, self._tried = staging, staging.tried
        self._sharing = [
            sum(piece.group in item.groups for piece in pieces) for item in problem.items
        ]
        """How many pieces need each item."""
        super().__init__(problem, slot, pieces)

    def _alone(self, piece: Piece) -> list[int]:
        until_us = self.staging.until_us[self.slot]
        return [
            cost if self.staging.ready_us(piece.group, site) <= until_us else FAR
            for site, cost in enumerate(super()._alone(piece))
        ]

    def _above_all_costs(self) -> int:
        return super()._above_all_costs() + self.staging.at_most()

    def _needs(self, piece: int, site: int) -> list[Delivery]:
        """What the site has to get for it."""
        return [(item, site) for item in self.staging.missing(self.pieces[piece].group, site)]

    def opening(self, placed: Placed, piece: int, site: int) -> int:
        """What it costs, about, to bring there what no piece that is placed has there yet; and what
        others make room for."""
        cost = super().opening(placed, piece, site)
        for item in self.staging.missing(self.pieces[piece].group, site):
            if (item, site) not in placed.brought:
                sources = (None, *(there for known, there in placed.brought if known == item))
                cost += min(self.staging.price(item, self.slot, site, each) for each in sources)
        return cost

    def least_opening(self, piece: int, site: int) -> int:
        """Its share of what that costs at the least, among all pieces that need it."""
        return sum(
            self.staging.cheapest_link(item, self.slot, site) // self._sharing[item]
            for item in self.staging.missing(self.pieces[piece].group, site)
        )

    def transfers_tried(self) -> int:
        """How many were looked for since this was asked last."""
        before, self._tried = self._tried, self.staging.tried
        return self._tried - before

    def put(self, placed: Placed, piece: int, site: int) -> Packing | None:
        before = super().put(placed, piece, site)
        if before is None:
            return None
        more = False
        for each in self._needs(piece, site):
            more = more or each not in placed.brought
            placed.brought[each] = placed.brought.get(each, 0) + 1
        if more and self.staging.scheduled(frozenset(placed.brought), self.slot) is None:
            self.take_back(placed, piece, before)
            return None
        return before

    def take_back(self, placed: Placed, piece: int, before: Packing) -> None:
        for each in self._needs(piece, placed.where[piece]):
            placed.brought[each] -= 1
            if not placed.brought[each]:
                del placed.brought[each]
        super().take_back(placed, piece, before)

    def laid_out(self, placed: Placed) -> Layout | None:
        found = super().laid_out(placed)
        if found is None or not placed.brought:
            return found
        staged = self.staging.scheduled(frozenset(placed.brought), self.slot)
        if staged is None:
            return None
        found = replace(found, cost=found.cost + staged.cost, moves=staged.moves)
        return found if self.affordable(found) else None

    def plan(self, layout: Layout, *, optimal: bool, bound: int | None) -> Plan:
        plan = super().plan(layout, optimal=optimal, bound=bound)
        plan = with_moves(plan, self.staging, layout.moves)
        return replace(plan, bound=plan.cost) if optimal else plan
