"""Why a request has no plan, and what could be had instead, of what its sites offer."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from intertie.common.errors import Shortfall
from intertie.common.explanation import Conflict, CounterOffer, Requirement
from intertie.common.values import replace
from intertie.metasched.domain.conflicts import Conflicts, conflicts_of, verdict_of
from intertie.metasched.domain.counter_offers import Ground, counter_offers_of, reached
from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.requirements import Asked, Times, asked_of
from intertie.metasched.domain.transfers import Staging
from intertie.metasched.domain.until import with_until

SIZE = 100_000
"""Of all problems of one refusal that the model is asked about: see feasibility.size_of."""
TIMES_EFFORT = 10
"""What that may cost, in efforts of the planner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    times: Times
    """The ground's; of the later windows those over which something is offered that was not
    before."""
    asked: tuple[Asked, ...]
    conflicts: Conflicts
    reached: tuple[tuple[Asked, int], ...]
    """Of what windows stand for and is enough by itself: the first of them that does."""
    feasibility: Feasibility
    """What is left of it."""

    @property
    def told(self) -> tuple[Conflict, ...]:
        """The smallest first."""
        of = self.conflicts
        sets = sorted(zip(of.sets, of.enough, strict=True), key=lambda of: (len(of[0]), *of[0]))
        return tuple(
            Conflict(
                requirements=tuple(
                    Requirement(
                        field=self.asked[number].field,
                        message=self.asked[number].message,
                        enough=number in enough,
                    )
                    for number in sorted(each)
                )
            )
            for each, enough in sets
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instead:
    offers: tuple[CounterOffer, ...]
    shortfalls: tuple[Shortfall, ...]
    """With when as much would be free."""


def why_not(ground: Ground, *, effort: float) -> WhyNot:
    ground = replace(ground, times=replace(ground.times, later=_that_differ(ground)))
    feasibility = Feasibility(effort=TIMES_EFFORT * effort, each=effort, size=SIZE)
    spec, whole = ground.spec, ground.whole
    networks = [network.name for network in spec.networks]
    asked = asked_of(whole, ground.times, networks, spec.lease)
    found = conflicts_of(len(asked), verdict_of(whole, ground.times, asked, feasibility))
    firsts = [
        (each, slot)
        for number, each in enumerate(asked)
        if each.opens and frozenset({number}) in found.ways
        if (slot := reached(ground, each, feasibility)) is not None
    ]
    return WhyNot(
        times=ground.times,
        asked=asked,
        conflicts=found,
        reached=tuple(firsts),
        feasibility=feasibility,
    )


def instead(ground: Ground, found: WhyNot, short: Sequence[Shortfall], *, effort: float) -> Instead:
    """`ground`: with more windows about those that were reached."""
    offers = counter_offers_of(
        ground, found.asked, found.conflicts, feasibility=found.feasibility, effort=effort
    )
    until = with_until(short, ground.whole, ground.times.later)
    return Instead(offers=offers, shortfalls=until)


def _that_differ(ground: Ground) -> tuple[int, ...]:
    """Each leaves more time to bring something, until all could be there."""
    until = _all_there_by(ground)
    seen = {_differs(ground, slot, until) for slot in ground.times.asked}
    found = []
    for slot in ground.times.later:
        offered = _differs(ground, slot, until)
        if offered not in seen:
            seen.add(offered)
            found.append(slot)
    return tuple(found)


def _all_there_by(ground: Ground) -> datetime | None:
    """When what is to be brought could be at every site, one after the other; None: nothing is."""
    whole = ground.whole
    if not whole.items:
        return None
    return whole.spans[0].start + Staging(whole).all_there()


def _differs(ground: Ground, slot: int, until: datetime | None) -> tuple[object, ...]:
    soon = until is not None and ground.windows[slot].start < until
    return (*_offered(ground, slot), slot if soon else None)


def _offered(ground: Ground, slot: int) -> tuple[object, ...]:
    return tuple(
        (
            each[slot].hosts,
            tuple(sorted(each[slot].links.items(), key=lambda link: link[0])),
            each[slot].free_together,
        )
        for each in ground.offers.values()
    )
