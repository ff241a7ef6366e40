"""Writes down a cluster that waits for room at its sites."""

import asyncio

import structlog

from intertie.common.clock import Clock
from intertie.common.values import replace
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState, ClusterView
from intertie.metasched.domain.ports import Clusters, RequestRecord, Stored
from intertie.metasched.domain.waiting import check_queue, told, waits
from intertie.metasched.usecases.fits_aside import FitsAside
from intertie.metasched.usecases.get_cluster import GetCluster
from intertie.metasched.usecases.line import Line
from intertie.metasched.usecases.telling import Callers

log = structlog.get_logger(__name__)


class EnqueueCluster:
    def __init__(
        self,
        clusters: Clusters,
        line: Line,
        fits: FitsAside,
        get_cluster: GetCluster,
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._line = line
        self._fits = fits
        self._get_cluster = get_cluster
        self._clock = clock
        self._counting = asyncio.Lock()
        """From the count of those in line until one more is written: only the leader writes."""

    async def plan_only(self, record: ClusterRecord) -> ClusterView:
        """When it would start, as things stand. Writes nothing."""
        await self._check(record)
        others = [each.record for each in await self._clusters.listed()]
        line = [*(each for each in others if waits(each) and each.name != record.name), record]
        found = (await self._line.outlooks(line, others, now=self._clock.now()))[record.name]
        after = told(record, found.foreseen, found.reasons, found.shortfalls)
        return await self._get_cluster.view(replace(after, state=ClusterState.PLANNED))

    async def __call__(
        self,
        record: ClusterRecord,
        request: RequestRecord,
        replaced: Stored | None,
        callers: Callers,
    ) -> ClusterView:
        """The cluster, QUEUED. NoCapacity where its tenant has as many as it may; StaleWrite where
        its name or its request was written meanwhile."""
        await callers.while_there(self._check(record))
        read_at = replaced.read_at if replaced else 0
        async with self._counting:
            await self._check_queue(record)
            await self._clusters.enqueue(record, read_at=read_at, request=request)
        log.info("create.queued", cluster=record.name)
        return await self._get_cluster.view(record)

    async def _check_queue(self, record: ClusterRecord) -> None:
        if self._line.policy.queued_leases is None:
            return
        tenant = record.path.tenant
        found = await self._clusters.listed(tenant)
        check_queue(tenant, [each.record for each in found], self._line.policy)

    async def _check(self, record: ClusterRecord) -> None:
        await self._check_queue(record)
        now = self._clock.now()
        plan = await self._line.check_possible(record.path.tenant, record.spec, now=now)
        self._fits.check(record, plan, now=now)
