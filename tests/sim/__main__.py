"""`python -m tests.sim`: runs worlds of some seeds, and says what is broken in any of them.

    python -m tests.sim --seeds 2000            # 0 to 1999
    python -m tests.sim --from 4711 --logs      # one again, with what the services say
    python -m tests.sim --bug NAME              # with a planted bug: finding it is the success

Ends with 1 when an invariant is broken, or when a planted bug is not found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator

if os.environ.get("PYTHONHASHSEED") != "0":
    # The order of sets of texts must be the same in every run.
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])

from intertie.common.clock import SystemClock
from tests.sim.bugs import BUGS
from tests.sim.record import Profile
from tests.sim.runs import Outcome, run_seed
from tests.sim.trouble import STOPS

SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", dest="first", type=int, metavar="SEED")
    parser.add_argument("--seeds", type=int, default=1, metavar="COUNT")
    parser.add_argument("--bug", choices=[*sorted(BUGS), "all"], help="plant it")
    parser.add_argument("--logs", action="store_true", help="show what the services log")
    parser.add_argument("--json", action="store_true", help="one object a seed, on stdout")
    given = parser.parse_args()
    if given.bug:
        names = sorted(BUGS) if given.bug == "all" else [given.bug]
        return max(_hunt(name, given) for name in names)
    return _run(given)


def _seeds(given: argparse.Namespace) -> Iterator[int]:
    first = given.first or 0
    yield from range(first, first + given.seeds)


def _run(given: argparse.Namespace) -> int:
    clock = SystemClock()
    began = clock.monotonic()
    total: Counter[str] = Counter()
    points: Counter[str] = Counter()
    for seed in _seeds(given):
        outcome = run_seed(seed, logs=given.logs)
        total["seeds"] += 1
        total["broken"] += bool(outcome.wrong)
        total["with something noted"] += bool(outcome.noted)
        total.update(outcome.counts)
        points.update(outcome.points)
        if given.json:
            _json(outcome)
        elif outcome.wrong or given.seeds == 1:
            _say(outcome)
    minutes = (clock.monotonic() - began) / 60
    if not given.json:
        counts = ", ".join(f"{count} {what}" for what, count in total.items())
        print(f"{counts}; {minutes:.1f} min, {total['seeds'] / minutes:.0f} seeds a minute")
        print(f"stopped at {len(points)} of {len(STOPS)} named points")
    return 1 if total["broken"] else 0


def _hunt(name: str, given: argparse.Namespace) -> int:
    """Seed by seed until the bug is found; as many as it may take, see BUGS."""
    bug = BUGS[name]
    clock = SystemClock()
    began = clock.monotonic()
    first = bug.seed if given.first is None else given.first
    last = first + max(given.seeds, bug.within)
    for seed in range(first, last):
        outcome = run_seed(seed, bug=name, logs=given.logs)
        found = [each for each in outcome.wrong if bug.shows in each]
        if found:
            without = _without(seed, name)
            if without.wrong:
                if given.json:
                    _json(without, bug=name, found="")
                else:
                    _say(without)
                return 1
            seconds = clock.monotonic() - began
            if given.json:
                _json(outcome, bug=name, found=found[0])
            else:
                print(f"{name}: found by seed {seed}, in {seconds:.1f} s: {found[0]}")
            return 0
    if given.json:
        _json(outcome, bug=name, found="")
    else:
        print(f"{name}: NOT FOUND by seeds {first} to {last - 1}")
    return 1


def _without(seed: int, name: str) -> Outcome:
    """The same world without the bug. Once for all bugs that are looked for in it."""
    profile = BUGS[name].profile(Profile.of_seed(seed))
    if profile not in _WITHOUT:
        _WITHOUT[profile] = run_seed(seed, bug=name, planted=False)
    return _WITHOUT[profile]


_WITHOUT: dict[Profile, Outcome] = {}


def _json(outcome: Outcome, **more: object) -> None:
    print(json.dumps({**outcome.as_json(), **more}), flush=True)


def _say(outcome: Outcome) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
    print(f"seed {outcome.seed}: {counts}; history {outcome.digest}")
    for each in outcome.wrong[:SHOWN]:
        print(f"  BROKEN {each}")
    for each in outcome.noted[:SHOWN]:
        print(f"  noted: {each}")
    if len(outcome.wrong) > SHOWN:
        print(f"  and {len(outcome.wrong) - SHOWN} more")
    if outcome.wrong:
        print(f"  again: {outcome.replay}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
