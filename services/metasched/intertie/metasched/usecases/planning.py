"""Asks sites what they could give, and plans over the answers."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

import structlog

from intertie.common.budget import above
from intertie.common.errors import (
    DomainError,
    ImageNotReady,
    LedgerFull,
    NoCapacity,
    Shortfall,
    SiteUnreachable,
)
from intertie.common.intervals import Window
from intertie.common.spec import ClusterSpec, Kind, dataset_field, image_field
from intertie.common.values import replace
from intertie.metasched.domain.bringing import (
    LEAD,
    as_held,
    is_worth_it,
    lacks_any,
    some_do_without,
    spans_before,
    with_images_brought,
    with_sources,
)
from intertie.metasched.domain.bringing_beside import (
    begins_beside,
    in_window,
    over_begins,
    with_links_kept,
)
from intertie.metasched.domain.brought_later import Links, spans_ahead, too_late
from intertie.metasched.domain.candidates import (
    allowed,
    candidate_windows,
    check_disks,
    images_missing,
)
from intertie.metasched.domain.explain import shortfalls
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.planned import planned, planned_with_room_made
from intertie.metasched.domain.planner import check_size
from intertie.metasched.domain.ports import Sites, Solvers
from intertie.metasched.domain.problem import (
    Offer,
    Problem,
    beyond_standing,
    images_of,
    problem_of,
)
from intertie.metasched.domain.room_made import joined, windows_with_room_made
from intertie.metasched.domain.taken import less
from intertie.metasched.usecases.brief import Brief, NoUse

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SOLVERS = 2
"""At most so many problems that callers wait for are solved at a time, unless it is said; the
others wait their turn."""
FORECASTS = 1
"""At most so many looks ahead are taken at a time, each at many problems: beside those, so that no
caller stands behind them."""

CHOICES = 1
"""Likewise of looks for plans to choose from."""

BESIDE = 3
"""So often it is planned what is brought to a cluster that stands, each time on what the links
promised by the plan before leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    horizon: timedelta
    slot: timedelta
    solver: float
    """CP-SAT's deterministic time for each objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best plan, and what it is the best plan of."""

    plan: Plan
    problem: Problem
    brief: Brief
    made: tuple[Window, ...] = ()
    """Those of its windows that begin when sites can have made room, and not before."""


class Planning:
    def __init__(
        self, sites: Sites, effort: Effort, solvers: Solvers, *, at_a_time: int = SOLVERS
    ) -> None:
        self._sites = sites
        self._effort = effort
        self._solvers = solvers
        self._turns = asyncio.Semaphore(at_a_time)
        self._forecasts = asyncio.Semaphore(FORECASTS)
        self._choices = asyncio.Semaphore(CHOICES)

    def brief(self, tenant: str, spec: ClusterSpec, *, now: datetime) -> Brief:
        windows = candidate_windows(
            spec.lease, now=now, slot=self._effort.slot, horizon=self._effort.horizon
        )
        return Brief(
            tenant=tenant, spec=spec, windows=windows, without={}, image_gone={}, since=now
        )

    async def __call__(self, brief: Brief) -> Plan:
        """The best plan that the sites' offers allow, checked and explained.

        FieldInvalid where a disk is smaller than its image, or groups are too many to be planned;
        SiteUnreachable or LedgerFull where there is none but a site that may be used gave no offer;
        ImageNotReady where no site that may be used has an image; else NoCapacity.
        """
        return (await self._found(brief)).plan

    async def _found(self, brief: Brief) -> Found:
        problem, silent = await self.problem(brief)
        check_disks(problem)
        check_size(problem)
        plan = await self.found(planned, problem, effort=self._effort.solver)
        brought = await self._with_images_brought(brief, problem, plan)
        made: tuple[Window, ...] = ()
        if later := self.room_made(brief, problem, plan):
            more, gone = await self.problem(replace(brief, windows=later))
            better = await self.found(
                planned_with_room_made, problem, plan, more, effort=self._effort.solver
            )
            if better is not None or plan is None:
                plan, problem, silent = better, joined(problem, more), {**silent, **gone}
                made = later
        if brought is not None and (plan is None or _is_sooner(problem, brought.plan, plan)):
            return replace(brought, plan=_with_silent(brought.plan, silent))
        if plan is not None:
            told = _with_silent(plan, silent)
            return Found(plan=told, problem=problem, brief=brief, made=made)
        raise await self._why_not(brief, problem, silent)

    async def _with_images_brought(
        self, brief: Brief, problem: Problem, plan: Plan | None
    ) -> Found | None:
        """The best plan for which images are brought to sites that lack them, where there is time
        for that and it may be worth it. Only of a lease that does not wait."""
        if brief.since is None or brief.spec.lease.kind is not None:
            return None
        windows, since = brief.windows, brief.since + LEAD
        if brief.beside is not None:
            windows = begins_beside(brief.windows[0], since)
        spans = spans_before(windows, since)
        if not spans or not is_worth_it(problem, plan):
            return None
        problem = await self._with_other_sources(brief, problem)
        before = (await self._links(brief, problem, spans)).room
        asked = with_images_brought(problem, spans, before)
        if plan is None:
            check_disks(asked)
        if brief.beside is not None:
            found = await self._brought_beside(brief, over_begins(asked, windows))
            if found is None and some_do_without(problem):
                asked = with_images_brought(problem, spans, before, once_more=True)
                found = await self._brought_beside(brief, over_begins(asked, windows))
            return found
        best = await self.found(planned, asked, effort=self._effort.solver)
        if best is None or not best.transfers:
            return None
        held = as_held(asked, best)
        if _is_above_budget(asked, held):
            return None
        return Found(plan=held, problem=asked, brief=brief)

    async def with_images(self, found: Found) -> Found:
        """The same plan, of the problem in which what some site lacks may be brought there: another
        plan may be better in some respect."""
        brief, problem = found.brief, found.problem
        if problem.items or brief.since is None or brief.spec.lease.kind is not None:
            return found
        spans = spans_before(problem.windows, brief.since + LEAD)
        if not spans or not lacks_any(problem):
            return found
        problem = await self._with_other_sources(brief, problem)
        before = (await self._links(brief, problem, spans)).room
        return replace(found, problem=with_images_brought(problem, spans, before))

    async def links_ahead(self, brief: Brief, problem: Problem, *, since: datetime) -> Links | None:
        """What sites have free of their links from then on to bring what some of them lack; None
        where nothing is brought for such a lease, or nothing is lacking."""
        if brief.since is None or brief.spec.lease.kind is not None or not lacks_any(problem):
            return None
        return await self._links(brief, problem, spans_ahead(since, self._effort.horizon))

    async def _links(self, brief: Brief, problem: Problem, spans: tuple[Window, ...]) -> Links:
        names = [each.name for each in problem.sites if each.name not in brief.sends_nothing]
        found, _ = await self._asked(brief, names, spans, ())
        room = {name: [offer.links for offer in of] for name, of in found.items()}
        return Links(spans=spans, room=room)

    async def _with_other_sources(self, brief: Brief, problem: Problem) -> Problem:
        """With sites that may send what others lack, and do no more."""
        asked_already = {site.name for site in problem.sites}
        out = brief.sends_nothing | brief.without.keys() | asked_already
        names = [name for name in self._sites.names if name not in out]
        others, _ = await self._asked(brief, names, problem.windows, images_of(problem))
        return with_sources(problem, others)

    async def _too_late(self, brief: Brief, problem: Problem) -> tuple[Shortfall, ...]:
        """What could be brought, and not in time."""
        if brief.since is None or not lacks_any(problem):
            return ()
        problem = await self._with_other_sources(brief, problem)
        since = brief.since + LEAD
        links = await self.links_ahead(brief, problem, since=since)
        if links is None:
            return ()
        begins = brief.windows
        if brief.beside is not None:
            begins = begins_beside(brief.windows[0], since) or brief.windows
        latest = max(each.start for each in begins)
        return await self.found(too_late, problem, links, latest)

    async def _brought_beside(self, brief: Brief, asked: Problem) -> Found | None:
        """Of a cluster that stands: what is brought comes beside what is promised on links."""
        (ahead,), tried = brief.windows, asked
        for _ in range(BESIDE):
            found = await self.found(planned, tried, effort=self._effort.solver)
            if found is None or not found.transfers:
                return None
            kept = with_links_kept(asked, found, ahead)
            if kept is None:
                plan = in_window(as_held(asked, found), ahead)
                if _is_above_budget(asked, plan):
                    return None
                return Found(plan=plan, problem=asked, brief=brief)
            tried = kept
        return None

    def room_made(self, brief: Brief, problem: Problem, plan: Plan | None) -> tuple[Window, ...]:
        """What is tried once more for a lease that does not wait and cannot begin at once."""
        if not brief.before_others or not problem.windows:
            return ()
        first = problem.windows[0].start
        latest = first + self._effort.horizon
        if brief.spec.lease.deadline is not None:
            latest = problem.windows[-1].start
        before = plan.window.start if plan is not None else latest
        return windows_with_room_made(
            problem, brief.spec.lease, before=before, hold_within=brief.hold_within
        )

    async def in_time(self, brief: Brief) -> Plan:
        """The same; of a lease with a deadline, for which nobody is to give way where there is room
        for it later, first on what is free. Like any other it may do without a site that gave no
        offer."""
        return (await self.found_in_time(brief)).plan

    async def found_in_time(self, brief: Brief) -> Found:
        """As in_time."""
        try:
            return await self._found(brief)
        except (NoCapacity, SiteUnreachable, LedgerFull):
            if brief.spec.lease.kind is not Kind.DEADLINE:
                raise
            with contextlib.suppress(NoCapacity, SiteUnreachable, LedgerFull):
                return await self._found(replace(brief, others_give_way=True))
            raise

    async def problem(self, brief: Brief) -> tuple[Problem, Mapping[str, NoUse]]:
        """By what sites offer now; and those that may be used and are of no use."""
        offers, silent = await self._offers(brief)
        problem = problem_of(brief.spec, brief.windows, offers, brief.cuts)
        problem = less(problem, brief.leaves)
        if brief.beside is not None:
            problem = _without_gone(brief.beside(problem), brief.image_gone)
            for _, site in problem.standing:
                if site in silent:
                    raise silent[site]
        return problem, silent

    async def foreseen(self, look: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What `look` finds, which solves problems. As Solvers.run."""
        async with self._forecasts:
            return await self._solvers.run(look, *args, **options)

    async def choice(self, look: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """The same for plans to choose from."""
        async with self._choices:
            return await self._solvers.run(look, *args, **options)

    async def found(self, look: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """The same for a caller who waits for it."""
        async with self._turns:
            return await self._solvers.run(look, *args, **options)

    @property
    def effort(self) -> Effort:
        return self._effort

    async def _offers(self, brief: Brief) -> tuple[dict[str, tuple[Offer, ...]], dict[str, NoUse]]:
        """Of every site that some group may use, and of those, which did not answer."""
        problem = problem_of(brief.spec, brief.windows, {})
        names = [
            name
            for name in self._sites.names
            if name not in brief.without and any(allowed(group, name) for group in problem.groups)
        ]
        offers, silent = await self._asked(
            brief,
            names,
            brief.windows,
            images_of(problem),
            before_others=brief.before_others,
        )
        return offers, {**brief.without, **silent}

    async def _asked(
        self,
        brief: Brief,
        names: Sequence[str],
        windows: tuple[Window, ...],
        images: tuple[str, ...],
        *,
        before_others: bool = False,
    ) -> tuple[dict[str, tuple[Offer, ...]], dict[str, NoUse]]:
        """What these offer, without the images that they turned out not to have; and which of them
        did not answer."""
        ask = self._sites.offers
        answers = await asyncio.gather(
            *(
                ask(name, brief.tenant, windows, images, before_others=before_others)
                for name in names
            ),
            return_exceptions=True,
        )
        offers: dict[str, tuple[Offer, ...]] = {}
        silent: dict[str, NoUse] = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, DomainError):
                log.warning("planning.no_offer", site=name, problem=str(answer))
                silent[name] = (
                    answer
                    if isinstance(answer, SiteUnreachable)
                    else SiteUnreachable(name, f"it offers nothing: {answer}")
                )
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answer = _of_kind(answer, brief.spec.lease.kind)
                gone = brief.image_gone.get(name)
                offers[name] = _without_image(answer, gone.image) if gone else answer
        return offers, silent

    async def _why_not(
        self, brief: Brief, problem: Problem, silent: Mapping[str, NoUse]
    ) -> DomainError:
        for error in silent.values():
            return error
        late = await self._too_late(brief, problem)
        missing = images_missing(problem)
        if missing and not late:
            named = [each for each in problem.groups if missing[0] in (each.image, *each.data)]
            places = {s.name for s in problem.sites for g in named if allowed(g, s.name)}
            site = places.pop() if len(places) == 1 else ""
            return ImageNotReady(missing[0], site, _where_asked(brief.spec, missing[0]))
        if brief.beside is not None:
            problem = beyond_standing(problem)
        short = await self.found(shortfalls, problem, effort=self._effort.solver)
        return NoCapacity(tuple(dict.fromkeys((*brief.refused, *late, *short))))


def _is_above_budget(problem: Problem, plan: Plan) -> bool:
    """At the rates of its own window, by which its sites ask for what is sent; it was planned at
    those of the first."""
    return problem.max_cost is not None and above(plan.cost, problem.max_cost)


def _is_sooner(problem: Problem, one: Plan, other: Plan) -> bool:
    """With as many workspaces or more of them."""
    more, fewer = (sum(plan.count(group.name) for group in problem.groups) for plan in (one, other))
    return more > fewer or (more == fewer and one.window.start < other.window.start)


def _where_asked(spec: ClusterSpec, image: str) -> str:
    """The first field that names the image."""
    for position, group in enumerate(spec.groups):
        if group.environment.image == image:
            return image_field(position)
    sources = [each.source for each in spec.datasets]
    return dataset_field(sources.index(image))


def _without_gone(problem: Problem, gone: Mapping[str, ImageNotReady]) -> Problem:
    """What was to come to a site, and did not, is no more on its way."""
    sites = tuple(
        replace(site, offers=_without_image(site.offers, gone[site.name].image))
        if site.name in gone
        else site
        for site in problem.sites
    )
    coming = frozenset(
        (digest, site)
        for digest, site in problem.coming
        if site not in gone or gone[site].image != digest
    )
    return replace(problem, sites=sites, coming=coming)


def _without_image(offers: tuple[Offer, ...], image: str) -> tuple[Offer, ...]:
    return tuple(
        replace(
            offer,
            images={
                name: found
                for name, found in offer.images.items()
                if image not in (name, found.digest)
            },
        )
        for offer in offers
    )


def _of_kind(offers: tuple[Offer, ...], kind: Kind | None) -> tuple[Offer, ...]:
    """At what sites ask for leases of that kind."""
    if kind is None:
        return offers
    name = kind.value.lower()
    return tuple(replace(each, rates=each.kinds.get(name, each.rates)) for each in offers)


def _with_silent(plan: Plan, silent: Mapping[str, NoUse]) -> Plan:
    return replace(
        plan,
        reasons=(*plan.reasons, *(f"{name} is not used: {e}" for name, e in silent.items())),
    )
