"""A cluster over several sites that stands gets other terms: which, where, and who is to be asked.

Workspaces that stay keep their site, their addresses and their names; a group loses its highest
indices. One that comes back does so at the site where it was: it may not be gone from there, and
elsewhere there could be two of it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.amend_rules import window_of
from intertie.common.budget import above, over_budget
from intertie.common.errors import ClusterOver, FieldInvalid, NoCapacity
from intertie.common.intervals import Window
from intertie.common.layout import Layout, Numbers, layout, number_in
from intertie.common.names import PartName, workspace_label
from intertie.common.part_rules import within
from intertie.common.part_spec import PartSpec, with_further_disks
from intertie.common.spec import ClusterSpec, Group
from intertie.common.values import replace
from intertie.metasched.domain.bringing import brought_as
from intertie.metasched.domain.bringing_beside import with_coming
from intertie.metasched.domain.cluster import LIVE, Amend, ClusterRecord
from intertie.metasched.domain.commit import TxRecord, tx_of
from intertie.metasched.domain.data import TransferPlan
from intertie.metasched.domain.parts import digest_of, disks_in, part_specs, said
from intertie.metasched.domain.plan import LinkPlan, Plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.routes import hops
from intertie.metasched.domain.site_plan import SitePlan

DECIDED_BEFORE = timedelta(seconds=60)
"""The end of the old window: a site that hears of a longer one later finds its guests gone."""


def check_open(record: ClusterRecord, *, now: datetime) -> None:
    """ClusterOver where there is nothing left to change."""
    over = record.over or record.end_requested_time is not None
    if over or now >= record.window.end or record.state not in LIVE:
        raise ClusterOver(record.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What is there and stays, and how many there are to be."""

    standing: Mapping[tuple[str, str], int]
    """By (group, site)."""
    least: Mapping[tuple[str, str], int]
    """With those that come back."""
    base: Mapping[str, int]
    """Of each group, how many indices there are at least: up to the highest of those that stay."""
    bounds: Mapping[str, tuple[int, int]]
    """How many of each group there may be in the end."""

    @property
    def possible(self) -> bool:
        """Whether there may be more than stand."""
        stand = Counter[str]()
        for (group, _), count in self.standing.items():
            stand[group] += count
        return any(most > stand[group] for group, (_, most) in self.bounds.items())


def growth_of(record: ClusterRecord, spec: ClusterSpec) -> Growth:
    """A range gets as many as fit where it was changed; of other groups none comes or goes. Those
    that may come back where they were are no more than have to."""
    had, homes = record.counts(), record.plan.site_of()
    standing: dict[tuple[str, str], int] = {}
    least: dict[tuple[str, str], int] = {}
    base: dict[str, int] = {}
    bounds: dict[str, tuple[int, int]] = {}
    for old, new in zip(record.spec.groups, spec.groups, strict=True):
        name, count = new.name, had[new.name]
        fewest = most = count
        if (old.fewest, old.most) != (new.fewest, new.most):
            fewest, most = min(max(count, new.fewest), new.most), new.most
        base[name] = min(count, fewest)
        for index in range(base[name]):
            key = name, homes[workspace_label(name, index)]
            standing[key] = least[key] = standing.get(key, 0) + 1
        back = base[name]
        while back < most and (home := homes.get(workspace_label(name, back))) is not None:
            if back >= fewest:
                most = back
                break
            least[name, home] = least.get((name, home), 0) + 1
            back += 1
        bounds[name] = fewest, most
    return Growth(standing=standing, least=least, base=base, bounds=bounds)


def to_plan(spec: ClusterSpec, growth: Growth, plan: Plan) -> ClusterSpec:
    """What a planner is asked for, where this plan is in force: counts as they may be in the end,
    images and data sets by digest, and no more on one host than are now."""

    def group(each: Group) -> Group:
        fewest, most = growth.bounds[each.name]
        image = plan.images.get(each.name, each.environment.image)
        on_host = plan.most_on_host(each.name, each.placement.max_per_host)
        return replace(
            each,
            count=0,
            min_count=fewest,
            max_count=most,
            environment=replace(each.environment, image=image),
            placement=replace(each.placement, max_per_host=on_host),
        )

    has = {each.name: disks_in(plan, spec, each.name) for each in spec.groups}
    return replace(with_further_disks(spec, has), groups=tuple(map(group, spec.groups)))


def beside_standing(
    problem: Problem, record: ClusterRecord, growth: Growth, *, now: datetime
) -> Problem:
    """The problem with what there is or is on its way, and with what is left of its budget."""
    reserved: dict[frozenset[str], int] = {}
    for link in record.plan.links:
        if link.from_site < link.to_site:
            for key in map(frozenset, hops(link.route)):
                reserved[key] = reserved.get(key, 0) + link.mbit_s
    max_cost = problem.max_cost
    if max_cost is not None:
        max_cost -= _so_far(record, now) + _room_kept(record, problem.windows[-1].end, now)
    return replace(
        with_coming(problem, record.plan.transfers, now=now),
        standing=growth.standing,
        least=growth.least,
        reserved=reserved,
        max_cost=max_cost,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A cluster with other terms, as it would be; and what each site is told."""

    spec: ClusterSpec
    plan: Plan
    parts: Mapping[str, str]
    numbers: Numbers
    specs: Mapping[str, PartSpec]
    digest: str
    takes_more: bool
    """At any site: all of them are to be asked."""

    def amend(self, tx: str, *, request_key: str = "", now: datetime) -> Amend:
        """As it is on record while sites are asked for it."""
        return Amend(
            tx=tx,
            spec=self.spec,
            plan=self.plan,
            parts=self.parts,
            numbers=self.numbers,
            request_key=request_key,
            begin_time=now,
        )

    def transaction(
        self, record: ClusterRecord, tx: str, *, coordinator: str, within: timedelta, now: datetime
    ) -> TxRecord:
        """For which the sites of the cluster are asked for it."""
        return tx_of(
            record,
            tx,
            self.digest,
            coordinator=coordinator,
            decide_by=min(now + within, record.window.end - DECIDED_BEFORE),
            now=now,
            until=max(record.window.end, self.plan.window.end),
            parts=self.parts,
            replaces=record.terms,
        )


def target_of(
    record: ClusterRecord,
    spec: ClusterSpec,
    growth: Growth,
    grown: Plan | None,
    tx: str,
    *,
    now: datetime,
    lost: frozenset[str] = frozenset(),
) -> Target:
    """With the planner's answer, where it was asked. FieldInvalid where a group would be left at
    fewer sites than it is to be at; NoCapacity where it would cost more than its budget.

    `lost`: sites that have no part any more, nor will have."""
    window = window_of(spec.lease, record.window)
    homes = _homes(record, growth, grown, lost)
    counts = {
        group.name: grown.count(group.name) if grown else growth.base[group.name]
        for group in spec.groups
    }
    stay = {site: part for site, part in record.parts.items() if site not in lost}
    sites = _site_plans(stay, record, spec, counts, homes, grown)
    _check_spread(spec, sites)
    before = record.layout()
    numbers = _numbers(record, before)
    placed = layout(record.uid, spec, counts, homes, record.path.cluster_id, numbers)
    parts = dict(stay)
    for each in sites:
        parts.setdefault(each.site, str(PartName(each.site, record.path.tenant, tx)))
    plan = replace(
        record.plan,
        window=window,
        sites=sites,
        links=_links(record, placed, homes, grown),
        images={**(grown.images if grown else {}), **record.plan.images},
        data={**(grown.data if grown else {}), **record.plan.data},
        cost=_cost(record, window, grown, now),
        optimal=record.plan.optimal if grown is None else grown.optimal,
        bound=None,
        transfers=_transfers(record, grown),
        reasons=_reasons(record, sites, grown),
        shortfalls=grown.shortfalls if grown else (),
        homes=homes,
    )
    if spec.placement.max_cost and above(plan.cost, spec.placement.max_cost):
        raise NoCapacity((over_budget(plan.cost, spec.placement.max_cost),))
    specs = part_specs(record.name, record.uid, spec, plan, placed)
    old = part_specs(record.name, record.uid, record.spec, record.plan, before)
    return Target(
        spec=spec,
        plan=plan,
        parts=parts,
        numbers=_numbers(replace(record, numbers=numbers), placed),
        specs=specs,
        digest=digest_of(
            {"replaces": record.terms, "sites": {site: said(each) for site, each in specs.items()}}
        ),
        takes_more=any(site not in old or not within(specs[site], old[site]) for site in specs),
    )


def _homes(
    record: ClusterRecord, growth: Growth, grown: Plan | None, lost: frozenset[str]
) -> dict[str, str]:
    """Of all that ever were, but those at lost sites, with those that are new: the lowest indices
    at the first of the sites that get more."""
    homes = {label: site for label, site in record.plan.site_of().items() if site not in lost}
    if grown is None:
        return homes
    for group, base in growth.base.items():
        left = {each.site: each.counts.get(group, 0) for each in grown.sites}
        new = []
        for index in range(grown.count(group)):
            label = workspace_label(group, index)
            if label in homes:
                left[homes[label]] -= 1
            else:
                new.append(label)
        takers = [site for site, count in sorted(left.items()) for _ in range(count)]
        homes |= dict(zip(new, takers, strict=True))
        assert base <= grown.count(group)
    return homes


def _site_plans(
    parts: Iterable[str],
    record: ClusterRecord,
    spec: ClusterSpec,
    counts: Mapping[str, int],
    homes: Mapping[str, str],
    grown: Plan | None,
) -> tuple[SitePlan, ...]:
    """A site that has nothing left keeps its part, empty, until the cluster ends; one that only
    forwards has one like it."""
    at: dict[str, dict[str, int]] = {site: {} for site in parts}
    at |= {site: {} for site in (grown.site_names if grown else ()) if site not in at}
    for group in spec.groups:
        for index in range(counts[group.name]):
            of_site = at.setdefault(homes[workspace_label(group.name, index)], {})
            of_site[group.name] = of_site.get(group.name, 0) + 1
    known = {each.site: each for each in record.plan.sites}
    return tuple(
        replace(known.get(site, SitePlan(site=site, counts={})), counts=found, packing=())
        for site, found in sorted(at.items())
    )


def _transfers(record: ClusterRecord, grown: Plan | None) -> tuple[TransferPlan, ...]:
    """What earlier terms have agreed on stands, and what is brought for these comes beside it, or
    in the place of what did not come."""
    new = grown.transfers if grown else ()
    again = {(each.item, each.to_site) for each in new}
    stand = (each for each in record.plan.transfers if (each.item, each.to_site) not in again)
    return (*stand, *new)


def _check_spread(spec: ClusterSpec, sites: tuple[SitePlan, ...]) -> None:
    for position, group in enumerate(spec.groups):
        spread = sum(bool(each.counts.get(group.name)) for each in sites)
        if spread < group.placement.min_sites:
            raise FieldInvalid(
                f"spec.groups[{position}].count",
                f"leaves {group.name} at {spread} sites, and it is to be at "
                f"{group.placement.min_sites} or more; ask for more",
            )


def _numbers(record: ClusterRecord, placed: Layout) -> Numbers:
    """Who has which address, for ever: of a name nobody else gets it."""
    found = {network: dict(known) for network, known in record.numbers.items()}
    for network in record.spec.networks:
        known = found.setdefault(network.name, {})
        for member in placed.members[network.name]:
            known[member.workspace] = number_in(network.subnet, member.address)
    return found


def _links(
    record: ClusterRecord, placed: Layout, homes: Mapping[str, str], grown: Plan | None
) -> tuple[LinkPlan, ...]:
    """What promised pairs need between their sites, each direction."""
    known = (*record.plan.links, *(grown.links if grown else ()))
    way = {(each.from_site, each.to_site): each for each in known}
    needed: dict[tuple[str, str, str], int] = {}
    for network, pairs in placed.pairs.items():
        for pair in pairs:
            one, two = homes[pair.a], homes[pair.b]
            mbit_s = pair.bandwidth.guarantee_mbit_s
            if one != two and mbit_s:
                for key in ((one, two, network), (two, one, network)):
                    needed[key] = needed.get(key, 0) + mbit_s
    return tuple(
        LinkPlan(
            from_site=one,
            to_site=two,
            network=network,
            mbit_s=mbit_s,
            latency=way[one, two].latency if (one, two) in way else timedelta(),
            via=way[one, two].via if (one, two) in way else (),
        )
        for (one, two, network), mbit_s in sorted(needed.items())
    )


def _cost(record: ClusterRecord, window: Window, grown: Plan | None, now: datetime) -> float:
    """So far by the terms that were in force; from now on by those that were planned, or, where
    nobody was asked for his tariff, as before."""
    so_far, old = _so_far(record, now), record.window
    if grown is not None:
        return so_far + grown.cost + _room_kept(record, window.end, now)
    begin = min(max(now, old.start), old.end)
    return so_far + _of_window(record) * ((window.end - begin) / old.duration)


def _so_far(record: ClusterRecord, now: datetime) -> float:
    """And what is sent, which has windows of its own and stays as it was agreed."""
    old = record.window
    ran = min(max(now, old.start), old.end) - old.start
    return _sent(record) + _of_window(record) * (ran / old.duration)


def _of_window(record: ClusterRecord) -> float:
    return max(record.plan.cost - _sent(record), 0.0)


def _sent(record: ClusterRecord) -> float:
    return sum(each.cost for each in record.plan.transfers)


def _room_kept(record: ClusterRecord, end: datetime, now: datetime) -> float:
    """What its sites will ask on for room that others have made for it, to the end that was agreed
    on or an earlier one. They ask less where it gets smaller."""
    total = 0.0
    for each in record.price:
        if each.site not in record.parts:
            continue  # it was left, and asks for nothing any more
        left = min(each.window.end, end) - max(each.window.start, now)
        if each.room is not None and left > timedelta():
            total += each.room.amount * (left / each.window.duration)
    return total


def _reasons(
    record: ClusterRecord, sites: tuple[SitePlan, ...], grown: Plan | None
) -> tuple[str, ...]:
    before = {each.site: each.counts for each in record.plan.sites}
    found = []
    for each in sites:
        had = before.get(each.site, {})
        for group in sorted({*had, *each.counts}):
            was, has = had.get(group, 0), each.counts.get(group, 0)
            if was != has:
                found.append(f"{each.site} has {has} {group}, {was} before")
    found += (brought_as(each, each.item) for each in (grown.transfers if grown else ()))
    return tuple(found) or ("every workspace stays where it is",)
