"""An etcd in memory: revisions and guarded transactions as the real one has them."""

from collections.abc import AsyncGenerator, Sequence

from intertie.common.errors import EtcdUnavailable, NotLeading
from intertie.common.etcd.client import (
    Compare,
    DeleteKey,
    Entry,
    Etcd,
    Keys,
    Op,
    Put,
    Snapshot,
    TxnResult,
)
from intertie.common.etcd.election import Election


class MemoryEtcd(Etcd):
    """`broken` and `loses_answer` are for tests to set."""

    def __init__(self) -> None:
        self.broken = False
        self.loses_answer = False
        """The next transaction is done, and its answer lost."""
        self.history: list[tuple[Op, ...]] = []
        """Of the transactions that succeeded."""
        self.granted: list[int] = []
        """Seconds of each lease."""
        self._entries: dict[str, Entry] = {}
        self._revision = 1

    async def close(self) -> None:
        pass

    async def get(self, key: str) -> Entry | None:
        self._check()
        return self._entries.get(key)

    async def range(self, prefix: str, *, without: tuple[str, ...] = ()) -> Snapshot:
        self._check()
        found = [
            self._entries[key]
            for key in sorted(self._entries)
            if key.startswith(prefix) and not key.startswith(without)
        ]
        return Snapshot(entries=tuple(found), revision=self._revision)

    async def some(self, first: str, last: str, *, most: int) -> tuple[Entry, ...]:
        self._check()
        found = [self._entries[key] for key in sorted(self._entries) if first <= key <= last]
        return tuple(found[:most])

    async def keys(self, prefix: str, *, revision: int = 0) -> AsyncGenerator[Keys, None]:
        snapshot = await self.range(prefix)
        found = tuple((each.key, each.mod_revision) for each in snapshot.entries)
        yield Keys(keys=found, revision=revision or snapshot.revision)

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        self._check()
        if not all(holds(each, self._entries.get(each.key)) for each in compare):
            return TxnResult(succeeded=False, revision=self._revision)
        self._revision += 1
        self.history.append(tuple(then))
        for op in then:
            if not isinstance(op, Put):
                self._entries.pop(op.key, None)
                continue
            before = self._entries.get(op.key)
            self._entries[op.key] = Entry(
                key=op.key,
                value=op.value,
                mod_revision=self._revision,
                create_revision=before.create_revision if before else self._revision,
            )
        if self.loses_answer:
            self.loses_answer = False
            raise EtcdUnavailable("the answer was lost")
        return TxnResult(succeeded=True, revision=self._revision)

    async def grant(self, ttl_s: int) -> int:
        """Of a lease that never runs out: by when what is put with it is of no use, who reads it
        is to know."""
        self._check()
        self.granted.append(ttl_s)
        return len(self.granted)

    def _check(self) -> None:
        if self.broken:
            raise EtcdUnavailable("no member answers")


def holds(compare: Compare, entry: Entry | None) -> bool:
    """Of what is under its key, or of there being nothing."""
    match compare.target:
        case "mod":
            return (entry.mod_revision if entry else 0) == compare.number
        case "create":
            return (entry.create_revision if entry else 0) == compare.number
    return entry is not None and entry.value == compare.octets


class MemoryElection(Election):
    """Leads once `win` was called; deposed by another's `win`, without knowing it."""

    def __init__(self, etcd: MemoryEtcd, identity: str) -> None:
        self._store = etcd
        self._name = identity
        self._created_at = 0

    async def win(self) -> None:
        key = "election/metasched"
        await self._store.txn([], [DeleteKey(key)])
        done = await self._store.txn([], [Put(key, self._name.encode())])
        self._created_at = done.revision

    @property
    def is_leader(self) -> bool:
        return self._created_at > 0

    def leader_guard(self) -> Compare:
        if not self._created_at:
            raise NotLeading("")
        return Compare.created("election/metasched", self._created_at)

    async def leader(self) -> str:
        entry = await self._store.get("election/metasched")
        return entry.value.decode() if entry else ""

    async def wait_until_leading(self) -> None:
        assert self._created_at
