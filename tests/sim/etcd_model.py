"""A model of etcd: revisions, guarded transactions, leases, watches, and the history of all of it.

`EtcdModel` is a store as its members agree on it; `etcd_client.ModelClient` is one process's
connection, with the interface of intertie.common.etcd.client.Etcd.
tests/contract/test_etcd_model.py runs the same cases against both this and the real one.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import (
    Change,
    Compare,
    DeleteKey,
    Entry,
    Keys,
    Op,
    Put,
    Snapshot,
    TxnResult,
)
from tests.fakes.etcd import holds
from tests.sim.virtual_loop import Process, VirtualLoop

PAGE_OF_KEYS = 16
"""Small, so that a listing of some records has pages that others write between."""


@dataclass(frozen=True, slots=True)
class Written:
    """One revision, as the checker reads it."""

    store: str
    revision: int
    at: float
    """True time, in seconds since the run began."""
    writer: str
    puts: tuple[tuple[str, bytes], ...]
    deleted: tuple[str, ...]


@dataclass(slots=True)
class Fate:
    """What becomes of one call: the seconds that it takes, and those of its answer; None: lost."""

    request_s: float | None = 0.0
    answer_s: float | None = 0.0


@dataclass(slots=True)
class StreamFate:
    """What becomes of one event on its way to a watcher."""

    delay_s: float = 0.0
    lost: bool = False
    twice: bool = False
    broken: bool = False
    """The stream breaks off with it, and is made again."""


class Faults:
    """None. The world has others."""

    def of_call(self, store: EtcdModel, process: Process | None, *, writes: bool) -> Fate:
        return Fate()

    def of_event(self, store: EtcdModel, process: Process | None) -> StreamFate:
        return StreamFate()


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    until: float
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Stream:
    prefix: str
    process: Process | None
    queue: deque[Change] = field(default_factory=deque)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    last_due: float = 0.0
    ended: bool = False

    def deliver(self, *changes: Change) -> None:
        self.queue.extend(changes)
        self.heard.set()


class EtcdModel:
    def __init__(
        self, loop: VirtualLoop, name: str = "etcd", history: list[Written] | None = None
    ) -> None:
        self.name = name
        self.loop = loop
        self.history: list[Written] = [] if history is None else history
        self.revision = 1
        self.compacted = 0
        self.down = False
        """No member answers: what is sent now is lost."""
        self.faults = Faults()
        self.transactions = 0
        self._entries: dict[str, Entry] = {}
        self._sorted: list[str] = []
        self._versions: dict[str, list[tuple[int, Entry | None]]] = {}
        self._events: list[Change] = []
        self._leases: dict[int, _Lease] = {}
        self._lease_of: dict[str, int] = {}
        self._next_lease = 1
        self._streams: list[_Stream] = []

    # What is there

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def range(self, prefix: str, without: tuple[str, ...] = ()) -> Snapshot:
        left_out = {key for each in without for key in self._under(each)}
        found = (self._entries[key] for key in self._under(prefix) if key not in left_out)
        return Snapshot(entries=tuple(found), revision=self.revision)

    def some(self, first: str, last: str, most: int) -> tuple[Entry, ...]:
        found = [key for key in self._under("") if first <= key <= last]
        return tuple(self._entries[key] for key in found[:most])

    def keys(self, prefix: str, after: str, revision: int) -> tuple[Keys, bool]:
        """A page, and whether there is more."""
        revision = revision or self.revision
        found: list[tuple[str, int]] = []
        for key in sorted(each for each in self._versions if each.startswith(prefix)):
            if key > after and (entry := self._at(key, revision)) is not None:
                found.append((key, entry.mod_revision))
        page = found[:PAGE_OF_KEYS]
        return Keys(keys=tuple(page), revision=revision), len(found) > len(page)

    def _under(self, prefix: str) -> list[str]:
        first = bisect_left(self._sorted, prefix)
        last = first
        while last < len(self._sorted) and self._sorted[last].startswith(prefix):
            last += 1
        return self._sorted[first:last]

    def _at(self, key: str, revision: int) -> Entry | None:
        for at, entry in reversed(self._versions[key]):
            if at <= revision:
                return entry
        return None

    # What is written

    def txn(self, compare: Sequence[Compare], then: Sequence[Op], writer: str) -> TxnResult:
        self.transactions += 1
        if not all(holds(each, self._entries.get(each.key)) for each in compare):
            return TxnResult(succeeded=False, revision=self.revision)
        if then:
            self._write(then, writer)
        return TxnResult(succeeded=True, revision=self.revision)

    def _write(self, then: Sequence[Op], writer: str) -> None:
        touched = [each.key for each in then]
        if len(set(touched)) != len(touched):
            raise EtcdUnavailable("duplicate key given in txn request")
        for op in then:
            if isinstance(op, Put) and op.lease and op.lease not in self._leases:
                raise EtcdUnavailable("requested lease not found")
        if not any(isinstance(op, Put) or op.key in self._entries for op in then):
            return  # what deletes nothing makes no revision
        self.revision += 1
        puts: list[Entry] = []
        deleted: list[str] = []
        for op in then:
            if isinstance(op, Put):
                puts.append(self._put(op))
            elif op.key in self._entries:
                self._delete(op.key)
                deleted.append(op.key)
        change = Change(
            revision=self.revision,
            puts=tuple(puts),
            deleted=tuple((key, self.revision) for key in deleted),
        )
        self._events.append(change)
        self.history.append(
            Written(
                self.name,
                self.revision,
                self.loop.time(),
                writer,
                tuple((each.key, each.value) for each in puts),
                tuple(deleted),
            )
        )
        for stream in tuple(self._streams):
            self._tell(stream, change)

    def _put(self, op: Put) -> Entry:
        before = self._entries.get(op.key)
        entry = Entry(
            key=op.key,
            value=op.value,
            mod_revision=self.revision,
            create_revision=before.create_revision if before else self.revision,
        )
        if before is None:
            insort(self._sorted, op.key)
        self._entries[op.key] = entry
        self._versions.setdefault(op.key, []).append((self.revision, entry))
        self._unbind(op.key)
        if op.lease:
            self._lease_of[op.key] = op.lease
            self._leases[op.lease].keys.add(op.key)
        return entry

    def _delete(self, key: str) -> None:
        del self._entries[key]
        del self._sorted[bisect_left(self._sorted, key)]
        self._versions[key].append((self.revision, None))
        self._unbind(key)

    def _unbind(self, key: str) -> None:
        lease = self._leases.get(self._lease_of.pop(key, 0))
        if lease is not None:
            lease.keys.discard(key)

    def compact(self, revision: int) -> None:
        """A watch from before it cannot be had any more."""
        self.compacted = max(self.compacted, revision)

    # Leases

    def grant(self, ttl_s: float) -> int:
        number, self._next_lease = self._next_lease, self._next_lease + 1
        self._leases[number] = _Lease(ttl_s, self.loop.time() + ttl_s)
        self.loop.later(ttl_s, self._look_at, number)
        return number

    def _look_at(self, number: int) -> None:
        lease = self._leases.get(number)
        if lease is None:
            return
        left = lease.until - self.loop.time()
        if self.down:
            # Nobody is there to end it.
            self.loop.later(1.0, self._look_at, number)
        elif left > 1e-9:
            self.loop.later(left, self._look_at, number)
        else:
            self.revoke(number)

    def renew(self, number: int) -> float:
        """Seconds that it lasts now; 0: there is none."""
        lease = self._leases.get(number)
        if lease is None:
            return 0
        lease.until = self.loop.time() + lease.ttl_s
        return lease.ttl_s

    def revoke(self, number: int) -> None:
        lease = self._leases.pop(number, None)
        if lease is not None and lease.keys:
            self._write([DeleteKey(key) for key in sorted(lease.keys)], "etcd")

    # Watches

    def open(self, prefix: str, start: int, process: Process | None) -> _Stream:
        stream = _Stream(prefix, process)
        if start and start <= self.compacted:
            stream.deliver(Change(revision=self.revision))
            stream.ended = True
            return stream
        self._streams.append(stream)
        if not start:
            stream.deliver(Change(revision=self.revision))
        for change in self._events:
            if start and change.revision >= start:
                self._tell(stream, change)
        return stream

    def close(self, stream: _Stream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)

    def break_streams(self, process: Process) -> None:
        """A connection breaks: what was on its way comes later, and the watcher is told that it
        may have missed something."""
        for stream in self._streams:
            if stream.process is process:
                self._send(stream, 1.0, Change(revision=self.revision))

    def _tell(self, stream: _Stream, change: Change) -> None:
        puts = tuple(each for each in change.puts if each.key.startswith(stream.prefix))
        deleted = tuple(each for each in change.deleted if each[0].startswith(stream.prefix))
        if not puts and not deleted:
            return
        fate = self.faults.of_event(self, stream.process)
        if fate.lost:
            return
        own = Change(revision=change.revision, puts=puts, deleted=deleted)
        if fate.broken:
            self._send(stream, fate.delay_s + 1.0, Change(revision=change.revision), own)
        else:
            self._send(stream, fate.delay_s, *([own] * (1 + fate.twice)))

    def _send(self, stream: _Stream, delay_s: float, *changes: Change) -> None:
        """In order: of two timers of the same moment either may come first."""
        stream.last_due = max(stream.last_due + 1e-6, self.loop.time() + delay_s)
        self.loop.later(stream.last_due - self.loop.time(), stream.deliver, *changes)
