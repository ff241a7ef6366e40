"""Replays a trace through the lease scheduler on simulated nodes, against Haizea's figures.

`python -m bench trace --swf FILE [--inject FILE] [--policy NAME] [--json]` replays one;
without --swf, the workloads of the published experiment under several policies.
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

from bench.plots import draw
from bench.replay import Replay, replay
from bench.swf import Injected, Job, read_injected, read_swf
from bench.trace_figures import HAIZEA, Reference, figures
from intertie.common.errors import FieldInvalid
from intertie.common.leasing.policies import DEFAULT, POLICIES

NODES = 144
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MOST_WAIT, MOST_SLOWDOWN, MOST_WALL_S = 0.75, 0.5, 60.0
"""Of Haizea's, and of a replay of 30 days."""
PLAIN = "aggressive-no-suspend"
"""EASY without suspend, whose longest waits the default may not exceed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    name: str
    swf: str
    inject: str | None = None


ALONE = Workload(name="30days", swf="30days.swf")
WITH_10 = Workload(name="30days+10%", swf="30days.swf", inject="work_10-dur_3h-size_2medium.lwf")
WITH_20 = Workload(name="30days+20%", swf="30days.swf", inject="work_20-dur_3h-size_2medium.lwf")
SHORT = Workload(name="1000requests", swf="1000requests.swf")


def run(quick: bool, data: Path = DATA) -> None:
    """The table: every policy on every workload of the experiment; quick: the short trace."""
    blue = data / "blue"
    workloads = (SHORT,) if quick else (ALONE, WITH_10, WITH_20)
    wanted = [blue / name for one in workloads for name in (one.swf, one.inject) if name]
    missing = [str(path) for path in wanted if not path.is_file()]
    if missing:
        print(
            f"trace: SKIPPED, not there: {', '.join(missing)}; --data names the folder that has "
            "blue/",
            file=sys.stderr,
        )
        print(json.dumps({"bench": "trace", "skipped": missing}))
        return
    table = _table("trace: best-effort leases on 144 nodes; in brackets, of Haizea's")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for workload in workloads:
        jobs = _jobs(blue / workload.swf)
        injected = _injected(blue / workload.inject) if workload.inject else []
        found[workload.name] = {}
        for policy in POLICIES:
            _, row = _replayed(jobs, injected, policy)
            found[workload.name][policy] = row
            reference = HAIZEA.get((workload.name, POLICIES[policy].suspension is not None))
            _add(table, workload.name, policy, row, reference)
        table.add_section()
    Console(width=150).print(table)
    print(
        json.dumps(
            {
                "bench": "trace",
                "default": DEFAULT,
                "workloads": found,
                "promises": {
                    name: _promises(name, rows) for name, rows in found.items() if "+" in name
                },
            }
        )
    )


def main(arguments: Sequence[str]) -> None:
    """One trace, or the table."""
    parser = argparse.ArgumentParser(prog="python -m bench trace", description=__doc__)
    parser.add_argument("--swf", type=Path, help="jobs; field 8 is whole nodes")
    parser.add_argument("--inject", type=Path, help="advance reservations, LWF")
    parser.add_argument("--policy", choices=POLICIES, default=DEFAULT)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--json", action="store_true", help="print the JSON object only")
    parser.add_argument("--plots", type=Path, help="folder to draw two SVG files in")
    parser.add_argument("--data", type=Path, default=DATA, help="folder that has blue/")
    parser.add_argument("--quick", action="store_true", help="without --swf: the short trace")
    options = parser.parse_args(arguments)
    if options.swf is None:
        if options.inject or options.json or options.plots:
            parser.error("--inject, --json and --plots go with --swf")
        run(options.quick, options.data)
        return
    try:
        jobs = _jobs(options.swf)
        injected = _injected(options.inject) if options.inject else []
        done, row = _replayed(jobs, injected, options.policy, nodes=options.nodes)
    except (FieldInvalid, OSError) as problem:
        parser.error(str(problem))
    if not options.json:
        table = _table(f"trace: {options.swf.name} on {options.nodes} nodes")
        _add(table, options.swf.stem, options.policy, row, None)
        Console(width=150).print(table)
    if options.plots:
        draw(done, options.plots, nodes=options.nodes)
    print(json.dumps({"bench": "trace", "policy": options.policy, **row}))


def _jobs(path: Path) -> list[Job]:
    with path.open(encoding="utf-8") as lines:
        jobs = read_swf(lines)
    if not jobs:
        raise FieldInvalid(path.name, "has no job that ran; must have one or more")
    return jobs


def _injected(path: Path) -> list[Injected]:
    with path.open(encoding="utf-8") as lines:
        return read_injected(lines)


def _replayed(
    jobs: Sequence[Job], injected: Sequence[Injected], policy: str, *, nodes: int = NODES
) -> tuple[Replay, dict[str, float]]:
    began = time.perf_counter()
    done = replay(jobs, injected, nodes=nodes, policy=POLICIES[policy])
    return done, figures(done, nodes=nodes, wall_s=time.perf_counter() - began)


def _promises(workload: str, rows: dict[str, dict[str, float]]) -> dict[str, bool]:
    """What the default policy is to hold on a workload with reservations."""
    ours, plain, haizea = rows[DEFAULT], rows[PLAIN], HAIZEA[workload, True]
    assert haizea.mean_wait_s
    assert haizea.mean_slowdown
    assert haizea.completion_s
    return {
        "every reservation accepted": ours["ar_accepted"] == ours["ar_total"],
        "mean wait": ours["mean_wait_s"] <= MOST_WAIT * haizea.mean_wait_s,
        "mean slowdown": ours["mean_slowdown"] <= MOST_SLOWDOWN * haizea.mean_slowdown,
        "p95 wait": ours["p95_wait_s"] <= plain["p95_wait_s"],
        "longest wait": ours["max_wait_s"] <= plain["max_wait_s"],
        "completion": ours["completion_s"] <= haizea.completion_s,
        "wall": ours["wall_s"] <= MOST_WALL_S,
    }


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("workload", "policy"):
        table.add_column(heading, no_wrap=True)
    for heading in ("mean wait s", "p95 s", "max s", "slowdown", "done s", "used", "AR", "wall s"):
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _add(
    table: Table, workload: str, policy: str, row: dict[str, float], haizea: Reference | None
) -> None:
    def against(value: float, reference: float | None, text: str, places: int = 2) -> str:
        return f"{text} ({value / reference:.{places}f})" if reference else text

    haizea = haizea or Reference()
    table.add_row(
        workload,
        policy,
        against(row["mean_wait_s"], haizea.mean_wait_s, f"{row['mean_wait_s']:,.0f}"),
        f"{row['p95_wait_s']:,.0f}",
        f"{row['max_wait_s']:,.0f}",
        against(row["mean_slowdown"], haizea.mean_slowdown, f"{row['mean_slowdown']:.2f}"),
        against(row["completion_s"], haizea.completion_s, f"{row['completion_s']:,.0f}", 4),
        f"{row['utilization']:.3f}",
        f"{row['ar_accepted']:.0f}/{row['ar_total']:.0f}",
        f"{row['wall_s']:.1f}",
    )
