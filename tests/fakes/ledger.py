"""A ledger in memory that keeps the promises of the one in etcd."""

from collections.abc import Iterable, Mapping
from typing import Any

from intertie.broker.adapters import keys
from intertie.broker.adapters.archive import beside
from intertie.broker.domain.account import (
    ChainEntry,
    Checkpoint,
    StoredRecord,
    UsageBatch,
    UsageHead,
)
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Fleet, HostFacts, Policy, SeenPart
from intertie.broker.domain.guarantees import MeasuredPart
from intertie.broker.domain.ledger import LedgerView, Versioned, standing_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import WholeCluster
from intertie.broker.domain.records import (
    Change,
    Erase,
    ForwardRecord,
    RequestRecord,
    Tomb,
    Write,
)
from intertie.broker.domain.wanted import WantedPart
from intertie.broker.usage_proto import period_of
from intertie.common.errors import EtcdUnavailable, NotLeading, StaleWrite
from intertie.common.names import PartName
from intertie.common.values import replace


class MemoryLedger:
    """`leading`, `term`, `broken` and `loses_answer` are for tests to set."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.leading = True
        self.term = 1
        self.broken = False
        self.loses_answer = False
        """The next commit is done, and its answer lost."""
        self.wanted: dict[tuple[str, str], WantedPart] = {}
        self.commits: list[Change] = []
        self._records: dict[str, Versioned[Any]] = {}
        self.archived: dict[str, Any] = {}
        """By key."""
        self._generation = (0, 0)
        self._vnis: dict[int, str] = {}
        self._facts: dict[str, HostFacts] = {}
        self._seen: dict[str, dict[str, SeenPart]] = {}
        self._measured: dict[str, dict[str, MeasuredPart]] = {}
        self._revision = 1
        self.usage = MemoryUsage()

    def measure(self, host: str, measured: Mapping[str, MeasuredPart]) -> None:
        """All that is measured on the host, by part uid."""
        self._measured = {
            uid: kept
            for uid, hosts in self._measured.items()
            if (kept := {name: each for name, each in hosts.items() if name != host})
        }
        for uid, part in measured.items():
            self._measured.setdefault(uid, {})[host] = part

    def report(self, facts: HostFacts) -> None:
        self._revision += 1
        self._facts[facts.host] = replace(facts, revision=self._revision)

    def see(self, *reports: SeenPart) -> None:
        for each in reports:
            self._seen.setdefault(each.part_uid, {})[each.host] = each

    def unsee(self, host: str, part_uid: str) -> None:
        self._seen.get(part_uid, {}).pop(host, None)

    async def view(self) -> LedgerView:
        self._check()
        told: dict[str, dict[str, int]] = {}
        for (host, uid), wanted in self.wanted.items():
            told.setdefault(uid, {})[host] = wanted.generation
        hosts = _by_name(self._all(keys.HOSTS, ""))
        return LedgerView(
            generation=self._generation[0],
            generation_revision=self._generation[1],
            parts=_by_name(self._all(keys.PARTS, "")),
            clusters=_by_name(self._all(keys.CLUSTERS, "")),
            forwards=_by_name(await self.forwards()),
            accounts=_by_name(self._all(keys.ACCOUNTS, "")),
            tombs=_by_name(self._all(keys.TOMBS, "")),
            requests={
                (each.value.caller, each.value.request_id): each for each in await self.requests()
            },
            vnis=dict(self._vnis),
            told=told,
            seen=await self.seen(),
            fleet=standing_of(Fleet.of(self._facts.values(), self.policy), hosts),
            hosts=hosts,
        )

    async def whole_cluster(self, tenant: str, cluster_id: str) -> WholeCluster | None:
        cluster = await self.cluster(tenant, cluster_id)
        if cluster is None:
            return None
        name = PartName.parse(cluster.value.part)
        return WholeCluster(
            cluster=cluster,
            part=await self.part(name),
            seen=self._seen.get(name.uid, {}),
            measured=self._measured.get(name.uid, {}),
        )

    async def part(self, name: PartName) -> Versioned[Part] | None:
        return self._one(keys.part_key(name)) or self._kept(keys.archived_part_key(name))

    async def parts(self, tenant: str = "") -> tuple[Versioned[Part], ...]:
        return beside(self._all(keys.PARTS, tenant), self._all_kept(keys.ARCHIVED_PARTS, tenant))

    async def cluster(self, tenant: str, cluster_id: str) -> Versioned[ClusterRecord] | None:
        kept = self._kept(keys.archived_clusters_key(tenant, cluster_id))
        return self._one(keys.cluster_key(tenant, cluster_id)) or kept

    async def clusters(self, tenant: str = "") -> tuple[Versioned[ClusterRecord], ...]:
        kept = self._all_kept(keys.ARCHIVED_CLUSTERS, tenant)
        return beside(self._all(keys.CLUSTERS, tenant), kept)

    async def request(self, caller: str, request_id: str) -> Versioned[RequestRecord] | None:
        return self._one(keys.request_key(caller, request_id))

    async def requests(self) -> tuple[Versioned[RequestRecord], ...]:
        return self._all(keys.REQUESTS, "")

    async def forward(self, tenant: str, cluster_id: str) -> Versioned[ForwardRecord] | None:
        return self._one(keys.forward_key(tenant, cluster_id))

    async def forwards(self, tenant: str = "") -> tuple[Versioned[ForwardRecord], ...]:
        return self._all(keys.FORWARDS, tenant)

    async def seen(self) -> Mapping[str, Mapping[str, SeenPart]]:
        self._check()
        return {uid: dict(hosts) for uid, hosts in self._seen.items()}

    async def measured(self) -> Mapping[str, Mapping[str, MeasuredPart]]:
        self._check()
        return {uid: dict(hosts) for uid, hosts in self._measured.items()}

    async def facts(self) -> Mapping[str, HostFacts]:
        self._check()
        return dict(self._facts)

    async def submit(self, change: Change) -> int:
        return await self.commit(change)

    async def commit(self, change: Change) -> int:
        self._check()
        if not self.leading:
            raise NotLeading("another")
        self._compare(change)
        self._revision += 1
        self._write(change)
        self.commits.append(change)
        if self.loses_answer:
            self.loses_answer = False
            raise EtcdUnavailable("the answer was lost")
        return self._revision

    async def check_leading(self) -> int:
        if not self.leading:
            raise NotLeading("another")
        return self.term

    async def leader(self) -> str:
        return "this" if self.leading else "another"

    def _compare(self, change: Change) -> None:
        if change.admitted_on is not None and change.admitted_on != self._generation[0]:
            raise StaleWrite(keys.GENERATION)
        compared: list[Write | Erase] = [*change.writes, *change.erasures]
        for each in compared:
            key = keys.of_record(each.record)
            stored = self._records.get(key)
            if (stored.revision if stored else 0) != each.read_at:
                raise StaleWrite(key)
        for part in change.parts():
            if keys.of_record(_tomb_of(part)) in self._records:
                raise StaleWrite(part.name)
        for name in change.unchanged:
            stored = self._records.get(keys.of_unchanged(name))
            if (stored.revision if stored else 0) != name.read_at:
                raise StaleWrite(keys.of_unchanged(name))
        for vni, _ in change.vnis:
            if vni in self._vnis:
                raise StaleWrite(keys.vni_key(vni))
        for host, revision in change.silent:
            if self._facts[host].revision != revision:
                raise StaleWrite(keys.facts_key(host))
        if change.usage is not None and change.usage.head_read_at != self.usage.written_at:
            raise StaleWrite(keys.USAGE_HEAD)

    def _write(self, change: Change) -> None:
        if change.admitted_on is not None:
            self._generation = (change.admitted_on + 1, self._revision)
        for write in change.writes:
            self._records[keys.of_record(write.record)] = Versioned(
                value=write.record, revision=self._revision
            )
        for erasure in change.erasures:
            del self._records[keys.of_record(erasure.record)]
            if isinstance(erasure.record, Tomb):
                for key in keys.archived_keys_of(erasure.record):
                    del self.archived[key]
        for record in change.archived:
            self.archived[keys.archived_key(record)] = record
        for vni, part_uid in change.vnis:
            self._vnis[vni] = part_uid
        for vni in change.vnis_given_back():
            self._vnis.pop(vni, None)
        for host, wanted in change.wanted.items():
            self.wanted[host, wanted.part_uid] = wanted
        for place in change.unwanted:
            self.wanted.pop(place, None)
        if change.usage is not None:
            self.usage.take(change.usage, self._revision)

    def _check(self) -> None:
        if self.broken:
            raise EtcdUnavailable("broken for a test")

    def _one(self, key: str) -> Versioned[Any] | None:
        self._check()
        return self._records.get(key)

    def _kept(self, start: str) -> Versioned[Any] | None:
        """The last one, of several clusters that had the name."""
        self._check()
        found = [self.archived[key] for key in self.archived if key.startswith(start)]
        last = max(found, key=lambda each: each.create_time, default=None)
        return Versioned(value=last, revision=0) if last else None

    def _all_kept(self, prefix: str, tenant: str) -> tuple[Versioned[Any], ...]:
        start = f"{prefix}{tenant}/" if tenant else prefix
        names = {each.name for key, each in self.archived.items() if key.startswith(start)}
        return tuple(
            Versioned(value=last, revision=0)
            for name in sorted(names)
            for last in [
                max(
                    (each for each in self.archived.values() if each.name == name),
                    key=lambda each: each.create_time,
                )
            ]
        )

    def _all(self, prefix: str, tenant: str) -> tuple[Versioned[Any], ...]:
        self._check()
        start = f"{prefix}{tenant}/" if tenant else prefix
        return tuple(self._under(start))

    def _under(self, start: str) -> Iterable[Versioned[Any]]:
        return (self._records[key] for key in sorted(self._records) if key.startswith(start))


class MemoryUsage:
    """Its chain of usage. What is in it is for tests to damage."""

    def __init__(self) -> None:
        self.written_at = 0
        self.chain: dict[int, ChainEntry] = {}
        self.stored: dict[tuple[str, int], bytes] = {}
        """By tenant and number."""
        self.signed: dict[int, Checkpoint] = {}
        self._head: UsageHead | None = None

    def take(self, batch: UsageBatch, revision: int) -> None:
        for entry, body in zip(batch.entries, batch.bodies, strict=True):
            self.chain[entry.number] = entry
            self.stored[entry.tenant, entry.number] = body
        self.signed[batch.checkpoint.number] = batch.checkpoint
        self._head, self.written_at = batch.head, revision

    async def head(self) -> Versioned[UsageHead] | None:
        return Versioned(value=self._head, revision=self.written_at) if self._head else None

    async def records(self, tenant: str, *, after: int, most: int) -> tuple[StoredRecord, ...]:
        found = sorted(
            (number, body)
            for (of, number), body in self.stored.items()
            if number > after and tenant in ("", of)
        )
        return tuple(
            StoredRecord(number=number, body=body, period=period_of(body))
            for number, body in found[:most]
        )

    async def entries(self, *, after: int, most: int) -> tuple[ChainEntry, ...]:
        return tuple(self.chain[each] for each in sorted(self.chain) if each > after)[:most]

    async def bodies(self, entries: Iterable[ChainEntry]) -> Mapping[int, bytes]:
        return {
            each.number: self.stored[each.tenant, each.number]
            for each in entries
            if (each.tenant, each.number) in self.stored
        }

    async def checkpoints(self, first: int, last: int) -> tuple[Checkpoint, ...]:
        return tuple(self.signed[each] for each in sorted(self.signed) if first <= each <= last)


def _tomb_of(part: Part) -> Tomb:
    return Tomb(name=part.name, state=part.state.name, until=part.create_time)


def _by_name(found: Iterable[Versioned[Any]]) -> dict[str, Versioned[Any]]:
    return {each.value.name: each for each in found}
