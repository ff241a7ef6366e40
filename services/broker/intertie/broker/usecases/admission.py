"""Admissions: at most one a request id, each on the ledger as it was read."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import structlog

from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.records import Change, RequestKey, RequestRecord, Write
from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, StaleWrite

log = structlog.get_logger(__name__)

TRIES = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What a request led to: the change to write, and what it is called."""

    change: Change
    answer: str
    uid: str


Decide = Callable[[LedgerView, datetime], Awaitable[Admitted]]


async def contend(attempt: Callable[[], Awaitable[T]]) -> T:
    """Tries again, from its reading on, as long as another writer was first."""
    for _ in range(TRIES - 1):
        try:
            return await attempt()
        except StaleWrite as error:
            log.debug("write.lost_race", key=error.key)
    return await attempt()


class Admission:
    """Takes capacity. Within one process one at a time, so that this replica does not race
    against itself; between replicas the ledger's generation decides."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def answered(self, request: RequestKey) -> RequestRecord | None:
        """What the same request was answered before; RequestIdReuse for another body."""
        found = await self._ledger.request(request.caller, request.request_id)
        if found is not None and found.value.answers(request, now=self._clock.now()):
            return found.value
        return None

    async def admit(self, request: RequestKey, decide: Decide) -> RequestRecord:
        """Decides and writes, or answers as before."""
        await self._ledger.check_leading()
        async with self._one_at_a_time:
            return await contend(lambda: self._attempt(request, decide))

    async def _attempt(self, request: RequestKey, decide: Decide) -> RequestRecord:
        before = await self._ledger.request(request.caller, request.request_id)
        now = self._clock.now()
        if before is not None and before.value.answers(request, now=now):
            return before.value
        view = await self._ledger.view()
        admitted = await decide(view, now)
        record = RequestRecord.of(request, answer=admitted.answer, uid=admitted.uid, now=now)
        write = Write(record=record, read_at=before.revision if before else 0)
        change = admitted.change
        try:
            await self._ledger.commit(replace(change, writes=(*change.writes, write)))
        except EtcdUnavailable:
            # Done or not done: the record of the request says which.
            after = await self.answered(request)
            if after is None:
                raise
            return after
        return record
