"""Spin, as the tests of the models use it: what it searches, and what it says it found."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

MEMORY_MIB = 1024
"""A search takes up to 220. What does not fit ends it, as one that is not whole."""
DEPTH = 10_000
"""Steps in one run. The longest there are take some hundreds."""
WITHIN_S = 120
"""A search takes seconds: this ends one that has grown out of hand."""

STUCK = "acceptance cycle"
"""What the checker says of a run in which something that must come in the end never does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a checker found."""

    errors: int
    states: int
    broken: frozenset[str]
    """Promises, by the names that the model asserts them under, or the checker's own words."""
    whole: bool
    """Every state was searched. Where it is false, that no error was found says nothing."""


_ERROR = re.compile(r"^pan:\d+: (?:assertion violated )?(.+?) \(at depth -?\d+\)$", re.MULTILINE)
_CUT_SHORT = ("Search not completed", "max search depth too small")


def search_of(output: str) -> Search:
    """Reads what a checker printed. ValueError where it did not come to its summary."""
    errors = re.search(r"^State-vector .*, errors: (\d+)$", output, re.MULTILINE)
    states = re.search(r"^ *(\d+) states, stored", output, re.MULTILINE)
    if errors is None or states is None:
        raise ValueError(f"no summary of a search:\n{output}")
    return Search(
        errors=int(errors[1]),
        states=int(states[1]),
        broken=frozenset(_ERROR.findall(output)),
        whole="Full statespace search for:" in output
        and not any(each in output for each in _CUT_SHORT),
    )


def checker(
    folder: Path,
    model: Path,
    *options: str,
    live: bool = False,
    large: bool = False,
    memory_mib: int = MEMORY_MIB,
) -> Path:
    """Compiled for these options of the model. `large`: to search so many states that it is worth
    a second to have the compiler make it fast."""
    defined = [f"-D{each}" for each in options]
    _run(folder, "spin", *defined, "-a", str(model))
    # NFAIR: fairness among more than 10 processes. -w: of the C that Spin writes, nobody here can
    # heed warnings.
    kind = "-DNFAIR=4" if live else "-DSAFETY"
    limits = (f"-DMEMLIM={memory_mib}", "-DCOLLAPSE")
    _run(folder, "gcc", "-O1" if large else "-O0", "-w", *limits, kind, "-o", "pan", "pan.c")
    return folder / "pan"


def search(pan: Path, *options: str, depth: int = DEPTH) -> Search:
    return search_of(_run(pan.parent, str(pan), "-n", f"-m{depth}", *options))


def search_promises(
    folder: Path, model: Path, *options: str, large: bool = False, every_error: bool = True
) -> Search:
    return search(checker(folder, model, *options, large=large), "-c0" if every_error else "-c1")


def search_in_the_end(
    folder: Path, model: Path, *options: str, claims: tuple[str, ...], large: bool = True
) -> dict[str, Search]:
    """Under weak fairness: whoever can go on, and stays able to, does go on."""
    pan = checker(folder, model, *options, "LIVE", live=True, large=large)
    return {claim: search(pan, "-a", "-f", "-N", claim) for claim in claims}


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout
