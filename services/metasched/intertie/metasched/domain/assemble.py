"""A plan of what a search has found: how many where, on which hosts, and by which routes."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from intertie.metasched.domain.costs import room_made_at, site_hour
from intertie.metasched.domain.plan import LinkPlan, Plan
from intertie.metasched.domain.problem import Problem, data_at, digest_at
from intertie.metasched.domain.routes import Pair, Route, hops, pair_of, route_latency
from intertie.metasched.domain.site_plan import SitePlan

Counts = Mapping[str, int]
"""By group; only what is above 0."""


def assembled(
    problem: Problem,
    slot: int,
    packings: Mapping[str, Sequence[Counts]],
    routes: Mapping[Pair, Route],
    *,
    counts: Mapping[str, Counts] | None = None,
    optimal: bool = False,
    bound: float | None = None,
) -> Plan:
    """The plan with these workspaces on the hosts of each site, and with the routes between sites
    that are not their own links. `counts` are those at each site where some of them are not on a
    host of the offer."""
    if counts is None:
        counts = {site: _total(hosts) for site, hosts in packings.items()}
    counts = {site: here for site, here in counts.items() if here}
    links = _links_between(problem, counts, routes)
    traffic = _traffic_of(links)
    totals = dict.fromkeys((group.name for group in problem.groups), 0)
    totals |= _total(list(counts.values()))
    hours = problem.windows[slot].duration / timedelta(hours=1)
    sites = tuple(
        SitePlan(
            site=site.name,
            counts=here,
            packing=tuple(packings.get(site.name, ())),
            cost=hours * site_hour(problem, site, slot, here, totals, traffic.get(site.name, 0)),
            room=(room := room_made_at(problem, site, slot, here)) and room.times(hours),
        )
        for site in problem.sites
        if site.name in counts or site.name in traffic
        for here in (counts.get(site.name, {}),)
    )
    cost = sum(each.cost for each in sites)
    return Plan(
        window=problem.windows[slot],
        sites=sites,
        links=links,
        images={
            group.name: digest_at(problem.site(each.site), group)
            for group in problem.groups
            for each in sites
            if group.name in each.counts
        },
        data={
            group.name: data_at(problem.site(each.site), group)
            for group in problem.groups
            if group.data
            for each in sites
            if group.name in each.counts
        },
        cost=cost,
        optimal=optimal,
        bound=cost if optimal else bound,
    )


def _links_between(
    problem: Problem, counts: Mapping[str, Counts], routes: Mapping[Pair, Route]
) -> tuple[LinkPlan, ...]:
    """What is promised between all sites with these counts, each direction; and each route over
    others, were nothing promised on it."""
    links: list[LinkPlan] = []
    for one, here in counts.items():
        for two, there in counts.items():
            if one == two:
                continue
            route = _from(one, routes.get(pair_of(one, two), (one, two)))
            mbit_s = _promised(problem, here, there)
            if len(route) > 2:
                mbit_s = dict.fromkeys(_networks(problem, here, there), 0) | mbit_s
            links += (
                LinkPlan(
                    from_site=one,
                    to_site=two,
                    network=network,
                    mbit_s=amount,
                    latency=route_latency(problem, route),
                    via=route[1:-1],
                )
                for network, amount in mbit_s.items()
            )
    return tuple(links)


def _promised(problem: Problem, here: Counts, there: Counts) -> dict[str, int]:
    """Mbit/s by network."""
    mbit_s: dict[str, int] = {}
    for promise in problem.promises:
        pairs = here.get(promise.a, 0) * there.get(promise.b, 0)
        if promise.a != promise.b:
            pairs += there.get(promise.a, 0) * here.get(promise.b, 0)
        if pairs:
            mbit_s[promise.network] = mbit_s.get(promise.network, 0) + pairs * promise.mbit_s
    return mbit_s


def _networks(problem: Problem, here: Counts, there: Counts) -> tuple[str, ...]:
    """That both have workspaces on."""
    ours, theirs = (
        [net for group in problem.groups if group.name in counts for net in group.networks]
        for counts in (here, there)
    )
    return tuple(net for net in dict.fromkeys(ours) if net in theirs)


def _from(one: str, route: Route) -> Route:
    return route if route[0] == one else route[::-1]


def _traffic_of(links: Sequence[LinkPlan]) -> dict[str, int]:
    """Mbit/s each way that each site has on all of its links."""
    traffic: dict[str, int] = {}
    for link in links:
        if link.from_site < link.to_site:
            for ends in hops(link.route):
                for site in ends:
                    traffic[site] = traffic.get(site, 0) + link.mbit_s
    return traffic


def _total(hosts: Sequence[Counts]) -> dict[str, int]:
    total: dict[str, int] = {}
    for host in hosts:
        for group, count in host.items():
            total[group] = total.get(group, 0) + count
    return total
