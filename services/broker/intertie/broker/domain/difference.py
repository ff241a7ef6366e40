"""What other terms of a part take beyond those that it has, and on which hosts.

Workspaces that stay keep their hosts; only what is new of them is looked for. What is given up
counts until hosts have obeyed, see `demands.demands_of`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from itertools import pairwise

from intertie.broker.domain.amounts import (
    host_key,
    larger,
    shortfall_of,
    takes_by_workspace,
    with_room_for_memory,
)
from intertie.broker.domain.board import Room
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_vector
from intertie.broker.domain.link_room import no_link
from intertie.broker.domain.part import Part, Standing
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.placement import place
from intertie.broker.domain.stretches import GIVEN_UP_WITHIN
from intertie.broker.domain.terms import Shed
from intertie.common.actions import Switched
from intertie.common.calendar import Calendar, Demand
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.quantities import DIMENSIONS, Vector
from intertie.common.values import Struct, replace


class Found(Struct, frozen=True, kw_only=True):
    part: Part
    """With the other terms in force."""
    takes_more: bool
    """Of anything at any moment to come."""


class Difference:
    def __init__(self, part: Part, view: LedgerView, policy: Policy, now: datetime) -> None:
        self._part = part
        self._policy = policy
        self._now = now
        self._calendar = calendar_of(view, policy)
        self._counted = demands_of(part, policy.admission)
        self._alive = {facts.host: facts for facts in view.fleet.alive(now=now)}

    def __call__(self, spec: PartSpec, gateway: str = "") -> Found:
        """The part with these terms, or NoCapacity with what is not there. `gateway`: where it
        has none yet."""
        part = replace(self._part, gateway=self._part.gateway or gateway)
        fixed = _hosts_of_those_there(part, spec)
        staying = tuple(
            Placed(workspace=each.label, host=fixed[each.label])
            for each in spec.workspaces
            if each.label in fixed
        )
        placed = staying
        if len(staying) < len(spec.workspaces):
            rooms = self._rooms(with_terms(part, spec, staying), spec.window)
            placed = place(self._roomy(spec), rooms, site=self._policy.site, fixed=fixed)
        by = None if part.keeping is None else self._now + GIVEN_UP_WITHIN
        after = with_terms(part, spec, placed, given_up_by=by)
        more = tuple(
            more_of(self._counted, demands_of(after, self._policy.admission), since=self._now)
        )
        short = dict.fromkeys(each for demand in more for each in self._short(demand))
        short |= dict.fromkeys(
            no_link(self._policy.site, each.peer)
            for each in spec.links
            if self._policy.link(each.peer) is None
        )
        if short:
            raise NoCapacity(tuple(short))
        return Found(part=after, takes_more=any(demand.amounts for demand in more))

    def _roomy(self, spec: PartSpec) -> PartSpec:
        """With room for the memory of those that may be put aside."""
        keeping = self._part.keeping
        if keeping is None or not keeping.has_room:
            return spec
        return with_room_for_memory(spec, keeping.mib_s)

    def _rooms(self, staying: Part, window: Window) -> dict[str, Room]:
        """Hosts as those that stay leave them, over all of the time to come."""
        spans = more_of(self._counted, demands_of(staying, self._policy.admission), since=self._now)
        # Before the window there are only transfers, which take nothing of hosts.
        during = (each for each in spans if each.window.intersect(window) is not None)
        more = tuple(during) or (Demand("", window, {}),)
        return {
            host: Room(facts=facts, free=free)
            for host, facts in self._alive.items()
            for free in (
                least(
                    free_vector(self._calendar, facts, self._policy, demand.window)
                    - at_host(host, demand)
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


def with_terms(
    part: Part,
    spec: PartSpec,
    placed: tuple[Placed, ...],
    *,
    given_up_by: datetime | None = None,
) -> Part:
    """The part once other terms are in force: those that were count beside them, as far as that
    makes a difference. `given_up_by`: see `Shed.until`."""
    before = Shed(
        spec=part.spec,
        placed=part.placed,
        gateway=part.gateway,
        generation=part.generation + 1,
        until=given_up_by,
    )
    there = {each.label for each in spec.workspaces}
    shed = (*part.shed, *_with_what_is_left(part), before)
    after = replace(
        part,
        left=(),
        spec=spec,
        placed=placed,
        terms=part.terms + 1,
        switched=tuple(_switched(part, there)),
        snapshots=tuple(each for each in part.snapshots if each.workspace in there),
        unmoved=tuple(each for each in part.unmoved if each[0] in there),
    )
    return replace(after, shed=_making_a_difference(shed, after))


def _switched(part: Part, there: Set[str]) -> Iterator[tuple[str, Switched]]:
    """Of one that is given up, how often it was to start anew: should it come back before its host
    has obeyed, its guest was never away, and a smaller number would start it once more."""
    for label, how in part.switched:
        if label in there:
            yield label, how
        elif how.boots:
            yield label, Switched(boots=how.boots)


def _with_what_is_left(part: Part) -> Iterator[Shed]:
    """What migrations have left counts by the terms that were, all of it until the last host of it
    has obeyed: there is one more of them, however many workspaces have moved."""
    if part.left:
        at = hosts_of(part.placed) | {each.workspace: each.host for each in part.left}
        yield Shed(
            spec=part.spec,
            placed=tuple(replace(each, host=at[each.workspace]) for each in part.placed),
            gateway=part.gateway,
            generation=max(each.generation for each in part.left),
        )


def _making_a_difference(shed: tuple[Shed, ...], after: Part) -> tuple[Shed, ...]:
    """Without those that take nothing, at any moment, that is not counted for at least as long for
    what is in force or for others of them."""
    kept = list(shed)
    for each in shed:
        others = [of for of in kept if of is not each]
        beside: list[Standing] = [after] if after.window.end >= each.ends else []
        beside += [of for of in others if of.generation >= each.generation and of.ends >= each.ends]
        most = larger(map(takes_by_workspace, beside))
        if all(amount <= most.get(key, 0) for key, amount in takes_by_workspace(each).items()):
            kept = others
    return tuple(kept)


def more_of(
    before: Sequence[Demand], after: Sequence[Demand], *, since: datetime
) -> Iterator[Demand]:
    """What is taken beyond what was, over each span of the time to come in which neither changes;
    of nothing where it is no more. Both begin when their part does."""
    begin = max(since, *(each.window.start for each in after[:1]))
    moments = {at for each in (*before, *after) for at in (each.window.start, each.window.end)}
    for start, end in pairwise((begin, *sorted(at for at in moments if at > begin))):
        window = Window(start, end)
        had, has = _during(before, window), _during(after, window)
        more = {key: amount - had.get(key, 0) for key, amount in has.items()}
        yield Demand("", window, {key: amount for key, amount in more.items() if amount > 0})


def _during(demands: Sequence[Demand], window: Window) -> Mapping[str, int]:
    """Of one part there is one at a time."""
    return next((each.amounts for each in demands if each.window.contains(window.start)), {})


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


def at_host(host: str, demand: Demand) -> Vector:
    return Vector(**{each: demand.amounts.get(host_key(host, each), 0) for each in DIMENSIONS})


def least(vectors: Iterator[Vector]) -> Vector:
    """Of one at least."""
    found = next(vectors)
    for each in vectors:
        found = found.at_most(each)
    return found


def shortfalls_of(site: str, calendar: Calendar, more: Iterable[Demand]) -> tuple[Shortfall, ...]:
    """What of it is not there, each once."""
    return tuple(
        dict.fromkeys(
            shortfall_of(site, resource, wanted, available)
            for demand in more
            for resource, wanted, available in calendar.shortfalls(demand)
        )
    )
