"""What parts take of the site's hosts and links, and what is free over a window.

All counting is the Calendar's. This module says only which resource a part takes how much of:

- `host/{host}/{vcpus,memory_mib,disk_mib,iops,throughput_mib_s,uplink_mbit_s}`
- `link/{peer}/{egress,ingress}`
- `tenant/...`: see `quotas`
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Generic, TypeVar

from intertie.broker.domain.account import Account
from intertie.broker.domain.admission_policy import ACCEPT_ALL, AdmissionPolicy
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Fleet, HostFacts, Policy, SeenPart
from intertie.broker.domain.lost_hosts import HELD, HostRecord, HostState
from intertie.broker.domain.overlay import beyond, demand_key, most_of, sum_of
from intertie.broker.domain.part import (
    Amend,
    Keeping,
    Part,
    Placed,
    Shed,
    Standing,
    Vacating,
    hosts_of,
)
from intertie.broker.domain.quotas import counted_for
from intertie.broker.domain.records import ForwardRecord, RequestRecord, Tomb
from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.quantities import DIMENSIONS, Vector
from intertie.common.spec import Allocation
from intertie.common.values import Struct, field, replace

T = TypeVar("T")

FIRST_VNI = 4096
LAST_VNI = (1 << 24) - 1


class Versioned(Struct, Generic[T], frozen=True, kw_only=True):
    """A record and the etcd revision at which it was last written."""

    value: T
    revision: int


class LedgerView(Struct, frozen=True, kw_only=True):
    """All records of the site as they are at one revision: what was written together is judged
    together. A cluster that is seen without the part it was admitted with would look over.

    Good until the next await: at the replica that leads, the mappings are those it goes on with.
    """

    generation: int = 0
    """Grows by one with each admission. Whatever is decided on this view is written only if
    nothing was admitted since."""
    generation_revision: int = 0
    """At which it was last written; 0: nothing was ever admitted."""
    parts: Mapping[str, Versioned[Part]] = field(default_factory=dict)
    clusters: Mapping[str, Versioned[ClusterRecord]] = field(default_factory=dict)
    forwards: Mapping[str, Versioned[ForwardRecord]] = field(default_factory=dict)
    accounts: Mapping[str, Versioned[Account]] = field(default_factory=dict)
    tombs: Mapping[str, Versioned[Tomb]] = field(default_factory=dict)
    """These five by name; an account by that of its part, a
    tomb of what is over by that of what it was."""
    requests: Mapping[tuple[str, str], Versioned[RequestRecord]] = field(default_factory=dict)
    """By caller and request id."""
    vnis: Mapping[int, str] = field(default_factory=dict)
    """The VXLAN ids that are taken, and by the part of which uid."""
    next_vni: int = FIRST_VNI
    """From where on to look for one that is free."""
    told: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """The generation of what each host is told of a part: by part uid, then by host. 0 of what
    cannot be read."""
    seen: Mapping[str, Mapping[str, SeenPart]] = field(default_factory=dict)
    """What agents say: by part uid, then by host."""
    fleet: Fleet = field(default_factory=Fleet)
    hosts: Mapping[str, Versioned[HostRecord]] = field(default_factory=dict)
    """By name, those that were ever silent for long."""
    demands: Calendar | None = None
    """What all parts that count take, where that is known already."""
    open: Collection[str] | None = None
    """Names of the parts that are held or prepared, or for which other terms are, where they are
    known already."""
    line: Collection[str] | None = None
    """Names of the clusters that run when there is room, where they are known already."""
    recallable: Collection[str] | None = None
    """Names of the parts of coordinators elsewhere that this site may put aside, where they are
    known already."""
    amended: Collection[str] = ()
    """Names of the parts of which other terms than `parts` has are counted, and on their way."""

    def undecided(self) -> tuple[Versioned[Part], ...]:
        """Those parts: few, of however many there are."""
        if self.open is not None:
            return tuple(self.parts[name] for name in self.open)
        return tuple(each for each in self.parts.values() if each.value.undecided)

    def in_line(self) -> tuple[Versioned[ClusterRecord], ...]:
        """The clusters that run when there is room, those that do included."""
        if self.line is not None:
            return tuple(self.clusters[name] for name in self.line)
        return tuple(each for each in self.clusters.values() if each.value.in_line)

    def recallables(self) -> tuple[Versioned[Part], ...]:
        """The parts of coordinators elsewhere that this site may put aside, or has."""
        if self.recallable is not None:
            return tuple(self.parts[name] for name in self.recallable)
        return tuple(each for each in self.parts.values() if each.value.recallable)


def standing_of(fleet: Fleet, hosts: Mapping[str, Versioned[HostRecord]]) -> Fleet:
    """The fleet with what the ledger says of its hosts."""
    states = {name: each.value.state for name, each in hosts.items()}
    return replace(
        fleet,
        held=frozenset(name for name, state in states.items() if state in HELD),
        fenced=frozenset(name for name, state in states.items() if state is HostState.FENCED),
    )


def host_key(host: str, dimension: str) -> str:
    return f"host/{host}/{dimension}"


@lru_cache(maxsize=1 << 14)
def host_keys(host: str) -> tuple[str, ...]:
    """In the order of DIMENSIONS."""
    return tuple(host_key(host, each) for each in DIMENSIONS)


def link_key(peer: str, direction: str) -> str:
    return f"link/{peer}/{direction}"


def fixed_amounts(workspace: PartWorkspace) -> Vector:
    """What a workspace takes of its host wherever the others are; of the uplink, what its NICs
    are guaranteed."""
    return amounts_alone(workspace.allocation, len(workspace.nics))


def amounts_alone(allocation: Allocation, nics: int) -> Vector:
    """Likewise of any workspace with that many NICs."""
    return Vector(
        vcpus=allocation.vcpus,
        memory_mib=allocation.memory_mib,
        disk_mib=allocation.disk_mib,
        iops=allocation.disk.cap_iops,
        throughput_mib_s=allocation.disk.cap_mib_s,
        uplink_mbit_s=allocation.nic.guarantee_mbit_s * nics,
    )


def keyed(host: str, amounts: Vector) -> dict[str, int]:
    """What a demand on that host says."""
    return {host_key(host, dimension): amount for dimension, amount in amounts.items()}


def pair_mbit_s(spec: PartSpec) -> dict[str, dict[str, int]]:
    """For each workspace of this site, what it is guaranteed towards each other workspace."""
    table: dict[str, dict[str, int]] = {each.label: {} for each in spec.workspaces}
    for network in spec.networks:
        for pair in network.pairs:
            for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
                if one in table:
                    towards = table[one]
                    towards[other] = towards.get(other, 0) + pair.bandwidth.guarantee_mbit_s
    return table


def gateway_mbit_s(spec: PartSpec) -> int:
    """What reservations on links take of the gateway's uplink. An uplink has its capacity in
    each direction, so the larger direction counts."""
    return (
        max(
            sum(link.egress_mbit_s for link in spec.links),
            sum(link.ingress_mbit_s for link in spec.links),
        )
        if spec.links
        else 0
    )


def takes_of(
    spec: PartSpec, host_of: Mapping[str, str], gateway: str
) -> Iterator[tuple[str, str, int]]:
    """(workspace, resource, amount): everything that a placed part takes. What is no workspace's
    own stands under an empty name.

    Promised pairs take uplink only where their ends are on different hosts. A workspace that has
    no host yet takes nothing, and what is promised towards it counts.
    """
    pairs = pair_mbit_s(spec)
    for workspace in spec.workspaces:
        label = workspace.label
        host = host_of.get(label)
        if host is None:
            continue
        for dimension, amount in fixed_amounts(workspace).items():
            if amount:
                yield label, host_key(host, dimension), amount
        for other, mbit_s in pairs[label].items():
            if mbit_s and host_of.get(other) != host:
                yield label, host_key(host, "uplink_mbit_s"), mbit_s
    if gateway and (mbit_s := gateway_mbit_s(spec)):
        yield "", host_key(gateway, "uplink_mbit_s"), mbit_s
    for link in spec.links:
        if link.egress_mbit_s:
            yield "", link_key(link.peer, "egress"), link.egress_mbit_s
        if link.ingress_mbit_s:
            yield "", link_key(link.peer, "ingress"), link.ingress_mbit_s


def amounts_of(spec: PartSpec, host_of: Mapping[str, str], gateway: str) -> dict[str, int]:
    """All of that together, by resource."""
    amounts: dict[str, int] = {}
    for _, key, amount in takes_of(spec, host_of, gateway):
        amounts[key] = amounts.get(key, 0) + amount
    return amounts


Takes = dict[tuple[str, str], int]
"""How much each workspace takes of each resource."""


def takes_by_workspace(terms: Standing) -> Takes:
    takes: Takes = {}
    for label, key, amount in takes_of(terms.spec, hosts_of(terms.placed), terms.gateway):
        takes[label, key] = takes.get((label, key), 0) + amount
    return takes


def larger(all_of: Iterable[Takes]) -> Takes:
    """Of each workspace and resource the most that any of them takes."""
    most: Takes = {}
    for takes in all_of:
        for key, amount in takes.items():
            if amount > most.get(key, 0):
                most[key] = amount
    return most


def demands_of(part: Part, admission: AdmissionPolicy = ACCEPT_ALL) -> tuple[Demand, ...]:
    """What a part takes, moment by moment: of each of its workspaces the largest of the terms in
    force, those that are held for it, and those that its hosts have not given up yet. What one
    workspace gives up is not there for another of the same part before its host has obeyed.

    The first demand is named as the part is, each further one with its number.
    """
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
    disks = {each.label: each.allocation.disk_mib for each in spec.workspaces}
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


def with_room_for_memory(spec: PartSpec, mib_s: int) -> PartSpec:
    """With as much more disk for each workspace as it has memory, and the throughput to move that
    there. A guest whose memory is moved does not use its disk, so the larger of the two counts."""

    def roomy(each: PartWorkspace) -> PartWorkspace:
        has = each.allocation
        disk = replace(has.disk, cap_mib_s=max(has.disk.cap_mib_s, mib_s))
        allocation = replace(has, disk_mib=has.disk_mib + has.memory_mib, disk=disk)
        return replace(each, allocation=allocation)

    return replace(spec, workspaces=tuple(roomy(each) for each in spec.workspaces))


def _off_quotas(
    part: Part, admission: AdmissionPolicy, amounts: Mapping[str, int]
) -> Mapping[str, int]:
    """Of sites that accept all, which are most, not even the tenant is asked for."""
    if admission is ACCEPT_ALL:
        return {}
    return counted_for(part.path.tenant, admission, amounts)


class Capacities(Mapping[str, int]):
    """Of every host that has ever reported, alive or not, of every link, and of tenants' quotas,
    which are not gone through. Said when asked: of a large site most are not, and the facts of
    some host are always new."""

    def __init__(self, fleet: Fleet, policy: Policy) -> None:
        self._fleet = fleet
        self._policy = policy

    def __getitem__(self, key: str) -> int:
        match key.split("/"):
            case ["host", host, dimension] if host in self._fleet.facts:
                amounts = self._policy.promisable(self._fleet.facts[host])
                return dict(amounts.items())[dimension]
            case ["link", peer, "egress"] if link := self._policy.link(peer):
                return link.egress_mbit_s
            case ["link", peer, "ingress"] if link := self._policy.link(peer):
                return link.ingress_mbit_s
            case ["tenant", tenant, dimension]:
                return self._policy.admission.most(tenant)[dimension]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        for host in self._fleet.facts:
            yield from host_keys(host)
        for link in self._policy.links:
            yield from (link_key(link.peer, each) for each in ("egress", "ingress"))

    def __len__(self) -> int:
        return len(DIMENSIONS) * len(self._fleet.facts) + 2 * len(self._policy.links)


def calendar_of(view: LedgerView, policy: Policy) -> Calendar:
    """The site's calendar: every part that is held, prepared or confirmed counts, also on hosts
    that are silent now."""
    known = Capacities(view.fleet, policy)
    if view.demands is not None:
        return view.demands.over(known)
    return Calendar(known, counted_demands(view, policy.admission))


def counted_demands(view: LedgerView, admission: AdmissionPolicy) -> Iterator[Demand]:
    """Of all parts that count."""
    for each in view.parts.values():
        if each.value.counted:
            yield from demands_of(each.value, admission)


def free_vector(calendar: Calendar, facts: HostFacts, policy: Policy, window: Window) -> Vector:
    """What of the host is free over the whole window; negative where it shrank under what was
    promised."""
    has = policy.promisable(facts)
    vcpus, memory, disk, iops, throughput, uplink = calendar.peaks(host_keys(facts.host), window)
    return Vector(  # spelt out, as in Board: this is what an admission at a large site is
        vcpus=has.vcpus - vcpus,
        memory_mib=has.memory_mib - memory,
        disk_mib=has.disk_mib - disk,
        iops=has.iops - iops,
        throughput_mib_s=has.throughput_mib_s - throughput,
        uplink_mbit_s=has.uplink_mbit_s - uplink,
    )


def free_hosts(
    calendar: Calendar, view: LedgerView, policy: Policy, window: Window, *, now: datetime
) -> dict[str, Vector]:
    """Only hosts that are alive get anything new."""
    return {
        facts.host: free_vector(calendar, facts, policy, window)
        for facts in view.fleet.alive(now=now)
    }
