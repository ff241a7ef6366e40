"""What a plan must keep, for CP-SAT: counts per group and host, and the start. One function a
rule."""

from collections.abc import Callable
from typing import Any

from ortools.sat.python import cp_model

from intertie.common.quantities import DIMENSIONS
from intertie.common.spec import AffinityKind
from intertie.metasched.domain.budget_rules import BUDGET_RULES
from intertie.metasched.domain.candidates import hindrance
from intertie.metasched.domain.problem import GroupNeed, Problem, Site, content_at
from intertie.metasched.domain.route_rules import ROUTE_RULES
from intertie.metasched.domain.staging_rules import STAGING_RULES
from intertie.metasched.domain.variables import Model, Rule, product

_RULES: list[Callable[[Model, Problem], None]] = []


def _rule(function: Callable[[Model, Problem], None]) -> Callable[[Model, Problem], None]:
    """Adds a function to what a model is built from, in the order of this file."""
    _RULES.append(function)
    return function


def build(problem: Problem, relaxed: frozenset[Rule] = frozenset()) -> Model:
    """One function a rule, called in order; each reads as its docstring."""
    model = Model(cp=cp_model.CpModel(), relaxed=relaxed)
    _variables(model, problem)
    staging = STAGING_RULES if problem.items else ()
    for rule in (*_RULES, *ROUTE_RULES, *staging, *BUDGET_RULES):
        rule(model, problem)
    return model


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
            new = sum(model.on[*key, host] for host in range(_hosts(site)))
            model.cp.add(model.at[key] == new + problem.standing.get(key, 0))
            if key in problem.least:
                model.cp.add(model.at[key] >= problem.least[key])
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
                key = group.name, site.name
                model.cp.add(model.at[key] == problem.standing.get(key, 0))


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
        within = product(model, a_here, b_here, most)
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
    return product(model, variable, model.total[group.name], most)


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
def _keep_together(model: Model, problem: Problem) -> None:
    """All of the groups that are to be together are at one site."""
    for affinity in problem.of_kind(AffinityKind.TOGETHER):
        homes = []
        for site in problem.sites:
            home = model.cp.new_bool_var(f"{affinity.field} at {site.name}")
            for name in affinity.groups:
                model.cp.add_implication(model.present[name, site.name], home)
            homes.append(home)
        model.cp.add_at_most_one(homes)


@_rule
def _keep_apart(model: Model, problem: Problem) -> None:
    """Of groups that are to be apart, no two are at one site."""
    for affinity in problem.of_kind(AffinityKind.APART):
        for site in problem.sites:
            here = [model.present[name, site.name] for name in affinity.groups]
            model.cp.add_at_most_one(here)


@_rule
def _run_one_image_in_a_group(model: Model, problem: Problem) -> None:
    """All workspaces of a group run the same content, also where sites use one name for several."""
    for group in problem.groups:
        digests = sorted({d for site in problem.sites if (d := content_at(site, group))})
        if len(digests) < 2:
            continue
        chosen = {digest: model.cp.new_bool_var(f"{group.name} {digest}") for digest in digests}
        model.cp.add_exactly_one(chosen.values())
        for site in problem.sites:
            if digest := content_at(site, group):
                model.cp.add_implication(model.present[group.name, site.name], chosen[digest])


@_rule
def _leave_out_what_was_refused(model: Model, problem: Problem) -> None:
    """What a site refused at a start is not asked of it again there, nor is more."""
    for number, cut in enumerate(problem.cuts):
        if not all(key in model.at for key in cut.counts):
            continue
        starts = [
            start
            for start, window in zip(model.start, problem.windows, strict=True)
            if cut.holds_at(window.start)
        ]
        less = []
        for (group, site), count in cut.counts.items():
            fewer = model.cp.new_bool_var(f"cut {number} {group}@{site}")
            model.cp.add(model.at[group, site] < count).only_enforce_if(fewer)
            less.append(fewer)
        for start in starts:
            model.cp.add_bool_or(*less, ~start)


def _hosts(site: Site) -> int:
    return max(len(offer.hosts) for offer in site.offers)
