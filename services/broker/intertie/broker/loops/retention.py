"""Forgets what nobody will ask for any more: tombstones, answered requests, forwards. What a part
had is written down before the part goes."""

from datetime import datetime, timedelta
from typing import Any

import structlog

from intertie.broker.domain.cluster import ClusterRecord
from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Caller, Ledger
from intertie.broker.domain.records import Change, Erase, ForwardRecord
from intertie.broker.domain.usage import settled
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
        """What is to be erased is found at once, on the view as it is: erasing compares it."""
        now, view = self._clock.now(), await self._ledger.view()
        before = now - KEPT
        stale: list[Versioned[Any]] = [
            *(each for each in view.requests.values() if now >= each.value.expire_time),
            *(each for each in view.clusters.values() if _ended_by(each.value, before)),
        ]
        old = [each for each in view.forwards.values() if each.value.create_time <= before]
        parts = [
            (each, account)
            for name, each in view.parts.items()
            if _ended_by(each.value, before)
            for account in (view.accounts.get(name),)
            if settled(each.value, account.value if account else None)
        ]
        for each in stale:
            await self._erase(each)
        for part, account in parts:
            await self._erase(part, *((account,) if account else ()))
        for forward in old:
            if await self._is_over(forward):
                await self._erase(forward)

    async def _is_over(self, forward: Versioned[ForwardRecord]) -> bool:
        name = ClusterName.parse(forward.value.name)
        caller = Caller(spiffe=forward.value.caller, tenant=name.tenant)
        try:
            return (await self._forwarding.get(caller, name)).over
        except NotFound:
            return True
        except SiteUnreachable:
            return False

    async def _erase(self, *found: Versioned[Any]) -> None:
        """All of it or nothing."""
        erasures = tuple(Erase(record=each.value, read_at=each.revision) for each in found)
        try:
            await self._ledger.commit(Change(erasures=erasures))
        except StaleWrite:
            log.debug("retention.lost_race")


def _ended_by(record: Part | ClusterRecord, moment: datetime) -> bool:
    """Only what is over has an end."""
    end = record.end_time
    return end is not None and end <= moment and record.window.end <= moment
