"""Batches of virtual machines that tenants of a public cloud asked for, planned online over ten
sites in rounds, against first-fit and best-fit on the same load.

`python -m bench batches [--data FOLDER] [--every N] [--load L] [--limit N] [--seconds S] [--json]`

A batch is a virtual cluster: its machines of one flavour are a group, all are wanted together for
as long as the longest of them ran, and any two are promised 1 Mbit/s, which takes of links where
the batch is split. Sites are alike: hosts of 64 vCPUs, 256 GiB and 100 Gbit/s, and a link of 10
Gbit/s between any two. There are so many hosts that what is asked for in the second half of the
trace, with what is left of the first then, is the stated load of their vCPUs; the first half fills
them, and is not counted. Every Nth batch is taken, so sites are as much smaller against each.

A round is a line of the trace, 300 s. Who finds no room is looked at again in the next rounds, for
15 minutes; then it is refused. The first in line go first, and whoever fits may pass. Times are
processor time of the one thread that plans.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.azure import BIN_S, FILES, Batch, read_batches, read_flavours
from bench.batch_fits import best_fit, first_fit
from bench.batch_world import EPOCH, HOST, SITES, Sites
from bench.report import percentile
from intertie.common.errors import FieldInvalid
from intertie.common.leasing.backfilling import Aggressive
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.requests import BestEffort
from intertie.common.process import collect_gently
from intertie.common.quantities import Vector
from intertie.metasched.domain.outlook import LOOKED_AT
from intertie.metasched.domain.plan import Plan, is_sound
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.rooms import Rooms
from intertie.metasched.domain.rounds import round_of
from intertie.metasched.domain.taken import less

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LOADS = (0.9, 1.1)
EVERY, QUICK_EVERY = 16, 60
EFFORT = 0.2
WAITS_S = 900
"""Then it is refused."""

Fit = Callable[[Batch, Problem, Sites], Plan | None]
Begun = list[tuple[Batch, Plan]]
Method = Callable[["World", Sequence[Batch], int], Begun]
"""Of those in line, who begins now; what they get is taken."""


@dataclass(slots=True)
class World:
    sites: Sites
    effort: float
    joined: int = 0
    """Began beside those that would have begun one after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Of one method at one load."""

    until_s: int
    """What came later was not asked for."""
    begun: Mapping[int, tuple[Plan, int]]
    """By batch, what it got, and when."""
    decided: int
    took_s: float
    """Of the processor."""
    looks_s: tuple[float, ...]
    """At one batch in line, each: what a round took over how many were."""
    joined: int

    def figures(self, asked: Sequence[Batch], flavours: Mapping[str, Vector]) -> dict[str, float]:
        """Of those that count."""
        accepted = [each for each in asked if each.id in self.begun]
        alone = sum(len(self.begun[each.id][0].sites) == 1 for each in accepted)
        waited_s = sum(self.begun[each.id][1] - each.arrival_s for each in accepted)
        work = {each.id: vcpus_of(each, flavours) * each.duration_s for each in asked}
        done = sum(work[each.id] for each in accepted)
        return {
            "requests_s": round(self.decided / self.took_s, 1),
            "acceptance": round(len(accepted) / len(asked), 4),
            "acceptance_vcpu_hours": round(done / sum(work.values()), 4),
            "one_site": round(alone / max(len(accepted), 1), 4),
            "ms_mean": round(1000 * self.took_s / self.decided, 2),
            "ms_p99": round(1000 * percentile(self.looks_s, 0.99), 2),
            "waited_s_mean": round(waited_s / max(len(accepted), 1), 1),
            "joined": self.joined,
        }


def planned(world: World, line: Sequence[Batch], now_s: int) -> Begun:
    """As a meta-scheduler's queue does, as many at a time: who has room by what sites offer, and
    who could beside these; then each by what there is. Nobody is promised a later start."""
    sites = world.sites

    def solve(problem: Problem) -> Plan | None:
        return best_plan(problem, effort=world.effort)

    begun: Begun = []
    for at in range(0, len(line), LOOKED_AT):
        of = {str(each.id): each for each in line[at : at + LOOKED_AT]}
        rooms = Rooms(
            {name: sites.problem(each, now_s) for name, each in of.items()},
            [EPOCH + timedelta(seconds=now_s)],
            solve,
        )
        leases = [_lease(each) for each in of.values()]
        starts = Aggressive(protected=0).starts(leases, rooms, rooms, _left_s, _left_s, rooms.now_s)
        together = round_of(leases, starts, rooms)
        world.joined += len(together) - len(starts)
        for start in together:
            batch = of[start.lease.request.name]
            problem = sites.problem(batch, now_s)
            foreseen = rooms.taken_now(start.lease)
            plan = foreseen.plan if foreseen is not None else None
            if plan is None or not is_sound(problem, plan):
                plan = solve(less(problem, start.leaves)) or solve(problem)
            if plan is not None:
                sites.take(batch, plan, now_s)
                begun.append((batch, plan))
    return begun


def one_by_one(fit: Fit) -> Method:
    """Each on what those before it leave."""

    def method(world: World, line: Sequence[Batch], now_s: int) -> Begun:
        begun: Begun = []
        for batch in line:
            plan = fit(batch, world.sites.problem(batch, now_s), world.sites)
            if plan is not None:
                world.sites.take(batch, plan, now_s)
                begun.append((batch, plan))
        return begun

    return method


METHODS: Mapping[str, Method] = {
    "planner": planned,
    "first-fit": one_by_one(first_fit),
    "best-fit": one_by_one(best_fit),
}


def replayed(
    batches: Sequence[Batch],
    sites: Sites,
    method: Method,
    *,
    until_s: int,
    seconds: float | None = None,
    effort: float = EFFORT,
) -> Result:
    """Round by round, in ignorance of what is to come; no new round after so many seconds."""
    world = World(sites, effort)
    begun: dict[int, tuple[Plan, int]] = {}
    line: list[Batch] = []
    looks_s: list[float] = []
    came, took_s, now_s = 0, 0.0, 0
    while now_s < until_s and not (seconds is not None and took_s >= seconds):
        sites.free_what_ended(now_s)
        line = [each for each in line if now_s - each.arrival_s <= WAITS_S]
        while came < len(batches) and batches[came].arrival_s <= now_s:
            line.append(batches[came])
            came += 1
        before = time.process_time()
        found = method(world, line, now_s)
        spent_s = time.process_time() - before
        looks_s += [spent_s / len(line)] * len(line) if line else []
        took_s += spent_s
        begun |= {batch.id: (plan, now_s) for batch, plan in found}
        line = [each for each in line if each.id not in begun]
        now_s += BIN_S
    return Result(
        until_s=now_s,
        begun=begun,
        decided=came,
        took_s=took_s,
        looks_s=tuple(looks_s),
        joined=world.joined,
    )


def vcpus_of(batch: Batch, flavours: Mapping[str, Vector]) -> int:
    return sum(flavours[name].vcpus * count for name, count in batch.counts.items())


def offered(
    batches: Sequence[Batch], flavours: Mapping[str, Vector], from_s: int, until_s: int
) -> float:
    """vCPUs that are asked for in the mean over that time, by whatever was asked for by then."""
    total = 0
    for each in batches:
        if each.arrival_s < until_s:
            lasts_s = min(each.end_s, until_s) - max(each.arrival_s, from_s)
            total += vcpus_of(each, flavours) * max(lasts_s, 0)
    return total / (until_s - from_s)


def compared(
    batches: Sequence[Batch],
    flavours: Mapping[str, Vector],
    load: float,
    *,
    seconds: float | None = None,
    effort: float = EFFORT,
) -> dict[str, object]:
    """The planner first: where it is cut short, so are the others, and the second half is that of
    what it has come to."""
    span_s = batches[-1].arrival_s + BIN_S
    wanted = offered(batches, flavours, span_s // 2, span_s)
    hosts = max(round(wanted / load / HOST.vcpus), len(SITES))
    until_s, figures = span_s, {}
    asked: list[Batch] = []
    for name, method in METHODS.items():
        cut = seconds if name == "planner" else None
        result = replayed(
            batches, Sites(hosts, flavours), method, until_s=until_s, seconds=cut, effort=effort
        )
        until_s = result.until_s
        asked = [each for each in batches if until_s // 2 <= each.arrival_s < until_s]
        figures[name] = result.figures(asked, flavours) if asked else {}
    return {
        "load": round(offered(batches, flavours, until_s // 2, until_s) / hosts / HOST.vcpus, 3),
        "hosts": hosts,
        "vcpus": hosts * HOST.vcpus,
        "counted": len(asked),
        "methods": figures,
    }


def run(quick: bool, data: Path = DATA) -> None:
    main(["--quick"] if quick else [], data)


def main(arguments: Sequence[str], data: Path = DATA) -> None:
    """Both loads, or those that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m bench batches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder with the trace")
    parser.add_argument("--every", type=int, help=f"of so many batches one; {EVERY} unless said")
    parser.add_argument("--load", type=float, action="append", help="offered; may be repeated")
    parser.add_argument("--limit", type=int, help="so many batches, the first ones")
    parser.add_argument("--seconds", type=float, help="of planning; no new round after so long")
    parser.add_argument("--effort", type=float, default=EFFORT, help="of the planner, a request")
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--quick", action="store_true", help=f"--every {QUICK_EVERY}")
    options = parser.parse_args(arguments)
    folder = options.data or data / "azure"
    missing = [str(folder / name) for name in FILES if not (folder / name).is_file()]
    if missing:
        print(f"batches: SKIPPED, not there: {', '.join(missing)}", file=sys.stderr)
        print(json.dumps({"bench": "batches", "skipped": missing}))
        return
    collect_gently()  # as a meta-scheduler does
    every = options.every or (QUICK_EVERY if options.quick else EVERY)
    loads = options.load or LOADS
    if every < 1 or min(loads) <= 0:
        parser.error("--every and --load are to be above 0")
    try:
        flavours = read_flavours(folder)
        batches = read_batches(folder, flavours)[::every][: options.limit]
    except FieldInvalid as problem:
        parser.error(str(problem))
    if not batches:
        parser.error("there is no batch within these bounds")
    seconds = None if options.seconds is None else options.seconds / len(loads)
    found = []
    for load in loads:
        found.append(compared(batches, flavours, load, seconds=seconds, effort=options.effort))
        if not found[-1]["counted"]:
            parser.error("no batch came in the second half within these bounds")
        if not options.json:
            _show(found[-1])
    print(json.dumps({"bench": "batches", "every": every, "sites": len(SITES), "loads": found}))


def _show(row: Mapping[str, object]) -> None:
    title = (
        f"batches: {row['counted']} requests over {len(SITES)} sites of {row['vcpus']:,} vCPUs, "
        f"load {row['load']}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("method", no_wrap=True)
    headings = {
        "accepted": "acceptance",
        "by vCPU hours": "acceptance_vcpu_hours",
        "on one site": "one_site",
        "requests/s": "requests_s",
        "mean ms": "ms_mean",
        "p99 ms": "ms_p99",
        "waited s": "waited_s_mean",
        "joined": "joined",
    }
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    methods = row["methods"]
    assert isinstance(methods, dict)
    for name, figures in methods.items():
        table.add_row(name, *(f"{figures[key]:,}" for key in headings.values()))
    Console(width=110).print(table)


def _lease(batch: Batch) -> Lease:
    request = BestEffort(name=str(batch.id), nodes=batch.machines, duration_s=batch.duration_s)
    return Lease(request=request, submit_s=batch.arrival_s)


def _left_s(lease: Lease) -> int:
    return lease.request.duration_s
