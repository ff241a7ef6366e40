"""Where there is room over several sites for leases that wait: `leasing.Availability` on what sites
offer.

Sites say what is free over given windows, and of their hosts no names. So a lease is looked at over
a few starts, and what another is to get first is taken off the offers host by host as it would
fit best. It is a forecast: who is said to fit is asked for at all sites, which may refuse, and who
is said not to is looked at again in the next pass, on what the sites offer then.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.errors import Shortfall
from intertie.common.intervals import Window
from intertie.common.leasing.availability import Held
from intertie.common.leasing.lease import Lease
from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan, placed_as_well
from intertie.metasched.domain.problem import Problem, over
from intertie.metasched.domain.taken import Taken, less
from intertie.metasched.domain.waiting import seconds

Solver = Callable[[Problem], Plan | None]


def starts_ahead(now: datetime, *, slot: timedelta, horizon: timedelta) -> tuple[datetime, ...]:
    """Now, a slot later, and each as far ahead again as the one before: nine a day at 5 minutes."""
    found, ahead = [now], slot
    while ahead <= horizon:
        found.append(now + ahead)
        ahead *= 2
    return tuple(found)


class Rooms:
    """See leasing.availability.Availability. Spans are those of the problems' windows."""

    def __init__(
        self, of: Mapping[str, Problem], starts: Sequence[datetime], solve: Solver
    ) -> None:
        """`of`, by the lease's name: its problem, with a window for each of `starts`."""
        self._of = of
        self._starts = tuple(seconds(each) for each in starts)
        self._moments = tuple(starts)
        self._solve = solve
        self._taken: list[Taken] = []
        self._found: dict[tuple[str, int, str, tuple[tuple[int, Window], ...]], Plan | None] = {}
        """By lease, start, a site that it is to do without, and the plans that others have of it,
        and when; these plans are here."""
        self.solved = 0
        """How many problems were, so far."""

    def untaken(self) -> "Rooms":
        """The same with nothing taken; neither solves what the other has."""
        other = Rooms(self._of, self._moments, self._solve)
        other._found = self._found
        return other

    @property
    def now_s(self) -> int:
        return self._starts[0]

    def moment(self, at_s: int) -> datetime:
        return self._moments[self._slot(at_s)]

    def fits(self, lease: Lease, start_s: int, end_s: int) -> bool:
        return self._plan(lease, self._slot(start_s)) is not None

    def earliest(self, lease: Lease, span_s: int, from_s: int) -> int | None:
        for slot in range(self._slot(from_s), len(self._starts)):
            if self._plan(lease, slot) is not None:
                return self._starts[slot]
        return None

    def take(self, lease: Lease, start_s: int, end_s: int) -> None:
        slot = self._slot(start_s)
        self._take(lease, slot, self._problem(lease).windows[slot].start)

    def hold(self, lease: Lease, start_s: int, end_s: int) -> Held:
        """It is counted from the start before, for which there was no room: when between the two
        there is some, nobody has been let into it."""
        slot = self._slot(start_s)
        self._take(lease, slot, self._moments[max(slot - 1, 0)])
        return _Held(self, start_s)

    def taken_now(self, lease: Lease) -> Taken | None:
        """What it gets, if it starts now."""
        return next((each for each in self._taken if self._starts_now(each, lease)), None)

    def keeps(self, lease: Lease) -> bool:
        """Whether it is to start later."""
        found = (each for each in self._taken if each.lease == lease.request.name)
        return any(not self._starts_now(each, lease) for each in found)

    def take_now(self, lease: Lease) -> bool:
        """Whether there is room for it now as all others are, but for a later start of its own;
        then it is counted."""
        rest = [each for each in self._taken if each.lease != lease.request.name]
        plan = self._beside(lease, rest)
        if plan is not None:
            self._taken = [*rest, self._taken_by(lease, plan.window, plan)]
        return plan is not None

    def take_beside(self, lease: Lease, others: Sequence[Lease], most_solved: int) -> bool:
        """Whether there is room for it now once one of the others, who start now too, is placed
        otherwise and as well; then both are counted so. Whoever has a later start keeps it, but for
        the lease itself. No more than so many problems are solved to find out."""
        until = self.solved + most_solved
        rest = [each for each in self._taken if each.lease != lease.request.name]
        names = {each.request.name for each in others}
        if self._beside(lease, [each for each in rest if each.lease not in names]) is None:
            return False
        for other in others:
            had = self.taken_now(other)
            if had is None or self.solved >= until:
                continue
            left = [each for each in rest if each is not had]
            for instead in self._otherwise(lease, other, had, left):
                if self.solved >= until:
                    break
                if instead is None or not placed_as_well(instead, had.plan):
                    continue
                moved = replace(had, plan=instead)
                plan = self._beside(lease, [*left, moved])
                if plan is not None:
                    self._taken = [*left, moved, self._taken_by(lease, plan.window, plan)]
                    return True
        return False

    def _otherwise(
        self, lease: Lease, other: Lease, had: Taken, left: Sequence[Taken]
    ) -> Iterator[Plan | None]:
        """Plans of the other that may leave room for the lease: beside what is best for that one,
        and without one of its own sites."""
        plan = self._beside(lease, left)
        if plan is not None:
            wanted = self._taken_by(lease, plan.window, plan)
            yield self._beside(other, [*left, wanted])
        for each in had.plan.sites:
            yield self._beside(other, left, without=each.site)

    def _starts_now(self, taken: Taken, lease: Lease) -> bool:
        return taken.lease == lease.request.name and taken.plan.window.start == self._moments[0]

    def short(
        self, lease: Lease, explain: Callable[[Problem], tuple[Shortfall, ...]]
    ) -> tuple[Shortfall, ...]:
        """What it lacks now, of what others leave it; it has no plan now."""
        problem = over(self._problem(lease), (0,))
        beside = [each for each in self._taken if each.window.overlaps(problem.windows[0])]
        return explain(less(problem, beside))

    def _problem(self, lease: Lease) -> Problem:
        return self._of[lease.request.name]

    def _slot(self, at_s: int) -> int:
        """The last start that is not after it."""
        return max(n for n, each in enumerate(self._starts) if each <= max(at_s, self._starts[0]))

    def _plan(self, lease: Lease, slot: int) -> Plan | None:
        return self._solved(lease, slot, self._taken)

    def _beside(self, lease: Lease, taken: Sequence[Taken], without: str = "") -> Plan | None:
        """If it starts now, beside these, and without that site."""
        return self._solved(lease, 0, taken, without)

    def _solved(
        self, lease: Lease, slot: int, taken: Sequence[Taken], without: str = ""
    ) -> Plan | None:
        problem = over(self._problem(lease), (slot,))
        beside = [each for each in taken if each.window.overlaps(problem.windows[0])]
        name = lease.request.name
        key = name, slot, without, tuple((id(each.plan), each.window) for each in beside)
        if key not in self._found:
            self.solved += 1
            sites = tuple(each for each in problem.sites if each.name != without)
            self._found[key] = self._solve(less(replace(problem, sites=sites), beside))
        return self._found[key]

    def _take(self, lease: Lease, slot: int, start: datetime) -> None:
        plan = self._plan(lease, slot)
        if plan is not None:
            window = Window(start, plan.window.end)
            self._taken.append(self._taken_by(lease, window, plan))

    def _taken_by(self, lease: Lease, window: Window, plan: Plan) -> Taken:
        return Taken(lease.request.name, window, plan, self._problem(lease))


@dataclass(frozen=True, slots=True)
class _Held:
    rooms: Rooms
    at_s: int

    def leaves(self, lease: Lease) -> bool:
        return self.rooms.fits(lease, self.rooms.now_s, self.at_s)

    def let_by(self, lease: Lease) -> None:
        """Whoever takes it is counted."""
