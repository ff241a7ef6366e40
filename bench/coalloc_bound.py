"""What no plan can do better than: a problem with fewer rules, solved by CP-SAT.

Workspaces are counted by site, where only what all hosts have together counts, and how many of a
group alone fit on them. An item comes to each site as if nothing else were sent, and costs as much
as the cheapest way there that could be in time, from some site that has it, or gets it too. What is
promised between two workspaces costs as much as the cheapest way with so much free, but takes
nothing of it; where there are more than MOST_PAIRED sites, as much as the cheapest link. Bounds on
latency are for the quickest ways there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ortools.sat.python import cp_model

from intertie.metasched.domain.costs import COST_SCALE, workspace_hour
from intertie.metasched.domain.graph import FAR, FINE, MICROSECOND, Graph
from intertie.metasched.domain.link_times import NEVER
from intertie.metasched.domain.packing import places_for
from intertie.metasched.domain.problem import Problem, Promise
from intertie.metasched.domain.transfers import Staging

EFFORT = 1.0
"""CP-SAT's deterministic time for one bound, which holds whether all of it was enough or not."""
MOST_PAIRED = 20


@dataclass(slots=True)
class Relaxed:
    cp: Any
    present: dict[tuple[str, int], Any]
    used: dict[int, Any]
    cost: Any


class Bound:
    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._staging = Staging(problem)

    def first_slot(self) -> int | None:
        """No plan begins in an earlier window; None where there is no plan."""
        return next(
            (slot for slot in range(len(self._problem.windows)) if self._may_be(slot)), None
        )

    def _may_be(self, slot: int) -> bool:
        model = self._relaxed(slot)
        return model is not None and _solver().solve(model.cp) != cp_model.INFEASIBLE

    def cost(self, slot: int, sites: int) -> float:
        """Of a plan in that window at no more than so many sites."""
        model = self._relaxed(slot, money=True)
        if model is None:
            return 0.0
        model.cp.add(sum(model.used.values()) <= sites)
        model.cp.minimize(model.cost)
        solver = _solver()
        status = solver.solve(model.cp)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return 0.0
        return max(float(solver.best_objective_bound), 0.0) / COST_SCALE

    def _relaxed(self, slot: int, *, money: bool = False) -> Relaxed | None:
        problem, staging = self._problem, self._staging
        cp = cp_model.CpModel()
        model = Relaxed(cp, {}, {}, 0)
        at: dict[tuple[str, int], Any] = {}
        for group in problem.groups:
            for number, site in enumerate(problem.sites):
                if staging.ready_us(group.name, number) > staging.until_us[slot]:
                    continue
                most = places_for(group, site, slot, group.most)
                if most:
                    key = group.name, number
                    at[key] = cp.new_int_var(0, most, "")
                    model.present[key] = cp.new_bool_var("")
                    cp.add(at[key] >= model.present[key])
                    cp.add(at[key] <= most * model.present[key])
            here = [key for key in at if key[0] == group.name]
            if not here:
                return None
            cp.add(sum(at[key] for key in here) == group.fewest)
            if group.min_sites:
                cp.add(sum(model.present[key] for key in here) >= group.min_sites)
        self._sites_have_room(model, at, slot)
        self._latencies(model, slot)
        if money:
            self._prices(model, at, slot)
            self._promised(model, at, slot)
        return model

    def _sites_have_room(self, model: Relaxed, at: dict[tuple[str, int], Any], slot: int) -> None:
        for number, site in enumerate(self._problem.sites):
            keys = [key for key in at if key[1] == number]
            if not keys:
                continue
            model.used[number] = model.cp.new_bool_var("")
            for key in keys:
                model.cp.add_implication(model.present[key], model.used[number])
            for what in ("vcpus", "memory_mib"):
                free = sum(max(getattr(h.free, what), 0) for h in site.offers[slot].hosts)
                taken = (getattr(self._problem.group(g).need, what) * at[g, n] for g, n in keys)
                model.cp.add(sum(taken) <= free)

    def _latencies(self, model: Relaxed, slot: int) -> None:
        graph = Graph(self._problem, slot)
        for limit in self._problem.limits:
            for group, site in model.present:
                if group != limit.a:
                    continue
                costs = graph.costs_from(site, 0, limit.most // MICROSECOND)
                for other, cost in enumerate(costs):
                    if cost >= FAR and other != site and (limit.b, other) in model.present:
                        model.cp.add_bool_or(
                            ~model.present[group, site], ~model.present[limit.b, other]
                        )

    def _prices(self, model: Relaxed, at: dict[tuple[str, int], Any], slot: int) -> None:
        problem, staging, cp = self._problem, self._staging, model.cp
        hours = problem.windows[slot].duration / timedelta(hours=1)
        for (name, number), count in at.items():
            hour = workspace_hour(problem, problem.sites[number], slot, problem.group(name))
            model.cost += round(hour * hours * COST_SCALE) * count
        brought: dict[tuple[int, int], Any] = {}
        for (name, number), present in model.present.items():
            for item in staging.missing(name, number):
                if (item, number) not in brought:
                    brought[item, number] = cp.new_bool_var("")
                cp.add_implication(present, brought[item, number])
        turn = {key: cp.new_int_var(0, len(problem.sites), "") for key in brought}
        for (item, number), comes in brought.items():
            first = staging.price(item, slot, number)
            ways = []
            for source in (None, *range(len(problem.sites))):
                price = staging.price(item, slot, number, source)
                if source is not None and ((item, source) not in brought or price >= first):
                    continue
                if source == number or price >= NEVER:
                    continue
                way = cp.new_bool_var("")
                ways.append(way)
                model.cost += price // FINE * way
                if source is not None:
                    cp.add_implication(way, brought[item, source])
                    cp.add(turn[item, source] < turn[item, number]).only_enforce_if(way)
            cp.add(sum(ways) == comes)

    def _promised(self, model: Relaxed, at: dict[tuple[str, int], Any], slot: int) -> None:
        """What is between two sites, of each promise."""
        problem, cp, graph = self._problem, model.cp, Graph(self._problem, slot)
        cheapest = min(graph.price, default=0)
        few = len(problem.sites) <= MOST_PAIRED
        for promise in problem.promises:
            a, b = problem.group(promise.a), problem.group(promise.b)
            most = a.most * b.most

            def both(one: int, two: int, promise: Promise = promise, most: int = most) -> Any:
                if (promise.a, one) not in at or (promise.b, two) not in at:
                    return 0
                pairs = cp.new_int_var(0, most, "")
                ends = [at[promise.a, one], at[promise.b, two]]
                cp.add_multiplication_equality(pairs, ends)
                return pairs

            if not few:
                price = cheapest * promise.mbit_s // FINE
                within = sum(both(site, site) for site in range(len(problem.sites)))
                apart = a.fewest * b.fewest - within
                model.cost += price // (2 if a is b else 1) * apart
                continue
            for one in range(len(problem.sites)):
                costs = graph.costs_from(one, promise.mbit_s, None)
                for two in range(one if a is b else len(problem.sites)):
                    if two == one:
                        continue
                    pairs = both(one, two)
                    if costs[two] < FAR:
                        model.cost += costs[two] // FINE * pairs
                    elif not isinstance(pairs, int):
                        cp.add(pairs == 0)


def _solver() -> Any:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_deterministic_time = EFFORT
    return solver
