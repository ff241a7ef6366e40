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
    backed: tuple[Mutant, ...] = ()
    """Those that break nothing with these options, because other rules stand behind theirs."""

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
_SEEN_OF_TWO = _SEEN | {"expired", "shedding", "one_by_one", "overlapping"}

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
            "forgotten",
        }
    ),
    claims=("settled", "cancelled"),
    configurations=(
        Configuration(name="one", options=("ONE",), at_least=25_000, witnessed=_SEEN),
        Configuration(
            name="forget",
            options=("ONE", "FORGET"),
            at_least=200_000,
            witnessed=_SEEN | {"commit_past", "past_abort"},
        ),
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
        Mutant(
            name="FORGET_UNANSWERED",
            options=("ONE", "FORGET"),
            breaks={"forgotten", "atomicity", "validity", "record_agrees"},
        ),
        Mutant(
            name="FORGET_ON_RECORD",
            options=("ONE", "FORGET"),
            breaks={"forgotten", "atomicity", "record_agrees"},
        ),
    ),
    live_mutants=(
        Mutant(name="DOUBT_WAITS", options=("ONE",), breaks={"settled", "cancelled"}),
        Mutant(name="BLIND_CANCEL", options=("ONE",), breaks={"cancelled"}),
        Mutant(name="COMMIT_IGNORES_CANCEL", options=("ONE",), breaks={"cancelled"}),
        Mutant(name="COMMIT_IS_FINAL", options=("ONE",), breaks={"cancelled"}),
        Mutant(name="RELEASE_ASKED_ONCE", options=("ONE",), breaks={"cancelled"}),
    ),
)

AMEND = Model(
    name="amend",
    file="amend_protocol.pml",
    promises=frozenset(
        {
            "capacity",
            "old_stands",
            "atomicity",
            "validity",
            "stability",
            "no_unilateral_exit",
            "in_order",
            "survives",
            "cancel_wins",
            "cancel_kept",
            "record_agrees",
            "not_robbed",
        }
    ),
    claims=("settled", "freed", "uniform", "cancelled", "left"),
    configurations=(
        Configuration(
            name="one",
            at_least=100_000,
            witnessed=_SEEN | {"expired", "refused", "extended", "heard_late", "shed", "shedding"},
        ),
        Configuration(
            name="leaves",
            options=("LEAVES",),
            at_least=200_000,
            witnessed=_SEEN
            | {"expired", "refused", "extended", "heard_late", "shed", "shedding", "left_behind"},
            large=True,
        ),
        Configuration(
            name="short",
            options=("SHORT",),
            at_least=8_000,
            witnessed={"committed", "cancelled_after", "shed", "shedding"},
        ),
        Configuration(
            name="two",
            options=("TWO",),
            at_least=400_000,
            witnessed=_SEEN_OF_TWO | {"belated"},
            large=True,
        ),
        Configuration(
            name="two_short",
            options=("TWO", "SHORT"),
            at_least=70_000,
            witnessed=_SEEN_OF_TWO,
        ),
    ),
    live=(
        Configuration(name="one", at_least=190_000, large=True),
        Configuration(name="short", options=("SHORT",), at_least=15_000),
    ),
    mutants=(
        Mutant(name="GROWS_UNHELD", breaks={"capacity"}),
        Mutant(name="CHECK_THEN_HOLD", breaks={"capacity"}),
        Mutant(name="NEW_FOR_OLD", breaks={"capacity"}),
        Mutant(name="SHED_AT_ONCE", breaks={"capacity"}),
        Mutant(name="APPLIED_AT_PREPARE", breaks={"capacity", "old_stands", "in_order"}),
        Mutant(name="TOLD_AT_PREPARE", breaks={"old_stands"}),
        Mutant(
            name="PREPARED_EXPIRES",
            breaks={"atomicity", "validity", "no_unilateral_exit", "survives"},
        ),
        Mutant(name="BLIND_DECISION", breaks={"stability", "atomicity", "validity", "survives"}),
        Mutant(
            name="END_IN_DOUBT",
            breaks={"atomicity", "validity", "no_unilateral_exit", "survives"},
        ),
        Mutant(name="SHORT_WAY_GROWS", breaks={"capacity", "survives"}),
        Mutant(name="COMMIT_IGNORES_CANCEL", breaks={"cancel_wins", "cancel_kept"}),
        Mutant(name="BLIND_CANCEL", breaks={"record_agrees"}),
        Mutant(name="LEFT_AT_PREPARE", options=("LEAVES",), breaks={"not_robbed"}),
        Mutant(name="TWO_ON_RECORD", options=("TWO", "SHORT"), breaks={"in_order"}),
        Mutant(name="BASE_IGNORED", options=("TWO", "SHORT"), breaks={"in_order"}),
    ),
    live_mutants=(
        Mutant(name="DOUBT_WAITS", breaks={"settled", "uniform", "cancelled"}),
        Mutant(name="NOT_RECOVERED", breaks={"freed"}),
        Mutant(name="HOSTS_NOT_TOLD", options=("SHORT",), breaks={"uniform"}),
        Mutant(name="RELEASE_ASKED_ONCE", breaks={"uniform", "cancelled"}),
        Mutant(name="LEAVER_NOT_TOLD", breaks={"left"}),
    ),
    backed=(
        Mutant(name="TWO_ON_RECORD", options=("TWO",), breaks=frozenset()),
        Mutant(name="BASE_IGNORED", options=("TWO",), breaks=frozenset()),
    ),
)

MODELS = (COMMIT, AMEND)
