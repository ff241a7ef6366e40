"""Admissions: at most one a request id, each on the ledger as it was read."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

import structlog

from intertie.broker.domain.giving_way import RoomToBeMade
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger, Room
from intertie.broker.domain.records import Change, RequestKey, RequestRecord, Write
from intertie.broker.usecases.copies import AtWork
from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, NotFound, PartOver, StaleWrite
from intertie.common.names import PartName
from intertie.common.tasks import uninterrupted
from intertie.common.values import Struct, replace

log = structlog.get_logger(__name__)

TRIES = 16

T = TypeVar("T")


class Admitted(Struct, frozen=True, kw_only=True):
    """What a request led to: the change to write, and what it is called."""

    change: Change
    answer: str
    uid: str
    waits: bool = False
    """It is a new lease that takes nothing yet."""

    @property
    def grows(self) -> bool:
        """Refused where the ledger is short of room."""
        return self.waits or self.change.admitted_on is not None


Decide = Callable[[LedgerView, datetime], Admitted]
"""Without I/O: between reading the ledger and standing in line nothing else is decided."""


class DecideBeforeOthers(Protocol):
    """The same, of what others may give way for. RoomToBeMade where they might, and not `alone`."""

    def __call__(self, view: LedgerView, now: datetime, *, alone: bool = False) -> Admitted: ...


async def contend(attempt: Callable[[], Awaitable[T]]) -> T:
    """Tries again, from its reading on, as long as another writer was first."""
    for _ in range(TRIES - 1):
        try:
            return await attempt()
        except StaleWrite as error:
            log.debug("write.lost_race", key=error.key)
    return await attempt()


async def known_part(ledger: Ledger, name: PartName) -> Versioned[Part] | None:
    """A part to be changed, as the leader's book has it: what is written compares it. Only that
    there is none is asked of etcd: a replica that leads no more does not know of newer ones."""
    known = (await ledger.view()).parts.get(str(name))
    return known if known is not None else await ledger.part(name)


def there(view: LedgerView, name: str) -> Versioned[Part]:
    """A part to be changed. PartOver of one that is in the archive, NotFound."""
    found = view.parts.get(name)
    if found is not None:
        return found
    tomb = view.tombs.get(name)
    raise PartOver(name, tomb.value.state) if tomb is not None else NotFound(name)


class Admission:
    """Takes capacity. Each is decided on the ledger with all that were decided before it, written
    or not; between replicas the ledger's generation decides."""

    def __init__(self, ledger: Ledger, clock: Clock, room: Room) -> None:
        self._ledger = ledger
        self._clock = clock
        self._room = room
        self._at_work = AtWork()
        self._making_room = asyncio.Lock()
        """Held by who decides that others give way, until that is written."""

    async def answered(self, request: RequestKey) -> RequestRecord | None:
        """What the same request was answered before; RequestIdReuse for another body."""
        found = await self._ledger.request(request.caller, request.request_id)
        if found is not None and found.value.answers(request, now=self._clock.now()):
            return found.value
        return None

    async def admit(self, request: RequestKey, decide: Decide) -> RequestRecord:
        """Decides and writes, or answers as before. Of a request that has come more than once, one
        at a time: what is decided and stands in line would be counted twice."""
        await self._ledger.check_leading()
        with self._at_work.on((request.caller, request.request_id)) as copies:
            async with copies.lock:
                return await contend(lambda: self._attempt(request, decide))

    async def admit_before_others(
        self, request: RequestKey, decide: DecideBeforeOthers
    ) -> RequestRecord:
        """The same; where others might have to give way, that is decided for one at a time."""
        try:
            return await self.admit(request, decide)
        except RoomToBeMade:
            async with self._making_room:
                return await self.admit(request, partial(decide, alone=True))

    async def _attempt(self, request: RequestKey, decide: Decide) -> RequestRecord:
        view = await self._ledger.view()
        before = view.requests.get((request.caller, request.request_id))
        now = self._clock.now()
        if before is not None and before.value.answers(request, now=now):
            return before.value
        admitted = decide(view, now)
        if admitted.grows:
            self._room.check()
        record = RequestRecord.of(request, answer=admitted.answer, uid=admitted.uid, now=now)
        write = Write(record=record, read_at=before.revision if before else 0)
        change = admitted.change
        try:
            # A caller whose connection breaks does not let go of the request meanwhile: what
            # stands in line is written, and a copy that came then would not see it.
            await uninterrupted(
                self._ledger.submit(replace(change, writes=(*change.writes, write)))
            )
        except EtcdUnavailable:
            # Done or not done: the record of the request says which.
            after = await self.answered(request)
            if after is None:
                raise
            return after
        return record
