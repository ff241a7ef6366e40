"""What a plan must keep, for CP-SAT: counts per group and host, and the start. One function a
rule."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import combinations
from typing import Any

from ortools.sat.python import cp_model

from intertie.common.quantities import DIMENSIONS
from intertie.metasched.domain.candidates import hindrance
from intertie.metasched.domain.problem import (
    GroupNeed,
    Problem,
    Promise,
    Site,
    digest_at,
    latency,
    least_half,
    linked,
)


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
        digests = sorted({d for site in problem.sites if (d := digest_at(site, group))})
        if len(digests) < 2:
            continue
        chosen = {digest: model.cp.new_bool_var(f"{group.name} {digest}") for digest in digests}
        model.cp.add_exactly_one(chosen.values())
        for site in problem.sites:
            if digest := digest_at(site, group):
                model.cp.add_implication(model.present[group.name, site.name], chosen[digest])


@_rule
def _link_sites_that_share_a_network(model: Model, problem: Problem) -> None:
    """Two sites with workspaces on one network have a link to one another, known to both."""
    for one, two in _site_pairs(problem):
        if linked(one, two):
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
        free = sum(least_half(one, two, slot) * start for slot, start in enumerate(model.start))
        had = problem.reserved.get(frozenset(key), 0)
        model.cp.add(model.traffic[key] <= free + had + over)


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
                if one is two or not linked(one, two) or latency(one, two) <= limit.most:
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


def _site_pairs(problem: Problem) -> list[tuple[Site, Site]]:
    return list(combinations(sorted(problem.sites, key=lambda site: site.name), 2))
