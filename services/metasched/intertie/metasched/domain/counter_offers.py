"""Other requests that would be accepted as things stand: each as near to what was asked for as any
of its kind, in one respect or, where none is enough, in as many as it takes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from intertie.common.errors import FieldInvalid
from intertie.common.explanation import Change, CounterOffer
from intertie.common.intervals import Window
from intertie.common.price import if_put_aside
from intertie.common.spec import Affinity, ClusterSpec, normalise, validate
from intertie.common.values import replace
from intertie.metasched.domain.bringing import as_held
from intertie.metasched.domain.brought_later import Links, with_any_brought
from intertie.metasched.domain.candidates import check_disks
from intertie.metasched.domain.cheapest import cheapest
from intertie.metasched.domain.conflicts import Conflicts
from intertie.metasched.domain.feasibility import Feasibility
from intertie.metasched.domain.levers import Lever, Step, Value, changed, levers_of
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Cut, Offer, Problem, listed, problem_of
from intertie.metasched.domain.requirements import Asked, Times

MOST_COMBINED = 3
"""So many offers that change several respects at a time, where none of one is enough."""
TRIED = 64
"""Of what has no order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a request, and others like it, are planned on."""

    spec: ClusterSpec
    """Normalised."""
    windows: tuple[Window, ...]
    offers: Mapping[str, Sequence[Offer]]
    """Of all sites, whether or not the request may use them, over these windows."""
    times: Times
    cuts: tuple[Cut, ...]
    now: datetime
    links: Links | None = None
    """What is free to bring what some site lacks; None: nothing is."""

    def problem(self, spec: ClusterSpec, slots: Sequence[int]) -> Problem:
        ordered = sorted(slots, key=lambda slot: (self.windows[slot].start, slot))
        problem = problem_of(
            spec,
            tuple(self.windows[slot] for slot in ordered),
            {name: [each[slot] for slot in ordered] for name, each in self.offers.items()},
            self.cuts,
        )
        return with_any_brought(problem, self.links)

    @property
    def whole(self) -> Problem:
        """Of the request itself, over all windows, in their own order."""
        problem = problem_of(self.spec, self.windows, self.offers, self.cuts)
        return with_any_brought(problem, self.links)

    def after(self, steps: Sequence[Step]) -> Problem | None:
        """Of the request with these changes; None where it would be refused as malformed."""
        spec = self.spec
        slots: tuple[int, ...] = ()
        for each in steps:
            spec, slots = changed(spec, each.changes), each.slots or slots
        try:
            validate(spec, now=self.now)
            problem = self.problem(normalise(spec, now=self.now), slots or self.times.asked)
            check_disks(problem)
        except FieldInvalid:
            return None
        return problem


def counter_offers_of(
    ground: Ground,
    asked: Sequence[Asked],
    found: Conflicts,
    *,
    feasibility: Feasibility,
    effort: float,
) -> tuple[CounterOffer, ...]:
    """Where giving up one requirement is enough, one or two for each such; else some that change as
    many as it takes. `feasibility` is for all of them, `effort` as in planner.best_plan."""
    whole = ground.whole
    offers: list[CounterOffer] = []
    for numbers in found.ways:
        if len(numbers) > 1 and len(offers) >= MOST_COMBINED:
            break
        # When comes last: by then it is known what is to fit.
        ordered = sorted(numbers, key=lambda number: (bool(asked[number].opens), number))
        if sum(bool(asked[number].opens) for number in numbers) > 1:
            continue
        ways = [levers_of(asked[number], ground.spec, whole, ground.times) for number in ordered]
        for levers in _each_of(ways):
            offer = offer_of(ground, levers, feasibility, effort=effort)
            if offer is not None and offer not in offers:
                offers.append(offer)
    return tuple(offers)


def offer_of(
    ground: Ground, levers: Sequence[Lever], feasibility: Feasibility, *, effort: float
) -> CounterOffer | None:
    """The least of each, those after it being as loose as can be; None where that is not enough."""
    chosen: list[Step] = []
    for number, lever in enumerate(levers):
        rest = [each.most() for each in levers[number + 1 :]]
        if lever.of_cost is not None:
            steps = (*chosen, lever.most(), *rest)
            lever = replace(lever, values=_priced(ground, lever.of_cost, steps, effort))
        step = _least(lever, partial(_fits, ground, tuple(chosen), rest, feasibility))
        if step is None:
            return None
        chosen.append(step)
    problem = ground.after(chosen)
    plan = best_plan(problem, effort=effort) if problem is not None else None
    if problem is None or plan is None or check(problem, plan):
        return None
    return _told(chosen, as_held(problem, plan))


def _priced(
    ground: Ground,
    values: Callable[[float], Sequence[Any]],
    steps: Sequence[Step],
    effort: float,
) -> Sequence[Any]:
    """By the cheapest plan with these steps."""
    problem = ground.after(steps)
    plan = cheapest(problem, partial(best_plan, effort=effort)) if problem is not None else None
    return values(plan.cost) if plan is not None else ()


def reached(ground: Ground, asked: Asked, feasibility: Feasibility) -> int | None:
    """Of a requirement that windows stand for: the first of them in which all the rest fits."""
    for lever in levers_of(asked, ground.spec, ground.whole, ground.times):
        step = _least(lever, partial(_fits, ground, (), (), feasibility))
        if step is not None:
            return step.slots[0]
    return None


def _told(steps: Sequence[Step], plan: Plan) -> CounterOffer:
    return CounterOffer(
        changes=tuple(
            Change(field=field, value=json_of(value))
            for each in steps
            for field, value in each.changes.items()
        ),
        message=_said(" and ".join((*(each.message for each in steps), *_brought(plan))), plan),
        start_time=plan.window.start,
        cost=plan.cost,
    )


def _said(changes: str, plan: Plan) -> str:
    """With what of its price is for those who give way for it, and where they do."""
    aside = if_put_aside(plan.expected())
    return f"{changes}, {aside}" if aside else changes


def _brought(plan: Plan) -> Iterator[str]:
    sites = list(dict.fromkeys(each.to_site for each in plan.transfers))
    if sites:
        yield f"what is missing brought to {listed(sites)} until then"


def _fits(
    ground: Ground,
    before: Sequence[Step],
    after: Sequence[Step],
    feasibility: Feasibility,
    step: Step,
) -> bool:
    problem = ground.after([*before, step, *after])
    return problem is not None and feasibility.of(problem) is True


def _least(lever: Lever, fits: Callable[[Step], bool]) -> Step | None:
    """The first of its steps that fits."""
    if not lever.ordered:
        for value in lever.values[:TRIED]:
            if fits(step := lever.step(value)):
                return step
        return lever.loosest if lever.loosest and _is_one(lever) and fits(lever.loosest) else None
    low, high = 0, len(lever.values) - 1
    if high < 0 or not fits(lever.step(lever.values[high])):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(lever.step(lever.values[middle])):
            high = middle
        else:
            low = middle + 1
    return lever.step(lever.values[high])


def _is_one(lever: Lever) -> bool:
    """The loosest step is one that can be made, not a stand-in for several."""
    return bool(lever.loosest and lever.loosest.changes)


def _each_of(ways: Sequence[Sequence[Lever]]) -> list[tuple[Lever, ...]]:
    """One lever of each; none where one of them has none."""
    found: list[tuple[Lever, ...]] = [()]
    for each in ways:
        found = [(*before, lever) for before in found for lever in each]
    return found


def json_of(value: Value) -> str:
    """As protobuf's JSON has it."""
    if isinstance(value, datetime):
        return json.dumps(value.isoformat().replace("+00:00", "Z"))
    if isinstance(value, timedelta):
        return json.dumps(f"{value / timedelta(seconds=1):.6f}".rstrip("0").rstrip(".") + "s")
    if isinstance(value, tuple):
        return json.dumps([_entry(each) for each in value])
    return json.dumps(value)


def _entry(value: str | Affinity) -> object:
    if isinstance(value, Affinity):
        return {"groups": value.groups, "kind": value.kind.value}
    return value
