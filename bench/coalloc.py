"""Requests for clusters over several sites, with the images and data sets that they need, one
after another as they come, through the meta-scheduler's planner; against sites that are filled one
after another, and against what no plan can do better than.

`python -m bench coalloc [--sites N ...] [--limit N] [--seconds S] [--seed N] [--effort E]
[--json]`. Topologies (SNDlib, Topology Zoo, by `topohub`), sites and requests are drawn as
`bench/coalloc_requests.py` says, at an offered load of 0.9 of what is scarcest: vCPUs, of which
memory is a multiple, or links. All ways to place them have the same requests, each in a world of
its own (`bench/coalloc_world.py`), which the same first requests have filled, placed by (b) and not
counted. They have one objective: all or nothing; the earliest start; the fewest sites; the least
cost, of workspaces, promised bandwidth and transfers.

- *planner*: `best_plan`, as it is.
- *(a)*: `first_fit` of `bench/coalloc_greedy.py`: in the first window in which all fits, workspaces
  go to the first sites with room, and transfers are made one after another.
- *(b)*: the same, with transfers beside one another, by what links have free: the planner's own
  schedule of transfers, for a placement that knows nothing of them.
- *bound*: for each request, in the world of the planner, the earliest start and the least cost of a
  problem with fewer rules (`bench/coalloc_bound.py`); for the cost at the planner's start, and at
  no more sites. A gap is (planner - bound) / bound, of the sums over what the planner accepted.

A start is counted from when a request comes. Times are of the CPU that this process, which has one
thread, takes. *WAN* is what transfers carry, on each link that they go over. Every plan of all
three is checked by `plan.check`, and every world for what is overfull.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from bench.coalloc_bound import Bound
from bench.coalloc_greedy import beside_one_another, first_fit, one_after_another
from bench.coalloc_requests import TOPOLOGIES, Request, Scenario, scenario
from bench.coalloc_world import EPOCH, World
from bench.report import percentile
from intertie.common.process import collect_gently
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem

COUNTS = {5: 80, 20: 60, 50: 24, 91: 16}
"""Requests that are counted."""
QUICK = 8
EFFORT = 2.0
"""Of the planner: a meta-scheduler's own, where nothing is said."""
SEED = 1
TARGETS: tuple[tuple[str, str, dict[int, str]], ...] = (
    ("starts earlier than (a)", "earlier_than_a", dict.fromkeys(TOPOLOGIES, " (to reach: 25)")),
    ("the same, of what both accepted", "earlier_than_a_of_both", {}),
    ("starts earlier than (b)", "earlier_than_b", dict.fromkeys(TOPOLOGIES, " (to reach: 10)")),
    ("the same, of what both accepted", "earlier_than_b_of_both", {}),
    ("gap of starts", "gap_start", dict.fromkeys((5, 20), " (to reach: 5)")),
    ("gap of costs", "gap_cost", dict.fromkeys((5, 20), " (to reach: 5)")),
)


@dataclass(slots=True, kw_only=True)
class Answer:
    request: Request
    plan: Plan | None
    first_ms: float
    all_ms: float
    bound_s: float | None = None
    """The least delay; None where the bound has no plan."""
    bound_cost: float = 0.0

    @property
    def delay_s(self) -> float:
        assert self.plan is not None
        return _delay_s(self.request, self.plan)


@dataclass(slots=True, kw_only=True)
class Done:
    """What became of the requests, by one way to place them."""

    world: World
    answers: list[Answer] = field(default_factory=list)
    unsound: int = 0

    @property
    def accepted(self) -> list[Answer]:
        return [each for each in self.answers if each.plan is not None]


Way = Callable[[Problem, "Callable[[Plan], None]"], "Plan | None"]


def ways(effort: float) -> dict[str, Way]:
    """To place requests; the first one is the planner's."""
    return {
        "planner": lambda problem, told: best_plan(problem, effort=effort, told=told),
        "a": lambda problem, _: first_fit(problem, one_after_another),
        "b": lambda problem, _: first_fit(problem, beside_one_another),
    }


def placed(
    given: Scenario,
    by: Mapping[str, Way],
    *,
    limit: int | None = None,
    seconds: float | None = None,
) -> dict[str, Done]:
    """The requests that are counted, each by all of these ways before the next one; the first way
    is held against the bound. No new one after so many seconds."""
    begun = time.perf_counter()
    filled = World(given)
    for request in given.requests[: given.filling]:
        plan = first_fit(filled.problem(request), beside_one_another)
        if plan is not None:
            filled.take(request, plan)
    done = {name: Done(world=deepcopy(filled)) for name in by}
    for request in given.requests[given.filling :][:limit]:
        if seconds is not None and time.perf_counter() - begun > seconds:
            break
        for number, (name, way) in enumerate(by.items()):
            problem = done[name].world.problem(request)
            answer = _answer(request, problem, way)
            if number == 0:
                _bound(problem, answer)
            done[name].answers.append(answer)
            if answer.plan is not None:
                done[name].unsound += bool(check(problem, answer.plan))
                done[name].world.take(request, answer.plan)
    return done


def _answer(request: Request, problem: Problem, way: Way) -> Answer:
    first: list[float] = []
    begun = time.process_time()
    plan = way(problem, lambda _: first.append(time.process_time()))
    ended = time.process_time()
    first_ms = 1000 * (min(first, default=ended) - begun)
    return Answer(request=request, plan=plan, first_ms=first_ms, all_ms=1000 * (ended - begun))


def _bound(problem: Problem, answer: Answer) -> None:
    bound = Bound(problem)
    slot = bound.first_slot()
    if slot is not None:
        start = problem.windows[slot].start
        answer.bound_s = (start - problem.windows[0].start).total_seconds()
    if answer.plan is not None:
        slot = problem.windows.index(answer.plan.window)
        sites = sum(bool(each.counts) for each in answer.plan.sites)
        answer.bound_cost = max(bound.cost(slot, sites), answer.plan.bound or 0.0)


def _delay_s(request: Request, plan: Plan) -> float:
    return (plan.window.start - EPOCH).total_seconds() - request.arrives_s


def _wan_mib(answer: Answer) -> int:
    sizes = {item.name: item.size_mib for item in answer.request.items}
    transfers = answer.plan.transfers if answer.plan is not None else ()
    return sum(sizes[each.item] * (len(each.route) - 1) for each in transfers)


def figures(done: Done) -> dict[str, float]:
    """Means over what was accepted; of times, over all that was asked for."""
    answers, accepted = done.answers, done.accepted
    count = max(len(accepted), 1)
    first_ms, all_ms = [each.first_ms for each in answers], [each.all_ms for each in answers]
    return {
        "accepted": len(accepted),
        "start_s": round(sum(each.delay_s for each in accepted) / count, 1),
        "cost": round(sum(each.plan.cost for each in accepted if each.plan) / count, 3),
        "wan_mib": round(sum(map(_wan_mib, accepted)) / count),
        "first_ms_mean": round(sum(first_ms) / len(answers), 1),
        "first_ms_p99": round(percentile(first_ms, 0.99), 1),
        "best_ms_mean": round(sum(all_ms) / len(answers), 1),
        "best_ms_p99": round(percentile(all_ms, 0.99), 1),
        "unsound": done.unsound,
        "overfull": done.world.overfull(),
    }


def compared(done: Mapping[str, Done]) -> dict[str, float | None]:
    """How much earlier the planner's starts are than others', on the mean of what each accepted and
    of what both did; and how far it is from the bound. None: of nothing."""
    ours = done["planner"]
    found: dict[str, float | None] = {}
    for name in ("a", "b"):
        theirs = done[name]
        found[f"earlier_than_{name}"] = _less(ours.accepted, theirs.accepted)
        both = [
            (one, other)
            for one, other in zip(ours.answers, theirs.answers, strict=True)
            if one.plan is not None and other.plan is not None
        ]
        found[f"earlier_than_{name}_of_both"] = _less(
            [one for one, _ in both], [other for _, other in both]
        )
    starts = [(each.delay_s, each.bound_s or 0.0) for each in ours.accepted]
    costs = [(each.plan.cost, each.bound_cost) for each in ours.accepted if each.plan is not None]
    found["gap_start"], found["gap_cost"] = _gap(starts), _gap(costs)
    could = sum(each.bound_s is not None for each in ours.answers)
    found["bound_accepted"] = could
    return found


def _less(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float | None:
    """Of the mean delay."""
    if not ours or not theirs:
        return None
    mean, other = (sum(each.delay_s for each in of) / len(of) for of in (ours, theirs))
    return round(1 - mean / other, 4) if other else 0.0


def _gap(pairs: Sequence[tuple[float, float]]) -> float | None:
    reached, bound = (sum(each) for each in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return round(reached / bound - 1, 4) if bound else None


def by_groups(done: Mapping[str, Done]) -> dict[int, tuple[float, float]]:
    """The planner's mean times to the first and to the best plan, by how many groups there are."""
    times: dict[int, list[Answer]] = defaultdict(list)
    for each in done["planner"].answers:
        times[len(each.request.groups)].append(each)
    return {
        count: (
            round(sum(each.first_ms for each in of) / len(of), 1),
            round(sum(each.all_ms for each in of) / len(of), 1),
        )
        for count, of in sorted(times.items())
    }


def run(quick: bool) -> None:
    main(["--limit", str(QUICK), "--sites", "5", "20"] if quick else [])


def main(arguments: Sequence[str]) -> None:
    """All topologies, or some."""
    parser = argparse.ArgumentParser(
        prog="python -m bench coalloc",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sites", type=int, nargs="+", choices=[*TOPOLOGIES], metavar="N")
    parser.add_argument("--limit", type=int, help="so many requests of each, the first ones")
    parser.add_argument("--seconds", type=float, help="no new request after so long, in all")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--effort", type=float, default=EFFORT, help="of the planner, a request")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--quick", action="store_true", help=f"--limit {QUICK} --sites 5 20")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 1:
        parser.error("--limit is 1 or more")
    limit = QUICK if options.quick and options.limit is None else options.limit
    chosen = options.sites or ([5, 20] if options.quick else list(TOPOLOGIES))
    collect_gently()  # as a meta-scheduler does
    ends = None if options.seconds is None else time.perf_counter() + options.seconds
    found: dict[str, dict[str, object]] = {}
    for left, sites in zip(range(len(chosen), 0, -1), chosen, strict=True):
        share = None if ends is None else max((ends - time.perf_counter()) / left, 0.0)
        try:
            given = scenario(TOPOLOGIES[sites], requests=COUNTS[sites], seed=options.seed)
        except ModuleNotFoundError as error:
            print(f"coalloc: SKIPPED, {error}", file=sys.stderr)
            print(json.dumps({"bench": "coalloc", "skipped": str(error)}))
            return
        done = placed(given, ways(options.effort), limit=limit, seconds=share)
        if not done["planner"].answers:
            parser.error(f"no request for {sites} sites within these bounds")
        found[str(sites)] = _result(given, done)
        if not options.json:
            _show(sites, given, done)
    print(json.dumps({"bench": "coalloc", "seed": options.seed, "sites": found}))


def _result(given: Scenario, done: Mapping[str, Done]) -> dict[str, object]:
    return {
        "topology": given.topology,
        "requests": len(done["planner"].answers),
        "filled_by": given.filling,
        "loads": {name: round(load, 3) for name, load in given.loads.items()},
        **{name: figures(each) for name, each in done.items()},
        **compared(done),
        "ms_by_groups": by_groups(done),
    }


def _show(sites: int, given: Scenario, done: Mapping[str, Done]) -> None:
    said, count = compared(done), len(done["planner"].answers)
    loads = ", ".join(f"{name} {load:.2f}" for name, load in given.loads.items())
    title = f"coalloc: {given.topology}, {sites} sites, {count} requests; load: {loads}"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    headings = "accepted", "mean start s", "cost", "WAN GiB", "first ms", "best ms"
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, each in done.items():
        row = figures(each)
        table.add_row(
            name if name == "planner" else f"({name})",
            f"{row['accepted']:.0f}",
            f"{row['start_s']:,.0f}",
            f"{row['cost']:,.2f}",
            f"{row['wan_mib'] / 1024:,.0f}",
            f"{row['first_ms_mean']:,.0f}",
            f"{row['best_ms_mean']:,.0f}",
        )
    accepted = done["planner"].accepted
    of = max(len(accepted), 1)
    table.add_row(
        "bound",
        f"{said['bound_accepted']:.0f}",
        f"{sum(each.bound_s or 0.0 for each in accepted) / of:,.0f}",
        f"{sum(each.bound_cost for each in accepted) / of:,.2f}",
        *("", "", ""),
    )
    console = Console(width=110)
    console.print(table)
    for what, key, target in TARGETS:
        value = said[key]
        if value is not None:
            console.print(f"  {what}: {100 * value:.1f} %{target.get(sites, '')}")
    grows = ", ".join(
        f"{n}: {first:,.0f}, {best:,.0f}" for n, (first, best) in by_groups(done).items()
    )
    console.print(f"  ms to the first and the best plan, by groups: {grows}")
