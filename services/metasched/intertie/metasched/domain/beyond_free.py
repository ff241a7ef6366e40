"""What plans cost others: at which of their sites leases that wait would be put aside for them."""

from collections.abc import Sequence

from intertie.common.errors import Shortfall
from intertie.common.quantities import Vector
from intertie.common.values import replace
from intertie.metasched.domain.aside import where_it_was
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Problem, Site, over

_LINKS = frozenset({"link_egress", "link_ingress"})


def beyond_free(
    problem: Problem, free: Problem, plans: Sequence[Plan], *, effort: float = 2.0
) -> tuple[tuple[Shortfall, ...], ...]:
    """What each plan takes beyond what is free, site by site; empty where nobody gives way.

    `problem` has what sites offer before others, `free` what they have free, in the plans' windows
    and at all of their sites. A site binds itself to counts, not to hosts, so others give way only
    where its counts fit on no hosts of it as they are: each is asked about by itself, as if all
    the others' room were made.
    """
    return tuple(_beyond(problem, free, plan, effort) for plan in plans)


def _beyond(problem: Problem, free: Problem, plan: Plan, effort: float) -> tuple[Shortfall, ...]:
    broken = check(free, plan)
    if not broken:
        return ()
    before = _at_its_sites(problem, plan)
    after = {each.name: each for each in _at_its_sites(free, plan).sites}
    found: list[Shortfall] = []
    for name in plan.site_names:
        sites = tuple(after[name] if each.name == name else each for each in before.sites)
        if best_plan(replace(before, sites=sites), effort=effort) is None:
            links = tuple(each for each in broken if each.site == name and each.resource in _LINKS)
            found += (*_short(free, plan, name), *links) or (_in_pieces(name),)
    return tuple(found)


def _at_its_sites(problem: Problem, plan: Plan) -> Problem:
    """Whether the plan's counts fit, on whichever hosts."""
    bound = (
        replace(each, max_per_host=plan.most_on_host(each.name, each.max_per_host))
        for each in problem.groups
    )
    sites = tuple(each for each in problem.sites if each.name in plan.site_names)
    pinned = replace(problem, groups=tuple(bound), sites=sites, cuts=())
    window = over(pinned, [problem.windows.index(plan.window)])
    return where_it_was(window, plan, kept=False)


def _short(free: Problem, plan: Plan, name: str) -> tuple[Shortfall, ...]:
    """Of the site as a whole."""
    site, counts = free.site(name), next(e.counts for e in plan.sites if e.site == name)
    wanted = Vector()
    for group, count in counts.items():
        wanted += site.takes(free.group(group)) * count
    return wanted.shortfall_from(_free_at(site, free.windows.index(plan.window)), site=name)


def _free_at(site: Site, slot: int) -> Vector:
    total = Vector()
    for host in site.offers[slot].hosts:
        total += host.free.at_least_zero()
    return total


def _in_pieces(site: str) -> Shortfall:
    said = f"{site} has enough free in all, and too little on any one host"
    return Shortfall(site=site, resource="hosts", message=said)
