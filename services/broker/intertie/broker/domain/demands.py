"""What a part takes, moment by moment, as the ledger counts it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from intertie.broker.domain.admission_policy import ACCEPT_ALL, AdmissionPolicy
from intertie.broker.domain.amounts import (
    Takes,
    amounts_of,
    fixed_amounts,
    host_key,
    keyed,
    larger,
    pair_mbit_s,
    takes_by_workspace,
    with_room_for_memory,
)
from intertie.broker.domain.carrying import transfer_demands
from intertie.broker.domain.keeping import Keeping, Vacating
from intertie.broker.domain.overlay import beyond, demand_key, most_of, sum_of
from intertie.broker.domain.part import Part, Standing
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.quotas import counted_for
from intertie.broker.domain.terms import Amend, Shed
from intertie.common.calendar import Demand
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.values import replace


def demands_of(part: Part, admission: AdmissionPolicy = ACCEPT_ALL) -> tuple[Demand, ...]:
    """What a part takes, moment by moment: of each of its workspaces the largest of the terms in
    force, those that are held for it, and those that its hosts have not given up yet. What one
    workspace gives up is not there for another of the same part before its host has obeyed. What is
    sent counts in its own windows, also while it is only held.

    The first demand is named as the part is, each further one with its number.
    """
    demands = _of_its_terms(part, admission)
    transfers = part.spec.transfers
    if part.amend is not None and part.amend.spec.transfers != transfers:
        transfers = tuple(dict.fromkeys((*transfers, *part.amend.spec.transfers)))
    if transfers:
        sent = transfer_demands(part.name, transfers, part.path.site)
        return sum_of(part.name, sent, demands)
    return demands


def _of_its_terms(part: Part, admission: AdmissionPolicy) -> tuple[Demand, ...]:
    if part.keeping is not None:
        if part.vacating is not None:
            return _either_way(part, part.vacating, part.keeping, admission)
        taken = stretch_demands(part, part.keeping, admission)
        if part.amend is not None and part.amend.keeping is not None:
            taken = most_of(part.name, taken, _goes_on(part, part.amend, admission))
        if part.shed:
            taken = sum_of(part.name, taken, (*_given_up(part, part.keeping, admission),))
        return taken
    between = bool(part.moving or part.left)
    if not (part.shed or between) and part.amend is None:
        amounts = amounts_of(part.spec, hosts_of(part.placed), part.gateway)
        amounts |= _off_quotas(part, admission, amounts)
        return (Demand(part.name, part.window, amounts),)
    all_of: list[Standing] = [*part.shed]
    if part.amend is not None:
        all_of.append(part.amend)
    terms = [(each.spec.window.end, takes_by_workspace(each)) for each in all_of]
    own = part.window.end, takes_by_workspace(part)
    here = (part.window.end, _wherever(part, part.between())) if between else own
    demands: list[Demand] = []
    start = part.window.start
    for end in sorted({end for end, _ in (*terms, own)}):
        amounts = _most((*terms, here), end)
        # A tenant has no more while a workspace is between hosts.
        off = amounts if not between else _most((*terms, own), end)
        amounts |= _off_quotas(part, admission, off)
        demands.append(Demand(demand_key(part.name, len(demands)), Window(start, end), amounts))
        start = end
    return tuple(demands)


def _most(terms: Sequence[tuple[datetime, Takes]], end: datetime) -> dict[str, int]:
    """What the largest of those take that are in force until then."""
    amounts: dict[str, int] = {}
    for (_, key), amount in larger(takes for until, takes in terms if until >= end).items():
        amounts[key] = amounts.get(key, 0) + amount
    return amounts


def _wherever(part: Part, between: Iterable[Placed]) -> Takes:
    """Of a part with workspaces between hosts, what it takes whichever of them are where: each all
    of its own at each host where it may come to be; and what two are promised of each other the
    uplink of each host where one of them may be without the other, once."""
    at = {each.workspace: {each.host} for each in part.placed}
    for each in between:
        at[each.workspace].add(each.host)
    pairs = pair_mbit_s(part.spec)
    takes = {each: amount for each, amount in takes_by_workspace(part).items() if not each[0]}
    for workspace in part.spec.workspaces:
        label = workspace.label
        for host in at[label]:
            here = {host}
            amounts = keyed(host, fixed_amounts(workspace))
            for other, mbit_s in pairs[label].items():
                others = at.get(other, set())
                both = host in others and at[label] != here
                if others != here and not (both and other < label):
                    amounts[host_key(host, "uplink_mbit_s")] += mbit_s
            takes |= {(label, key): amount for key, amount in amounts.items() if amount}
    return takes


def stretch_demands(part: Part, keeping: Keeping, admission: AdmissionPolicy) -> tuple[Demand, ...]:
    """Of a part that its site may put aside: until its memory is in the pools, all of its terms,
    with the disk and the throughput that this takes, so that it never fails for want of either.
    Then its disks and that memory, until that or all of its terms are promised to it again."""
    host_of = hosts_of(part.placed)
    spec = with_room_for_memory(part.spec, keeping.mib_s) if keeping.has_room else part.spec
    amounts = amounts_of(spec, host_of, part.gateway)
    off = _off_quotas(part, admission, amounts)
    live = part.between(live=True)
    if live:
        takes = _wherever(replace(part, spec=spec), live)
        amounts = _most(((part.window.end, takes),), part.window.end)
    amounts |= off
    _add(amounts, between := _kept_at(part.between(live=False), spec))
    promised = keeping.promised
    if keeping.until is None and promised is None:
        return (Demand(part.name, part.window, amounts),)
    idle = promised.start if promised is not None else keeping.until
    assert idle is not None
    saved = part.window.end
    if keeping.until is not None:
        saved = min(saved + keeping.save, idle)
    demands = [Demand(part.name, Window(part.window.start, saved), amounts)]
    kept = _kept_at(part.placed, spec)
    kept |= _off_quotas(part, admission, kept)
    _add(kept, _kept_at(live, spec))
    _add(kept, between)
    for window, taken in (
        (Window(saved, idle) if saved < idle else None, kept),
        (promised, amounts),
    ):
        if window is not None:
            demands.append(Demand(demand_key(part.name, len(demands)), window, taken))
    return tuple(demands)


def _either_way(
    part: Part, vacating: Vacating, keeping: Keeping, admission: AdmissionPolicy
) -> tuple[Demand, ...]:
    """Of one that gives way by migration: as it counts if it is put aside, wherever its workspaces
    are by then, and as it does once they are there, unless that does not help it any more."""
    window = Window(part.window.start, vacating.by + vacating.late)
    aside = replace(
        part,
        spec=replace(part.spec, window=window),
        keeping=vacating.keeping or keeping,
        vacating=None,
    )
    demands = stretch_demands(aside, vacating.keeping or keeping, admission)
    if vacating.called_off or part.vacates_in_vain():
        return demands
    to = hosts_of(part.placed) | {each.workspace: each.host for each in part.moving}
    placed = tuple(replace(each, host=to[each.workspace]) for each in part.placed)
    there = replace(part, placed=placed, moving=(), vacating=None)
    return most_of(part.name, demands, stretch_demands(there, keeping, admission))


def _kept_at(places: Iterable[Placed], spec: PartSpec) -> dict[str, int]:
    disks = {each.label: each.disk_mib for each in spec.workspaces}
    found: dict[str, int] = {}
    for each in places:
        _add(found, {host_key(each.host, "disk_mib"): disks[each.workspace]})
    return found


def _add(amounts: dict[str, int], more: Mapping[str, int]) -> None:
    amounts.update((key, amounts.get(key, 0) + amount) for key, amount in more.items())


def _goes_on(part: Part, amend: Amend, admission: AdmissionPolicy) -> tuple[Demand, ...]:
    """What one that is put aside takes in the window that is held for it."""
    assert amend.keeping is not None
    after = replace(part, spec=amend.spec, placed=amend.placed, keeping=amend.keeping, amend=None)
    return stretch_demands(after, amend.keeping, admission)


def _given_up(part: Part, keeping: Keeping, admission: AdmissionPolicy) -> Iterator[Demand]:
    """What hosts of a part that its site may put aside may have beyond what is in force."""

    def takes(terms: Part | Shed) -> Takes:
        roomy = with_room_for_memory(terms.spec, keeping.mib_s) if keeping.has_room else terms.spec
        return takes_by_workspace(replace(terms, spec=roomy))

    has, start = takes(part), part.window.start
    had = [(each.ends, beyond(takes(each), has)) for each in part.shed]
    for end in sorted({until for until, _ in had if until > start}):
        amounts = _most(had, end)
        amounts |= _off_quotas(part, admission, amounts)
        yield Demand(part.name, Window(start, end), amounts)
        start = end


def _off_quotas(
    part: Part, admission: AdmissionPolicy, amounts: Mapping[str, int]
) -> Mapping[str, int]:
    """Of sites that accept all, which are most, not even the tenant is asked for."""
    if admission is ACCEPT_ALL:
        return {}
    return counted_for(part.path.tenant, admission, amounts)
