"""Refusals: whether they name what made the request impossible, whether to give that up is enough,
and whether what is offered instead is accepted.

`python -m bench explain [--limit N] [--seconds S] [--seed N] [--json] [--verbose]`. 200 requests of
one known cause, 8 of each of 25 kinds, and 50 of two or three at once, over drawn sites, through
the meta-scheduler's own planning. Every answer is put to the planner again, as one of its own:

- *named*: of one cause, its field is in each conflict; of several, each one's is in some conflict.
- *restored*: the request without what is said to be enough to give up: of one conflict any one such
  requirement, each by itself; of several one of each, in every way to choose them. To give up is to
  ask for the least that can be asked for.
- *any*: of requests with one conflict, each requirement that it names, given up by itself, whether
  it is said to be enough or not.
- *accepted*: a counter-offer, put into the request as the SDK does, and planned.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice, product
from typing import Any

import structlog

from bench.explain_requests import CAUSES, Cause, draw_request, given_up
from bench.explain_sites import NOW, DrawnSites, OfferedSites, draw_sites
from bench.report import Row, percentile, show
from intertie.client import with_changes
from intertie.common.clock import SystemClock
from intertie.common.errors import DomainError, FieldInvalid, ImageNotReady, NoCapacity
from intertie.common.explanation import Explanation
from intertie.common.rpc.spec_proto import cluster_spec_from_proto, cluster_spec_to_proto
from intertie.common.spec import ClusterSpec, normalise, validate
from intertie.metasched.adapters.solver_processes import SolverProcesses
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.ports import Solvers
from intertie.metasched.settings import PlanningSettings
from intertie.metasched.usecases.explaining import Explaining
from intertie.metasched.usecases.planning import Effort, Planning

SINGLE, SEVERAL = 200, 50
TRIES = 60
"""Draws for one request before its cause is passed over."""
MOST_CHOICES = 64
"""Of ways to give up one of each of several conflicts, that are tried."""
EFFORT = Effort(horizon=timedelta(hours=24), slot=timedelta(minutes=5), solver=2.0)
"""A meta-scheduler's own settings where nothing is said."""


@dataclass(slots=True, kw_only=True)
class Case:
    """One request that cannot be had, and what was said of it."""

    causes: tuple[Cause, ...]
    spec: ClusterSpec
    sites: DrawnSites
    ms: float = 0.0
    named: bool = False
    conflicts: int = 0
    restored: list[bool] = field(default_factory=list)
    any: list[bool] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)
    """What did not hold, for whoever looks for a fault."""


class Planner:
    """What a meta-scheduler does with a request that is only planned."""

    def __init__(self, sites: DrawnSites, solvers: Solvers) -> None:
        offered: Any = OfferedSites(sites)
        self._planning = Planning(offered, EFFORT, solvers)
        self._explaining = Explaining(self._planning, solvers)

    async def plan(self, spec: ClusterSpec) -> Plan:
        validate(spec, now=NOW)
        brief = self._planning.brief("bench", normalise(spec, now=NOW), now=NOW)
        return await self._planning.in_time(brief)

    async def refuses(self, spec: ClusterSpec) -> DomainError | None:
        """With its explanation; None where it has a plan."""
        try:
            await self.plan(spec)
        except NoCapacity as refusal:
            brief = self._planning.brief("bench", normalise(spec, now=NOW), now=NOW)
            return await self._explaining(brief, refusal, now=NOW)
        except DomainError as refusal:
            return refusal
        return None

    async def takes(self, spec: ClusterSpec) -> bool:
        try:
            await self.plan(spec)
        except DomainError:
            return False
        return True


def run(quick: bool) -> None:
    _quietly()
    asyncio.run(_in_processes(limit=25 if quick else SINGLE, seconds=3600, seed=1))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench explain")
    parser.add_argument("--limit", type=int, default=SINGLE, help="requests of one cause")
    parser.add_argument("--seconds", type=float, default=3600, help="begin none later")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the object alone")
    parser.add_argument("--verbose", action="store_true", help="what did not hold")
    given = parser.parse_args(arguments)
    _quietly()
    asyncio.run(
        _in_processes(
            limit=given.limit,
            seconds=given.seconds,
            seed=given.seed,
            only_json=given.json,
            verbose=given.verbose,
        )
    )


def _quietly() -> None:
    """Planning logs what it does, which is not what is printed here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


async def _in_processes(**options: Any) -> None:
    """As a meta-scheduler has its problems solved."""
    solvers = SolverProcesses(PlanningSettings().solver_memory_mib, SystemClock())
    await solvers.start()
    try:
        await _run(solvers, **options)
    finally:
        await solvers.close()


async def _run(
    solvers: Solvers,
    *,
    limit: int,
    seconds: float,
    seed: int,
    only_json: bool = False,
    verbose: bool = False,
) -> None:
    begun = time.monotonic()
    single: list[Case] = []
    several: list[Case] = []
    for cases, count, drawn in (
        (single, limit, _of_one_cause),
        (several, -(-limit * SEVERAL // SINGLE), _of_several),
    ):
        for number in range(count):
            if time.monotonic() - begun > seconds:
                break
            draw = random.Random(f"{seed} {drawn.__name__} {number}")
            case = await drawn(draw, number, solvers)
            if case is None:
                continue
            await _judge(case, solvers)
            cases.append(case)
            for problem in case.unsound if verbose else ():
                print(f"{drawn.__name__} {number} {[c.name for c in case.causes]}: {problem}")
    _report(single, several, time.monotonic() - begun, only_json=only_json)


async def _of_one_cause(draw: random.Random, number: int, solvers: Solvers) -> Case | None:
    """Of a request that can be had without it."""
    return await _drawn(draw, lambda: [CAUSES[number % len(CAUSES)]], solvers)


async def _of_several(draw: random.Random, number: int, solvers: Solvers) -> Case | None:
    """Each of which stands in the way without the others."""
    return await _drawn(draw, lambda: draw.sample(CAUSES, draw.choice((2, 2, 3))), solvers)


async def _drawn(
    draw: random.Random, choose: Callable[[], list[Cause]], solvers: Solvers
) -> Case | None:
    for _ in range(TRIES):
        sites = draw_sites(draw)
        spec: ClusterSpec | None = draw_request(draw, sites)
        causes = choose()
        for each in causes:
            spec = each.change(draw, sites, spec) if spec is not None else None
        if spec is None:
            continue
        try:
            validate(spec, now=NOW)
        except FieldInvalid:
            continue
        spec = normalise(spec, now=NOW)
        if await _stands_in_the_way(Planner(sites, solvers), spec, causes):
            return Case(causes=tuple(causes), spec=spec, sites=sites)
    return None


async def _stands_in_the_way(planner: Planner, spec: ClusterSpec, causes: Sequence[Cause]) -> bool:
    """Without all of these it can be had, and without all but one, whichever, it cannot."""
    fields = [each.field for each in causes]
    if not await planner.takes(_without(spec, fields)):
        return False
    for left in fields:
        if await planner.takes(_without(spec, [each for each in fields if each != left])):
            return False
    return True


def _without(spec: ClusterSpec, fields: Sequence[str]) -> ClusterSpec:
    for each in fields:
        [spec] = given_up(spec, each)
    return spec


async def _judge(case: Case, solvers: Solvers) -> None:
    planner = Planner(case.sites, solvers)
    begun = time.monotonic()
    refusal = await planner.refuses(case.spec)
    case.ms = 1000 * (time.monotonic() - begun)
    wanted = {each.field for each in case.causes}
    if isinstance(refusal, ImageNotReady | FieldInvalid):
        # Told by itself, with its field, before anything is counted.
        case.named = refusal.field in wanted
        case.conflicts = 1
        if len(wanted) == 1:
            case.restored.append(await planner.takes(_without(case.spec, [refusal.field])))
        return
    assert isinstance(refusal, NoCapacity), refusal
    told = refusal.explanation
    sets = [[each.field for each in conflict.requirements] for conflict in told.conflicts]
    case.conflicts = len(sets)
    if len(wanted) == 1:
        case.named = bool(sets) and all(wanted <= set(each) for each in sets)
    else:
        case.named = wanted <= {each for fields in sets for each in fields}
    if not case.named:
        case.unsound.append(f"named {sets}, wanted {wanted}")
    await _give_up(case, planner, told)
    for offer in told.counter_offers:
        changed = with_changes(cluster_spec_to_proto(case.spec), offer)
        taken = await planner.takes(cluster_spec_from_proto(changed))
        case.accepted.append(taken)
        if not taken:
            case.unsound.append(f"not accepted: {offer.message}")


async def _give_up(case: Case, planner: Planner, told: Explanation) -> None:
    enough = [
        [each.field for each in conflict.requirements if each.enough] for conflict in told.conflicts
    ]
    if not enough or not all(enough):
        case.restored.append(False)
        case.unsound.append("nothing is said to be enough")
        return
    for choice in _choices(enough):
        taken = await planner.takes(_without(case.spec, choice))
        case.restored.append(taken)
        if not taken:
            case.unsound.append(f"not restored without {choice} of {enough}")
    if len(enough) == 1:
        for each in told.conflicts[0].requirements:
            case.any.append(await planner.takes(_without(case.spec, [each.field])))


def _choices(sets: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """One of each, in every way, each way once."""
    chosen = dict.fromkeys(tuple(sorted(set(each))) for each in product(*sets))
    yield from map(list, islice(chosen, MOST_CHOICES))


def _share(found: Sequence[bool]) -> float | None:
    """None: of nothing."""
    return round(sum(found) / len(found), 4) if found else None


def _report(
    single: Sequence[Case], several: Sequence[Case], took_s: float, *, only_json: bool
) -> None:
    result: dict[str, object] = {}
    rows: list[Row] = []
    for name, cases in (("one cause", single), ("several causes", several)):
        figures = {
            "named": [case.named for case in cases],
            "restored": [each for case in cases for each in case.restored],
            "any": [each for case in cases for each in case.any],
            "accepted": [each for case in cases for each in case.accepted],
        }
        ms = [case.ms for case in cases] or [0.0]
        offered = sum(bool(case.accepted) for case in cases)
        rows.append(Row(what=f"{name}: requests", value=len(cases), unit=""))
        rows += [
            Row(
                what=f"{name}: {what}",
                value=100 * share,
                unit="%",
                against=f"{sum(found)} of {len(found)}",
            )
            for what, found in figures.items()
            if (share := _share(found)) is not None
        ]
        rows.append(Row(what=f"{name}: with a counter-offer", value=offered, unit="requests"))
        rows.append(Row(what=f"{name}: to refuse, mean", value=sum(ms) / len(ms), unit="ms"))
        rows.append(Row(what=f"{name}: to refuse, p99", value=percentile(ms, 0.99), unit="ms"))
        result[name.replace(" ", "_")] = {
            "requests": len(cases),
            **{what: _share(found) for what, found in figures.items()},
            **{f"{what}_of": len(found) for what, found in figures.items()},
            "one_conflict": _share([case.conflicts == 1 for case in cases]),
            "with_counter_offer": offered,
            "ms_mean": round(sum(ms) / len(ms), 1),
            "ms_p99": round(percentile(ms, 0.99), 1),
        }
    causes = Counter(each.name for case in single for each in case.causes)
    result |= {"causes": dict(sorted(causes.items())), "seconds": round(took_s, 1)}
    if only_json:
        print(json.dumps({"bench": "explain", **result}))
    else:
        show("explain", rows, result)
