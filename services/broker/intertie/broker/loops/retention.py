"""Puts aside what is over, by the rules of `archiving`, and forgets what nobody will ask for any
more: tombstones, answered requests, forwards."""

import asyncio
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import structlog

from intertie.broker.domain.archiving import KEPT, moves
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.ports import Caller, Ledger
from intertie.broker.domain.records import Change, Erase, ForwardRecord
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.clock import Clock
from intertie.common.errors import NotFound, SiteUnreachable, StaleWrite
from intertie.common.names import ClusterName

log = structlog.get_logger(__name__)

TOGETHER = 40
"""Changes that stand in line at once: some transactions, between which admissions find room."""
PAUSE_S = 0.02


class Retention:
    def __init__(self, ledger: Ledger, forwarding: Forwarding, clock: Clock) -> None:
        self._ledger = ledger
        self._forwarding = forwarding
        self._clock = clock

    async def sweep(self, touched: frozenset[str] | None = None) -> None:
        """What is to be done is found at once, on the view as it is: every change compares it."""
        now, view = self._clock.now(), await self._ledger.view()
        old = [each for each in view.forwards.values() if each.value.create_time <= now - KEPT]
        forgotten = list(_forgotten(view, now))
        away = [each.change(now=now) for each in moves(view, now=now)]
        await self._commit(forgotten)
        await self._commit(away)
        for forward in old:
            if await self._is_over(forward):
                await self._commit([_erasing(forward)])

    async def _commit(self, changes: Iterable[Change]) -> None:
        """Each by itself. One that another was first to touch waits for the next pass."""
        rest = iter(changes)
        while some := list(islice(rest, TOGETHER)):
            done = await asyncio.gather(
                *(self._ledger.commit(each) for each in some), return_exceptions=True
            )
            for each in done:
                if isinstance(each, StaleWrite):
                    log.debug("retention.lost_race", key=each.key)
                elif isinstance(each, BaseException):
                    raise each
            if len(some) == TOGETHER:
                await self._clock.sleep(PAUSE_S)

    async def _is_over(self, forward: Versioned[ForwardRecord]) -> bool:
        name = ClusterName.parse(forward.value.name)
        caller = Caller(spiffe=forward.value.caller, tenant=name.tenant)
        try:
            return (await self._forwarding.get(caller, name)).over
        except NotFound:
            return True
        except SiteUnreachable:
            return False


def _forgotten(view: LedgerView, now: datetime) -> Iterator[Change]:
    for request in view.requests.values():
        if now >= request.value.expire_time:
            yield _erasing(request)
    for tomb in view.tombs.values():
        if now >= tomb.value.until:
            yield _erasing(tomb)


def _erasing(found: Versioned[Any]) -> Change:
    return Change(erasures=(Erase(record=found.value, read_at=found.revision),))
