"""A plan costs no more than its budget: what that comes to in whole numbers, for CP-SAT, as in
model."""

from collections.abc import Iterator
from datetime import timedelta
from math import ceil, floor
from typing import Any

from intertie.common.quantities import Vector
from intertie.metasched.domain.costs import COST_SCALE, link_hour
from intertie.metasched.domain.graph import FINE
from intertie.metasched.domain.link_times import NEVER
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.room_rules import asked_for_room
from intertie.metasched.domain.routes import hops
from intertie.metasched.domain.variables import Model, product

_TINY, _LEAST = 1e-12, 1e-3
"""By which products of prices and hours may be off, of themselves; and a budget that is so many
millionths, of one."""
_NOTHING = Vector()


def _keep_to_the_budget(model: Model, problem: Problem) -> None:
    """What is planned costs no more than its owner would pay: workspaces, the pairs that are
    promised to them, what is reserved on links, what others make room for, and what is brought."""
    if problem.max_cost is None:
        return
    most = floor(problem.max_cost * COST_SCALE + _LEAST)
    terms = _ends_of_pairs(model, problem)
    alike: dict[Any, list[int]] = {}
    for slot, window in enumerate(problem.windows):
        asked = tuple((o.rates, o.free_together) for o in (s.offers[slot] for s in problem.sites))
        key = slot if problem.items else (window.duration, asked)
        alike.setdefault(key, []).append(slot)
    for slots in alike.values():
        cost = sum(price * each for price, each in _of_slot(model, problem, slots[0], terms))
        cost += sum(asked_for_room(model, problem, slots[0], _up))
        for slot in slots:
            model.cp.add(cost <= most).only_enforce_if(model.start[slot])


Ends = list[tuple[str, int, Any]]
"""Site, Mbit/s, and how many ends of pairs of that it has."""


def _ends_of_pairs(model: Model, problem: Problem) -> Ends:
    """As many as there are: the objective counts them as if there were as many as may be."""
    found: Ends = []
    priced = [s for s in problem.sites if any(o.rates.pair_mbit_s_hour for o in s.offers)]
    for promise in problem.promises:
        a, b = problem.group(promise.a), problem.group(promise.b)
        most = a.most * b.most
        for site in priced:
            here = model.at[a.name, site.name]
            ends = product(model, here, model.total[b.name], most)
            if a is b:
                ends -= here
            else:
                there = model.at[b.name, site.name]
                ends += product(model, there, model.total[a.name], most)
            found.append((site.name, promise.mbit_s, ends))
    return found


def _of_slot(model: Model, problem: Problem, slot: int, ends: Ends) -> Iterator[tuple[int, Any]]:
    """Prices in millionths, none of them too low, and what they are of."""
    hours = problem.windows[slot].duration / timedelta(hours=1)
    for site in problem.sites:
        rates = site.offers[slot].rates
        for group in problem.groups:
            yield _up(rates.hour(site.charges(group)) * hours), model.at[group.name, site.name]
    for name, mbit_s, count in ends:
        rates = problem.site(name).offers[slot].rates
        yield _up(rates.hour(_NOTHING, pair_mbit_s=mbit_s) * hours), count
    for flows in model.flow.values():
        for route, flow in flows.items():
            links = [(problem.site(a), problem.site(b)) for a, b in hops(route)]
            yield _up(sum(link_hour(*link, slot) for link in links) * hours), flow
    for (item, source, target), sent in model.sent.items():
        assert model.staging is not None
        price = model.staging.price(item, slot, target, source)
        if price < NEVER:
            yield -(-price // FINE), sent


def _up(price: float) -> int:
    return ceil(price * COST_SCALE * (1 - _TINY))


BUDGET_RULES = (_keep_to_the_budget,)
