"""The planner's answer, and a check of it that knows nothing of how it was found."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations, pairwise, product, zip_longest
from typing import TypeVar

from intertie.common.errors import Shortfall
from intertie.common.intervals import Window
from intertie.common.names import workspace_label
from intertie.common.price import PriceTerm
from intertie.common.quantities import Vector
from intertie.common.spec import AffinityKind
from intertie.common.values import replace
from intertie.metasched.domain.data import TransferPlan
from intertie.metasched.domain.price_check import broken_budget
from intertie.metasched.domain.problem import Offer, Problem, Promise
from intertie.metasched.domain.site_plan import SitePlan
from intertie.metasched.domain.transfer_check import broken_transfers

H = TypeVar("H")

LEAST_COST = 1e-6
"""What is less is no difference in price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPlan:
    """Bandwidth from one site to another, one direction, for one network."""

    from_site: str
    to_site: str
    network: str
    mbit_s: int
    """0 where nothing is promised, but the way goes over others."""
    latency: timedelta
    """Over the whole way."""
    via: tuple[str, ...] = ()
    """The sites that forward it, from the first; none where it takes their own link."""

    @property
    def route(self) -> tuple[str, ...]:
        return (self.from_site, *self.via, self.to_site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    window: Window
    sites: tuple[SitePlan, ...]
    """By name; only those that get something, or had something before an amend. One that forwards
    what others send one another, and gets no workspace, is among them without counts."""
    links: tuple[LinkPlan, ...] = ()
    transfers: tuple[TransferPlan, ...] = ()
    """What is brought to sites before it starts, in the order in which it begins."""
    images: Mapping[str, str]
    """Group to digest."""
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Group to digests of its data sets, in their order in the request."""
    cost: float = 0.0
    optimal: bool = True
    bound: float | None = None
    """No plan of as many workspaces that starts then, and is at as few sites, costs less. None
    where nothing is known."""
    reasons: tuple[str, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()
    homes: Mapping[str, str] = field(default_factory=dict)
    """Site of every workspace that ever was, by label, from the first amend on: who comes back does
    so where it was, for it may not be gone from there. Empty: as `site_of` finds."""
    promised: Window | None = None
    """Of a lease with a deadline: room after its window in which it goes on at the latest if a site
    puts it aside. None: none may."""
    max_per_host: Mapping[str, int] = field(default_factory=dict)
    """By group: no more are on one host, whatever the request allows. Without what is not in it."""

    @property
    def gap(self) -> float | None:
        """How much of its cost there is above the bound, at most."""
        if self.bound is None:
            return None
        return max(self.cost - self.bound, 0.0) / self.cost if self.cost > 0 else 0.0

    def count(self, group: str, site: str = "") -> int:
        """Workspaces of the group at the site; everywhere, without one."""
        return sum(
            each.counts.get(group, 0) for each in self.sites if not site or each.site == site
        )

    @property
    def taken(self) -> int:
        """Sites with workspaces."""
        return sum(any(each.counts.values()) for each in self.sites)

    def has_workspaces(self, site: str) -> bool:
        """It may only send something, or forward what others send."""
        return any(each.site == site and any(each.counts.values()) for each in self.sites)

    def most_on_host(self, group: str, asked: int) -> int:
        """Of the group on one host, where the request bounds it by `asked`; 0: no bound."""
        most = self.max_per_host.get(group, 0)
        return min(asked, most) if asked and most else asked or most

    def at_prices(self, agreed: Mapping[str, Sequence[PriceTerm]]) -> "Plan":
        """At what the sites have agreed, instead of what they had offered."""
        sites = tuple(each.at_prices(agreed.get(each.site, ())) for each in self.sites)
        return replace(self, sites=sites, cost=sum(each.cost for each in sites))

    def expected(self) -> tuple[PriceTerm, ...]:
        """What the sites will ask, by their offers."""
        return tuple(each.expected(self.window) for each in self.sites)

    @property
    def site_names(self) -> tuple[str, ...]:
        return tuple(each.site for each in self.sites)

    def site_of(self) -> dict[str, str]:
        """Where each workspace is: the lowest indices of a group at the first of its sites, unless
        it has its home already."""
        if self.homes:
            return dict(self.homes)
        where: dict[str, str] = {}
        given: Counter[str] = Counter()
        for each in self.sites:
            for group, count in each.counts.items():
                for index in range(given[group], given[group] + count):
                    where[workspace_label(group, index)] = each.site
                given[group] += count
        return where


def placed_as_well(plan: Plan, other: Plan) -> bool:
    """Whether its owner would be as well off by the first: in the same window, with as many of each
    group, at no more sites, for no more."""
    groups = {name for each in other.sites for name in each.counts}
    return (
        plan.window == other.window
        and all(plan.count(name) >= other.count(name) for name in groups)
        and plan.taken <= other.taken
        and plan.cost <= other.cost + LEAST_COST
    )


def check(problem: Problem, plan: Plan) -> tuple[Shortfall, ...]:
    """Everything in which a plan breaks a rule of its problem; empty for a sound plan.

    Counts workspace by workspace and pair by pair, and shares no code with the model:
    it is run before anything is held.
    """
    return tuple(_breaks(problem, plan))


def is_sound(problem: Problem, plan: Plan) -> bool:
    """Whether the check finds nothing: it ends at the first thing that it does."""
    return next(_breaks(problem, plan), None) is None


def _breaks(problem: Problem, plan: Plan) -> Iterator[Shortfall]:
    if plan.window not in problem.windows:
        yield _broken("", "policy", f"{plan.window} is no candidate")
        return
    slot = problem.windows.index(plan.window)
    offers = {site.name: site.offers[slot] for site in problem.sites}
    unknown = [name for name in plan.site_names if name not in offers]
    if unknown:
        yield from (_broken(name, "policy", f"{name} offers nothing") for name in unknown)
        return
    yield from _counts_are_in_range(problem, plan)
    yield from _groups_are_where_they_may_be(problem, plan)
    yield from _affinities_are_kept(problem, plan)
    yield from _images_are_there(plan, problem, offers)
    yield from _hosts_have_room(problem, plan, offers)
    yield from _routes_lead_there(problem, plan, offers)
    yield from _links_have_room(problem, plan, offers)
    yield from _latencies_are_kept(problem, plan, offers)
    yield from _refusals_are_heeded(problem, plan)
    yield from broken_budget(
        problem,
        slot,
        {each.site: each.counts for each in plan.sites},
        [(link.route, link.mbit_s) for link in plan.links],
        transfers=sum(each.cost for each in plan.transfers),
        said=plan.cost,
    )
    yield from broken_transfers(
        problem,
        plan.transfers,
        start=plan.window.start,
        there={
            each.site: frozenset(name for name, count in each.counts.items() if count)
            for each in plan.sites
        },
    )


def _broken(
    site: str, resource: str, message: str, *, group: str = "", peer: str = ""
) -> Shortfall:
    return Shortfall(site=site, resource=resource, message=message, group=group, peer=peer)


def _counts_are_in_range(problem: Problem, plan: Plan) -> Iterator[Shortfall]:
    for (name, site), least in (*problem.standing.items(), *problem.least.items()):
        if plan.count(name, site) < least:
            yield _broken(site, "policy", f"{name} does not stay there", group=name)
    for group in problem.groups:
        total = plan.count(group.name)
        if not group.fewest <= total <= group.most:
            yield _broken("", "policy", f"{total} of {group.name}", group=group.name)


def _groups_are_where_they_may_be(problem: Problem, plan: Plan) -> Iterator[Shortfall]:
    for group in problem.groups:
        homes = [each.site for each in plan.sites if each.counts.get(group.name, 0) > 0]
        for home in homes:
            if (group.allow_sites and home not in group.allow_sites) or home in group.deny_sites:
                yield _broken(home, "policy", f"{group.name} may not be there", group=group.name)
            if group.max_per_site and plan.count(group.name, home) > group.max_per_site:
                yield _broken(home, "policy", f"too many of {group.name}", group=group.name)
        if len(homes) < group.min_sites:
            yield _broken("", "policy", f"{group.name} at too few sites", group=group.name)
    taken = [each.site for each in plan.sites if any(each.counts.values())]
    for site, times in Counter(plan.site_names).items():
        if times > 1:  # each would be measured against all that is free there
            yield _broken(site, "policy", f"{times} parts at one site")
    if problem.max_sites and len(taken) > problem.max_sites:
        yield _broken("", "policy", f"{len(taken)} sites")


def _affinities_are_kept(problem: Problem, plan: Plan) -> Iterator[Shortfall]:
    for affinity in problem.affinities:
        at = [
            (each.site, name)
            for each in plan.sites
            for name in affinity.groups
            if each.counts.get(name, 0) > 0
        ]
        sites = Counter(site for site, _ in at)
        if affinity.kind is AffinityKind.TOGETHER and len(sites) > 1:
            yield _broken(", ".join(sites), "policy", f"{affinity.said}, and not at several")
        for site, groups in sites.items():
            if affinity.kind is AffinityKind.APART and groups > 1:
                yield _broken(site, "policy", f"{affinity.said}, and not {groups} of them at one")


def _images_are_there(
    plan: Plan, problem: Problem, offers: Mapping[str, Offer]
) -> Iterator[Shortfall]:
    for each in plan.sites:
        for name, count in each.counts.items():
            group = problem.group(name)
            found = offers[each.site].images.get(group.image)
            if count <= problem.standing.get((name, each.site), 0):
                continue
            if count and (found is None or found.digest != plan.images.get(name)):
                yield _broken(each.site, "image", f"not the image of {name}", group=name)
            elif count and any(
                (data := offers[each.site].images.get(image)) is None or data.digest != digest
                for image, digest in zip_longest(group.data, plan.data.get(name, ()))
            ):
                yield _broken(each.site, "image", f"not the data sets of {name}", group=name)
            elif count and found is not None and found.virtual_mib > group.need.disk_mib:
                yield _broken(each.site, "disk", f"disk below the image of {name}", group=name)


def _hosts_have_room(
    problem: Problem, plan: Plan, offers: Mapping[str, Offer]
) -> Iterator[Shortfall]:
    leaving = _pairs_leaving_hosts(problem, plan)
    for each in plan.sites:
        hosts = offers[each.site].hosts
        placed: Counter[str] = Counter()
        if len(each.packing) > len(hosts):
            yield _broken(each.site, "hosts", "packed on hosts that are not offered")
            continue
        for number, counts in enumerate(each.packing):
            used = Vector(uplink_mbit_s=leaving[each.site, number])
            for name, count in counts.items():
                group = problem.group(name)
                placed[name] += count
                for _ in range(count):
                    used += problem.site(each.site).takes(group)
                if count and not hosts[number].suits(group):
                    yield _broken(each.site, "hosts", f"{name} on an unfit host", group=name)
                most = plan.most_on_host(name, group.max_per_host)
                if most and count > most:
                    yield _broken(each.site, "hosts", f"too many of {name} on one host")
            yield from used.shortfall_from(hosts[number].free, site=each.site)
        new = {
            name: more
            for name, count in each.counts.items()
            if (more := count - problem.standing.get((name, each.site), 0))
        }
        if {name: count for name, count in placed.items() if count} != new:
            yield _broken(each.site, "hosts", "packing and counts differ")


def _pairs_leaving_hosts(problem: Problem, plan: Plan) -> Counter[tuple[str, int]]:
    """Mbit/s that promised pairs take of each host's uplink, by site and host, pair by pair:
    only where the two ends are on different hosts."""
    homes: dict[str, list[tuple[str, int]]] = {group.name: [] for group in problem.groups}
    for each in plan.sites:
        for number, counts in enumerate(each.packing):
            for name, count in counts.items():
                homes[name].extend([(each.site, number)] * count)
    taken: Counter[tuple[str, int]] = Counter()
    for promise, one, two in _pairs_of(problem, homes):
        if one != two:
            taken[one] += promise.mbit_s
            taken[two] += promise.mbit_s
    return taken


def _promised_pairs(problem: Problem, plan: Plan) -> Iterator[tuple[Promise, str, str]]:
    """The promise and the two sites of each promised pair of workspaces, one by one."""
    homes: dict[str, list[str]] = {group.name: [] for group in problem.groups}
    for each in plan.sites:
        for name, count in each.counts.items():
            homes[name].extend([each.site] * count)
    return _pairs_of(problem, homes)


def _pairs_of(problem: Problem, homes: Mapping[str, Sequence[H]]) -> Iterator[tuple[Promise, H, H]]:
    """The same of homes of any kind: by group, one for each workspace."""
    for promise in problem.promises:
        if promise.a == promise.b:
            pairs: Iterator[tuple[H, H]] = combinations(homes[promise.a], 2)
        else:
            pairs = product(homes[promise.a], homes[promise.b])
        for one, two in pairs:
            yield promise, one, two


def _route(plan: Plan, one: str, two: str) -> tuple[str, ...]:
    """How one gets to the other: by their own link, if nothing else is said."""
    for link in plan.links:
        if (link.from_site, link.to_site) == (one, two):
            return link.route
    return one, two


def _routes_lead_there(
    problem: Problem, plan: Plan, offers: Mapping[str, Offer]
) -> Iterator[Shortfall]:
    for link in plan.links:
        one, two, route = link.from_site, link.to_site, link.route
        if route != _route(plan, one, two) or route != _route(plan, two, one)[::-1]:
            yield _broken(one, "link_egress", f"two routes between {one} and {two}", peer=two)
        if len(set(route)) < len(route):
            yield _broken(one, "link_egress", f"{' '.join(route)} goes in a circle", peer=two)
        for site in link.via:
            if site not in offers or not problem.site(site).forwards:
                yield _broken(site, "policy", f"{site} forwards nothing")
            if site not in plan.site_names:
                yield _broken(site, "policy", f"{site} is not asked to forward")
        far = _far(offers, route)
        if link.via and far is not None and far != link.latency:
            yield _broken(one, "latency", f"{one} and {two} are {_ms(far)} apart", peer=two)
    pairs = {(link.from_site, link.to_site) for link in plan.links}
    for one, two in (*_sites_that_share_a_network(problem, plan), *sorted(pairs)):
        for here, there in pairwise(_route(plan, one, two)):
            if not _is_link(offers, here, there):
                yield _broken(here, "link_egress", f"no link from {here} to {there}", peer=there)


def _is_link(offers: Mapping[str, Offer], one: str, two: str) -> bool:
    """Both are there and know it."""
    return one in offers and two in offers and two in offers[one].links and one in offers[two].links


def _far(offers: Mapping[str, Offer], route: Sequence[str]) -> timedelta | None:
    """One way over the route, link by link as the slower end declares it; None where one is
    missing."""
    far = timedelta()
    for one, two in pairwise(route):
        if not _is_link(offers, one, two):
            return None
        far += max(offers[one].links[two].latency, offers[two].links[one].latency)
    return far


def _links_have_room(
    problem: Problem, plan: Plan, offers: Mapping[str, Offer]
) -> Iterator[Shortfall]:
    needed: Counter[tuple[str, str, str]] = Counter()
    sent: Counter[tuple[str, str]] = Counter()
    largest: dict[tuple[str, str], Promise] = {}
    for promise, one, two in _promised_pairs(problem, plan):
        if one == two:
            continue
        for begin, end in ((one, two), (two, one)):
            needed[begin, end, promise.network] += promise.mbit_s
            for link in pairwise(_route(plan, begin, end)):
                sent[link] += promise.mbit_s
                before = largest.setdefault(link, promise)
                largest[link] = max(before, promise, key=lambda each: each.mbit_s)
    planned: Counter[tuple[str, str, str]] = Counter()
    for each in plan.links:
        if each.mbit_s or not each.via:
            planned[each.from_site, each.to_site, each.network] += each.mbit_s
    if dict(planned) != dict(needed):
        yield _broken("", "link_egress", "planned links and promised pairs differ")
    for (one, two), mbit_s in sent.items():
        if not _is_link(offers, one, two):
            continue  # told of as a missing link
        wanted = mbit_s - problem.reserved.get(frozenset((one, two)), 0)
        for site, peer, resource, free in (
            (one, two, "link_egress", offers[one].links[two].egress_mbit_s),
            (two, one, "link_ingress", offers[two].links[one].ingress_mbit_s),
        ):
            if wanted > free:
                yield Shortfall(
                    site=site,
                    resource=resource,
                    peer=peer,
                    wanted=wanted,
                    available=max(free, 0),
                    unit="Mbit/s",
                    group=largest[one, two].a,
                    field=largest[one, two].field,
                )


def _sites_that_share_a_network(problem: Problem, plan: Plan) -> Iterator[tuple[str, str]]:
    """Ordered pairs of sites that have workspaces on one and the same network."""
    nets = {
        each.site: {
            net for name, n in each.counts.items() if n for net in problem.group(name).networks
        }
        for each in plan.sites
    }
    for one in nets:
        for two in nets:
            if one != two and nets[one] & nets[two]:
                yield one, two


def _latencies_are_kept(
    problem: Problem, plan: Plan, offers: Mapping[str, Offer]
) -> Iterator[Shortfall]:
    for limit in problem.limits:
        for one in plan.sites:
            for two in plan.sites:
                if one.site == two.site:
                    continue
                if not (one.counts.get(limit.a, 0) and two.counts.get(limit.b, 0)):
                    continue
                found = _far(offers, _route(plan, one.site, two.site))
                if found is not None and found > limit.most:  # a missing link is told of as such
                    yield Shortfall(
                        site=one.site,
                        peer=two.site,
                        resource="latency",
                        wanted=round(limit.most / timedelta(microseconds=1)),
                        available=round(found / timedelta(microseconds=1)),
                        unit="us",
                        group=limit.a,
                        field=limit.field,
                        message=f"{one.site} and {two.site} are {_ms(found)} apart;"
                        f" {limit.a} and {limit.b} must be within {_ms(limit.most)}",
                    )


def _refusals_are_heeded(problem: Problem, plan: Plan) -> Iterator[Shortfall]:
    for cut in problem.cuts:
        if cut.holds_at(plan.window.start) and all(
            plan.count(group, site) >= count for (group, site), count in cut.counts.items()
        ):
            sites = ", ".join(sorted({site for _, site in cut.counts}))
            yield _broken(sites, "policy", f"{sites} refused as much")


def _ms(span: timedelta) -> str:
    return f"{span / timedelta(milliseconds=1):g} ms"
