"""Why a request cannot be had, and what could be had instead, line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from intertie.cli.tables import instant
from intertie.common.explanation import Conflict, CounterOffer, Explanation


def explained(told: Explanation, place: Callable[[str], str]) -> Iterator[str]:
    """`place` says where the user wrote a field."""
    for number, conflict in enumerate(told.conflicts):
        yield _heading(told, conflict, also=number > 0)
        mixed = _is_mixed(conflict)
        for each in conflict.requirements:
            mark = "*" if mixed and each.enough else "-"
            yield f"  {mark} {place(each.field)}: {each.message}"
    if told.counter_offers:
        yield "as things stand, it could be had with"
    for offer in told.counter_offers:
        yield f"  - {_offered(offer)}"


def _is_mixed(conflict: Conflict) -> bool:
    return len({each.enough for each in conflict.requirements}) > 1


def _heading(told: Explanation, conflict: Conflict, *, also: bool) -> str:
    if len(conflict.requirements) == 1:
        what = "this cannot be had" if not also else "nor can this"
    else:
        what = "these cannot be had together" if not also else "nor can these"
    if _is_mixed(conflict):
        return f"{what}; to give up one with * is enough"
    if all(each.enough for each in conflict.requirements):
        return f"{what}; to give up one of them is enough"
    if also or len(told.conflicts) > 1:
        return f"{what}; of each, one has to be given up"
    return what


def _offered(offer: CounterOffer) -> str:
    changes = ", ".join(
        f"{each.field.removeprefix('spec.')}: {each.value}" for each in offer.changes
    )
    start = instant(offer.start_time)
    return f"{offer.message}  ({changes}; starts {start}, costs {offer.cost:.4f})"
