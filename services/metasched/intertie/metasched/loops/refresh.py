"""Writes what sites say of clusters where it changes their state, and clears old records."""

import asyncio
from datetime import timedelta

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.metasched.domain.cluster import LIVE, progressed
from intertie.metasched.domain.ports import Clusters, Stored
from intertie.metasched.usecases.part_cache import PartCache

log = structlog.get_logger(__name__)

RETENTION = timedelta(hours=24)
"""Of clusters that are over, and of request ids."""


class Refresh:
    def __init__(self, clusters: Clusters, parts: PartCache, clock: Clock) -> None:
        self._clusters = clusters
        self._parts = parts
        self._clock = clock

    async def sweep(self) -> None:
        stored = await self._clusters.listed()
        await asyncio.gather(*(self._refresh(each) for each in stored))
        await self._clear_requests({each.record.request_key for each in stored})

    async def _refresh(self, stored: Stored) -> None:
        record, now = stored.record, self._clock.now()
        try:
            if record.state in LIVE:
                seen = await self._parts.parts_of(record)
                after = progressed(record, seen, now=now)
                if after != record:
                    await self._clusters.save(after, read_at=stored.read_at)
                    log.info("refresh.moved", cluster=record.name, state=after.state.name)
                if after.over:
                    self._parts.forget(record)
            elif record.over and record.end_time and now >= record.end_time + RETENTION:
                await self._clusters.delete(stored)
        except StaleWrite:
            log.debug("refresh.lost_race", cluster=record.name)

    async def _clear_requests(self, in_use: set[str]) -> None:
        """An idempotency record is kept as long as its cluster, and 24 hours at least."""
        now = self._clock.now()
        for key, request in (await self._clusters.requests()).items():
            if key not in in_use and now >= request.create_time + RETENTION:
                await self._clusters.forget_request(key)
