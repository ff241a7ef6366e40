"""What agents say, decoded once and kept up with a watch."""

from collections.abc import Iterable, Mapping

from intertie.broker.adapters import keys
from intertie.broker.adapters.agent_records import facts_from_bytes, seen_from_bytes
from intertie.broker.domain.fleet import Fleet, HostFacts, Policy, SeenPart
from intertie.common.etcd.client import Change, Entry


class AgentReports:
    """The records under `seen/`: facts of hosts, and reports on parts."""

    def __init__(self, policy: Policy, entries: Iterable[Entry] = ()) -> None:
        self._policy = policy
        self._revisions: dict[str, int] = {}
        self._facts: dict[str, HostFacts] = {}
        self._seen: dict[str, dict[str, SeenPart]] = {}
        self._fleet: Fleet | None = None
        self.relisted(entries)

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            self._fleet = Fleet.of(self._facts.values(), self._policy)
        return self._fleet

    @property
    def seen(self) -> Mapping[str, Mapping[str, SeenPart]]:
        """By part uid, then by host."""
        return self._seen

    def relisted(self, entries: Iterable[Entry]) -> None:
        """All that there is."""
        there = {each.key: each for each in entries}
        for key in [each for each in self._revisions if each not in there]:
            self._delete(key)
        for entry in there.values():
            self._put(entry)

    def changed(self, change: Change) -> None:
        for entry in change.puts:
            self._put(entry)
        for key in change.deleted:
            self._delete(key)

    def _put(self, entry: Entry) -> None:
        if self._revisions.get(entry.key, 0) >= entry.mod_revision:
            return
        self._revisions[entry.key] = entry.mod_revision
        if host := keys.host_of_facts(entry.key):
            facts = facts_from_bytes(entry.value, host)
            self._fleet = None
            if facts is not None:
                self._facts[host] = facts
            else:
                self._facts.pop(host, None)
        elif place := keys.host_and_part(entry.key):
            host, uid = place
            report = seen_from_bytes(entry.value, host)
            if report is not None and report.part_uid == uid:
                self._seen.setdefault(uid, {})[host] = report
            else:
                self._unsee(host, uid)

    def _delete(self, key: str) -> None:
        self._revisions.pop(key, None)
        if host := keys.host_of_facts(key):
            self._facts.pop(host, None)
            self._fleet = None
        elif place := keys.host_and_part(key):
            self._unsee(*place)

    def _unsee(self, host: str, uid: str) -> None:
        hosts = self._seen.get(uid, {})
        hosts.pop(host, None)
        if not hosts:
            self._seen.pop(uid, None)
