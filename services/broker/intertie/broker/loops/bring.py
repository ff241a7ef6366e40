"""Has this site's image store bring what parts have reserved links for, and writes down how far it
is."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import structlog

from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Bringing, Ledger
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.sending import (
    Arrival,
    ArrivalState,
    ImageSource,
    is_news,
    still_to_come,
)
from intertie.common.clock import Clock
from intertie.common.errors import SiteUnreachable, StaleWrite
from intertie.common.part_spec import Transfer
from intertie.common.values import replace

log = structlog.get_logger(__name__)

ASK_S = 1.0
AT_ONCE = 8
LATE = timedelta(seconds=60)
"""After the end of its grant what is there may still be read through, to be verified."""
AHEAD_S = 1.5
"""A store is asked so much before a transfer's window, and waits for it."""


class Bring:
    def __init__(self, ledger: Ledger, store: Bringing, site: str, clock: Clock) -> None:
        self._ledger = ledger
        self._store = store
        self._site = site
        self._clock = clock
        self._asked_s = float("-inf")
        self._waiting: set[str] = set()
        """Parts that something is still to come for."""

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """Notes parts that were touched, all where that is None; asks of all that wait."""
        view, now_s = await self._ledger.view(), self._clock.monotonic()
        if touched is None:
            self._waiting.clear()
        self._note(view, view.with_transfers() if touched is None else touched)
        if now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            turns = asyncio.Semaphore(AT_ONCE)
            asked = [self._in_turn(name, turns) for name in sorted(self._waiting)]
            # What fails for one part keeps nobody from what is brought for others.
            for failed in await asyncio.gather(*asked, return_exceptions=True):
                if failed is not None:
                    raise failed

    async def _in_turn(self, name: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            await self._bring(name)

    def _note(self, view: LedgerView, names: Iterable[str]) -> None:
        for name in names:
            found = view.parts.get(name)
            if found is not None and self._pending(found.value):
                self._waiting.add(name)
            else:
                self._waiting.discard(name)

    def _pending(self, part: Part) -> tuple[Transfer, ...]:
        if not part.spec.transfers or part.end_requested_time is not None:
            return ()
        if part.state is not PartState.CONFIRMED:
            return ()
        return still_to_come(part.spec, part.arrivals, self._site)

    async def _bring(self, name: str) -> None:
        found = (await self._ledger.view()).parts.get(name)
        if found is None:
            self._waiting.discard(name)
            return
        part, now = found.value, self._clock.now()
        after = part
        for transfer in self._pending(part):
            if (transfer.window.start - now).total_seconds() <= AHEAD_S:
                after = _with(after, await self._asked(part, transfer), transfer.size_bytes)
        if after is part:
            return
        try:
            await self._ledger.commit(Change(writes=(Write(record=after, read_at=found.revision),)))
        except StaleWrite:
            log.debug("bring.lost_race", part=name)

    async def _asked(self, part: Part, transfer: Transfer) -> Arrival:
        source = _source_of(part, transfer)
        if source is None:
            return _failed(transfer, f"{transfer.from_site} has not said where its store is")
        try:
            arrival = await self._store.bring(part.path.tenant, transfer, source)
        except SiteUnreachable as error:
            arrival = Arrival(
                digest=transfer.digest,
                done_bytes=_done_bytes(part, transfer),
                state=ArrivalState.WAITING,
                message=str(error),
            )
        late = self._clock.now() >= source.end_time + LATE
        if late and arrival.state in (ArrivalState.WAITING, ArrivalState.RUNNING):
            why = arrival.message or "it has not come in time"
            return _failed(transfer, why, arrival.done_bytes)
        if arrival.state is ArrivalState.DONE:
            log.info("bring.done", part=part.name, digest=transfer.digest)
        return arrival


def _with(part: Part, arrival: Arrival, size_bytes: int) -> Part:
    """The same where that is no news."""
    before = {each.digest: each for each in part.arrivals}
    if not is_news(before.get(arrival.digest), arrival, size_bytes):
        return part
    return replace(part, arrivals=tuple((before | {arrival.digest: arrival}).values()))


def _source_of(part: Part, transfer: Transfer) -> ImageSource | None:
    for each in part.sources:
        if (each.digest, each.from_site) == (transfer.digest, transfer.from_site):
            return each
    return None


def _done_bytes(part: Part, transfer: Transfer) -> int:
    """As it was known last."""
    known = (each.done_bytes for each in part.arrivals if each.digest == transfer.digest)
    return next(known, 0)


def _failed(transfer: Transfer, message: str, done_bytes: int = 0) -> Arrival:
    log.warning("bring.failed", digest=transfer.digest, problem=message)
    return Arrival(
        digest=transfer.digest,
        done_bytes=done_bytes,
        state=ArrivalState.FAILED,
        message=message,
    )
