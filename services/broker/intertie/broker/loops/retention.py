"""Forgets what nobody will ask for any more: tombstones, answered requests, forwards."""

from datetime import datetime, timedelta

import structlog

from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Caller, Ledger
from intertie.broker.domain.records import Change, Erase, ForwardRecord, Record
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.clock import Clock
from intertie.common.errors import NotFound, SiteUnreachable, StaleWrite
from intertie.common.names import ClusterName

log = structlog.get_logger(__name__)

KEPT = timedelta(hours=24)
"""After the window's end, or the end itself where that is later: a late duplicate of a request
that made the part finds it over, and revives nothing."""


class Retention:
    def __init__(self, ledger: Ledger, forwarding: Forwarding, clock: Clock) -> None:
        self._ledger = ledger
        self._forwarding = forwarding
        self._clock = clock

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        now = self._clock.now()
        for request in await self._ledger.requests():
            if now >= request.value.expire_time:
                await self._erase(request.value, request.revision)
        for part in await self._ledger.parts():
            if _stale(part.value, now):
                await self._erase(part.value, part.revision)
        for cluster in await self._ledger.clusters():
            ended = cluster.value.end_time
            if ended is not None and now >= max(ended, cluster.value.window.end) + KEPT:
                await self._erase(cluster.value, cluster.revision)
        for forward in await self._ledger.forwards():
            if now >= forward.value.create_time + KEPT and await self._is_over(forward):
                await self._erase(forward.value, forward.revision)

    async def _is_over(self, forward: Versioned[ForwardRecord]) -> bool:
        name = ClusterName.parse(forward.value.name)
        caller = Caller(spiffe=forward.value.caller, tenant=name.tenant)
        try:
            return (await self._forwarding.get(caller, name)).over
        except NotFound:
            return True
        except SiteUnreachable:
            return False

    async def _erase(self, record: Record, revision: int) -> None:
        try:
            await self._ledger.commit(Change(erasures=(Erase(record=record, read_at=revision),)))
        except StaleWrite:
            log.debug("retention.lost_race")


def _stale(part: Part, now: datetime) -> bool:
    return (
        part.over
        and part.end_time is not None
        and now >= max(part.end_time, part.window.end) + KEPT
    )
