"""The records of a site as etcd has them: linearizable, at any replica.

Decoded records are kept by (key, revision), so that reading many decodes only what has changed.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

from intertie.broker.adapters import keys
from intertie.broker.adapters.agent_records import generation_of
from intertie.broker.adapters.agent_reports import AgentReports
from intertie.broker.adapters.mirror import Mirror
from intertie.broker.domain.account import Account
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, Versioned, standing_of
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.part import Part
from intertie.broker.domain.records import ForwardRecord, RequestRecord, Tomb
from intertie.common.etcd.client import Entry, Etcd, Keys
from intertie.common.etcd.records import decode

T = TypeVar("T", Part, ClusterRecord, ForwardRecord, RequestRecord, Account, HostRecord, Tomb)
N = TypeVar("N", Part, ClusterRecord, ForwardRecord, Account, HostRecord, Tomb)


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    return lambda octets: decode(kind, octets)


_READ: dict[str, Callable[[bytes], Any]] = {
    keys.PARTS: _reader(Part),
    keys.CLUSTERS: _reader(ClusterRecord),
    keys.REQUESTS: _reader(RequestRecord),
    keys.FORWARDS: _reader(ForwardRecord),
    keys.ACCOUNTS: _reader(Account),
    keys.HOSTS: _reader(HostRecord),
    keys.TOMBS: _reader(Tomb),
}

LARGE = 2000
"""Entries, from which on they are decoded beside the event loop. With 100,000 parts that takes
seconds, in which a replica would lose the lead that it reads them for."""


class EtcdReads:
    def __init__(self, etcd: Etcd, policy: Policy) -> None:
        self._etcd = etcd
        self.policy = policy
        self._decoded: dict[str, tuple[int, Any]] = {}

    async def everything(self) -> LedgerView:
        """All that is under the site's prefix but the chain of usage and the archive, at one
        revision."""
        return (await self.mirrored())[0]

    async def mirrored(self) -> tuple[LedgerView, Mirror]:
        """The same, and what it is compared by later."""
        snapshot = await self._etcd.range("", without=(keys.ARCHIVE, keys.USAGE))
        if len(snapshot.entries) >= LARGE:
            await asyncio.to_thread(self._decode, snapshot.entries)
        return self._view(snapshot.entries), Mirror(snapshot.entries)

    def _decode(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if read := _READ.get(entry.key.split("/", 1)[0] + "/"):
                self._once(entry, read)

    def _view(self, entries: tuple[Entry, ...]) -> LedgerView:
        under: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            under[entry.key.split("/", 1)[0] + "/"].append(entry)
        self._forget_but(entries)
        generation = next((each for each in under["ledger/"] if each.key == keys.GENERATION), None)
        agents = AgentReports(self.policy, under[keys.SEEN])
        hosts = self._by_name(HostRecord, under[keys.HOSTS])
        requests = [self._versioned(RequestRecord, each) for each in under[keys.REQUESTS]]
        return LedgerView(
            generation=int(generation.value) if generation else 0,
            generation_revision=generation.mod_revision if generation else 0,
            parts=self._by_name(Part, under[keys.PARTS]),
            clusters=self._by_name(ClusterRecord, under[keys.CLUSTERS]),
            forwards=self._by_name(ForwardRecord, under[keys.FORWARDS]),
            accounts=self._by_name(Account, under[keys.ACCOUNTS]),
            tombs=self._by_name(Tomb, under[keys.TOMBS]),
            requests={(each.value.caller, each.value.request_id): each for each in requests},
            vnis={keys.vni_of(each.key): each.value.decode() for each in under[keys.VNIS]},
            told=self._told(under[keys.WANTED]),
            seen=agents.seen,
            fleet=standing_of(agents.fleet, hosts) if hosts else agents.fleet,
            hosts=hosts,
        )

    async def listing(self) -> AsyncGenerator[Keys, None]:
        """All keys of the ledger at one revision, in pages."""
        revision = 0
        for prefix in keys.LEDGER:
            async for page in self._etcd.keys(prefix, revision=revision):
                revision = page.revision
                yield page

    async def one(self, kind: type[T], key: str) -> Versioned[T] | None:
        entry = await self._etcd.get(key)
        return self._versioned(kind, entry) if entry else None

    async def all(self, kind: type[T], prefix: str, tenant: str) -> tuple[Versioned[T], ...]:
        snapshot = await self._etcd.range(f"{prefix}{tenant}/" if tenant else prefix)
        return tuple(self._versioned(kind, entry) for entry in snapshot.entries)

    def _told(self, entries: Iterable[Entry]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for entry in entries:
            if place := keys.host_and_part(entry.key):
                host, uid = place
                found.setdefault(uid, {})[host] = self._once(entry, generation_of)
        return found

    def _by_name(self, kind: type[N], entries: Iterable[Entry]) -> dict[str, Versioned[N]]:
        found = (self._versioned(kind, each) for each in entries)
        return {each.value.name: each for each in found}

    def _versioned(self, kind: type[T], entry: Entry) -> Versioned[T]:
        value: T = self._once(entry, _reader(kind))
        return Versioned(value=value, revision=entry.mod_revision)

    def _once(self, entry: Entry, read: Any) -> Any:
        known = self._decoded.get(entry.key)
        if known is None or known[0] != entry.mod_revision:
            known = self._decoded[entry.key] = entry.mod_revision, read(entry.value)
        return known[1]

    def _forget_but(self, entries: Iterable[Entry]) -> None:
        """Goes by what is there: meanwhile another may be decoding."""
        known = self._decoded
        self._decoded = {each.key: known[each.key] for each in entries if each.key in known}
