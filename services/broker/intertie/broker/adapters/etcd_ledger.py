"""The ledger in the site's etcd: by the book where this replica leads, by reading it elsewhere."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TypeVar

import structlog

from intertie.broker.adapters import keys
from intertie.broker.adapters.agent_reports import AgentReports
from intertie.broker.adapters.archive import Archive, beside
from intertie.broker.adapters.etcd_reads import EtcdReads
from intertie.broker.adapters.line import Leadership, Line
from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.fleet import HostFacts, Policy, SeenPart
from intertie.broker.domain.guarantees import MeasuredPart
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import WholeCluster
from intertie.broker.domain.records import Change, ForwardRecord, RequestRecord
from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, NotLeading
from intertie.common.etcd.client import Change as Written
from intertie.common.etcd.client import Etcd, EtcdRefused
from intertie.common.etcd.hints import Bell
from intertie.common.names import ClusterName, Parent, PartName

log = structlog.get_logger(__name__)

T = TypeVar("T", Part, ClusterRecord, ForwardRecord)

RELIST_S = 30.0
"""Everything is compared with what etcd has this often, so that what a watch did not tell is
found."""
_REWATCH_S = 1.0
MANY = 1000
"""Reports, from which on all are read rather than each."""


class EtcdLedger:
    """See domain.ports.Ledger."""

    def __init__(self, etcd: Etcd, leadership: Leadership, policy: Policy, clock: Clock) -> None:
        self.bell = Bell()
        """Rung with what changed, see keys.touched_by."""
        self._etcd = etcd
        self._leadership = leadership
        self._policy = policy
        self._clock = clock
        self._reads = EtcdReads(etcd, policy)
        self._line = Line(etcd, leadership, self._reads, self._ring, clock)
        self._archive = Archive(etcd)
        self._reports = AgentReports(policy)
        self._following = False

    async def view(self) -> LedgerView:
        reports = await self._agents()
        try:
            book = await self._line.book()
        except NotLeading:
            return await self._reads.everything()
        return book.view(reports.fleet, reports.seen)

    async def whole_cluster(self, tenant: str, cluster_id: str) -> WholeCluster | None:
        reports = await self._agents()
        book = await self._line.confirmed()
        if book is not None:
            cluster = book.clusters.get(self._cluster_name(tenant, cluster_id))
            part = book.parts.get(cluster.value.part) if cluster else None
        else:
            cluster = await self._reads.one(ClusterRecord, keys.cluster_key(tenant, cluster_id))
            part = await self.part(PartName.parse(cluster.value.part)) if cluster else None
        if cluster is None:
            cluster = await self._archive.cluster(tenant, cluster_id)
            if cluster is None:
                return None
            part = await self._archive.part(PartName.parse(cluster.value.part))
        uid = PartName.parse(cluster.value.part).uid
        return WholeCluster(
            cluster=cluster,
            part=part,
            seen=reports.seen.get(uid, {}),
            measured=reports.measured.get(uid, {}),
        )

    async def part(self, name: PartName) -> Versioned[Part] | None:
        book = await self._line.confirmed()
        if book is not None:
            found = book.parts.get(str(name))
            if found is not None or str(name) not in book.tombs:
                return found
        else:
            found = await self._reads.one(Part, keys.part_key(name))
        return found if found is not None else await self._archive.part(name)

    async def parts(self, tenant: str = "") -> tuple[Versioned[Part], ...]:
        book = await self._line.confirmed()
        if book is not None:
            here = _listed(book.parts, tenant)
        else:
            here = await self._reads.all(Part, keys.PARTS, tenant)
        return beside(here, await self._archive.parts(tenant))

    async def cluster(self, tenant: str, cluster_id: str) -> Versioned[ClusterRecord] | None:
        book = await self._line.confirmed()
        if book is not None:
            found = book.clusters.get(self._cluster_name(tenant, cluster_id))
        else:
            found = await self._reads.one(ClusterRecord, keys.cluster_key(tenant, cluster_id))
        return found if found is not None else await self._archive.cluster(tenant, cluster_id)

    async def clusters(self, tenant: str = "") -> tuple[Versioned[ClusterRecord], ...]:
        book = await self._line.confirmed()
        if book is not None:
            here = _listed(book.clusters, tenant)
        else:
            here = await self._reads.all(ClusterRecord, keys.CLUSTERS, tenant)
        return beside(here, await self._archive.clusters(tenant))

    async def request(self, caller: str, request_id: str) -> Versioned[RequestRecord] | None:
        known = await self._line.known()
        if known is not None:
            return known.requests.get((caller, request_id))
        return await self._reads.one(RequestRecord, keys.request_key(caller, request_id))

    async def requests(self) -> tuple[Versioned[RequestRecord], ...]:
        book = await self._line.confirmed()
        if book is not None:
            return tuple(book.requests.values())
        return await self._reads.all(RequestRecord, keys.REQUESTS, "")

    async def forward(self, tenant: str, cluster_id: str) -> Versioned[ForwardRecord] | None:
        book = await self._line.confirmed()
        if book is not None:
            return book.forwards.get(self._cluster_name(tenant, cluster_id))
        return await self._reads.one(ForwardRecord, keys.forward_key(tenant, cluster_id))

    async def forwards(self, tenant: str = "") -> tuple[Versioned[ForwardRecord], ...]:
        book = await self._line.confirmed()
        if book is not None:
            return _listed(book.forwards, tenant)
        return await self._reads.all(ForwardRecord, keys.FORWARDS, tenant)

    async def seen(self) -> Mapping[str, Mapping[str, SeenPart]]:
        return (await self._agents()).seen

    async def measured(self) -> Mapping[str, Mapping[str, MeasuredPart]]:
        return (await self._agents()).measured

    async def facts(self) -> Mapping[str, HostFacts]:
        return (await self._agents()).fleet.facts

    def submit(self, change: Change) -> asyncio.Future[int]:
        return self._line.submit(change)

    async def commit(self, change: Change) -> int:
        await self._line.book()
        return await self._line.submit(change)

    async def check_leading(self) -> int:
        try:
            return self._leadership.leader_guard().number
        except NotLeading:
            raise NotLeading(await self._leadership.leader()) from None

    async def leader(self) -> str:
        return await self._leadership.leader()

    async def read_again(self) -> None:
        """Of what is known from earlier, nothing is trusted any more: every key is compared, and
        what differs is read."""
        await self._line.read_again()
        if self._following:
            await self._compare_reports()

    async def _compare_reports(self) -> None:
        """What agents say changes all the time, and what the watch has yet to tell differs too."""
        there: dict[str, int] = {}
        revision = 0
        async for page in self._etcd.keys(keys.SEEN):
            revision = page.revision
            there.update(page.keys)
        differing = self._reports.differing(there)
        if len(differing.older) > MANY:
            self._reports.relisted(await self._etcd.range(keys.SEEN))
            return
        gone = tuple((key, revision) for key in differing.gone)
        self._reports.changed(Written(revision=revision, deleted=gone))
        for key in differing.older:
            if (found := await self._etcd.get(key)) is not None:
                self._reports.changed(Written(revision=found.mod_revision, puts=(found,)))

    async def follow(self) -> None:
        """Keeps up with what agents say, and rings the bell, for ever. Without it, every reading
        of what agents say asks etcd."""
        await asyncio.gather(self._watch(), self._relist())

    async def _watch(self) -> None:
        while True:
            try:
                snapshot = await self._etcd.range(keys.SEEN)
                self._reports.relisted(snapshot)
                self._following = True
                self.bell.ring()
                # A leader rings for what it writes itself; at other replicas, whoever waits for
                # more than what agents say has its periods.
                async for change in self._etcd.watch(keys.SEEN, snapshot.revision + 1):
                    if not change.keys:
                        break
                    self._reports.changed(change)
                    self._ring(change.keys)
            except (EtcdUnavailable, EtcdRefused) as error:
                log.warning("ledger.watch_ended", problem=str(error))
            finally:
                self._following = False
            await self._clock.sleep(_REWATCH_S)

    async def _relist(self) -> None:
        while True:
            await self._clock.sleep(RELIST_S)
            try:
                await self.read_again()
            except (EtcdUnavailable, EtcdRefused) as error:
                log.warning("ledger.not_read_again", problem=str(error))
                continue
            self.bell.ring()

    async def _agents(self) -> AgentReports:
        if self._following:
            return self._reports
        return AgentReports(self._policy, (await self._etcd.range(keys.SEEN)).entries)

    def _ring(self, changed: Iterable[str]) -> None:
        """What is measured changes all the time, and nothing is decided by it, nor by what is
        written down of usage: no ring."""
        if touched := {
            keys.touched_by(key, self._policy.site)
            for key in changed
            if not key.startswith((keys.ACCOUNTS, keys.ARCHIVE, keys.TOMBS, keys.USAGE))
            and not keys.host_of_measured(key)
        }:
            self.bell.ring(touched)

    def _cluster_name(self, tenant: str, cluster_id: str) -> str:
        return str(ClusterName(Parent(f"sites/{self._policy.site}", tenant), cluster_id))


def _listed(found: Mapping[str, Versioned[T]], tenant: str) -> tuple[Versioned[T], ...]:
    """Of one tenant, or all, in the order of names."""
    within = f"/tenants/{tenant}/" if tenant else ""
    return tuple(found[name] for name in sorted(found) if within in name)
