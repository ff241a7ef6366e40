"""What becomes of the site's clusters, from the keys that they are made of: their records and their
parts, those in the archive too, and what agents say.

Measured values change all the time and are no change; that a promise begins or ceases to be
broken is one.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from intertie.broker.adapters import archive, keys
from intertie.broker.adapters.agent_reports import AgentReports
from intertie.broker.domain.cluster import ClusterRecord, ClusterView, view_of
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.part import Part
from intertie.common.changes.history import Event, Shown
from intertie.common.etcd.client import Change, Entry, Revision
from intertie.common.etcd.records import decode
from intertie.common.guarantees import as_compared
from intertie.common.names import ClusterName, PartName
from intertie.common.values import replace

T = TypeVar("T", Part, ClusterRecord)

PREFIXES = (keys.CLUSTERS, keys.PARTS, keys.ARCHIVE, keys.SEEN)


class ClusterChanges:
    """See common.etcd.feed.Fold. `render` makes the message of a cluster."""

    def __init__(self, policy: Policy, render: Callable[[ClusterView], bytes]) -> None:
        self._policy = policy
        self._render = render
        self._reports = AgentReports(policy)
        self._records: dict[str, tuple[ClusterRecord, int]] = {}
        """By name, with its weight."""
        self._parts: dict[str, tuple[Part, int]] = {}
        """Those of clusters that are here alone, by name."""
        self._of_part: dict[str, str] = {}
        self._of_uid: dict[str, str] = {}
        """The cluster's name, by its part's name and uid."""
        self._shown: dict[str, tuple[Any, Shown]] = {}
        """By cluster's name: what is compared, and as it is."""

    def begin(self, entries: Sequence[Entry]) -> None:
        self._take(entries, (), revision=0)
        for name in self._records:
            self._shown[name] = self._made(name)

    def take(self, revision: Revision) -> Sequence[Event]:
        touched = self._take(revision.puts, revision.deleted, revision=revision.number)
        events: list[Event] = []
        for name in sorted(touched):
            before = self._shown.get(name)
            if name not in self._records:
                if before is not None:
                    del self._shown[name]
                    events.append(Event(revision.number, before[1], gone=True))
                continue
            after = self._made(name)
            if before is None or before[0] != after[0]:
                events.append(Event(revision.number, after[1]))
            self._shown[name] = after
        return events

    def standing(self) -> Iterable[Shown]:
        for name in sorted(self._shown):
            yield self._shown[name][1]

    def _take(self, puts: Iterable[Entry], deleted: Iterable[str], *, revision: int) -> set[str]:
        """Names of clusters that may be different. Their records come first: they say whose parts
        there are."""
        touched: set[str] = set()
        parts: list[Entry] = []
        told: list[Entry] = []
        silent: list[str] = []
        # What is gone comes first: in the same revision it may be in the archive.
        for key in deleted:
            name = keys.touched_by(key, self._policy.site)
            if key.startswith(keys.CLUSTERS) or self._is_forgotten(key, name):
                touched.add(self._drop_record(name))
            elif key.startswith(keys.PARTS):
                if self._parts.pop(name, None) is not None:
                    touched.add(self._of_part[name])
            elif _is_told(key):
                silent.append(key)
        for entry in puts:
            if entry.key.startswith((keys.CLUSTERS, keys.ARCHIVED_CLUSTERS)):
                touched.add(self._put_record(entry))
            elif entry.key.startswith((keys.PARTS, keys.ARCHIVED_PARTS)):
                parts.append(entry)
            elif _is_told(entry.key):
                told.append(entry)
        for entry in parts:
            name = keys.touched_by(entry.key, self._policy.site)
            if cluster := self._of_part.get(name):
                self._parts[name] = _read(Part, entry)
                touched.add(cluster)
        if told or silent:
            touched |= self._hear(told, silent, revision)
        return touched

    def _is_forgotten(self, key: str, name: str) -> bool:
        """It is of the cluster that is shown, and not of an earlier one of its name."""
        if not key.startswith(keys.ARCHIVED_CLUSTERS):
            return False
        found = self._records.get(name)
        return found is not None and found[0].uid == key.rpartition("/")[2]

    def _put_record(self, entry: Entry) -> str:
        record, weight = _read(ClusterRecord, entry)
        before = self._records.get(record.name)
        if before is not None and before[0].create_time > record.create_time:
            return record.name  # an earlier one of its name, from the archive
        if before is not None and before[0].part != record.part:
            self._drop_record(record.name)
        self._records[record.name] = record, weight
        self._of_part[record.part] = record.name
        self._of_uid[PartName.parse(record.part).uid] = record.name
        return record.name

    def _drop_record(self, name: str) -> str:
        """With its part, which may stay longer."""
        if found := self._records.pop(name, None):
            part = found[0].part
            self._parts.pop(part, None)
            self._of_part.pop(part, None)
            self._of_uid.pop(PartName.parse(part).uid, None)
        return name

    def _hear(self, told: Sequence[Entry], silent: Iterable[str], revision: int) -> set[str]:
        uids: set[str] = set()
        measured: dict[str, dict[str, Any]] = {}
        for key in (*(each.key for each in told), *silent):
            if place := keys.host_and_part(key):
                uids.add(place[1])
            elif host := keys.host_of_measured(key):
                measured[host] = self._broken(host)
        self._reports.changed(
            Change(
                revision=revision,
                puts=tuple(told),
                deleted=tuple((key, revision) for key in silent),
            )
        )
        for host, before in measured.items():
            after = self._broken(host)
            uids.update(
                uid for uid in before.keys() | after.keys() if before.get(uid) != after.get(uid)
            )
        return {self._of_uid[uid] for uid in uids if uid in self._of_uid}

    def _broken(self, host: str) -> dict[str, Any]:
        """Promises that the host says are broken, by part's uid."""
        found: dict[str, Any] = {}
        for uid, part in self._reports.measured_at(host).items():
            if since := {
                (each.kind, each.network, each.source, each.target)
                for each in part.directions
                if each.below_since is not None
            }:
                found[uid] = since
        return found

    def _made(self, name: str) -> tuple[Any, Shown]:
        record, weight = self._records[name]
        part, more = self._parts.get(record.part, (None, 0))
        uid = PartName.parse(record.part).uid
        seen, measured = self._reports.seen.get(uid, {}), self._reports.measured.get(uid, {})
        view = view_of(record, part, seen, measured, site=self._policy.site)
        shown = Shown(
            name=record.name,
            uid=record.uid,
            tenant=ClusterName.parse(record.name).tenant,
            weight=weight + more,
            make=partial(self._render, view),
        )
        return (replace(view, guarantees=()), as_compared(view.guarantees)), shown


def _read(kind: type[T], entry: Entry) -> tuple[T, int]:
    """The record, with its weight."""
    if entry.key.startswith(keys.ARCHIVE):
        octets = archive.unzipped(entry.value)
        return decode(kind, octets), len(octets)
    return decode(kind, entry.value), len(entry.value)


def _is_told(key: str) -> bool:
    """What an agent says of parts; facts of hosts are in no cluster."""
    if not key.startswith(keys.SEEN):
        return False
    return keys.host_and_part(key) is not None or bool(keys.host_of_measured(key))
