"""What a plan must keep on the links between sites. One function a rule, as in model."""

from typing import Any

from intertie.metasched.domain.problem import Problem, Promise
from intertie.metasched.domain.routes import (
    Pair,
    hops,
    least_half,
    pair_of,
    route_latency,
    routes_of,
)
from intertie.metasched.domain.variables import Model, Rule, product


def _take_one_route(model: Model, problem: Problem) -> None:
    """What two sites send one another takes one route, all of it: their link, or links over sites
    that forward."""
    routes = routes_of(problem)
    model.all_routes = routes.complete
    for pair, of_pair in routes.of.items():
        if len(of_pair) < 2:
            model.taken[pair] = dict.fromkeys(of_pair, 1)
            continue
        model.taken[pair] = {
            route: model.cp.new_bool_var(f"over {' '.join(route)}") for route in of_pair
        }
        model.cp.add_exactly_one(model.taken[pair].values())


def _reach_sites_that_share_a_network(model: Model, problem: Problem) -> None:
    """Two sites with workspaces on one network have a route to one another."""
    for (one, two), routes in model.taken.items():
        if routes:
            continue
        for a in problem.groups:
            for b in problem.groups:
                if set(a.networks) & set(b.networks):
                    model.cp.add_bool_or(~model.present[a.name, one], ~model.present[b.name, two])


def _send_what_is_promised(model: Model, problem: Problem) -> None:
    """Two sites send one another what is promised between the workspaces of the one and those of
    the other, each way, over the route that they take."""
    most = _promised_at_most(problem)
    for pair, routes in model.taken.items():
        demand = sum(
            promise.mbit_s * _crossing(model, problem, promise, *pair)
            for promise in problem.promises
        )
        model.traffic[pair] = model.cp.new_int_var(0, most, f"{pair[0]}-{pair[1]}")
        model.cp.add(model.traffic[pair] == demand)
        if len(routes) < 2:
            # Without a route it is as if there were a link that nothing fits.
            model.flow[pair] = dict.fromkeys(routes or (pair,), model.traffic[pair])
            continue
        flows = {route: model.cp.new_int_var(0, most, "") for route in routes}
        for route, taken in routes.items():
            model.cp.add(flows[route] <= most * taken)
        model.cp.add(sum(flows.values()) == model.traffic[pair])
        model.flow[pair] = flows


def _never_overfill_a_link(model: Model, problem: Problem) -> None:
    """What goes over a link fits both of its halves, in both directions."""
    sites, most = {site.name: site for site in problem.sites}, _promised_at_most(problem)
    over_link: dict[Pair, list[Any]] = {}
    for flows in model.flow.values():
        for route, flow in flows.items():
            for link in hops(route):
                over_link.setdefault(link, []).append(flow)
    for link, flows_there in over_link.items():
        one, two = sites[link[0]], sites[link[1]]
        over: Any = 0
        if Rule.LINKS in model.relaxed:
            over = model.cp.new_int_var(0, most * len(flows_there), f"over {link[0]}-{link[1]}")
            model.excess.append(over)
        free = sum(least_half(one, two, slot) * start for slot, start in enumerate(model.start))
        had = problem.reserved.get(frozenset(link), 0)
        model.cp.add(sum(flows_there) <= free + had + over)


def _promised_at_most(problem: Problem) -> int:
    """Mbit/s each way, were all of every group there and no two at one site."""
    return sum(
        promise.mbit_s * problem.group(promise.a).most * problem.group(promise.b).most
        for promise in problem.promises
    )


def _crossing(model: Model, problem: Problem, promise: Promise, one: str, two: str) -> Any:
    """How many pairs of the promise have one end at each of the two sites."""
    most = problem.group(promise.a).most * problem.group(promise.b).most
    there = product(model, model.at[promise.a, one], model.at[promise.b, two], most)
    if promise.a == promise.b:
        return there
    return there + product(model, model.at[promise.a, two], model.at[promise.b, one], most)


def _keep_latency_bounds(model: Model, problem: Problem) -> None:
    """Two groups with a bound are not at two sites whose route is longer than the bound."""
    for limit in problem.limits:
        for one in problem.sites:
            for two in problem.sites:
                if one is two:
                    continue
                for route, taken in model.taken[pair_of(one.name, two.name)].items():
                    if route_latency(problem, route) <= limit.most:
                        continue
                    clauses = [
                        ~model.present[limit.a, one.name],
                        ~model.present[limit.b, two.name],
                    ]
                    if not isinstance(taken, int):
                        clauses.append(~taken)
                    if Rule.LATENCY in model.relaxed:
                        over = model.cp.new_bool_var(f"far {one.name}-{two.name}")
                        model.excess.append(over)
                        clauses.append(over)
                    model.cp.add_bool_or(*clauses)


ROUTE_RULES = (
    _take_one_route,
    _reach_sites_that_share_a_network,
    _send_what_is_promised,
    _never_overfill_a_link,
    _keep_latency_bounds,
)
