"""Clusters and idempotency records in the meta-scheduler's etcd."""

from collections.abc import Mapping

import structlog

from intertie.common.errors import NotLeading, StaleWrite
from intertie.common.etcd.client import Compare, DeleteKey, Etcd, Op, Put
from intertie.common.etcd.election import Election
from intertie.common.etcd.records import MAX_BYTES, check_size, decode, encode
from intertie.common.names import ClusterName
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord, SeenRecord
from intertie.metasched.domain.ports import RequestRecord, Stored

log = structlog.get_logger(__name__)

CLUSTERS = "clusters/"
SEEN = "seen/"


def cluster_key(name: str) -> str:
    path = ClusterName.parse(name)
    return f"{CLUSTERS}{path.tenant}/{path.cluster_id}"


def seen_key(name: str) -> str:
    path = ClusterName.parse(name)
    return f"{SEEN}{path.tenant}/{path.cluster_id}"


def request_key(key: str) -> str:
    return f"requests/{key}"


class EtcdClusters:
    def __init__(self, etcd: Etcd, election: Election) -> None:
        self._etcd = etcd
        self._election = election

    async def check_leading(self) -> None:
        if not self._election.is_leader:
            raise NotLeading(await self._election.leader())

    async def get(self, name: str) -> Stored | None:
        entry = await self._etcd.get(cluster_key(name))
        if entry is None:
            return None
        return Stored(record=decode(ClusterRecord, entry.value), read_at=entry.mod_revision)

    async def listed(self, tenant: str = "") -> tuple[Stored, ...]:
        snapshot = await self._etcd.range(f"{CLUSTERS}{tenant}/" if tenant else CLUSTERS)
        return tuple(
            Stored(record=decode(ClusterRecord, each.value), read_at=each.mod_revision)
            for each in snapshot.entries
        )

    async def request(self, key: str) -> RequestRecord | None:
        entry = await self._etcd.get(request_key(key))
        return decode(RequestRecord, entry.value) if entry else None

    async def requests(self) -> Mapping[str, RequestRecord]:
        snapshot = await self._etcd.range("requests/")
        return {
            each.key.removeprefix("requests/"): decode(RequestRecord, each.value)
            for each in snapshot.entries
        }

    async def save(self, record: ClusterRecord, *, read_at: int) -> int:
        key = cluster_key(record.name)
        return await self._write([Compare.mod(key, read_at)], [Put(key, encode(record))])

    async def enqueue(self, record: ClusterRecord, *, read_at: int, request: RequestRecord) -> int:
        key, asked = cluster_key(record.name), request_key(record.request_key)
        then = [Put(key, encode(record)), Put(asked, encode(request))]
        check_size(each.value for each in then)
        return await self._write([Compare.mod(key, read_at), Compare.absent(asked)], [*then])

    async def delete(self, stored: Stored) -> None:
        key = cluster_key(stored.record.name)
        then: list[Op] = [DeleteKey(key), DeleteKey(seen_key(stored.record.name))]
        if stored.record.request_key:
            then.append(DeleteKey(request_key(stored.record.request_key)))
        await self._write([Compare.mod(key, stored.read_at)], then)

    async def forget_request(self, key: str) -> None:
        await self._write([], [DeleteKey(request_key(key))])

    async def note(self, key: str, request: RequestRecord, stored: Stored) -> None:
        cluster = cluster_key(stored.record.name)
        await self._write(
            [Compare.mod(cluster, stored.read_at), Compare.absent(request_key(key))],
            [Put(request_key(key), encode(request))],
        )

    async def clear(self, stored: Stored) -> None:
        record, key = stored.record, cluster_key(stored.record.name)
        then: list[Op] = [Put(key, encode(replace(record, amend=None)))]
        if record.amend is not None and record.amend.request_key:
            then.append(DeleteKey(request_key(record.amend.request_key)))
        await self._write([Compare.mod(key, stored.read_at)], then)

    async def _write(self, compare: list[Compare], then: list[Op]) -> int:
        return await written_by_leader(self._etcd, self._election, compare, then)


class EtcdSightings:
    """See domain.ports.Sightings."""

    def __init__(self, etcd: Etcd, election: Election) -> None:
        self._etcd = etcd
        self._election = election

    async def listed(self) -> tuple[SeenRecord, ...]:
        snapshot = await self._etcd.range(SEEN)
        return tuple(decode(SeenRecord, each.value) for each in snapshot.entries)

    async def save(self, name: str, seen: SeenRecord) -> None:
        octets = encode(seen)
        if len(octets) > MAX_BYTES:
            log.warning("seen.too_large", cluster=name, octets=len(octets))
            return
        key = cluster_key(name)
        cluster = await self._etcd.get(key)
        if cluster is None:
            return
        # Of a cluster that is cleared away meanwhile, nothing stays.
        compare = [Compare.created(key, cluster.create_revision)]
        await written_by_leader(self._etcd, self._election, compare, [Put(seen_key(name), octets)])


async def written_by_leader(
    etcd: Etcd, election: Election, compare: list[Compare], then: list[Op]
) -> int:
    """The revision. StaleWrite when something was written by another; NotLeading when that is the
    lead, whether or not this replica knows yet."""
    guard = election.leader_guard()
    result = await etcd.txn([guard, *compare], then)
    if result.succeeded:
        return result.revision
    if not (await etcd.txn([guard], [])).succeeded:
        raise NotLeading(await election.leader())
    raise StaleWrite(then[0].key)
