"""Finds out why a request has no plan, and what could be had instead, before it is refused."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from intertie.common.errors import NoCapacity, SolverFailed
from intertie.common.explanation import Explanation
from intertie.common.intervals import Window
from intertie.common.spec import Kind
from intertie.common.values import replace
from intertie.metasched.domain.bringing import LEAD
from intertie.metasched.domain.brought_later import TO_ASK_AGAIN
from intertie.metasched.domain.candidates import MOST_WINDOWS
from intertie.metasched.domain.counter_offers import Ground
from intertie.metasched.domain.ports import Solvers
from intertie.metasched.domain.problem import Offer
from intertie.metasched.domain.refusal import instead, why_not
from intertie.metasched.domain.requirements import Asked, Times, What
from intertie.metasched.domain.time_around import (
    between,
    between_durations,
    later_than,
    shorter_than,
)
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.planning import Planning

log = structlog.get_logger(__name__)

AT_WORK = 1
"""So many refusals are explained at a time, beside what is planned and looked ahead at: nobody
who has a plan waits for one who has none."""
WAITING = 4
"""More than these are refused without: by what is short alone."""


class Explaining:
    """One for all who refuse, so that no more are explained at a time than AT_WORK."""

    def __init__(self, planning: Planning, solvers: Solvers) -> None:
        self._planning = planning
        self._solvers = solvers
        self._at_work = asyncio.Semaphore(AT_WORK)
        self._begun = 0

    async def __call__(self, brief: Brief, refusal: NoCapacity, *, now: datetime) -> NoCapacity:
        """The refusal, with what it is for. As it is where there is too much to do.

        Sites are asked again, also those that the request keeps out, and for windows that it does
        not allow. A lease that waits is explained by what its sites have when they have nothing
        else: when, and for how long, is no matter then.
        """
        if self._begun >= AT_WORK + WAITING or not brief.windows:
            return refusal
        self._begun += 1
        try:
            async with self._at_work:
                return await self._explained(brief, refusal, now)
        except SolverFailed as error:
            log.warning("explaining.failed", problem=str(error))
            return refusal
        finally:
            self._begun -= 1

    async def _explained(self, brief: Brief, refusal: NoCapacity, now: datetime) -> NoCapacity:
        ground, effort = await self._ground(brief, now), self._planning.effort.solver
        found = await self._solvers.run(why_not, ground, effort=effort)
        ground = replace(ground, times=found.times)
        for asked, slot in found.reached:
            ground = await self._nearer(brief, ground, asked, slot)
        had = await self._solvers.run(instead, ground, found, refusal.shortfalls, effort=effort)
        conflicts = found.told
        log.info("explaining.explained", conflicts=len(conflicts), counter_offers=len(had.offers))
        told = Explanation(conflicts=conflicts, counter_offers=had.offers)
        return NoCapacity(had.shortfalls, told)

    async def _ground(self, brief: Brief, now: datetime) -> Ground:
        """What all sites offer over the windows that are asked for, and around these."""
        anywhere = _anywhere(brief)
        first, _ = await self._planning.problem(anywhere)
        asked = [*brief.windows, *self._planning.room_made(anywhere, first, None)]
        later: list[Window] = []
        shorter: tuple[Window, ...] = ()
        made: tuple[Window, ...] = ()
        lease, effort = brief.spec.lease, self._planning.effort
        if lease.kind is not Kind.BEST_EFFORT:
            if lease.kind is None and lease.start_time is not None:
                unbound = replace(brief.spec, lease=replace(lease, start_time=None))
                made = self._planning.room_made(replace(anywhere, spec=unbound), first, None)
            around = later_than(asked, slot=effort.slot, horizon=effort.horizon)
            later = sorted({*around, *made}.difference(asked), key=lambda each: each.start)
            shorter = shorter_than(brief.windows[0])
        count = len(asked) + len(later)
        times = Times(
            asked=tuple(range(len(asked))),
            later=tuple(range(len(asked), count)),
            shorter=tuple(range(count, count + len(shorter))),
            made=frozenset(len(asked) + n for n, each in enumerate(later) if each in made),
        )
        since = max(now, brief.since or now) + LEAD + TO_ASK_AGAIN
        links = await self._planning.links_ahead(anywhere, first, since=since)
        ground = Ground(
            links=links,
            spec=brief.spec,
            windows=brief.windows,
            offers={site.name: site.offers for site in first.sites},
            times=times,
            cuts=brief.cuts,
            now=now,
        )
        rest = (*asked[len(brief.windows) :], *later, *shorter)
        return await self._with(anywhere, ground, rest)

    async def _with(self, brief: Brief, ground: Ground, windows: Sequence[Window]) -> Ground:
        """The same over these windows as well; without sites that do not answer now."""
        calls = [
            replace(brief, windows=tuple(windows[at : at + MOST_WINDOWS]))
            for at in range(0, len(windows), MOST_WINDOWS)
        ]
        answers = await asyncio.gather(*map(self._planning.problem, calls))
        more: dict[str, list[Offer]] = {name: list(of) for name, of in ground.offers.items()}
        for problem, _ in answers:
            for site in problem.sites:
                more.setdefault(site.name, []).extend(site.offers)
        together = (*ground.windows, *windows)
        return replace(
            ground,
            windows=together,
            offers={name: of for name, of in more.items() if len(of) == len(together)},
        )

    async def _nearer(self, brief: Brief, ground: Ground, asked: Asked, slot: int) -> Ground:
        """With windows between the first that does and the one before, which does not."""
        found, count = ground.windows[slot], len(ground.windows)
        times = ground.times
        if asked.what is What.START:
            earlier = [each.start for each in ground.windows if each.start < found.start]
            windows = between(max(earlier), found)
            rest = times.later[times.later.index(slot) :]
            times = replace(times, later=(*range(count, count + len(windows)), *rest))
        else:
            at = times.shorter.index(slot)
            longer = ground.windows[times.shorter[at - 1] if at else times.asked[0]]
            windows = between_durations(longer, found)
            rest = times.shorter[at:]
            times = replace(times, shorter=(*range(count, count + len(windows)), *rest))
        if not windows:
            return ground
        return replace(await self._with(_anywhere(brief), ground, windows), times=times)


def _anywhere(brief: Brief) -> Brief:
    """With every site allowed, and all that gives way giving way."""
    groups = tuple(
        replace(each, placement=replace(each.placement, allow_sites=(), deny_sites=()))
        for each in brief.spec.groups
    )
    gives = brief.spec.lease.kind is Kind.DEADLINE
    return replace(brief, spec=replace(brief.spec, groups=groups), others_give_way=gives)
