"""The planner: the best plan that a model allows."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from ortools.sat.python import cp_model

from intertie.metasched.domain.costs import site_hour, workspace_hour
from intertie.metasched.domain.model import Model, Rule, build
from intertie.metasched.domain.plan import LinkPlan, Plan, SitePlan
from intertie.metasched.domain.problem import Problem, digest_at, latency

COST_SCALE = 1_000_000
"""The solver counts in whole millionths of the unit of account."""


def solve(
    problem: Problem, *, effort: float = 2.0, relaxed: frozenset[Rule] = frozenset()
) -> Plan | None:
    """The best plan, or None if no plan was found within `effort`.

    Best is: least broken, where rules are relaxed; then most workspaces, then the earliest
    start, then the fewest sites, then the least cost. `effort` is CP-SAT's deterministic time
    for each of these, not seconds: the same problem gives the same plan on every machine.
    """
    if not problem.sites or not problem.windows:
        return None
    model = build(problem, relaxed)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 1
    solver.parameters.max_deterministic_time = effort
    optimal = True
    stages = _stages(model, problem)
    slot, values = 0, None
    for stage in stages:
        objective = stage(slot)
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
        optimal = optimal and status == cp_model.OPTIMAL
        slot = next(n for n, each in enumerate(model.start) if solver.boolean_value(each))
        values = _values(model, solver)
        if free:
            model.cp.add(objective <= round(solver.objective_value))
        model.cp.clear_hints()  # type: ignore[no-untyped-call]
        for number, value in values.items():
            model.cp.add_hint(model.cp.get_int_var_from_proto_index(number), value)
    return _plan_of(model, problem, values, optimal) if values is not None else None


def any_plan(problem: Problem, *, effort: float) -> tuple[Plan | None, bool, float]:
    """Some plan, good or bad; whether it is known by that if there is one, or `effort` was not
    enough to find out; and the effort that it took."""
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
        return _plan_of(model, problem, _values(model, solver), False), True, took
    return None, status == cp_model.INFEASIBLE, took


def _stages(model: Model, problem: Problem) -> list[Callable[[int], Any]]:
    """What to minimize, one after another, given the start that the stage before has found. What
    the problem leaves no choice in is not among them."""
    stages: list[Callable[[int], Any]] = []
    if model.excess:
        stages.append(lambda _: sum(model.excess))
    if any(group.fewest != group.most for group in problem.groups):
        stages.append(lambda _: -sum(model.total.values()))
    if len(problem.windows) > 1:
        stages.append(lambda _: sum(number * each for number, each in enumerate(model.start)))
    if len(problem.sites) > 1:
        stages.append(lambda _: sum(model.used.values()))
    return [*stages, lambda slot: _cost(model, problem, slot)]


def _cost(model: Model, problem: Problem, slot: int) -> Any:
    hours = problem.windows[slot].duration / timedelta(hours=1)
    cost: Any = 0
    for site in problem.sites:
        for group in problem.groups:
            price = round(workspace_hour(problem, site, slot, group) * hours * COST_SCALE)
            cost += price * model.at[group.name, site.name]
    for (one, two), mbit_s in model.traffic.items():
        rate = _link_hour(problem, one, slot) + _link_hour(problem, two, slot)
        cost += round(2 * rate * hours * COST_SCALE) * mbit_s
    return cost


def _link_hour(problem: Problem, site: str, slot: int) -> float:
    """Each site charges for both of its halves."""
    return problem.site(site).offers[slot].rates.link_mbit_s_hour


def _values(model: Model, solver: cp_model.CpSolver) -> dict[int, int]:
    return {
        number: solver.response_proto.solution[number]
        for number in range(len(model.cp.proto.variables))
    }


def _plan_of(model: Model, problem: Problem, values: Mapping[int, int], optimal: bool) -> Plan:
    def value(variable: Any) -> int:
        return values[variable.index]

    slot = next(number for number, each in enumerate(model.start) if value(each))
    window = problem.windows[slot]
    hours = window.duration / timedelta(hours=1)
    totals = {group.name: value(model.total[group.name]) for group in problem.groups}
    sites = []
    for site in problem.sites:
        counts = _above_zero({g.name: value(model.at[g.name, site.name]) for g in problem.groups})
        if not counts:
            continue
        offer = site.offers[slot]
        traffic = sum(value(v) for pair, v in model.traffic.items() if site.name in pair)
        cost = hours * site_hour(problem, site, slot, counts, totals, traffic)
        packing = tuple(
            _above_zero({g.name: value(model.on[g.name, site.name, k]) for g in problem.groups})
            for k in range(len(offer.hosts))
        )
        sites.append(SitePlan(site=site.name, counts=counts, packing=packing, cost=cost))
    plan = Plan(
        window=window,
        sites=tuple(sites),
        images={
            group.name: digest_at(problem.site(each.site), group)
            for group in problem.groups
            for each in sites
            if group.name in each.counts
        },
        cost=sum(each.cost for each in sites),
        optimal=optimal,
    )
    return _with_links(plan, problem)


def _with_links(plan: Plan, problem: Problem) -> Plan:
    links = []
    for one in plan.sites:
        for two in plan.sites:
            mbit_s: dict[str, int] = {}
            for promise in problem.promises if one is not two else ():
                pairs = one.counts.get(promise.a, 0) * two.counts.get(promise.b, 0)
                if promise.a != promise.b:
                    pairs += two.counts.get(promise.a, 0) * one.counts.get(promise.b, 0)
                if pairs:
                    mbit_s[promise.network] = (
                        mbit_s.get(promise.network, 0) + pairs * promise.mbit_s
                    )
            for network, amount in mbit_s.items():
                links.append(
                    LinkPlan(
                        from_site=one.site,
                        to_site=two.site,
                        network=network,
                        mbit_s=amount,
                        latency=latency(problem.site(one.site), problem.site(two.site)),
                    )
                )
    return Plan(
        window=plan.window,
        sites=plan.sites,
        links=tuple(links),
        images=plan.images,
        cost=plan.cost,
        optimal=plan.optimal,
    )


def _above_zero(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count > 0}
