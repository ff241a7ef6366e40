"""What sites ask for room that others make, in whole numbers for CP-SAT: it grows only with what is
taken beyond what is free, so it is a variable of its own."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.variables import Model

_MIB_OF_GIB = 1024


def asked_for_room(
    model: Model, problem: Problem, slot: int, millionths: Callable[[float], int]
) -> Iterator[Any]:
    """In millionths of the unit of account, of each site that may ask something: no less than it
    asks in that window. Whoever minimizes it, or bounds it from above, has just that."""
    hours = problem.windows[slot].duration / timedelta(hours=1)
    for site in problem.sites:
        offer = site.offers[slot]
        if offer.free_together is None or not offer.asks_for_room:
            continue
        vcpu = millionths(offer.rates.give_way_vcpu_hour * hours)
        gib = millionths(offer.rates.give_way_memory_gib_hour * hours)
        parts = _MIB_OF_GIB if gib else 1  # of a millionth: numbers are no larger than they need be
        asked, most = [], 0
        for dimension, price in (("vcpus", vcpu * parts), ("memory_mib", gib)):
            takes = [(getattr(site.charges(each), dimension), each) for each in problem.groups]
            free = getattr(offer.free_together, dimension)
            beyond = sum(amount * each.most for amount, each in takes) - free
            if not price or beyond <= 0:
                continue
            taken = sum(amount * model.at[each.name, site.name] for amount, each in takes)
            room = model.cp.new_int_var(0, beyond, f"{dimension} beyond free at {site.name}")
            model.cp.add(room >= taken - free)
            asked.append(price * room)
            most += price * beyond
        if asked:
            cost = model.cp.new_int_var(0, -(-most // parts), f"room at {site.name}")
            model.cp.add(parts * cost >= sum(asked))
            yield cost
