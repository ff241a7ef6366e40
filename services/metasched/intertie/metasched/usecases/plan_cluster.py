"""Plans to choose from for one request, and the one that was chosen."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import FieldInvalid, NoCapacity, Shortfall
from intertie.common.spec import check_can_be_chosen, normalise, validate
from intertie.common.values import replace
from intertie.metasched.domain.alternatives import Alternative, Merit, alternatives_of
from intertie.metasched.domain.beyond_free import beyond_free
from intertie.metasched.domain.bringing import as_held, with_items_of
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.ports import Room, ToldPlans
from intertie.metasched.domain.told_plan import ToldPlan, told
from intertie.metasched.usecases.explaining import Explaining
from intertie.metasched.usecases.order import Order
from intertie.metasched.usecases.planning import Found, Planning

log = structlog.get_logger(__name__)

SHARE = 0.1
"""Of the planner's effort, for each question that is asked beside the first."""
_TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    merits: tuple[Merit, ...]
    plan: Plan
    gives_way: tuple[Shortfall, ...]
    """What it takes beyond what is free, where others are put aside for it."""
    token: str
    accept_before: datetime


class PlanCluster:
    def __init__(
        self,
        *,
        planning: Planning,
        explaining: Explaining,
        plans: ToldPlans,
        clock: Clock,
        draw: Callable[[], str],
        room: Room,
        within: timedelta,
    ) -> None:
        """`draw` gives 32 hex digits that nobody can guess; `within` is how long a plan may be
        accepted."""
        self._planning = planning
        self._explaining = explaining
        self._plans = plans
        self._clock = clock
        self._draw = draw
        self._room = room
        self._within = within

    async def __call__(self, order: Order) -> tuple[Option, ...]:
        """The earliest first. Each is on record until it may not be accepted any more; nothing is
        held for it. Raises what Create would."""
        self._room.check()
        now = self._clock.now()
        validate(order.spec, now=now)
        spec = normalise(order.spec, now=now)
        check_can_be_chosen(spec.lease)
        tenant = order.name.tenant
        # Nothing is on its way before it may be accepted no more: else it could not be held so.
        brief = replace(self._planning.brief(tenant, spec, now=now), since=now + self._within)
        try:
            found = await self._planning.with_images(await self._planning.found_in_time(brief))
        except NoCapacity as refusal:
            raise await self._explaining(brief, refusal, now=now) from None
        choice, costs = await self._choice(found)
        kept = {
            self._draw(): told(
                each.plan,
                order.spec.lease,
                request=order.asked,
                made=found.made,
                now=now,
                within=self._within,
            )
            for each in choice
        }
        await self._plans.keep(tenant, kept, self._within)
        log.info("plan.told", cluster=str(order.name), options=len(choice))
        return tuple(
            Option(
                merits=each.merits,
                plan=each.plan,
                gives_way=gives_way,
                token=token,
                accept_before=plan.accept_before,
            )
            for each, gives_way, (token, plan) in zip(choice, costs, kept.items(), strict=True)
        )

    async def _choice(
        self, found: Found
    ) -> tuple[tuple[Alternative, ...], tuple[tuple[Shortfall, ...], ...]]:
        """With what each costs others, in their order."""
        effort = SHARE * self._planning.effort.solver
        choice = await self._planning.choice(
            alternatives_of, found.problem, found.plan, effort=effort
        )
        choice = tuple(replace(each, plan=as_held(found.problem, each.plan)) for each in choice)
        if not found.brief.before_others:
            return choice, ((),) * len(choice)
        windows = sorted({each.plan.window for each in choice}, key=lambda each: each.start)
        alone = replace(found.brief, windows=tuple(windows), others_stay=True)
        free, silent = await self._planning.problem(alone)
        for each in choice:
            for site in each.plan.site_names:
                if site in silent:
                    raise silent[site]
        free = with_items_of(free, found.problem)
        plans = [each.plan for each in choice]
        costs = await self._planning.choice(beyond_free, found.problem, free, plans, effort=effort)
        return choice, costs


async def accepted(plans: ToldPlans, order: Order, *, now: datetime) -> ToldPlan | None:
    """What the order accepts; None where it accepts nothing. FieldInvalid where that is not to be
    had: of another tenant's plan it is not said that it exists."""
    token = order.plan_token
    if not token:
        return None
    found = await plans.get(order.name.tenant, token) if _TOKEN.fullmatch(token) else None
    if found is None or now >= found.accept_before:
        raise FieldInvalid(
            "plan_token",
            "is of no plan that may be accepted now: they may be for some minutes only; plan again "
            "for others, or leave it out to get the best there is",
        )
    if found.request != order.asked:
        raise FieldInvalid(
            "plan_token",
            "is of a plan for another request; send parent, cluster_id and spec as they were "
            "planned, or plan this one",
        )
    return found
