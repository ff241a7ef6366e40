"""A seed's run and what the checker says of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from tests.sim.bugs import BUGS
from tests.sim.checker import broken
from tests.sim.record import Profile
from tests.sim.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    wrong: tuple[str, ...]
    noted: tuple[str, ...]
    """What is known to happen, and breaks no invariant."""
    digest: str
    """Of everything that happened: the same again for the same seed."""
    counts: Mapping[str, int]
    points: Mapping[str, int]
    replay: str

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "wrong": list(self.wrong),
            "noted": list(self.noted),
            "digest": self.digest,
            "counts": dict(self.counts),
            "points": dict(self.points),
            "replay": self.replay,
        }


def run_seed(seed: int, *, bug: str = "", planted: bool = True, logs: bool = False) -> Outcome:
    """In the world of a bug, with it; or, where that is not `planted`, without it."""
    profile = Profile.of_seed(seed)
    if bug:
        profile = BUGS[bug].profile(profile)
    with BUGS[bug].plant() if bug and planted else nullcontext():
        record = World(profile, logs=logs).run()
    command = f"python -m tests.sim --from {seed}" + (f" --bug {bug}" if bug else "")
    wrong, noted = broken(record)
    return Outcome(
        seed=seed,
        wrong=tuple(wrong),
        noted=tuple(noted),
        digest=record.digest(),
        counts={
            "users' calls": len(record.told),
            "messages": record.messages,
            "transactions": record.transactions,
            "faults": sum(record.faults.values()) + sum(record.points.values()),
        },
        points=record.points,
        replay=f"PYTHONHASHSEED=0 .venv/bin/{command}",
    )
