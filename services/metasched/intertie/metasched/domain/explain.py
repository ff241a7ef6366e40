"""Why a plan is as it is, and what was short where there is none."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

from intertie.common.budget import over_budget
from intertie.common.errors import Shortfall
from intertie.common.quantities import Vector
from intertie.common.values import replace
from intertie.metasched.domain.assemble import assembled
from intertie.metasched.domain.candidates import (
    allowed,
    hindrance,
    usable_sites,
    without_useless_sites,
)
from intertie.metasched.domain.cheapest import cheapest
from intertie.metasched.domain.packing import Packer, Packing
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import LARGEST_UNPLANNED, best_plan, model_size
from intertie.metasched.domain.problem import GroupNeed, Problem, Site
from intertie.metasched.domain.solver import solve
from intertie.metasched.domain.variables import Rule

_RELAXATIONS = (
    frozenset({Rule.LATENCY}),
    frozenset({Rule.LINKS}),
    frozenset({Rule.LINKS, Rule.LATENCY}),
    frozenset({Rule.HOSTS, Rule.LINKS, Rule.LATENCY}),
)
_NOUN = {
    "vcpus": "vCPU",
    "memory": "MiB of memory",
    "disk": "MiB of disk",
    "iops": "operations a second",
    "throughput": "MiB/s of disk",
    "uplink": "Mbit/s of uplink",
}


def explained(problem: Problem, plan: Plan) -> Plan:
    """The plan with its reasons, and with what was short where less than wanted was placed."""
    return replace(
        plan,
        reasons=tuple(_reasons(problem, plan)),
        shortfalls=tuple(_missing_extras(problem, plan)),
    )


def shortfalls(problem: Problem, *, effort: float = 2.0) -> tuple[Shortfall, ...]:
    """What is short, site by site, for a problem that has no plan.

    Each site is measured against everything of the cluster that may be there, then all sites
    together; links and latencies are told of where they alone stand in the way. Amounts
    available are the most that any candidate window has. Where there is a plan for more than the
    budget, that alone is told.
    """
    if problem.max_cost is not None:
        unbound = replace(problem, max_cost=None)
        least = cheapest(unbound, partial(best_plan, effort=effort))
        if least is not None:
            what = "the cheapest plan that was found"
            asked = least.expected()
            return (over_budget(least.cost, problem.max_cost, what=what, asked=asked),)
        problem = unbound
    found: list[Shortfall] = []
    for site in problem.sites:
        hindered = [
            each
            for group in problem.groups
            if allowed(group, site.name) and (each := hindrance(group, site)) is not None
        ]
        found += hindered
        found += _short_alone(problem, site, effort)
    if len(problem.sites) > 1:
        found += _short_together(problem)
    found += _short_between(problem, effort)
    for group in problem.groups:
        if not any(allowed(group, site.name) for site in problem.sites):
            found.append(
                Shortfall(
                    site=", ".join(group.allow_sites),
                    resource="policy",
                    group=group.name,
                    message=f"no known site may host {group.name}",
                )
            )
    if not found:
        found.append(
            Shortfall(
                site="",
                resource="policy",
                message="each site has room, but no plan was found that keeps all bounds on sites,"
                " spread, affinity, links, latency and cost at once; there are too many hosts to"
                " try them all"
                if _too_large(problem)
                else "each site has room, but no plan keeps all bounds on sites, spread, affinity,"
                " links, latency and cost at once",
            )
        )
    return tuple(dict.fromkeys(found))


def _short_alone(problem: Problem, site: Site, effort: float) -> tuple[Shortfall, ...]:
    groups = [group for group in problem.groups if hindrance(group, site) is None]
    if not groups:
        return ()
    wanted, free = _wanted(groups, [site]), _most_free(site)
    short = wanted.shortfall_from(free, site=site.name)
    if short:
        return tuple(_worded(each, f"{site.name} alone") for each in short)
    alone = replace(
        problem,
        sites=(site,),
        groups=tuple(replace(g, fewest=0, most=g.fewest, min_sites=0) for g in groups),
        promises=tuple(
            promise
            for promise in problem.promises
            if {promise.a, promise.b} <= {group.name for group in groups}
        ),
        limits=(),
        max_sites=0,
        affinities=(),
        cuts=(),
    )
    plan = solve(alone, effort=effort)
    fits = sum(plan.count(group.name) for group in groups) if plan else 0
    fewest = sum(group.fewest for group in groups)
    if fits >= fewest:
        return ()
    if alone.promises:
        unbound = solve(replace(alone, promises=()), effort=effort)
        if unbound and sum(unbound.count(group.name) for group in groups) >= fewest:
            return (_uplinks_too_narrow(site, fits, fewest),)
    return (
        Shortfall(
            site=site.name,
            resource="hosts",
            wanted=fewest,
            available=fits,
            message=f"{site.name} alone: its hosts take {fits} of {fewest} workspaces, though"
            " there is enough in total",
        ),
    )


def _uplinks_too_narrow(site: Site, fits: int, fewest: int) -> Shortfall:
    widest = max(
        (host.free.uplink_mbit_s for offer in site.offers for host in offer.hosts), default=0
    )
    return Shortfall(
        site=site.name,
        resource="uplink",
        wanted=0,
        available=widest,
        unit="Mbit/s",
        message=f"{site.name} alone: with the bandwidth promised between workspaces, its hosts"
        f" take {fits} of {fewest}; the widest uplink has {widest} Mbit/s free",
    )


def _short_together(problem: Problem) -> Iterator[Shortfall]:
    """Only where no way of dividing the cluster over the sites could help."""
    groups = [group for group in problem.groups if usable_sites(problem, group)]
    wanted = _wanted(groups, problem.sites)
    free = Vector()
    for site in problem.sites:
        free += _most_free(site)
    for each in wanted.shortfall_from(free, site=""):
        yield _worded(each, "all sites together")


def _short_between(problem: Problem, effort: float) -> tuple[Shortfall, ...]:
    """Links and latencies that keep a cluster from being divided, in the least bad division. None
    where the model would be too large to be solved for a plan, too."""
    problem = without_useless_sites(problem)
    if _too_large(problem):
        return ()
    for relaxed in _RELAXATIONS:
        plan = solve(problem, effort=effort, relaxed=relaxed)
        if plan is None:
            continue
        return tuple(
            each if each.resource == "latency" else _worded_link(each)
            for each in check(problem, plan)
            if each.resource in ("latency", "link_egress", "link_ingress")
        )
    return ()


def _too_large(problem: Problem) -> bool:
    """Of the sites that count in a plan, as in planner.best_plan."""
    return model_size(without_useless_sites(problem)) > LARGEST_UNPLANNED


def _wanted(groups: list[GroupNeed], sites: Sequence[Site]) -> Vector:
    """By the fewest that the owner would take of these groups; without promised pairs, which
    take uplink only where their ends are on different hosts. Where sites take differently for
    the same, by the least."""
    total = Vector()
    for group in groups:
        least = sites[0].takes(group)
        for site in sites[1:]:
            least = least.at_most(site.takes(group))
        total += least * group.fewest
    return total


def _most_free(site: Site) -> Vector:
    """In each dimension, the most that the hosts have together in any candidate window."""
    totals = []
    for offer in site.offers:
        total = Vector()
        for host in offer.hosts:
            total += host.free.at_least_zero()
        totals.append(dict(total.items()))
    return Vector(**{name: max(each[name] for each in totals) for name, _ in Vector().items()})


def _missing_extras(problem: Problem, plan: Plan) -> Iterator[Shortfall]:
    """Why no more of a group, where fewer than its most were placed."""
    for group in problem.groups:
        if plan.count(group.name) >= group.most:
            continue
        short = [
            _no_more_there(problem, plan, group, problem.site(name))
            for name in usable_sites(problem, group)
        ]
        yield from (each for each in short if each is not None)
        if None in short:
            more = replace(group, fewest=plan.count(group.name) + 1)
            others = tuple(more if each is group else each for each in problem.groups)
            yield from _short_between(replace(problem, groups=others), 1.0)


def _no_more_there(problem: Problem, plan: Plan, group: GroupNeed, site: Site) -> Shortfall | None:
    """What keeps one more of the group from the site's roomiest host; None if nothing does."""
    offer = site.offers[problem.windows.index(plan.window)]
    packing = next((each.packing for each in plan.sites if each.site == site.name), ())
    best: tuple[Shortfall, ...] | None = None
    for number, host in enumerate(offer.hosts):
        counts = packing[number] if number < len(packing) else {}
        free = host.free
        for name, count in counts.items():
            free -= site.takes(problem.group(name)) * count
        if not host.suits(group):
            continue
        short = site.takes(group).shortfall_from(free, site=site.name, group=group.name)
        if not short:
            return None
        if best is None or (len(short), -short[0].available) < (len(best), -best[0].available):
            best = short
    if not best:
        return None
    left = f"{best[0].available} {_NOUN[best[0].resource]}"
    return replace(
        best[0],
        message=f"{site.name} has {left} left on its roomiest host, one more {group.name}"
        f" needs {best[0].wanted}",
    )


def _reasons(problem: Problem, plan: Plan) -> Iterator[str]:
    yield from _fewer(problem, plan)
    yield from _why_these_sites(problem, plan)
    for site in problem.sites:
        if site.name not in plan.site_names:
            yield f"{site.name} is not used: {_why_not(problem, plan, site)}"
    delay = plan.window.start - problem.windows[0].start
    if delay > timedelta():
        yield f"it starts {delay} after the earliest start: before, it does not fit as a whole"
    for link in plan.links:
        if link.from_site < link.to_site and link.via:
            yield f"{link.from_site} and {link.to_site} reach one another by {', '.join(link.via)}"
        if link.from_site < link.to_site and link.mbit_s:
            yield (
                f"{link.from_site} and {link.to_site} exchange up to {link.mbit_s} Mbit/s each"
                f" way on {link.network}, as promised"
            )


def _fewer(problem: Problem, plan: Plan) -> Iterator[str]:
    """That it is not all that was wanted, first of all. Shortfalls say what of it was short."""
    for group in problem.groups:
        if (count := plan.count(group.name)) < group.most:
            yield (
                f"{count} {group.name} instead of {group.most}, as {group.fewest} or more will do"
            )


def _why_these_sites(problem: Problem, plan: Plan) -> Iterator[str]:
    for each in plan.sites:
        what = " and ".join(f"{count} {name}" for name, count in each.counts.items())
        if not what:
            continue  # it forwards what others send, which is said of them
        grounds = []
        for name in each.counts:
            group = problem.group(name)
            places = usable_sites(problem, group)
            if places == (each.site,):
                grounds.append(f"no other site may or can host {name}")
                continue
            if group.min_sites > 1:
                grounds.append(f"{name} is to be at {group.min_sites} sites or more")
            if group.max_per_site and each.counts[name] >= group.max_per_site:
                grounds.append(f"{group.max_per_site} {name} are to be at one site at most")
            grounds += (f"{of.said}, as asked" for of in problem.affinities if name in of.groups)
            for other in places:
                if other == each.site or other not in plan.site_names:
                    continue
                short = _no_more_there(problem, plan, group, problem.site(other))
                if short is not None:
                    left = f"{short.available} {_NOUN[short.resource]}"
                    grounds.append(f"{other} has {left} left, one {name} needs {short.wanted}")
        if not grounds:
            objective = "the fewest sites, then the least cost"
            if not problem.fewest_sites:
                objective = "the least cost"
            grounds.append("it holds all" if len(plan.sites) == 1 else objective)
        yield f"{each.site} takes {what}: {'; '.join(dict.fromkeys(grounds))}"


def _why_not(problem: Problem, plan: Plan, site: Site) -> str:
    against = [each for group in problem.groups if (each := hindrance(group, site)) is not None]
    if len(against) == len(problem.groups):
        return str(against[0])
    groups = [group for group in problem.groups if hindrance(group, site) is None]
    short = _wanted(groups, [site]).shortfall_from(_most_free(site), site=site.name)
    if short:
        return f"alone it has {short[0].available} of {short[0].wanted} {_NOUN[short[0].resource]}"
    cost = _cost_alone(problem, plan, site) if not against and len(plan.sites) == 1 else None
    if cost is not None:
        return f"it would cost {cost:.4g}, not {plan.cost:.4g}"
    return "others serve the request with fewer sites, earlier or at less cost"


def _cost_alone(problem: Problem, plan: Plan, site: Site) -> float | None:
    """Of all that is planned, at that site instead; None where it was not seen to fit. No model is
    solved for that: there may be many sites."""
    if any(site.name == place for cut in problem.cuts for _, place in cut.counts):
        return None
    alone, slot = replace(problem, sites=(site,)), problem.windows.index(plan.window)
    counts = {group.name: plan.count(group.name) for group in problem.groups}
    packer = Packer(alone, slot, counts)
    packing: Packing | None = packer.empty(site)
    for name, count in counts.items():
        packing = packer.with_more(site, packing, name, count) if packing is not None else None
    return assembled(alone, slot, {site.name: packing.counts}, {}).cost if packing else None


def _worded(short: Shortfall, place: str) -> Shortfall:
    missing = short.wanted - short.available
    noun = _NOUN[short.resource]
    return replace(
        short,
        message=f"{place}: {short.wanted} {noun} wanted, {short.available} free, {missing} short",
    )


def _worded_link(short: Shortfall) -> Shortfall:
    if not short.unit:
        return short
    way = "to" if short.resource == "link_egress" else "from"
    missing = short.wanted - short.available
    return replace(
        short,
        message=f"link of {short.site} {way} {short.peer}: {short.wanted} Mbit/s wanted,"
        f" {short.available} free, {missing} short",
    )
