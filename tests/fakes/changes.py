"""A store in memory that remembers all its revisions, and what its keys make: a line for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from intertie.common.changes.history import Event, Shown
from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Compacted, Entry, Etcd, Place, Revision

THINGS = "things/"


def key_of(tenant: str, name: str) -> str:
    return f"{THINGS}{tenant}/{name}"


@dataclass
class Store:
    """Revision 1 is empty. Everything that was is kept; `compacted` only forbids it."""

    number: int = 7
    revisions: list[Revision] = field(default_factory=list)
    states: list[Mapping[str, Entry]] = field(default_factory=lambda: [{}])
    compacted: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def revision(self) -> int:
        return len(self.states)

    def write(self, changes: Mapping[str, bytes | None]) -> int:
        """None deletes. What deletes nothing makes no revision."""
        before = self.states[-1]
        changes = {key: value for key, value in changes.items() if value or key in before}
        if not changes:
            return self.revision
        number = self.revision + 1
        puts = tuple(
            Entry(key=key, value=value, mod_revision=number, create_revision=number)
            for key, value in changes.items()
            if value
        )
        deleted = tuple(key for key, value in changes.items() if not value)
        after = {key: each for key, each in before.items() if key not in deleted}
        after.update((each.key, each) for each in puts)
        self.states.append(after)
        self.revisions.append(Revision(number=number, puts=puts, deleted=deleted))
        self.ring()
        return number

    def ring(self) -> None:
        heard, self.heard = self.heard, asyncio.Event()
        heard.set()

    def state(self, revision: int) -> Mapping[str, Entry]:
        return self.states[revision - 1]


class StoreEtcd(Etcd):
    """One replica's connection. `delayed` revisions are not told yet; `broken` answers nothing."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.delayed = 0
        self.broken = False
        self.asked = 0
        """How often anything was read."""

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        self.asked += 1
        if self.broken:
            raise EtcdUnavailable("broken")

    async def place(self) -> Place:
        self._check()
        return Place(store=self.store.number, revision=self.store.revision)

    async def as_of(self, prefixes: Sequence[str], revision: int) -> tuple[Entry, ...]:
        self._check()
        if not self.store.compacted <= revision <= self.store.revision:
            raise Compacted
        found = self.store.state(revision)
        return tuple(found[key] for key in sorted(found) if key.startswith(tuple(prefixes)))

    async def revisions(self, first: int) -> AsyncGenerator[tuple[Revision, ...], None]:
        self._check()
        store = self.store
        if first <= store.compacted:
            raise Compacted
        at = first
        while True:
            if self.broken:
                raise EtcdUnavailable("broken")
            last = store.revision - self.delayed
            if at <= last:
                told = store.revisions[at - 2 : last - 1]
                at = last + 1
                yield tuple(told)
            else:
                await store.heard.wait()


class Things:
    """A line that is put as it was is no change."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[bytes, Shown]] = {}

    def begin(self, entries: Sequence[Entry]) -> None:
        for each in entries:
            self._shown[each.key] = each.value, self._made(each)

    def take(self, revision: Revision) -> Sequence[Event]:
        events: list[Event] = []
        for each in revision.puts:
            before = self._shown.get(each.key)
            if not each.key.startswith(THINGS):
                continue
            if before is None or before[0] != each.value:
                self._shown[each.key] = each.value, self._made(each)
                events.append(Event(revision.number, self._shown[each.key][1]))
        for key in revision.deleted:
            if before := self._shown.pop(key, None):
                events.append(Event(revision.number, before[1], gone=True))
        return sorted(events, key=lambda each: each.shown.name)

    def standing(self) -> Iterable[Shown]:
        return [self._shown[key][1] for key in sorted(self._shown)]

    def _made(self, entry: Entry) -> Shown:
        _, tenant, _ = entry.key.split("/")
        octets = entry.key.encode() + b"=" + entry.value
        return Shown(name=entry.key, uid="", tenant=tenant, weight=len(octets), make=lambda: octets)
