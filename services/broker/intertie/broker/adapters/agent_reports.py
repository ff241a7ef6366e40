"""What agents say, decoded once and kept up with a watch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from intertie.broker.adapters import keys
from intertie.broker.adapters.agent_records import (
    facts_from_bytes,
    measured_from_bytes,
    seen_from_bytes,
)
from intertie.broker.domain.fleet import Fleet, HostFacts, Policy, SeenPart
from intertie.broker.domain.guarantees import MeasuredPart
from intertie.common.etcd.client import Change, Entry, Snapshot

T = TypeVar("T", SeenPart, MeasuredPart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """Keys of reports that are not what etcd has."""

    older: tuple[str, ...]
    """Or not known at all."""
    gone: tuple[str, ...]


class AgentReports:
    """The records under `seen/`: facts of hosts, reports on parts, and what is measured."""

    def __init__(self, policy: Policy, entries: Iterable[Entry] = ()) -> None:
        self._policy = policy
        self._revisions: dict[str, int] = {}
        self._facts: dict[str, HostFacts] = {}
        self._seen: dict[str, dict[str, SeenPart]] = {}
        self._measured: dict[str, dict[str, MeasuredPart]] = {}
        self._measured_at: dict[str, frozenset[str]] = {}
        """Uids of parts, by host."""
        self._fleet: Fleet | None = None
        for entry in entries:
            self._put(entry)

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            self._fleet = Fleet.of(self._facts.values(), self._policy)
        return self._fleet

    @property
    def seen(self) -> Mapping[str, Mapping[str, SeenPart]]:
        """By part uid, then by host. What is said of a part changes by a new mapping, never
        within one."""
        return self._seen

    @property
    def measured(self) -> Mapping[str, Mapping[str, MeasuredPart]]:
        """What is measured, by part uid, then by host."""
        return self._measured

    def measured_at(self, host: str) -> Mapping[str, MeasuredPart]:
        """What that host measures, by part uid."""
        uids = self._measured_at.get(host, frozenset())
        return {uid: self._measured[uid][host] for uid in uids}

    def relisted(self, snapshot: Snapshot) -> None:
        """All that there is at its revision; what a watch told of later stays."""
        there = {each.key: each for each in snapshot.entries}
        for key in [each for each in self._revisions if each not in there]:
            self._delete(key, snapshot.revision)
        for entry in there.values():
            self._put(entry)

    def differing(self, there: Mapping[str, int]) -> Differing:
        """From all keys that there are, each with the revision of its last write."""
        known = self._revisions
        return Differing(
            older=tuple(key for key, at in there.items() if known.get(key, 0) < at),
            gone=tuple(key for key in known if key not in there),
        )

    def changed(self, change: Change) -> None:
        for entry in change.puts:
            self._put(entry)
        for key, revision in change.deleted:
            self._delete(key, revision)

    def _put(self, entry: Entry) -> None:
        if self._revisions.get(entry.key, 0) >= entry.mod_revision:
            return
        self._revisions[entry.key] = entry.mod_revision
        if host := keys.host_of_facts(entry.key):
            facts = facts_from_bytes(entry.value, host, entry.mod_revision)
            self._fleet = None
            if facts is not None:
                self._facts[host] = facts
            else:
                self._facts.pop(host, None)
        elif place := keys.host_and_part(entry.key):
            host, uid = place
            report = seen_from_bytes(entry.value, host)
            if report is not None and report.part_uid == uid:
                self._seen[uid] = {**self._seen.get(uid, {}), host: report}
            else:
                _drop(self._seen, host, uid)
        elif host := keys.host_of_measured(entry.key):
            self._measure(host, measured_from_bytes(entry.value, host))

    def _delete(self, key: str, revision: int) -> None:
        """Unless it is there again."""
        if self._revisions.get(key, 0) > revision:
            return
        self._revisions.pop(key, None)
        if host := keys.host_of_facts(key):
            self._facts.pop(host, None)
            self._fleet = None
        elif place := keys.host_and_part(key):
            _drop(self._seen, *place)
        elif host := keys.host_of_measured(key):
            self._measure(host, {})

    def _measure(self, host: str, measured: Mapping[str, MeasuredPart]) -> None:
        """A host's record is of all its parts: what is not in it is measured there no more."""
        for uid in self._measured_at.pop(host, frozenset()).difference(measured):
            _drop(self._measured, host, uid)
        if measured:
            self._measured_at[host] = frozenset(measured)
        for uid, part in measured.items():
            self._measured[uid] = {**self._measured.get(uid, {}), host: part}


def _drop(reports: dict[str, dict[str, T]], host: str, uid: str) -> None:
    if hosts := {each: report for each, report in reports.get(uid, {}).items() if each != host}:
        reports[uid] = hosts
    else:
        reports.pop(uid, None)
