"""The models, what of each is searched, and what is to be found.

A model that has become much smaller has lost something that may happen: so each configuration has
the least number of states that it is to have, somewhat below what it has.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One that is right: every promise is kept in every state."""

    name: str
    options: tuple[str, ...] = ()
    at_least: int
    """States."""
    witnessed: Set[str] = frozenset()
    """What is seen to happen. Not looked for where it is empty."""
    large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One that leaves a rule out, and what that breaks: all of it, or with `first` what is found
    first in a search that stops there."""

    name: str
    options: tuple[str, ...] = ()
    """Beside its name."""
    breaks: Set[str]
    first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str
    file: str
    promises: Set[str]
    """In every state."""
    claims: tuple[str, ...]
    """In the end."""
    configurations: tuple[Configuration, ...]
    live: tuple[Configuration, ...]
    """Those of which it is searched what comes in the end, by option LIVE."""
    mutants: tuple[Mutant, ...]
    live_mutants: tuple[Mutant, ...]
    """What they break are claims."""

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def text(self) -> str:
        """With what it includes."""
        text = self.path.read_text()
        included = re.findall(r'^#include "(.+)"$', text, re.MULTILINE)
        return "\n".join((text, *((FOLDER / each).read_text() for each in included)))

    @property
    def options(self) -> frozenset[str]:
        """All but the mutants."""
        used = {option for each in (*self.configurations, *self.live) for option in each.options}
        return frozenset(used | {"LIVE", "WITNESS"})

    @property
    def witnessed(self) -> frozenset[str]:
        return frozenset().union(*(each.witnessed for each in self.configurations))


_SEEN = frozenset({"committed", "aborted", "cancelled_before", "cancelled_after"})

COMMIT = Model(
    name="commit",
    file="commit_protocol.pml",
    promises=frozenset(
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
    ),
    claims=("settled", "cancelled"),
    configurations=(
        Configuration(name="one", options=("ONE",), at_least=25_000, witnessed=_SEEN),
        Configuration(name="two", at_least=1_500_000, witnessed=_SEEN | {"taken_over"}, large=True),
    ),
    live=(Configuration(name="one", options=("ONE",), at_least=50_000, large=True),),
    mutants=(
        Mutant(name="CONFIRM_IS_FINAL", options=("ONE",), breaks={"atomicity"}),
        Mutant(
            name="PREPARED_EXPIRES",
            options=("ONE",),
            breaks={"atomicity", "validity", "no_unilateral_exit"},
        ),
        Mutant(
            name="BLIND_DECISION",
            options=("ONE",),
            breaks={"stability", "atomicity", "validity", "no_unilateral_exit", "record_agrees"},
        ),
        Mutant(
            name="RELEASE_TAKES_PREPARED",
            options=("ONE",),
            breaks={"atomicity", "validity", "no_unilateral_exit"},
        ),
        Mutant(
            name="COMMIT_IGNORES_CANCEL",
            options=("ONE",),
            breaks={"cancel_wins", "cancel_kept"},
        ),
        Mutant(name="BLIND_CANCEL", options=("ONE",), breaks={"record_agrees"}),
        Mutant(name="CHECK_THEN_HOLD", breaks={"capacity"}, first=True),
    ),
    live_mutants=(
        Mutant(name="DOUBT_WAITS", options=("ONE",), breaks={"settled", "cancelled"}),
        Mutant(name="BLIND_CANCEL", options=("ONE",), breaks={"cancelled"}),
        Mutant(name="COMMIT_IGNORES_CANCEL", options=("ONE",), breaks={"cancelled"}),
        Mutant(name="COMMIT_IS_FINAL", options=("ONE",), breaks={"cancelled"}),
        Mutant(name="RELEASE_ASKED_ONCE", options=("ONE",), breaks={"cancelled"}),
    ),
)

MODELS = (COMMIT,)
