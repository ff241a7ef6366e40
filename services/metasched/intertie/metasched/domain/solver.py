"""The planner: the best plan that a model allows."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ortools.sat.python import cp_model

from intertie.common.budget import above
from intertie.common.values import replace
from intertie.metasched.domain.assemble import assembled
from intertie.metasched.domain.costs import COST_SCALE, link_hour, workspace_hour
from intertie.metasched.domain.graph import FINE
from intertie.metasched.domain.link_times import NEVER
from intertie.metasched.domain.model import build
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Cut, Problem
from intertie.metasched.domain.room_rules import asked_for_room
from intertie.metasched.domain.routes import Route, hops, pair_of
from intertie.metasched.domain.transfers import Delivery, Staging, with_moves
from intertie.metasched.domain.variables import Model, Rule

STAGINGS = 8
"""Plans of the model that transfers are looked for, one after another."""
TINY = 1e-5
"""Of the unit of account: what a cost and its bound may differ by where all parts are rounded."""


def solve(
    problem: Problem,
    *,
    effort: float = 2.0,
    relaxed: frozenset[Rule] = frozenset(),
    hint: Plan | None = None,
) -> Plan | None:
    """The best plan, or None if no plan was found within `effort`.

    Best is: least broken, where rules are relaxed; then most workspaces, then the earliest
    start, then the fewest sites, then the least cost (or the other way round, where the problem
    says so), then the shortest routes. `effort` is CP-SAT's deterministic time for each of these,
    not seconds: the same problem gives the same plan on every machine. It begins with the plan
    `hint`, where there is one.

    The model knows of each transfer that is needed what it costs and when it could be done, were it
    alone. If no transfers are found for its plan, that is left out and another is looked for, a few
    times; a plan that is found so is not called optimal.
    """
    if not problem.sites or not problem.windows:
        return None
    if not problem.items or relaxed:
        return _solved(problem, effort=effort, relaxed=relaxed, hint=hint)
    tried, staging = problem, Staging(problem)
    for _ in range(STAGINGS):
        plan = _solved(tried, effort=effort, relaxed=relaxed, hint=hint)
        if plan is None:
            return None
        staged = with_transfers(problem, plan, staging, sure=tried is problem)
        if staged is not None:
            return staged
        tried = replace(tried, cuts=(*tried.cuts, _not_so(problem, plan, staging)))
    return None


def _solved(
    problem: Problem, *, effort: float, relaxed: frozenset[Rule], hint: Plan | None
) -> Plan | None:
    """The same, without transfers."""
    model = build(problem, relaxed)
    if hint is not None:
        _begin_with(model, problem, hint)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_deterministic_time = effort
    optimal, bound = model.all_routes, None
    slot, values = 0, None
    for stage in _stages(model, problem):
        objective = stage(model, problem, slot)
        free = not isinstance(objective, int)
        if not free and values is not None:
            continue
        if free:
            model.cp.minimize(objective)
        status = solver.solve(model.cp)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            if values is None:
                return None
            optimal = False
            break  # a later stage ran out of effort: the plan so far stands
        if stage is _cost and free and optimal:
            bound = solver.best_objective_bound / COST_SCALE
        optimal = optimal and status == cp_model.OPTIMAL
        slot = next(n for n, each in enumerate(model.start) if solver.boolean_value(each))
        values = _values(model, solver)
        if free:
            model.cp.add(objective <= round(solver.objective_value))
        model.cp.clear_hints()
        for number, value in values.items():
            model.cp.add_hint(model.cp.get_int_var_from_proto_index(number), value)
    if values is None:
        return None
    if not problem.items:
        return _plan_of(model, problem, values, optimal=optimal, bound=bound)
    plan = _plan_of(model, problem, values, optimal=False, bound=bound)
    return replace(plan, optimal=optimal)  # what it costs in all is not known yet


def with_transfers(problem: Problem, plan: Plan, staging: Staging, *, sure: bool) -> Plan | None:
    """The plan of a model with transfers by which all is there in time, within its budget; None if
    none were found.
    `sure`: there is no better one by the model, which counts what is promised as if there were as
    many as there may be: where there are fewer, its bound is none of what the plan costs."""
    slot = problem.windows.index(plan.window)
    staged = staging.scheduled(_wanted(problem, staging, plan), slot)
    if staged is None:
        return None
    plan = with_moves(plan, staging, staged.moves)
    if problem.max_cost is not None and above(plan.cost, problem.max_cost):
        return None
    all_there = all(plan.count(group.name) >= group.most for group in problem.groups)
    sure = sure and (all_there or not problem.promises)
    as_low = plan.bound is not None and plan.cost <= plan.bound + TINY
    optimal = sure and plan.optimal and as_low
    return replace(plan, optimal=optimal, bound=plan.bound if sure else None)


def _wanted(problem: Problem, staging: Staging, plan: Plan) -> frozenset[Delivery]:
    return frozenset(
        (item, at)
        for at, site in enumerate(problem.sites)
        for group in problem.groups
        if plan.count(group.name, site.name)
        for item in staging.missing(group.name, at)
    )


def _not_so(problem: Problem, plan: Plan, staging: Staging) -> Cut:
    """Not at this start groups at all of these sites to which something has to be brought."""
    return Cut(
        start=plan.window.start,
        counts={
            (group.name, site.name): 1
            for at, site in enumerate(problem.sites)
            for group in problem.groups
            if plan.count(group.name, site.name) and staging.missing(group.name, at)
        },
    )


def any_plan(problem: Problem, *, effort: float) -> tuple[Plan | None, bool, float]:
    """Some plan, good or bad; whether it is known by that if there is one, or `effort` was not
    enough to find out, or routes are left out of the model; and the effort that it took."""
    if not problem.sites or not problem.windows:
        return None, True, 0.0
    model = build(problem)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_deterministic_time = effort
    status = solver.solve(model.cp)
    took = solver.response_proto.deterministic_time
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        plan = _plan_of(model, problem, _values(model, solver), optimal=False, bound=None)
        if not problem.items:
            return plan, True, took
        staged = with_transfers(problem, plan, Staging(problem), sure=False)
        return staged, staged is not None, took
    return None, status == cp_model.INFEASIBLE and model.all_routes, took


Stage = Callable[[Model, Problem, int], Any]


def _stages(model: Model, problem: Problem) -> list[Stage]:
    """What to minimize, one after another, given the start that the stage before has found. What
    the problem leaves no choice in is not among them."""
    stages: list[Stage] = []
    if model.excess:
        stages.append(lambda model, *_: sum(model.excess))
    if any(group.fewest != group.most for group in problem.groups):
        stages.append(lambda model, *_: -sum(model.total.values()))
    if len(problem.windows) > 1:
        stages.append(lambda model, *_: sum(n * each for n, each in enumerate(model.start)))
    at_sites: list[Stage] = [_used] if len(problem.sites) > 1 else []
    stages += [*at_sites, _cost] if problem.fewest_sites else [_cost, *at_sites]
    if any(len(route) > 2 for routes in model.taken.values() for route in routes):
        stages.append(_length)
    return stages


def _used(model: Model, problem: Problem, slot: int) -> Any:
    """Sites with workspaces."""
    return sum(model.used.values())


def _cost(model: Model, problem: Problem, slot: int) -> Any:
    """As if there were as many of each group as there may be."""
    hours = problem.windows[slot].duration / timedelta(hours=1)
    cost: Any = 0
    for site in problem.sites:
        for group in problem.groups:
            price = round(workspace_hour(problem, site, slot, group) * hours * COST_SCALE)
            cost += price * model.at[group.name, site.name]
    cost += sum(asked_for_room(model, problem, slot, lambda price: round(price * COST_SCALE)))
    for flows in model.flow.values():
        for route, flow in flows.items():
            ends = [(problem.site(a), problem.site(b)) for a, b in hops(route)]
            rate = sum(link_hour(*link, slot) for link in ends)
            cost += round(rate * hours * COST_SCALE) * flow
    for (item, source, target), sent in model.sent.items():
        assert model.staging is not None
        price = model.staging.price(item, slot, target, source)
        if price < NEVER:  # else it is not sent
            cost += price // FINE * sent
        else:
            model.cp.add(sent == 0)
    return cost


def _length(model: Model, problem: Problem, slot: int) -> Any:
    """Links that are on routes between sites that both have workspaces; a Mbit/s counts as one
    more."""
    return sum(
        (len(route) - 1) * flow + (len(route) - 2) * taken
        for pair, routes in model.flow.items()
        for route, flow in routes.items()
        for taken in (model.taken[pair].get(route, 0),)
    )


def _begin_with(model: Model, problem: Problem, plan: Plan) -> None:
    """Where each workspace is in the plan, when, and by which routes."""
    hints: list[tuple[Any, int]] = [
        (each, window == plan.window)
        for each, window in zip(model.start, problem.windows, strict=True)
    ]
    packings = {each.site: each.packing for each in plan.sites}
    for (group, site, host), variable in model.on.items():
        packing = packings.get(site, ())
        hints.append((variable, packing[host].get(group, 0) if host < len(packing) else 0))
    for (group, site), variable in model.at.items():
        hints.append((variable, plan.count(group, site)))
    routes = {pair_of(link.from_site, link.to_site): link for link in plan.links}
    for pair, taken in model.taken.items():
        way: Route = pair
        if pair in routes:
            link = routes[pair]
            way = link.route if link.from_site == pair[0] else link.route[::-1]
        hints += [(each, route == way) for route, each in taken.items()]
    for variable, value in hints:
        if not isinstance(variable, int):
            model.cp.add_hint(variable, value)


def _values(model: Model, solver: cp_model.CpSolver) -> dict[int, int]:
    return {
        number: solver.response_proto.solution[number]
        for number in range(len(model.cp.proto.variables))
    }


def _plan_of(
    model: Model, problem: Problem, values: Mapping[int, int], *, optimal: bool, bound: float | None
) -> Plan:
    def value(variable: Any) -> int:
        return variable if isinstance(variable, int) else values[variable.index]

    slot = next(number for number, each in enumerate(model.start) if value(each))
    return assembled(
        problem,
        slot,
        packings={
            site.name: tuple(
                _above_zero({g.name: value(model.on[g.name, site.name, k]) for g in problem.groups})
                for k in range(len(site.offers[slot].hosts))
            )
            for site in problem.sites
        },
        routes={
            pair: route
            for pair, routes in model.taken.items()
            for route, taken in routes.items()
            if value(taken)
        },
        counts={
            site.name: _above_zero(
                {g.name: value(model.at[g.name, site.name]) for g in problem.groups}
            )
            for site in problem.sites
        },
        optimal=optimal,
        bound=bound,
    )


def _above_zero(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count > 0}
