"""The planner: counts per group and host, and the start, by CP-SAT. One function a rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from itertools import combinations
from typing import Any

from ortools.sat.python import cp_model

from intertie.common.quantities import DIMENSIONS
from intertie.metasched.domain.candidates import hindrance
from intertie.metasched.domain.plan import LinkPlan, Plan, SitePlan
from intertie.metasched.domain.problem import GroupNeed, LinkRoom, Problem, Promise, Site

COST_SCALE = 1_000_000
"""The solver counts in whole millionths of the unit of account."""


class Rule(Enum):
    """Rules that may be broken, as little as possible, to find out what speaks against a plan."""

    HOSTS = "HOSTS"
    LINKS = "LINKS"
    LATENCY = "LATENCY"


@dataclass(slots=True, kw_only=True)
class Model:
    """Variables that several rules speak of."""

    cp: cp_model.CpModel = field(default_factory=cp_model.CpModel)
    relaxed: frozenset[Rule] = frozenset()
    start: list[Any] = field(default_factory=list)
    """One boolean a candidate window."""
    on: dict[tuple[str, str, int], Any] = field(default_factory=dict)
    """Workspaces of (group, site, host)."""
    at: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Workspaces of (group, site)."""
    present: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Whether (group, site) has any."""
    total: dict[str, Any] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    """Whether the site has any workspace."""
    traffic: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Promised Mbit/s between two sites, each direction; sites in order of name."""
    excess: list[Any] = field(default_factory=list)
    """By how much relaxed rules are broken."""


_RULES: list[Callable[[Model, Problem], None]] = []


def _rule(function: Callable[[Model, Problem], None]) -> Callable[[Model, Problem], None]:
    """Adds a function to what a model is built from, in the order of this file."""
    _RULES.append(function)
    return function


def build(problem: Problem, relaxed: frozenset[Rule] = frozenset()) -> Model:
    """One function a rule, called in order; each reads as its docstring."""
    model = Model(relaxed=relaxed)
    _variables(model, problem)
    for rule in _RULES:
        rule(model, problem)
    return model


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


def _variables(model: Model, problem: Problem) -> None:
    cp = model.cp
    model.start = [cp.new_bool_var(f"start{n}") for n in range(len(problem.windows))]
    for site in problem.sites:
        model.used[site.name] = cp.new_bool_var(f"used {site.name}")
        for group in problem.groups:
            key = group.name, site.name
            model.at[key] = cp.new_int_var(0, group.most, f"{group.name}@{site.name}")
            model.present[key] = cp.new_bool_var(f"any {group.name}@{site.name}")
            for host in range(_hosts(site)):
                model.on[*key, host] = cp.new_int_var(
                    0, group.most, f"{group.name}@{site.name}/{host}"
                )
    for group in problem.groups:
        model.total[group.name] = cp.new_int_var(group.fewest, group.most, f"all {group.name}")


@_rule
def _start_at_one_candidate(model: Model, problem: Problem) -> None:
    """A cluster starts once, at one of the candidate starts, at all of its sites."""
    model.cp.add_exactly_one(model.start)


@_rule
def _place_every_workspace_once(model: Model, problem: Problem) -> None:
    """Every workspace is on one host of one site; a site has what its hosts have."""
    for group in problem.groups:
        for site in problem.sites:
            key = group.name, site.name
            model.cp.add(model.at[key] == sum(model.on[*key, host] for host in range(_hosts(site))))
            model.cp.add(model.at[key] >= 1).only_enforce_if(model.present[key])
            model.cp.add(model.at[key] == 0).only_enforce_if(~model.present[key])
        model.cp.add(
            model.total[group.name] == sum(model.at[group.name, s.name] for s in problem.sites)
        )
    for site in problem.sites:
        model.cp.add_max_equality(
            model.used[site.name],
            [model.present[group.name, site.name] for group in problem.groups],
        )


@_rule
def _stay_where_it_can_run(model: Model, problem: Problem) -> None:
    """A group is only where its owner allows it, its image is, and its disk holds the image."""
    for group in problem.groups:
        for site in problem.sites:
            if hindrance(group, site) is not None:
                model.cp.add(model.at[group.name, site.name] == 0)


@_rule
def _suit_architecture_and_hypervisor(model: Model, problem: Problem) -> None:
    """A host runs only what its processor and its hypervisors can run."""
    for group in problem.groups:
        for site in problem.sites:
            for host in range(_hosts(site)):
                fit = [
                    model.start[slot]
                    for slot, offer in enumerate(site.offers)
                    if host < len(offer.hosts) and offer.hosts[host].suits(group)
                ]
                model.cp.add(model.on[group.name, site.name, host] <= group.most * sum(fit))


@_rule
def _never_overfill_a_host(model: Model, problem: Problem) -> None:
    """On each host, what its workspaces take is at most what it has free, in everything."""
    if Rule.HOSTS in model.relaxed:
        return
    for site in problem.sites:
        for host in range(_hosts(site)):
            for dimension in DIMENSIONS:
                taken = sum(
                    getattr(site.takes(group), dimension) * model.on[group.name, site.name, host]
                    for group in problem.groups
                )
                if dimension == "uplink_mbit_s":
                    taken += _pairs_on_host(model, problem, site.name, host)
                free = sum(
                    max(getattr(offer.hosts[host].free, dimension), 0) * model.start[slot]
                    for slot, offer in enumerate(site.offers)
                    if host < len(offer.hosts)
                )
                model.cp.add(taken <= free)


def _pairs_on_host(model: Model, problem: Problem, site: str, host: int) -> Any:
    """Mbit/s of the promised pairs that have one end on this host and one on another."""
    mbit_s: Any = 0
    for promise in problem.promises:
        a, b = problem.group(promise.a), problem.group(promise.b)
        a_here, b_here = model.on[a.name, site, host], model.on[b.name, site, host]
        most = a.most * b.most
        within = _product(model, a_here, b_here, most)
        if a is b:
            leaving = _times_total(model, a_here, a, most) - within
        else:
            leaving = (
                _times_total(model, a_here, b, most)
                + _times_total(model, b_here, a, most)
                - 2 * within
            )
        mbit_s += promise.mbit_s * leaving
    return mbit_s


def _times_total(model: Model, variable: Any, group: GroupNeed, most: int) -> Any:
    if group.fewest == group.most:
        return variable * group.most
    return _product(model, variable, model.total[group.name], most)


@_rule
def _keep_to_bounds(model: Model, problem: Problem) -> None:
    """At most so many of a group on one host and at one site, at least at so many sites; at
    most so many sites in all."""
    for group in problem.groups:
        for site in problem.sites:
            if group.max_per_site:
                model.cp.add(model.at[group.name, site.name] <= group.max_per_site)
            for host in range(_hosts(site) if group.max_per_host else 0):
                model.cp.add(model.on[group.name, site.name, host] <= group.max_per_host)
        spread = sum(model.present[group.name, site.name] for site in problem.sites)
        model.cp.add(spread >= group.min_sites)
    if problem.max_sites:
        model.cp.add(sum(model.used.values()) <= problem.max_sites)


@_rule
def _run_one_image_in_a_group(model: Model, problem: Problem) -> None:
    """All workspaces of a group run the same content, also where sites use one name for several."""
    for group in problem.groups:
        digests = sorted({d for site in problem.sites if (d := _digest(site, group))})
        if len(digests) < 2:
            continue
        chosen = {digest: model.cp.new_bool_var(f"{group.name} {digest}") for digest in digests}
        model.cp.add_exactly_one(chosen.values())
        for site in problem.sites:
            if digest := _digest(site, group):
                model.cp.add_implication(model.present[group.name, site.name], chosen[digest])


@_rule
def _link_sites_that_share_a_network(model: Model, problem: Problem) -> None:
    """Two sites with workspaces on one network have a link to one another, known to both."""
    for one, two in _site_pairs(problem):
        if _linked(one, two):
            continue
        for a in problem.groups:
            for b in problem.groups:
                if set(a.networks) & set(b.networks):
                    model.cp.add_bool_or(
                        ~model.present[a.name, one.name], ~model.present[b.name, two.name]
                    )


@_rule
def _never_overfill_a_link(model: Model, problem: Problem) -> None:
    """What is promised between two sites fits both halves of their link, in both directions."""
    for one, two in _site_pairs(problem):
        demand = sum(
            promise.mbit_s * _crossing(model, problem, promise, one.name, two.name)
            for promise in problem.promises
        )
        key = one.name, two.name
        most = sum(
            promise.mbit_s * problem.group(promise.a).most * problem.group(promise.b).most
            for promise in problem.promises
        )
        model.traffic[key] = model.cp.new_int_var(0, most, f"{one.name}-{two.name}")
        model.cp.add(model.traffic[key] == demand)
        over: Any = 0
        if Rule.LINKS in model.relaxed:
            over = model.cp.new_int_var(0, most, f"over {one.name}-{two.name}")
            model.excess.append(over)
        free = sum(_least_half(one, two, slot) * start for slot, start in enumerate(model.start))
        model.cp.add(model.traffic[key] <= free + over)


def _crossing(model: Model, problem: Problem, promise: Promise, one: str, two: str) -> Any:
    """How many pairs of the promise have one end at each of the two sites."""
    most = problem.group(promise.a).most * problem.group(promise.b).most
    there = _product(model, model.at[promise.a, one], model.at[promise.b, two], most)
    if promise.a == promise.b:
        return there
    return there + _product(model, model.at[promise.a, two], model.at[promise.b, one], most)


def _product(model: Model, one: Any, two: Any, most: int) -> Any:
    product = model.cp.new_int_var(0, most, "")
    model.cp.add_multiplication_equality(product, [one, two])
    return product


@_rule
def _keep_latency_bounds(model: Model, problem: Problem) -> None:
    """Two groups with a bound are not at two sites whose link is longer than the bound."""
    for limit in problem.limits:
        for one in problem.sites:
            for two in problem.sites:
                if one is two or not _linked(one, two) or _latency(one, two) <= limit.most:
                    continue
                both = [model.present[limit.a, one.name], model.present[limit.b, two.name]]
                if Rule.LATENCY in model.relaxed:
                    over = model.cp.new_bool_var(f"far {one.name}-{two.name}")
                    model.excess.append(over)
                    model.cp.add_bool_or(~both[0], ~both[1], over)
                else:
                    model.cp.add_bool_or(~both[0], ~both[1])


@_rule
def _leave_out_what_was_refused(model: Model, problem: Problem) -> None:
    """What a site refused at a start is not asked of it again there, nor is more."""
    for number, cut in enumerate(problem.cuts):
        if not all(key in model.at for key in cut.counts):
            continue
        starts = [
            start
            for start, window in zip(model.start, problem.windows, strict=True)
            if window.start == cut.start
        ]
        less = []
        for (group, site), count in cut.counts.items():
            fewer = model.cp.new_bool_var(f"cut {number} {group}@{site}")
            model.cp.add(model.at[group, site] < count).only_enforce_if(fewer)
            less.append(fewer)
        for start in starts:
            model.cp.add_bool_or(*less, ~start)


def _cost(model: Model, problem: Problem, slot: int) -> Any:
    hours = problem.windows[slot].duration / timedelta(hours=1)
    cost: Any = 0
    for site in problem.sites:
        tariff = site.offers[slot].tariff
        for group in problem.groups:
            price = round(tariff.workspace_hour(group.need) * hours * COST_SCALE)
            cost += price * model.at[group.name, site.name]
    for (one, two), mbit_s in model.traffic.items():
        rate = _link_hour(problem, one, slot) + _link_hour(problem, two, slot)
        cost += round(2 * rate * hours * COST_SCALE) * mbit_s
    return cost


def _link_hour(problem: Problem, site: str, slot: int) -> float:
    """Each site charges for both of its halves."""
    return problem.site(site).offers[slot].tariff.link_mbit_s_hour


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
    sites = []
    for site in problem.sites:
        counts = _above_zero({g.name: value(model.at[g.name, site.name]) for g in problem.groups})
        if not counts:
            continue
        offer = site.offers[slot]
        traffic = sum(value(v) for pair, v in model.traffic.items() if site.name in pair)
        cost = hours * (
            2 * traffic * offer.tariff.link_mbit_s_hour
            + sum(
                n * offer.tariff.workspace_hour(problem.group(name).need)
                for name, n in counts.items()
            )
        )
        packing = tuple(
            _above_zero({g.name: value(model.on[g.name, site.name, k]) for g in problem.groups})
            for k in range(len(offer.hosts))
        )
        sites.append(SitePlan(site=site.name, counts=counts, packing=packing, cost=cost))
    plan = Plan(
        window=window,
        sites=tuple(sites),
        images={
            group.name: _digest(problem.site(each.site), group)
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
                        latency=_latency(problem.site(one.site), problem.site(two.site)),
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


def _hosts(site: Site) -> int:
    return max(len(offer.hosts) for offer in site.offers)


def _digest(site: Site, group: GroupNeed) -> str:
    found = site.images.get(group.image)
    return found.digest if found else ""


def _site_pairs(problem: Problem) -> list[tuple[Site, Site]]:
    return list(combinations(sorted(problem.sites, key=lambda site: site.name), 2))


def _halves(one: Site, two: Site, slot: int) -> tuple[LinkRoom, LinkRoom] | None:
    there = one.offers[slot].links.get(two.name)
    back = two.offers[slot].links.get(one.name)
    return (there, back) if there is not None and back is not None else None


def _linked(one: Site, two: Site) -> bool:
    return all(_halves(one, two, slot) is not None for slot in range(len(one.offers)))


def _latency(one: Site, two: Site) -> timedelta:
    """The longer of what the two ends declare."""
    halves = _halves(one, two, 0)
    return max(half.latency for half in halves) if halves else timedelta()


def _least_half(one: Site, two: Site, slot: int) -> int:
    halves = _halves(one, two, slot)
    if halves is None:
        return 0
    there, back = halves
    least = min(there.egress_mbit_s, there.ingress_mbit_s, back.egress_mbit_s, back.ingress_mbit_s)
    return max(least, 0)
