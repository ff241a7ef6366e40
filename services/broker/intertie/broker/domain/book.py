"""The ledger in the memory of the replica that leads.

Only the leader writes the ledger, so what it has read once, and written itself since, is all there
is to know: it need not read everything again for every decision. What says that this still holds
are the compares in its transactions, never this copy: when one fails, the book is thrown away and
read again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from intertie.broker.domain.account import Account
from intertie.broker.domain.admission_policy import ACCEPT_ALL, AdmissionPolicy
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Fleet, SeenPart
from intertie.broker.domain.ledger import (
    FIRST_VNI,
    LAST_VNI,
    LedgerView,
    Versioned,
    counted_demands,
    standing_of,
)
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.overlay import demand_key
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import (
    Change,
    Erase,
    ForwardRecord,
    Record,
    RequestRecord,
    Tomb,
    Write,
)
from intertie.common.calendar import Calendar
from intertie.common.errors import StaleWrite


@dataclass(slots=True)
class Book:
    """Records as they are written, and above them what has been decided and is on its way."""

    generation: int = 0
    """With the admissions that are on their way."""
    written: int = 0
    """The generation as etcd has it."""
    written_revision: int = 0
    parts: dict[str, Versioned[Part]] = field(default_factory=dict)
    clusters: dict[str, Versioned[ClusterRecord]] = field(default_factory=dict)
    forwards: dict[str, Versioned[ForwardRecord]] = field(default_factory=dict)
    accounts: dict[str, Versioned[Account]] = field(default_factory=dict)
    """By the names of their parts."""
    tombs: dict[str, Versioned[Tomb]] = field(default_factory=dict)
    hosts: dict[str, Versioned[HostRecord]] = field(default_factory=dict)
    requests: dict[tuple[str, str], Versioned[RequestRecord]] = field(default_factory=dict)
    vnis: dict[int, str] = field(default_factory=dict)
    """With those that are on their way."""
    next_vni: int = FIRST_VNI
    told: dict[str, dict[str, int]] = field(default_factory=dict)
    """What is told of a part changes by a new mapping, never within one."""
    open: dict[str, None] = field(default_factory=dict)
    """Names of the parts that are held or prepared, or for which other terms are, the longest
    first."""
    line: dict[str, None] = field(default_factory=dict)
    """Names of the clusters that run when there is room, the longest known first."""
    recallable: dict[str, None] = field(default_factory=dict)
    """Names of the parts of coordinators elsewhere that this site may put aside."""
    demands: Calendar = field(default_factory=lambda: Calendar({}))
    """With those that are on their way."""
    admission: AdmissionPolicy = ACCEPT_ALL
    """What it says of tenants is counted for them."""
    amended: dict[str, Part] = field(default_factory=dict)
    """By name, what parts that are written already become, where that is counted and on its way."""
    _stands: tuple[Fleet, Fleet] | None = None
    """A fleet as it was told, and with what is on record of its hosts."""

    @classmethod
    def of(cls, view: LedgerView, admission: AdmissionPolicy = ACCEPT_ALL) -> "Book":
        return cls(
            generation=view.generation,
            written=view.generation,
            written_revision=view.generation_revision,
            parts=dict(view.parts),
            clusters=dict(view.clusters),
            forwards=dict(view.forwards),
            accounts=dict(view.accounts),
            tombs=dict(view.tombs),
            hosts=dict(view.hosts),
            requests=dict(view.requests),
            vnis=dict(view.vnis),
            told={uid: dict(hosts) for uid, hosts in view.told.items()},
            open={name: None for name, each in view.parts.items() if each.value.undecided},
            line={name: None for name, each in view.clusters.items() if each.value.in_line},
            recallable={name: None for name, each in view.parts.items() if each.value.recallable},
            demands=Calendar({}, counted_demands(view, admission)),
            admission=admission,
        )

    def view(self, fleet: Fleet, seen: Mapping[str, Mapping[str, SeenPart]]) -> LedgerView:
        return LedgerView(
            generation=self.generation,
            generation_revision=self.written_revision,
            parts=self.parts,
            clusters=self.clusters,
            forwards=self.forwards,
            accounts=self.accounts,
            tombs=self.tombs,
            requests=self.requests,
            vnis=self.vnis,
            next_vni=self.next_vni,
            told=self.told,
            seen=seen,
            fleet=self._standing(fleet),
            hosts=self.hosts,
            demands=self.demands,
            open=self.open,
            line=self.line,
            recallable=self.recallable,
            amended=self.amended,
        )

    def _standing(self, fleet: Fleet) -> Fleet:
        """The same for the same, as most of those who look go by that."""
        if not self.hosts:
            return fleet
        if self._stands is None or self._stands[0] is not fleet:
            self._stands = fleet, standing_of(fleet, self.hosts)
        return self._stands[1]

    def reserve(self, change: Change) -> None:
        """Counts what a change takes before it is written, so that the next decision does.
        StaleWrite where it was decided on less than is known by now."""
        if change.admitted_on is not None and change.admitted_on != self.generation:
            raise StaleWrite("generation")
        for vni, _ in change.vnis:
            if vni in self.vnis:
                raise StaleWrite(f"vni {vni}")
        for part in change.parts() if change.admitted_on is not None else ():
            if part.name in self.amended or (
                part.name in self.demands and part.name not in self.parts
            ):
                raise StaleWrite(part.name)  # another of it stands in line
        self.vnis.update(change.vnis)
        if change.vnis:
            last = max(vni for vni, _ in change.vnis)
            self.next_vni = last + 1 if last < LAST_VNI else FIRST_VNI
        if change.admitted_on is not None:
            self.generation += 1
            for part in change.parts():
                self._count(part)
                if part.name in self.parts:
                    self.amended[part.name] = part

    def cancel(self, change: Change) -> None:
        """Counts what was reserved no more: it will not be written. The generation stays: it says
        how often was decided."""
        for vni, _ in change.vnis:
            self.vnis.pop(vni, None)
        if change.admitted_on is not None:
            for part in change.parts():
                known = self.parts.get(part.name)
                if known is None:
                    self._uncount(part.name)
                elif self.amended.get(part.name) is part:
                    del self.amended[part.name]
                    self._count(known.value)

    def conflict(self, change: Change) -> str:
        """The record that is not as the change was decided on; empty: none."""
        changed: tuple[Write | Erase, ...] = (*change.writes, *change.erasures)
        for each in changed:
            if self._revision_of(each.record) != each.read_at:
                return _label(each.record)
        for write in change.writes:
            if write.record.__class__ is Part and write.record.name in self.tombs:
                return write.record.name  # it was over, and is not begun again
        for rest in change.unchanged:
            known = self._of_kind(rest.kind).get(rest.name)
            if (known.revision if known else 0) != rest.read_at:
                return rest.name
        return ""

    def _revision_of(self, record: Record) -> int:
        known: Versioned[Any] | None
        if isinstance(record, RequestRecord):
            known = self.requests.get((record.caller, record.request_id))
        else:
            known = self._of_kind(type(record)).get(record.name)
        return known.revision if known else 0

    def _of_kind(self, kind: type[Any]) -> Mapping[str, Versioned[Any]]:
        if kind is Part:
            return self.parts
        if kind is Account:
            return self.accounts
        if kind is HostRecord:
            return self.hosts
        if kind is Tomb:
            return self.tombs
        return self.clusters if kind is ClusterRecord else self.forwards

    def apply(self, change: Change, revision: int) -> None:
        """What a change that was reserved has written, at `revision`."""
        if change.admitted_on is not None:
            self.written, self.written_revision = self.written + 1, revision
        for write in change.writes:
            self._put(write.record, revision)
        for erasure in change.erasures:
            self._erase(erasure.record)
        for vni in change.vnis_given_back():
            self.vnis.pop(vni, None)
        for host, part_uid in change.unwanted:
            hosts = {each: at for each, at in self.told.get(part_uid, {}).items() if each != host}
            if hosts:
                self.told[part_uid] = hosts
            else:
                self.told.pop(part_uid, None)
        for host, wanted in change.wanted.items():
            before = self.told.get(wanted.part_uid, {})
            self.told[wanted.part_uid] = {**before, host: wanted.generation}

    def _put(self, record: Record, revision: int) -> None:
        match record:
            case Part():
                self._recount(record)
                self.parts[record.name] = Versioned(value=record, revision=revision)
                if record.undecided:
                    self.open[record.name] = None
                else:
                    self.open.pop(record.name, None)
                if record.recallable:
                    self.recallable[record.name] = None
                elif self.recallable:
                    self.recallable.pop(record.name, None)
            case ClusterRecord():
                self.clusters[record.name] = Versioned(value=record, revision=revision)
                if record.in_line:
                    self.line[record.name] = None
                elif self.line:
                    self.line.pop(record.name, None)
            case ForwardRecord():
                self.forwards[record.name] = Versioned(value=record, revision=revision)
            case Account():
                self.accounts[record.name] = Versioned(value=record, revision=revision)
            case Tomb():
                self.tombs[record.name] = Versioned(value=record, revision=revision)
            case HostRecord():
                self.hosts[record.name] = Versioned(value=record, revision=revision)
                self._stands = None
            case RequestRecord():
                key = record.caller, record.request_id
                self.requests[key] = Versioned(value=record, revision=revision)

    def _recount(self, record: Part) -> None:
        """Counts what the record says, whatever was counted of it before. Most writes of a part
        change nothing of that. Where more of it is on its way, that is decided on what is no more,
        and will be refused."""
        before, reserved = self.parts.get(record.name), self.amended.pop(record.name, None)
        same = before is None or (reserved is None and _takes_the_same(before.value, record))
        if record.counted and record.name in self.demands and (same or reserved is record):
            return
        self._count(record)

    def _count(self, part: Part) -> None:
        self._uncount(part.name)
        if part.counted:
            for demand in demands_of(part, self.admission):
                self.demands.add(demand)

    def _uncount(self, name: str) -> None:
        number = 0
        while (key := demand_key(name, number)) in self.demands:
            self.demands.remove(key)
            number += 1

    def _erase(self, record: Record) -> None:
        match record:
            case Part():
                self.parts.pop(record.name, None)
                self.open.pop(record.name, None)
                self.recallable.pop(record.name, None)
                self._uncount(record.name)
            case ClusterRecord():
                self.clusters.pop(record.name, None)
                self.line.pop(record.name, None)
            case ForwardRecord():
                self.forwards.pop(record.name, None)
            case Account():
                self.accounts.pop(record.name, None)
            case Tomb():
                self.tombs.pop(record.name, None)
            case HostRecord():
                self.hosts.pop(record.name, None)
                self._stands = None
            case RequestRecord():
                self.requests.pop((record.caller, record.request_id), None)


def _takes_the_same(one: Part, other: Part) -> bool:
    """The very same terms: one record is made from the other."""
    return (
        one.spec is other.spec
        and one.placed is other.placed
        and one.gateway == other.gateway
        and one.shed is other.shed
        and one.moving is other.moving
        and one.left is other.left
        and one.amend is other.amend
        and one.keeping is other.keeping
        and one.vacating is other.vacating
    )


def _label(record: Record) -> str:
    return f"request {record.request_id}" if isinstance(record, RequestRecord) else record.name
