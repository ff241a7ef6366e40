"""What becomes of clusters, from their records and from what sites say, which the leader writes
down beside them."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from intertie.common.changes.history import Event, Shown
from intertie.common.etcd.client import Entry, Revision
from intertie.common.etcd.records import decode
from intertie.common.guarantees import as_compared
from intertie.common.values import replace
from intertie.metasched.adapters.etcd_clusters import CLUSTERS, SEEN
from intertie.metasched.domain.cluster import ClusterRecord, ClusterView, SeenRecord, told_view

PREFIXES = (CLUSTERS, SEEN)


class ClusterChanges:
    """See common.etcd.feed.Fold. `render` makes the message of a cluster."""

    def __init__(self, render: Callable[[ClusterView], bytes]) -> None:
        self._render = render
        self._records: dict[str, tuple[ClusterRecord, int]] = {}
        self._seen: dict[str, tuple[SeenRecord, int]] = {}
        self._shown: dict[str, tuple[Any, Shown]] = {}
        """By tenant and id, as in keys; values with their weight, or with what is compared."""

    def begin(self, entries: Sequence[Entry]) -> None:
        for each in entries:
            self._put(each)
        for where in self._records:
            self._shown[where] = self._made(where)

    def take(self, revision: Revision) -> Sequence[Event]:
        touched = {where for each in revision.puts if (where := self._put(each))}
        touched |= {where for each in revision.deleted if (where := self._drop(each))}
        events: list[Event] = []
        for where in touched:
            before = self._shown.pop(where, None)
            if where not in self._records:
                if before is not None:
                    events.append(Event(revision.number, before[1], gone=True))
                continue
            after = self._shown[where] = self._made(where)
            if before is None or before[0] != after[0]:
                events.append(Event(revision.number, after[1]))
        return sorted(events, key=lambda each: each.shown.name)

    def standing(self) -> Iterable[Shown]:
        return sorted((each for _, each in self._shown.values()), key=lambda each: each.name)

    def _put(self, entry: Entry) -> str:
        """Whose it is; empty: nobody's."""
        if entry.key.startswith(CLUSTERS):
            where = entry.key.removeprefix(CLUSTERS)
            self._records[where] = decode(ClusterRecord, entry.value), len(entry.value)
            return where
        if entry.key.startswith(SEEN):
            where = entry.key.removeprefix(SEEN)
            self._seen[where] = decode(SeenRecord, entry.value), len(entry.value)
            return where
        return ""

    def _drop(self, key: str) -> str:
        if key.startswith(CLUSTERS):
            where = key.removeprefix(CLUSTERS)
            self._records.pop(where, None)
            return where
        if key.startswith(SEEN):
            where = key.removeprefix(SEEN)
            self._seen.pop(where, None)
            return where
        return ""

    def _made(self, where: str) -> tuple[Any, Shown]:
        record, weight = self._records[where]
        seen, more = self._seen.get(where, (None, 0))
        view = told_view(record, seen)
        shown = Shown(
            name=record.name,
            uid=record.uid,
            tenant=record.path.tenant,
            weight=weight + more,
            make=partial(self._render, view),
        )
        standing = replace(view, guarantees=(), ways=view.lost)
        return (standing, as_compared(view.guarantees)), shown
