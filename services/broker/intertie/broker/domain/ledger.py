"""All records of a site at one revision, and what of its hosts and links is free over a window.

All counting is the Calendar's. What a part takes is for `demands` to say.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Generic, TypeVar

from intertie.broker.domain.account import Account
from intertie.broker.domain.admission_policy import AdmissionPolicy
from intertie.broker.domain.amounts import host_keys, link_key
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Fleet, HostFacts, Policy, SeenPart
from intertie.broker.domain.lost_hosts import HELD, HostRecord, HostState
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import ForwardRecord, RequestRecord, Tomb
from intertie.common.calendar import Calendar, Demand
from intertie.common.intervals import Window
from intertie.common.quantities import DIMENSIONS, Vector
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
    """By name, those that were ever silent for long, or had to leave room on links as gateways."""
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

    def with_transfers(self) -> list[str]:
        """Names of the parts for which image stores send something: few, of however many."""
        return [
            name
            for name, each in self.parts.items()
            if each.value.spec.transfers
            or (each.value.amend is not None and each.value.amend.spec.transfers)
        ]

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
