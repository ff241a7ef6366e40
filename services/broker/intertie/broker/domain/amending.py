"""A cluster of this site that stands gets other terms: its difference is placed, no more.

Workspaces that stay keep their hosts and addresses; only what is new of them is looked for. What is
given up counts until hosts have obeyed, see `ledger.demands_of`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from intertie.broker.domain.board import Room
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import (
    LedgerView,
    calendar_of,
    demands_of,
    free_vector,
    host_key,
    larger,
    takes_by_workspace,
    with_site_caps,
)
from intertie.broker.domain.part import Part, Placed, Shed
from intertie.broker.domain.placement import place
from intertie.broker.domain.planning import (
    as_many_as_fit,
    cost_of,
    elsewhere,
    part_spec_of,
    why_not_more,
)
from intertie.broker.domain.quotas import quota_shortfall
from intertie.broker.domain.refusing import check_window
from intertie.broker.domain.usage import charged_until
from intertie.common.amend_rules import amended, window_of
from intertie.common.calendar import Demand
from intertie.common.errors import ClusterOver, LeaseEnding, NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.layout import Numbers, number_in
from intertie.common.names import ClusterName
from intertie.common.part_spec import PartSpec
from intertie.common.quantities import DIMENSIONS, RESOURCE_OF, UNIT_OF, Vector
from intertie.common.spec import ClusterSpec, Group
from intertie.common.values import Struct, replace

LAST_MINUTES = timedelta(minutes=2)
"""Before its end in which a lease gets no more."""


class Amendment(Struct, frozen=True, kw_only=True):
    record: ClusterRecord
    part: Part
    takes_more: bool
    """Of anything at any moment to come."""


class _Found(Struct, frozen=True, kw_only=True):
    part: Part
    takes_more: bool


def check_open(record: ClusterRecord, *, now: datetime) -> None:
    """ClusterOver where there is nothing left to change."""
    if record.over or record.end_requested_time is not None or now >= record.window.end:
        raise ClusterOver(record.name)


def amend(
    record: ClusterRecord,
    part: Part,
    asked: ClusterSpec,
    paths: Sequence[str],
    view: LedgerView,
    policy: Policy,
    *,
    now: datetime,
) -> Amendment | None:
    """The cluster and its part with new terms; None where they are those in force.

    FieldInvalid for what may not be asked for, NoCapacity for what is not there, LeaseEnding where
    it is too late for more. A group whose range was changed gets as many as fit; of others, none
    comes or goes.
    """
    spec = amended(record.spec, asked, paths, record.window, now=now)
    if spec == record.spec:
        return None
    if shortfall := elsewhere(spec, policy.site):
        raise NoCapacity((shortfall,))
    if (window := window_of(spec.lease, record.window)).end > record.window.end:
        check_window(window, policy, ClusterName.parse(record.name).tenant, now=now)
    at = _Attempts(record, part, spec, view, policy, now)
    had = dict(record.counts)
    kept = {
        old.name: had[old.name] if _range(old) == _range(new) else _within(new, had[old.name])
        for old, new in zip(record.spec.groups, spec.groups, strict=True)
    }
    bounds = replace(
        spec,
        groups=tuple(
            replace(new, count=had[new.name]) if _range(old) == _range(new) else new
            for old, new in zip(record.spec.groups, spec.groups, strict=True)
        ),
    )
    counts, found, short = as_many_as_fit(bounds, kept, at(kept), at)
    if found.takes_more and record.window.end - now < LAST_MINUTES:
        raise LeaseEnding(record.name, record.window.end.isoformat(timespec="seconds"))
    after = replace(
        record,
        spec=spec,
        window=found.part.window,
        counts=tuple(counts.items()),
        cost=record.cost + _rest(found.part.spec, policy, now) - _rest(part.spec, policy, now),
        reasons=(f"{policy.site} has room for all of it", *why_not_more(spec, counts)),
        shortfalls=short,
        terms=record.terms + 1,
    )
    account = view.accounts.get(part.name)
    charged = charged_until(part, account.value if account else None, now=now)
    return Amendment(
        record=after, part=replace(found.part, charged=charged), takes_more=found.takes_more
    )


def _range(group: Group) -> tuple[int, int]:
    return group.fewest, group.most


def _within(group: Group, count: int) -> int:
    return min(max(count, group.fewest), group.most)


def _rest(spec: PartSpec, policy: Policy, now: datetime) -> float:
    """What the terms cost from now on."""
    window = Window(max(spec.window.start, now), spec.window.end)
    return cost_of(replace(spec, window=window), policy)


class _Attempts:
    """What the part would be with so many workspaces of each group."""

    def __init__(
        self,
        record: ClusterRecord,
        part: Part,
        spec: ClusterSpec,
        view: LedgerView,
        policy: Policy,
        now: datetime,
    ) -> None:
        self._name = ClusterName.parse(record.name)
        self._part = part
        self._spec = _as_placed(part, record.spec, spec, policy)
        self._window = window_of(spec.lease, record.window)
        self._numbers = _numbers(part)
        self._view = view
        self._policy = policy
        self._now = now
        self._calendar = calendar_of(view, policy)
        self._counted = demands_of(part, policy.admission)
        self._alive = {facts.host: facts for facts in view.fleet.alive(now=now)}

    def __call__(self, counts: Mapping[str, int]) -> _Found:
        part, site = self._part, self._policy.site
        spec = part_spec_of(
            self._name,
            part.spec.cluster_uid,
            self._spec,
            counts,
            self._window,
            site,
            self._numbers,
        )
        fixed = _hosts_of_those_there(part, spec)
        staying = tuple(
            Placed(workspace=each.label, host=fixed[each.label])
            for each in spec.workspaces
            if each.label in fixed
        )
        placed = staying
        if len(staying) < len(spec.workspaces):
            rooms = self._rooms(with_terms(part, spec, staying))
            placed = place(spec, rooms, site=site, fixed=fixed)
        after = with_terms(part, spec, placed)
        more = tuple(
            more_of(self._counted, demands_of(after, self._policy.admission), since=self._now)
        )
        if short := tuple(dict.fromkeys(each for demand in more for each in self._short(demand))):
            raise NoCapacity(short)
        return _Found(part=after, takes_more=any(demand.amounts for demand in more))

    def _rooms(self, staying: Part) -> dict[str, Room]:
        """Hosts as those that stay leave them, over all of the time to come."""
        spans = more_of(self._counted, demands_of(staying, self._policy.admission), since=self._now)
        more = tuple(each for each in spans if each.window.start < self._window.end)
        return {
            host: Room(facts=facts, free=free)
            for host, facts in self._alive.items()
            for free in (
                _least(
                    free_vector(self._calendar, facts, self._policy, demand.window)
                    - _at_host(host, demand)
                    for demand in more
                ),
            )
        }

    def _short(self, demand: Demand) -> Iterator[Shortfall]:
        """What of it is not there. A host that is silent gets nothing more, of time neither."""
        site = self._policy.site
        for resource in demand.amounts:
            match resource.split("/"):
                case ["host", host, _] if host not in self._alive:
                    yield Shortfall(
                        site=site,
                        resource="hosts",
                        host=host,
                        message=f"{site}: {host} is silent, and gets nothing more until it reports",
                    )
        for resource, wanted, available in self._calendar.shortfalls(demand):
            yield shortfall_of(site, resource, wanted, available)


def with_terms(part: Part, spec: PartSpec, placed: tuple[Placed, ...]) -> Part:
    """The part once other terms are in force: those that were count beside them, as far as that
    makes a difference."""
    before = Shed(
        spec=part.spec,
        placed=part.placed,
        gateway=part.gateway,
        generation=part.generation + 1,
    )
    there = {each.label for each in spec.workspaces}
    after = replace(
        part,
        spec=spec,
        placed=placed,
        terms=part.terms + 1,
        switched=tuple(each for each in part.switched if each[0] in there),
    )
    return replace(after, shed=_making_a_difference((*part.shed, before), after))


def _making_a_difference(shed: tuple[Shed, ...], after: Part) -> tuple[Shed, ...]:
    """Without those that take nothing, at any moment, that is not counted for at least as long for
    what is in force or for others of them."""
    kept = list(shed)
    for each in shed:
        ends, others = each.spec.window.end, [of for of in kept if of is not each]
        beside: list[Part | Shed] = [after]
        beside += [of for of in others if of.generation >= each.generation]
        most = larger(takes_by_workspace(of) for of in beside if of.spec.window.end >= ends)
        if all(amount <= most.get(key, 0) for key, amount in takes_by_workspace(each).items()):
            kept = others
    return tuple(kept)


def more_of(
    before: Sequence[Demand], after: Sequence[Demand], *, since: datetime
) -> Iterator[Demand]:
    """What is taken beyond what was, over each span of the time to come in which neither changes;
    of nothing where it is no more. Both begin when their part does."""
    begin = max(since, *(each.window.start for each in after[:1]))
    ends = {each.window.end for each in (*before, *after) if each.window.end > begin}
    for end in sorted(ends):
        window = Window(begin, end)
        had, has = _during(before, window), _during(after, window)
        more = {key: amount - had.get(key, 0) for key, amount in has.items()}
        yield Demand("", window, {key: amount for key, amount in more.items() if amount > 0})
        begin = end


def _during(demands: Sequence[Demand], window: Window) -> Mapping[str, int]:
    """Of one part there is one at a time."""
    return next((each.amounts for each in demands if each.window.contains(window.start)), {})


def _as_placed(part: Part, standing: ClusterSpec, spec: ClusterSpec, policy: Policy) -> ClusterSpec:
    """With images and caps as the part has them: neither an image that has got another digest nor
    a default that the operator has changed is any of an amend's business."""
    there = {each.group: each for each in part.spec.workspaces}

    def group(old: Group, new: Group) -> Group:
        known = there[new.name]
        same = old.allocation == new.allocation
        allocation = known.allocation if same else with_site_caps(new.allocation, policy)
        return replace(new, environment=known.environment, allocation=allocation)

    groups = zip(standing.groups, spec.groups, strict=True)
    return replace(spec, groups=tuple(group(old, new) for old, new in groups))


def _numbers(part: Part) -> Numbers:
    """Who has which address, those included that hosts have not taken away yet."""
    found: dict[str, dict[str, int]] = {}
    for spec in (*(each.spec for each in part.shed), part.spec):
        for network in spec.networks:
            known = found.setdefault(network.name, {})
            for member in network.members:
                known[member.workspace] = number_in(network.subnet, member.address)
    return found


def _hosts_of_those_there(part: Part, spec: PartSpec) -> dict[str, str]:
    """Of the workspaces that stay. One that comes back before its host has taken it away does so
    there and nowhere else: there are never two of it."""
    there = {
        each.workspace: each.host
        for placed in (*(shed.placed for shed in part.shed), part.placed)
        for each in placed
    }
    labels = (each.label for each in spec.workspaces)
    return {label: there[label] for label in labels if label in there}


def _at_host(host: str, demand: Demand) -> Vector:
    return Vector(**{each: demand.amounts.get(host_key(host, each), 0) for each in DIMENSIONS})


def _least(vectors: Iterator[Vector]) -> Vector:
    """Of one at least."""
    least = next(vectors)
    for each in vectors:
        least = least.at_most(each)
    return least


def shortfall_of(site: str, resource: str, wanted: int, available: int) -> Shortfall:
    """`wanted`: beyond what there is already."""
    match resource.split("/"):
        case ["host", host, dimension]:
            return Shortfall(
                site=site,
                host=host,
                resource=RESOURCE_OF[dimension],
                wanted=wanted,
                available=available,
                unit=UNIT_OF[dimension],
            )
        case ["tenant", tenant, dimension]:
            return quota_shortfall(site, tenant, dimension, wanted, available)
        case [_, peer, direction]:
            return Shortfall(
                site=site,
                peer=peer,
                resource=f"link_{direction}",
                wanted=wanted,
                available=available,
                unit="Mbit/s",
            )
    raise ValueError(resource)
