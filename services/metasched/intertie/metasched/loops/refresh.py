"""Writes what sites say of clusters where it changes their state, and clears old records."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError, StaleWrite
from intertie.metasched.domain.cluster import STANDING, ClusterRecord, PartSeen, SeenRecord
from intertie.metasched.domain.ports import Clusters, Sightings, Stored
from intertie.metasched.domain.progress import PATIENCE, failing, progressed
from intertie.metasched.usecases.losses import Losses
from intertie.metasched.usecases.part_cache import PartCache

log = structlog.get_logger(__name__)

RETENTION = timedelta(hours=24)
"""Of clusters that are over, and of request ids; and of parts that were left and that their sites
do not tell of, from when their windows are over."""


EARLY = timedelta(seconds=90)
"""So long before a window opens its hosts are told; until then, little happens to a part."""
LOOK_EARLY = timedelta(seconds=30)
"""How often sites are asked about a part before that."""


class Refresh:
    def __init__(
        self,
        clusters: Clusters,
        sightings: Sightings,
        parts: PartCache,
        losses: Losses,
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._sightings = sightings
        self._parts = parts
        self._losses = losses
        self._clock = clock
        self._failing_since: dict[str, Mapping[str, datetime]] = {}
        """By cluster's uid, then workspace: in memory, so a replica that takes over waits anew."""
        self._looked: dict[str, datetime] = {}
        """When each cluster's sites were asked last, by its uid."""
        self._swept_at = clock.now()
        self._written: dict[str, object] | None = None
        """What is written down of what sites say, by cluster's uid. None: to be read."""

    async def sweep(self) -> None:
        now = self._clock.now()
        if now - self._swept_at > PATIENCE:
            self._losses.forget()
            self._failing_since.clear()  # another led meanwhile: what came between is not known
            self._written = None
        self._swept_at = now
        stored = await self._clusters.listed()
        living = {each.record.uid for each in stored if each.record.state in STANDING}
        if self._written is None:
            self._written = {each.uid: each.worth for each in await self._sightings.listed()}
        for kept in (self._failing_since, self._looked, self._written):
            for uid in kept.keys() - living:
                del kept[uid]
        self._losses.keep(living)
        await asyncio.gather(*(self._refresh(each) for each in stored))
        await self._clear_requests({each.record.request_key for each in stored})

    async def _refresh(self, stored: Stored) -> None:
        record, now = stored.record, self._clock.now()
        try:
            if record.state in STANDING:
                if not self._due(record, now):
                    return
                seen = await self._parts.parts_of(record)
                since = failing(seen, self._failing_since.get(record.uid, {}), now=now)
                self._failing_since[record.uid] = since
                await self._write_down(record, seen)
                unplaced = self._losses.heard(record, seen)
                after = progressed(record, seen, now=now, failing_since=since, unplaced=unplaced)
                if after != record:
                    await self._clusters.save(after, read_at=stored.read_at)
                    log.info("refresh.moved", cluster=record.name, state=after.state.name)
                if after.over:
                    self._parts.forget(record)
            elif record.over and record.end_time and now >= record.end_time + RETENTION:
                await self._clusters.delete(stored)
        except StaleWrite:
            log.debug("refresh.lost_race", cluster=record.name)

    async def _write_down(self, record: ClusterRecord, parts: Mapping[str, PartSeen]) -> None:
        """What is not as it was: every replica follows changes by what is written."""
        seen = SeenRecord(uid=record.uid, parts=parts)
        written, worth = self._written, seen.worth
        if written is None or written.get(record.uid) == worth:
            return
        try:
            await self._sightings.save(record.name, seen)
        except DomainError:
            # Whether it was written is not known, or another leads.
            self._written = None
            raise
        written[record.uid] = worth

    def _due(self, record: ClusterRecord, now: datetime) -> bool:
        early = record.end_requested_time is None and now < record.plan.window.start - EARLY
        early = early and not self._losses.about(record.uid)
        last = self._looked.get(record.uid)
        if early and last is not None and now < last + LOOK_EARLY:
            return False
        self._looked[record.uid] = now
        return True

    async def _clear_requests(self, in_use: set[str]) -> None:
        """An idempotency record is kept as long as its cluster, and 24 hours at least."""
        now = self._clock.now()
        for key, request in (await self._clusters.requests()).items():
            if key not in in_use and now >= request.create_time + RETENTION:
                await self._clusters.forget_request(key)
