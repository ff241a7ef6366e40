"""Has a lease that one of its sites has put aside be put aside at all of them, at the same end."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.metasched.domain.aside import aside_tx, may_be_recalled, put_aside, recalled_end
from intertie.metasched.domain.commit import tx_name
from intertie.metasched.domain.ports import Clusters, Register, Stored
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.usecases.apart import apart
from intertie.metasched.usecases.coallocate import Coallocate
from intertie.metasched.usecases.create_cluster import CommitTerms
from intertie.metasched.usecases.long_way import in_force
from intertie.metasched.usecases.part_cache import PartCache
from intertie.metasched.usecases.telling import Telling, Underway

log = structlog.get_logger(__name__)


class PutAside:
    """The short way: one transaction of the register, and sites are told until they answer."""

    def __init__(
        self,
        *,
        clusters: Clusters,
        register: Register,
        parts: PartCache,
        coallocate: Coallocate,
        underway: Underway,
        clock: Clock,
        policy: QueuePolicy,
        terms: CommitTerms,
        draw: Callable[[], str],
    ) -> None:
        self._clusters = clusters
        self._register = register
        self._parts = parts
        self._underway = underway
        self._clock = clock
        self._policy = policy
        self._terms = terms
        self._draw = draw
        self.tell = Telling(coallocate, underway)

    async def sweep(self) -> None:
        """One pass; all sites are asked at once, so that one that is away costs one deadline."""
        found = [
            each
            for each in await self._clusters.listed()
            if may_be_recalled(each.record) and each.record.name not in self._underway
        ]
        seen = await asyncio.gather(*(self._parts.parts_of(each.record) for each in found))
        for stored, parts in zip(found, seen, strict=True):
            end = recalled_end(stored.record, parts)
            if end is not None:
                with apart(stored.record.name):
                    await self._put_aside(stored, end)

    async def _put_aside(self, stored: Stored, end: datetime) -> None:
        record = stored.record
        stretch, now = put_aside(record, end, self._policy), self._clock.now()
        tx, decision = aside_tx(
            record,
            stretch,
            tx_name(self._draw()),
            coordinator=self._terms.coordinator,
            decide_by=now + self._terms.decide_within,
            now=now,
        )
        try:
            await self._register.begin_amend(
                tx, stretch.record, read_at=stored.read_at, decision=decision
            )
        except StaleWrite:
            log.debug("aside.lost_race", cluster=record.name)
            return
        in_force()
        log.info("aside.decided", cluster=record.name, tx=tx.tx, end=end.isoformat())
        self.tell(tx, decision)
