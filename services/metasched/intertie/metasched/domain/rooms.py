"""Where there is room over several sites for leases that wait: `leasing.Availability` on what sites
offer.

Sites say what is free over given windows, and of their hosts no names. So a lease is looked at over
a few starts, and what another is to get first is taken off the offers host by host as it would
fit best. It is a forecast: who is said to fit is asked for at all sites, which may refuse, and who
is said not to is looked at again in the next pass, on what the sites offer then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from intertie.common.errors import Shortfall
from intertie.common.intervals import Window
from intertie.common.leasing.availability import Held
from intertie.common.leasing.lease import Lease
from intertie.common.quantities import Vector
from intertie.common.values import replace
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import LinkRoom, Offer, Problem, Site, over
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
        self._taken: list[_Taken] = []
        self._found: dict[tuple[str, int, tuple[tuple[int, Window], ...]], Plan | None] = {}
        """By lease, start, and the plans that others have of it, and when; these plans are here."""

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

    def short(
        self, lease: Lease, explain: Callable[[Problem], tuple[Shortfall, ...]]
    ) -> tuple[Shortfall, ...]:
        """What it lacks now, of what others leave it; it has no plan now."""
        problem, taken = self._beside(lease, 0)
        return explain(_less(problem, taken))

    def _beside(self, lease: Lease, slot: int) -> "tuple[Problem, list[_Taken]]":
        """Its problem for that start, and what is taken in that window."""
        problem = over(self._problem(lease), (slot,))
        return problem, [each for each in self._taken if each.window.overlaps(problem.windows[0])]

    def _problem(self, lease: Lease) -> Problem:
        return self._of[lease.request.name]

    def _slot(self, at_s: int) -> int:
        """The last start that is not after it."""
        return max(n for n, each in enumerate(self._starts) if each <= max(at_s, self._starts[0]))

    def _plan(self, lease: Lease, slot: int) -> Plan | None:
        problem, taken = self._beside(lease, slot)
        key = lease.request.name, slot, tuple((id(each.plan), each.window) for each in taken)
        if key not in self._found:
            self._found[key] = self._solve(_less(problem, taken))
        return self._found[key]

    def _take(self, lease: Lease, slot: int, start: datetime) -> None:
        plan = self._plan(lease, slot)
        if plan is not None:
            window = Window(start, plan.window.end)
            self._taken.append(_Taken(window, plan, self._problem(lease)))


@dataclass(frozen=True, slots=True)
class _Held:
    rooms: Rooms
    at_s: int

    def leaves(self, lease: Lease) -> bool:
        return self.rooms.fits(lease, self.rooms.now_s, self.at_s)

    def let_by(self, lease: Lease) -> None:
        """Whoever takes it is counted."""


@dataclass(frozen=True, slots=True)
class _Taken:
    window: Window
    plan: Plan
    problem: Problem

    def off(self, problem: Problem) -> Problem:
        """What is left of the offers of the one window of `problem`, which overlaps."""
        return replace(problem, sites=tuple(map(self._off_site, problem.sites)))

    def _off_site(self, site: Site) -> Site:
        return replace(site, offers=tuple(self._off_offer(site.name, each) for each in site.offers))

    def _off_offer(self, name: str, offer: Offer) -> Offer:
        free = [host.free for host in offer.hosts]
        taker = next((each for each in self.plan.sites if each.site == name), None)
        for group, count in taker.counts.items() if taker else ():
            takes = self.problem.site(name).takes(self.problem.group(group))
            for _ in range(count):
                at = _best(free, takes)
                if at is not None:
                    free[at] = (free[at] - takes).at_least_zero()
        hosts = tuple(
            replace(host, free=left) for host, left in zip(offer.hosts, free, strict=True)
        )
        links = {peer: self._off_link(name, peer, link) for peer, link in offer.links.items()}
        return replace(offer, hosts=hosts, links=links)

    def _off_link(self, site: str, peer: str, link: LinkRoom) -> LinkRoom:
        over = [(hop, each.mbit_s) for each in self.plan.links for hop in pairwise(each.route)]
        sent = sum(mbit_s for hop, mbit_s in over if hop == (site, peer))
        came = sum(mbit_s for hop, mbit_s in over if hop == (peer, site))
        return replace(
            link,
            egress_mbit_s=max(link.egress_mbit_s - sent, 0),
            ingress_mbit_s=max(link.ingress_mbit_s - came, 0),
        )


def _best(free: Sequence[Vector], takes: Vector) -> int | None:
    """The host on which least is left, or, where it fits on none, most."""
    if not free:
        return None
    left = [each - takes for each in free]
    fits = [n for n, each in enumerate(left) if each.at_least_zero() == each]
    if fits:
        return min(fits, key=lambda n: (left[n].vcpus, left[n].memory_mib))
    return max(range(len(free)), key=lambda n: (left[n].vcpus, left[n].memory_mib))


def _less(problem: Problem, taken: Sequence[_Taken]) -> Problem:
    for each in taken:
        problem = each.off(problem)
    return problem
