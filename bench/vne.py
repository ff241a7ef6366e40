"""Virtual networks embedded one after another by the meta-scheduler's planner, against published
heuristics on the same instances.

`python -m bench vne [--instance FILE] [--solution FILE] [--limit N] [--seconds S] [--json]`
embeds one; without --instance, the two of the published figures. `--help` has more options.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.bid_price import BidPrice
from bench.report import percentile
from bench.vne_world import Embedded, Instance, Request, Substrate, read_instance
from intertie.common.errors import FieldInvalid
from intertie.common.process import collect_gently
from intertie.metasched.domain.planner import best_plan

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
INSTANCES = ("default-seed0", "overload-seed3")
QUICK = 60
EFFORT = 0.2
ADMISSIONS = ("priced", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What others reached on an instance."""

    solver: str
    acceptance: float
    r2c: float
    revenue: int
    ms_mean: float | None = None


PUBLISHED = {
    "default-seed0": (
        Published(solver="ant colony", acceptance=1.0, r2c=0.709, revenue=297_485, ms_mean=1_093),
        Published(solver="PL-rank", acceptance=0.922, r2c=0.664, revenue=254_188, ms_mean=185),
        Published(solver="NRM-rank", acceptance=0.897, r2c=0.545, revenue=244_413, ms_mean=8),
        Published(solver="GRC-rank", acceptance=0.880, r2c=0.568, revenue=237_352, ms_mean=10),
        Published(solver="RW-rank", acceptance=0.875, r2c=0.575, revenue=231_719, ms_mean=13),
        Published(solver="RW-rank-BFS", acceptance=0.832, r2c=0.597, revenue=233_062, ms_mean=15),
        Published(solver="FFD-rank", acceptance=0.752, r2c=0.482, revenue=183_666, ms_mean=7),
        Published(
            solver="greedy, 8 starts", acceptance=1.0, r2c=0.947, revenue=297_485, ms_mean=15
        ),
    ),
    "overload-seed3": (
        Published(solver="PL-rank", acceptance=0.406, r2c=0.652, revenue=56_584),
        Published(solver="NRM-rank", acceptance=0.315, r2c=0.519, revenue=41_635),
        Published(solver="greedy, 8 starts", acceptance=0.523, r2c=0.782, revenue=97_344),
    ),
}
"""By Virne, and a greedy by its side, run on one core with these very files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of the requests that were asked for."""

    answers: tuple[Embedded | None, ...]
    requests: tuple[Request, ...]
    took_s: tuple[float, ...]
    dear: int
    """That were not worth what they take."""

    def figures(self) -> dict[str, float]:
        accepted = [
            (request, answer)
            for request, answer in zip(self.requests, self.answers, strict=True)
            if answer is not None
        ]
        revenue = sum(request.revenue for request, _ in accepted)
        cost = sum(answer.cost(request) for request, answer in accepted)
        return {
            "acceptance": round(len(accepted) / len(self.requests), 4),
            "r2c": round(revenue / max(cost, 1), 4),
            "revenue": revenue,
            "ms_mean": round(1000 * sum(self.took_s) / len(self.took_s), 1),
            "ms_p99": round(1000 * percentile(self.took_s, 0.99), 1),
            "offered": sum(request.revenue for request in self.requests),
            "requests": len(self.requests),
            "too_dear": self.dear,
        }


def embed(
    instance: Instance,
    *,
    admission: str = ADMISSIONS[0],
    limit: int | None = None,
    seconds: float | None = None,
    effort: float = EFFORT,
) -> Done:
    """Each request at its arrival, whole or not at all, in ignorance of the later ones. The time
    of one is all that it takes, from what is free to what is taken."""
    substrate = Substrate(instance)
    price = BidPrice(substrate.capacity) if admission == "priced" else None
    answers: list[Embedded | None] = []
    took_s: list[float] = []
    dear = 0
    begin = time.perf_counter()
    for request in instance.requests[:limit]:
        now = time.perf_counter()
        if seconds is not None and now - begin > seconds:
            break
        substrate.free_what_ended(request.arrival_s)
        answer, worth_it = _answer(substrate, request, price, effort)
        dear += not worth_it
        answers.append(answer)
        took_s.append(time.perf_counter() - now)
    return Done(
        answers=tuple(answers),
        requests=instance.requests[: len(answers)],
        took_s=tuple(took_s),
        dear=dear,
    )


def _answer(
    substrate: Substrate, request: Request, price: BidPrice | None, effort: float
) -> tuple[Embedded | None, bool]:
    """And whether it was worth its price."""
    hours, worth = request.lifetime_s / 3600, request.revenue
    if price is not None:
        # At the least, each of its links is one of the substrate.
        price.see(now_h=request.arrival_s / 3600, takes=worth * hours, worth=worth)
        if not price.admits(takes=worth * hours, worth=worth):
            return None, False
    plan = best_plan(substrate.problem(request), effort=effort)
    if price is not None:
        price.told(planned=plan is not None)
    if plan is None:
        return None, True
    if price is not None and not price.admits(takes=plan.cost, worth=worth):
        return None, False
    embedded = substrate.embedded(request, plan)
    substrate.take(request, embedded)
    return embedded, True


def run(quick: bool, data: Path = DATA) -> None:
    """The two instances of the published figures; quick: their first requests."""
    main(["--limit", str(QUICK)] if quick else [], data)


def main(arguments: Sequence[str], data: Path = DATA) -> None:
    """One instance, or both."""
    parser = argparse.ArgumentParser(prog="python -m bench vne", description=__doc__)
    parser.add_argument("--instance", type=Path, help="a substrate and requests, as JSON")
    parser.add_argument("--solution", type=Path, help="file to write: a line for each request")
    parser.add_argument("--limit", type=int, help="so many requests, the first ones")
    parser.add_argument("--seconds", type=float, help="no new request after so long")
    parser.add_argument("--effort", type=float, default=EFFORT, help="of the planner, a request")
    parser.add_argument("--admission", choices=ADMISSIONS, default=ADMISSIONS[0])
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--quick", action="store_true", help=f"--limit {QUICK}")
    options = parser.parse_args(arguments)
    if options.solution and options.instance is None:
        parser.error("--solution goes with --instance")
    paths = [options.instance] if options.instance else [_path(data, each) for each in INSTANCES]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        print(f"vne: SKIPPED, not there: {', '.join(missing)}", file=sys.stderr)
        print(json.dumps({"bench": "vne", "skipped": missing}))
        return
    collect_gently()  # as a meta-scheduler does
    limit = QUICK if options.quick and options.limit is None else options.limit
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        try:
            instance = read_instance(path)
        except FieldInvalid as problem:
            parser.error(str(problem))
        done = embed(
            instance,
            admission=options.admission,
            limit=limit,
            seconds=options.seconds,
            effort=options.effort,
        )
        if not done.answers:
            parser.error(f"{path.name} has no request within these bounds")
        if options.solution:
            options.solution.write_text(_lines(done), encoding="utf-8")
        found[path.stem] = done.figures()
        if not options.json:
            _show(path.stem, found[path.stem], options.admission)
    first = next(iter(found.values()))
    result = {"bench": "vne", "admission": options.admission, **first}
    print(json.dumps(result if options.instance else {**result, "instances": found}))


def _path(data: Path, name: str) -> Path:
    return data / "vne" / f"{name}.json"


def _lines(done: Done) -> str:
    return "".join(
        json.dumps({"id": request.id, "nodes": answer.nodes, "paths": answer.paths}) + "\n"
        if answer is not None
        else json.dumps({"id": request.id, "nodes": None}) + "\n"
        for request, answer in zip(done.requests, done.answers, strict=True)
    )


def _show(name: str, row: dict[str, float], admission: str) -> None:
    title = f"vne: {name}, {row['requests']:.0f} requests that offer {row['offered']:,.0f}"
    table = Table(title=title, title_justify="left")
    table.add_column("solver", no_wrap=True)
    for heading in ("accepted", "R2C", "revenue", "mean ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row(
        f"this planner, admission: {admission}",
        f"{row['acceptance']:.3f}",
        f"{row['r2c']:.3f}",
        f"{row['revenue']:,.0f}",
        f"{row['ms_mean']:,.0f}",
        f"{row['ms_p99']:,.0f}",
    )
    table.add_section()
    for each in PUBLISHED.get(name, ()):
        table.add_row(
            f"{each.solver}, all 1,000",
            f"{each.acceptance:.3f}",
            f"{each.r2c:.3f}",
            f"{each.revenue:,}",
            "" if each.ms_mean is None else f"{each.ms_mean:,.0f}",
            "",
        )
    Console(width=110).print(table)
