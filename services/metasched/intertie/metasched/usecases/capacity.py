"""What all sites have together, as far as they have said."""

import asyncio
from datetime import datetime, timedelta

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import DomainError
from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.metasched.domain.ports import Sites

log = structlog.get_logger(__name__)

NOTHING_YET = timedelta(days=3 * 366)
"""So far ahead nothing is promised to anybody: leases are asked for at most 366 days ahead, and for
at most as long."""
KNOWN_FOR_S = 60.0
"""Hosts come and go seldom, and a site that is silent takes its time."""


class Capacity:
    def __init__(self, sites: Sites, clock: Clock) -> None:
        self._sites = sites
        self._clock = clock
        self._of: dict[str, Vector] = {}
        self._asked_s = float("-inf")

    async def __call__(self, tenant: str, *, now: datetime) -> Vector:
        """By what they offer the tenant over an hour in which they have nothing else; of a site
        that does not answer, as it said last, if it ever has."""
        if self._clock.monotonic() - self._asked_s >= KNOWN_FOR_S:
            await asyncio.gather(*(self._ask(site, tenant, now) for site in self._sites.names))
            self._asked_s = self._clock.monotonic()
        return sum(self._of.values(), start=Vector())

    async def _ask(self, site: str, tenant: str, now: datetime) -> None:
        start = now + NOTHING_YET
        window = Window(start, start + timedelta(hours=1))
        try:
            (offer,) = await self._sites.offers(site, tenant, (window,), ())
        except DomainError as error:
            log.info("capacity.no_offer", site=site, problem=str(error))
            return
        self._of[site] = sum((host.free for host in offer.hosts), start=Vector())
