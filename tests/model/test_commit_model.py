"""The model of the commit protocol keeps its promises, and every mutant of it breaks one.

Spin writes a checker in C for the model, one a configuration; it searches every state there is.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).with_name("commit_protocol.pml")

MEMORY_MIB = 1024
"""A search takes up to 220. What does not fit ends it, as one that is not whole."""
DEPTH = 10_000
"""Steps in one run. The longest there are take some hundreds."""
WITHIN_S = 120
"""A search takes seconds: this ends one that has grown out of hand."""

STUCK = "acceptance cycle"
"""What the checker says of a run in which something that must come in the end never does."""

PROMISES = frozenset(
    {
        "capacity",
        "atomicity",
        "validity",
        "stability",
        "no_unilateral_exit",
        "cancel_wins",
        "cancel_kept",
        "record_agrees",
    }
)
IN_THE_END = ("settled", "cancelled")

BREAKS = {
    "CONFIRM_IS_FINAL": {"atomicity"},
    "PREPARED_EXPIRES": {"atomicity", "validity", "no_unilateral_exit"},
    "BLIND_DECISION": {
        "stability",
        "atomicity",
        "validity",
        "no_unilateral_exit",
        "record_agrees",
    },
    "RELEASE_TAKES_PREPARED": {"atomicity", "validity", "no_unilateral_exit"},
    "COMMIT_IGNORES_CANCEL": {"cancel_wins", "cancel_kept"},
    "BLIND_CANCEL": {"record_agrees"},
}
"""Mutant to all that it breaks, with one transaction."""

BREAKS_OF_TWO = {"CHECK_THEN_HOLD": {"capacity"}}
"""Those that take two transactions: the search stops at the first that is found."""

BREAKS_IN_THE_END = {
    "DOUBT_WAITS": {"settled", "cancelled"},
    "BLIND_CANCEL": {"cancelled"},
    "COMMIT_IGNORES_CANCEL": {"cancelled"},
    "COMMIT_IS_FINAL": {"cancelled"},
    "RELEASE_ASKED_ONCE": {"cancelled"},
}

WITNESSED = {"committed", "aborted", "cancelled_before", "cancelled_after"}
WITNESSED_WITH_TWO = WITNESSED | {"taken_over"}

CONFIGURATIONS = {"ONE", "LIVE", "WITNESS"}


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
    memory_mib: int = MEMORY_MIB,
) -> Path:
    """Compiled for these options of the model."""
    defined = [f"-D{each}" for each in options]
    _run(folder, "spin", *defined, "-a", str(model))
    # NFAIR: fairness among more than 6 processes. -w: of the C that Spin writes, nobody here can
    # heed warnings.
    kind = "-DNFAIR=3" if live else "-DSAFETY"
    limits = (f"-DMEMLIM={memory_mib}", "-DCOLLAPSE")
    _run(folder, "gcc", "-O1", "-w", *limits, kind, "-o", "pan", "pan.c")
    return folder / "pan"


def search(pan: Path, *options: str, depth: int = DEPTH) -> Search:
    return search_of(_run(pan.parent, str(pan), "-n", f"-m{depth}", *options))


def search_promises(folder: Path, *options: str, every_error: bool = True) -> Search:
    return search(checker(folder, MODEL, *options), "-c0" if every_error else "-c1")


def search_in_the_end(folder: Path, *options: str) -> dict[str, Search]:
    """Under weak fairness: whoever can go on, and stays able to, does go on."""
    pan = checker(folder, MODEL, "ONE", "LIVE", *options, live=True)
    return {claim: search(pan, "-a", "-f", "-N", claim) for claim in IN_THE_END}


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


@pytest.mark.parametrize(
    ("options", "at_least"), [(("ONE",), 25_000), ((), 1_500_000)], ids=["one", "two"]
)
def test_no_state_breaks_a_promise(tmp_path: Path, options: tuple[str, ...], at_least: int) -> None:
    """A model that has become much smaller has lost something that may happen."""
    found = search_promises(tmp_path, *options)
    assert found.broken == frozenset()
    assert found.errors == 0
    assert found.whole
    assert found.states >= at_least


def test_in_the_end_parts_are_settled_and_what_was_cancelled_is_gone(tmp_path: Path) -> None:
    for claim, found in search_in_the_end(tmp_path).items():
        assert found.broken == frozenset(), claim
        assert found.errors == 0, claim
        assert found.whole, claim
        assert found.states >= 50_000, claim


@pytest.mark.parametrize(
    ("options", "witnessed"),
    [(("ONE",), WITNESSED), ((), WITNESSED_WITH_TWO)],
    ids=["one", "two"],
)
def test_what_the_promises_are_about_does_happen(
    tmp_path: Path, options: tuple[str, ...], witnessed: set[str]
) -> None:
    found = search_promises(tmp_path, "WITNESS", *options)
    assert found.broken == witnessed
    assert found.whole


@pytest.mark.parametrize("mutant", BREAKS)
def test_a_mutant_is_caught(tmp_path: Path, mutant: str) -> None:
    found = search_promises(tmp_path, "ONE", mutant)
    assert found.broken == BREAKS[mutant]
    assert found.errors > 0
    assert found.whole


@pytest.mark.parametrize("mutant", BREAKS_OF_TWO)
def test_a_mutant_that_takes_two_transactions_is_caught(tmp_path: Path, mutant: str) -> None:
    found = search_promises(tmp_path, mutant, every_error=False)
    assert found.broken == BREAKS_OF_TWO[mutant]
    assert found.errors == 1


@pytest.mark.parametrize("mutant", BREAKS_IN_THE_END)
def test_a_mutant_that_gets_stuck_is_caught(tmp_path: Path, mutant: str) -> None:
    found = search_in_the_end(tmp_path, mutant)
    assert {claim for claim, each in found.items() if each.errors} == BREAKS_IN_THE_END[mutant]
    for claim, each in found.items():
        assert each.broken == ({STUCK} if claim in BREAKS_IN_THE_END[mutant] else set())
        assert each.whole == (each.errors == 0)


def test_every_mutant_of_the_model_is_tried_and_every_promise_broken_by_one() -> None:
    """So that none of either is there for show."""
    text = MODEL.read_text()
    tried = {**BREAKS, **BREAKS_OF_TWO}
    conditions = re.findall(r"^#(?:if|ifdef|ifndef|elif)\b(.*)$", text, re.MULTILINE)
    named = set(re.findall(r"[A-Z_]{2,}", " ".join(conditions)))
    assert named - CONFIGURATIONS == tried.keys() | BREAKS_IN_THE_END.keys()
    asserted = set(re.findall(r"\bassert\((\w+)\)", text))
    assert asserted - WITNESSED_WITH_TWO == PROMISES
    assert frozenset().union(*tried.values()) == PROMISES
    assert set(re.findall(r"^ltl (\w+)", text, re.MULTILINE)) == set(IN_THE_END)
    assert set().union(*BREAKS_IN_THE_END.values()) == set(IN_THE_END)


COUNTS = """\
byte count;
bool small = true;
active proctype Up() {
  do
  :: d_step { count < 100 -> count++ }
  :: d_step { count == 70 -> small = false; assert(small); small = true; count++ }
  od
}
"""


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """The checker of a model that breaks its one promise and then stands still."""
    model = tmp_path / "counts.pml"
    model.write_text(COUNTS)
    return checker(tmp_path, model)


def test_a_failure_is_read_from_what_a_checker_says(counts: Path) -> None:
    every = search(counts, "-c0")
    assert every.broken == {"small", "invalid end state"}
    assert every.errors == 2
    assert every.whole


def test_a_search_that_stopped_is_not_whole(counts: Path) -> None:
    first = search(counts, "-c1")
    assert first.errors == 1
    assert not first.whole


def test_a_search_that_was_not_deep_enough_is_not_whole(counts: Path) -> None:
    """It finds no error, and that says nothing."""
    shallow = search(counts, "-c0", depth=50)
    assert shallow.errors == 0
    assert not shallow.whole


def test_a_search_that_had_too_little_memory_is_not_whole(tmp_path: Path) -> None:
    small = search(checker(tmp_path, MODEL, memory_mib=140))
    assert small.errors == 0
    assert not small.whole


def test_what_is_no_search_is_not_read() -> None:
    with pytest.raises(ValueError, match="no summary"):
        search_of("pan: cannot open\n")
