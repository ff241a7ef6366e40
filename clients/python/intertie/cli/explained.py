"""Why a request cannot be had, and what could be had instead, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from intertie.cli.tables import instant
from intertie.common.explanation import Conflict, CounterOffer, Explanation


def explained(told: Explanation, place: Callable[[str], str]) -> Iterator[str]:
    """`place` says where the user wrote a field."""
    for number, conflict in enumerate(told.conflicts):
        yield _heading(conflict, first=number == 0)
        for each in conflict.requirements:
            yield f"  {'*' if each.enough else '-'} {place(each.field)}: {each.message}"
    if any(each.enough for conflict in told.conflicts for each in conflict.requirements):
        of_each = " of each" if len(told.conflicts) > 1 else ""
        yield f"it could be had without one with *{of_each}"
    if told.counter_offers:
        yield "as things stand, it could be had with"
    for offer in told.counter_offers:
        yield f"  - {_offered(offer)}"


def _heading(conflict: Conflict, *, first: bool) -> str:
    if len(conflict.requirements) == 1:
        return "this cannot be had" if first else "nor can this"
    return "these cannot be had together" if first else "nor can these"


def _offered(offer: CounterOffer) -> str:
    changes = ", ".join(
        f"{each.field.removeprefix('spec.')}: {each.value}" for each in offer.changes
    )
    start = instant(offer.start_time)
    return f"{offer.message}  ({changes}; starts {start}, costs {offer.cost:.4f})"
