"""A few simulated worlds of the many that `make test-sim` runs, and every planted bug.

They run in programs of their own, in which the order of sets is the same each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from tests.sim.bugs import BUGS

SEEDS = 10
WITHIN_S = 550


@cache
def simulated(*given: str) -> tuple[dict[str, Any], ...]:
    """What each seed came to. Once for all tests: it is their time that CI has little of."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--json", *given],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return tuple(json.loads(line) for line in done.stdout.splitlines())


def test_no_invariant_is_broken_whatever_fails() -> None:
    runs = simulated("--seeds", str(SEEDS))
    assert len(runs) == SEEDS
    broken = [(each["replay"], each["wrong"]) for each in runs if each["wrong"]]
    assert not broken
    assert sum(each["counts"]["faults"] for each in runs) > 10 * SEEDS
    assert sum(each["counts"]["users' calls"] for each in runs) > 50 * SEEDS


def test_a_seed_leads_to_the_very_same_run_again() -> None:
    """In another program, after nothing else."""
    (_, _, _, fourth, *_) = simulated("--seeds", str(SEEDS))
    (again,) = simulated("--from", "3")
    assert again == fourth


def test_two_seeds_lead_to_two_runs() -> None:
    runs = simulated("--seeds", str(SEEDS))
    assert len({each["digest"] for each in runs}) == SEEDS


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_planted_bug_is_found(name: str) -> None:
    """And what finds it finds nothing in the same world without it."""
    (found,) = [each for each in simulated("--bug", "all") if each.get("bug") == name]
    assert found["found"], f"{name} was not found, or something else was: {found['wrong']}"
