"""What a part takes for several reasons at one time, as a row of demands that follow one
another."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from operator import add
from typing import TypeVar

from intertie.common.calendar import Demand
from intertie.common.intervals import Window

K = TypeVar("K")


def demand_key(part: str, number: int) -> str:
    return f"{part}#{number}" if number else part


def beyond(takes: Mapping[K, int], has: Mapping[K, int]) -> dict[K, int]:
    """What is more of the one than of the other."""
    more = ((key, amount - has.get(key, 0)) for key, amount in takes.items())
    return {key: amount for key, amount in more if amount > 0}


def most_of(name: str, *of: Sequence[Demand]) -> tuple[Demand, ...]:
    """Of each resource, the most that any of them takes at each moment."""
    return _together(name, of, max)


def sum_of(name: str, *of: Sequence[Demand]) -> tuple[Demand, ...]:
    """Of each resource, what all of them take at each moment."""
    return _together(name, of, add)


def _together(
    name: str, of: Sequence[Sequence[Demand]], how: Callable[[int, int], int]
) -> tuple[Demand, ...]:
    moments = sorted({at for each in of for d in each for at in (d.window.start, d.window.end)})
    demands: list[Demand] = []
    for start, end in pairwise(moments):
        amounts: dict[str, int] = {}
        for demand in chain.from_iterable(of):
            if demand.window.contains(start):
                for key, amount in demand.amounts.items():
                    amounts[key] = how(amount, amounts.get(key, 0))
        if amounts:
            key = demand_key(name, len(demands))
            demands.append(Demand(key, Window(start, end), amounts))
    return tuple(demands)
