"""The ledger in the site's etcd."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from intertie.broker.adapters import keys
from intertie.broker.adapters.agent_records import (
    facts_from_bytes,
    generation_of,
    seen_from_bytes,
    wanted_to_bytes,
)
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Fleet, HostFacts, Policy, SeenPart
from intertie.broker.domain.ledger import LedgerView, Snapshot, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import Change, ForwardRecord, RequestRecord
from intertie.common.errors import NotLeading, StaleWrite
from intertie.common.etcd.client import (
    MAX_OPERATIONS,
    Compare,
    DeleteKey,
    Entry,
    Etcd,
    Op,
    Put,
)
from intertie.common.etcd.records import decode, encode
from intertie.common.names import PartName

T = TypeVar("T")


class Leadership(Protocol):
    """Of this replica, as intertie.common.etcd.election.Election has it."""

    @property
    def is_leader(self) -> bool: ...

    def leader_guard(self) -> Compare: ...

    async def leader(self) -> str: ...


class EtcdLedger:
    """See domain.ports.Ledger. Decoded records are kept by (key, revision), so that a view of
    many parts decodes only those that have changed since the last."""

    def __init__(self, etcd: Etcd, leadership: Leadership, policy: Policy) -> None:
        self._etcd = etcd
        self._leadership = leadership
        self._policy = policy
        self._decoded: dict[str, tuple[int, Any]] = {}
        self._generations: dict[str, tuple[int, int]] = {}

    async def view(self) -> LedgerView:
        ledger = await self._etcd.range(keys.GENERATION)
        at = ledger.revision
        parts, seen, vnis = await asyncio.gather(
            self._all(Part, keys.PARTS, "", at),
            self._etcd.range(keys.SEEN, revision=at),
            self._etcd.range(keys.VNIS, revision=at),
        )
        return self._view(ledger.entries, parts, seen.entries, vnis.entries)

    async def snapshot(self) -> Snapshot:
        ledger = await self._etcd.range(keys.GENERATION)
        at = ledger.revision
        parts, clusters, seen, wanted, vnis = await asyncio.gather(
            self._all(Part, keys.PARTS, "", at),
            self._all(ClusterRecord, keys.CLUSTERS, "", at),
            self._etcd.range(keys.SEEN, revision=at),
            self._etcd.range(keys.WANTED, revision=at),
            self._etcd.range(keys.VNIS, revision=at),
        )
        return Snapshot(
            view=self._view(ledger.entries, parts, seen.entries, vnis.entries),
            clusters=clusters,
            told=self._told(wanted.entries),
            seen=_seen(seen.entries),
        )

    def _view(
        self,
        ledger: Iterable[Entry],
        parts: tuple[Versioned[Part], ...],
        seen: Iterable[Entry],
        vnis: Iterable[Entry],
    ) -> LedgerView:
        generation = next(iter(ledger), None)
        return LedgerView(
            generation=int(generation.value) if generation else 0,
            generation_revision=generation.mod_revision if generation else 0,
            parts=parts,
            vnis=frozenset(int(each.key.removeprefix(keys.VNIS)) for each in vnis),
            fleet=Fleet.of(_facts(seen), self._policy),
        )

    async def part(self, name: PartName) -> Versioned[Part] | None:
        return await self._one(Part, keys.part_key(name))

    async def parts(self, tenant: str = "") -> tuple[Versioned[Part], ...]:
        return await self._all(Part, keys.PARTS, tenant)

    async def cluster(self, tenant: str, cluster_id: str) -> Versioned[ClusterRecord] | None:
        return await self._one(ClusterRecord, keys.cluster_key(tenant, cluster_id))

    async def clusters(self, tenant: str = "") -> tuple[Versioned[ClusterRecord], ...]:
        return await self._all(ClusterRecord, keys.CLUSTERS, tenant)

    async def request(self, caller: str, request_id: str) -> Versioned[RequestRecord] | None:
        return await self._one(RequestRecord, keys.request_key(caller, request_id))

    async def requests(self) -> tuple[Versioned[RequestRecord], ...]:
        return await self._all(RequestRecord, keys.REQUESTS, "")

    async def forward(self, tenant: str, cluster_id: str) -> Versioned[ForwardRecord] | None:
        return await self._one(ForwardRecord, keys.forward_key(tenant, cluster_id))

    async def forwards(self, tenant: str = "") -> tuple[Versioned[ForwardRecord], ...]:
        return await self._all(ForwardRecord, keys.FORWARDS, tenant)

    async def seen(self) -> Mapping[str, Mapping[str, SeenPart]]:
        return _seen((await self._etcd.range(keys.SEEN)).entries)

    def _told(self, wanted: Iterable[Entry]) -> Mapping[str, Mapping[str, int]]:
        found: dict[str, dict[str, int]] = {}
        known, self._generations = self._generations, {}
        for entry in wanted:
            place = keys.host_and_part(entry.key)
            if place is None:
                continue
            host, uid = place
            revision, generation = known.get(entry.key, (0, 0))
            if revision != entry.mod_revision:
                generation = generation_of(entry.value)
            self._generations[entry.key] = entry.mod_revision, generation
            found.setdefault(uid, {})[host] = generation
        return found

    async def commit(self, change: Change) -> int:
        guard = self._leadership.leader_guard()
        compares, ops = [guard, *_compares(change)], list(_ops(change))
        first, rest = ops[:MAX_OPERATIONS], ops[MAX_OPERATIONS:]
        if len(rest) > len(change.wanted):
            raise ValueError("only records of hosts may follow in further transactions")
        result = await self._etcd.txn(compares, first)
        if not result.succeeded:
            raise await self._lost(guard, change)
        await self._go_on(guard, change, rest, result.revision)
        return result.revision

    async def check_leading(self) -> None:
        try:
            self._leadership.leader_guard()
        except NotLeading:
            raise NotLeading(await self._leadership.leader()) from None

    async def leader(self) -> str:
        return await self._leadership.leader()

    async def _go_on(self, guard: Compare, change: Change, rest: list[Op], revision: int) -> None:
        """Records of hosts that did not fit into the transaction, while its first record still
        is as it was written there. What is broken off is found missing, or of an older
        generation, and written again."""
        if not rest:
            return
        key = keys.of_record(change.writes[0].record)
        for start in range(0, len(rest), MAX_OPERATIONS):
            compares = [guard, Compare.mod(key, revision)]
            done = await self._etcd.txn(compares, rest[start : start + MAX_OPERATIONS])
            if not done.succeeded:
                raise await self._lost(guard, change)

    async def _lost(self, guard: Compare, change: Change) -> Exception:
        """Why a transaction was refused."""
        if not (await self._etcd.txn([guard], [])).succeeded:
            return NotLeading(await self._leadership.leader())
        first = change.writes[0] if change.writes else None
        return StaleWrite(keys.of_record(first.record) if first else keys.GENERATION)

    async def _one(self, kind: type[T], key: str) -> Versioned[T] | None:
        entry = await self._etcd.get(key)
        return self._versioned(kind, entry) if entry else None

    async def _all(
        self, kind: type[T], prefix: str, tenant: str, revision: int = 0
    ) -> tuple[Versioned[T], ...]:
        start = f"{prefix}{tenant}/" if tenant else prefix
        snapshot = await self._etcd.range(start, revision=revision)
        there = {entry.key for entry in snapshot.entries}
        for key in [each for each in self._decoded if each.startswith(start)]:
            if key not in there:
                del self._decoded[key]
        return tuple(self._versioned(kind, entry) for entry in snapshot.entries)

    def _versioned(self, kind: type[T], entry: Entry) -> Versioned[T]:
        known = self._decoded.get(entry.key)
        if known is None or known[0] != entry.mod_revision:
            known = (entry.mod_revision, decode(kind, entry.value))
            self._decoded[entry.key] = known
        value: T = known[1]
        return Versioned(value=value, revision=entry.mod_revision)


def _seen(entries: Iterable[Entry]) -> Mapping[str, Mapping[str, SeenPart]]:
    found: dict[str, dict[str, SeenPart]] = {}
    for entry in entries:
        place = keys.host_and_part(entry.key)
        if place is None:
            continue
        host, uid = place
        report = seen_from_bytes(entry.value, host)
        if report is not None and report.part_uid == uid:
            found.setdefault(uid, {})[host] = report
    return found


def _facts(entries: Iterable[Entry]) -> Iterator[HostFacts]:
    for entry in entries:
        if host := keys.host_of_facts(entry.key):
            facts = facts_from_bytes(entry.value, host)
            if facts is not None:
                yield facts


def _compares(change: Change) -> Iterator[Compare]:
    if change.admitted_on is not None:
        yield Compare.mod(keys.GENERATION, change.admitted_on.generation_revision)
    for write in change.writes:
        yield Compare.mod(keys.of_record(write.record), write.read_at)
    for erasure in change.erasures:
        yield Compare.mod(keys.of_record(erasure.record), erasure.read_at)
    for name in change.unchanged:
        yield Compare.mod(keys.of_unchanged(name), name.read_at)
    for vni, _ in change.vnis:
        yield Compare.absent(keys.vni_key(vni))


def _ops(change: Change) -> Iterator[Op]:
    if change.admitted_on is not None:
        yield Put(keys.GENERATION, str(change.admitted_on.generation + 1).encode())
    for write in change.writes:
        yield Put(keys.of_record(write.record), encode(write.record))
    for erasure in change.erasures:
        yield DeleteKey(keys.of_record(erasure.record))
    for vni, part_uid in change.vnis:
        yield Put(keys.vni_key(vni), part_uid.encode())
    for vni in change.vnis_given_back():
        yield DeleteKey(keys.vni_key(vni))
    for host, part_uid in change.unwanted:
        yield DeleteKey(keys.wanted_key(host, part_uid))
    for host, wanted in change.wanted.items():
        yield Put(keys.wanted_key(host, wanted.part_uid), wanted_to_bytes(wanted))
