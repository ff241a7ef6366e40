"""One image on its way here, by whichever grant for it is open, until none is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import MAX_SKEW, DigestMismatch, DomainError, SiteUnreachable
from intertie.common.transfer import TransferGrant
from intertie.imagestore.domain.ports import ImageFiles, PeerStores
from intertie.imagestore.domain.transfers import (
    Consequence,
    Order,
    PeerStore,
    State,
    Transfer,
    chosen,
    consequence,
    run_out,
)
from intertie.imagestore.usecases.put_image import PutImage

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0

Terms = tuple[PeerStore, TransferGrant]


class Bringing:
    """Of one tenant and digest. A task of its own does the work; `ask` begins it, or begins it
    again where another order makes a difference."""

    def __init__(
        self, first: Order, files: ImageFiles, put: PutImage, stores: PeerStores, clock: Clock
    ) -> None:
        self._said = first.said
        self._files = files
        self._put = put
        self._stores = stores
        self._clock = clock
        self._orders: dict[str, Order] = {}
        """By tx, those that may still bring it."""
        self._over: dict[Terms, str] = {}
        """Those that may not, and why."""
        self._tries: Counter[str] = Counter()
        self._mismatches: Counter[Terms] = Counter()
        self._state = State.WAITING
        self._message = ""
        self._by: Order | None = None
        self._arrived = False
        self._task: asyncio.Task[None] | None = None

    def ask(self, order: Order) -> None:
        if order.terms in self._over:
            return
        before = self._orders.get(order.grant.tx)
        if before is not None and before.grant.sign_time > order.grant.sign_time:
            return
        self._orders[order.grant.tx] = order
        if before is not None and before.terms == order.terms:
            return
        if self._state is not State.RUNNING or self._by is before:
            self._begin()

    async def view(self) -> Transfer:
        upload = await self._files.find_upload(self._said.tenant, self._said.digest)
        came = upload.uploaded_bytes if upload else 0
        return Transfer(
            digest=self._said.digest,
            size_bytes=self._said.size_bytes,
            done_bytes=self._said.size_bytes if self._state is State.DONE else came,
            state=self._state,
            message=self._message,
        )

    def forgotten_at(self, now: datetime) -> bool:
        """There is nothing left to do, and nothing to remember."""
        if self._task is not None and not self._task.done():
            return False
        return all(grant.end_time <= now for _, grant in self._over)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        before = self._task
        if before is not None:
            before.cancel()
        self._state = State.WAITING
        self._task = asyncio.create_task(self._run(before))

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        pause_s = FIRST_PAUSE_S
        while self._drop_ended():
            order = chosen(self._orders.values(), self._tries, now=self._clock.now())
            if order is None:
                first = min(each.grant.begin_time for each in self._orders.values())
                await self._clock.sleep((first - self._clock.now()).total_seconds())
                continue
            self._by, self._state, self._arrived = order, State.RUNNING, False
            self._tries[order.grant.tx] += 1
            try:
                await self._attempt(order)
            except DomainError as error:
                self._note(order, error)
            except OSError as error:
                self._message = str(error)
            except Exception as error:
                log.error("transfer.failed", digest=self._said.digest, exc_info=error)
                self._message = "internal error"
                self._drop(*self._orders.values())
            else:
                self._state, self._message = State.DONE, ""
                self._over.clear()
                log.info("transfer.done", digest=self._said.digest, source=order.source.site)
                return
            finally:
                self._by = None
            if self._orders:
                self._state = State.WAITING
                pause_s = FIRST_PAUSE_S if self._arrived else pause_s
                await self._clock.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._state = State.FAILED
        log.warning("transfer.given_up", digest=self._said.digest, problem=self._message)

    async def _attempt(self, order: Order) -> None:
        said = order.said
        upload = await self._files.find_upload(said.tenant, said.digest)
        offset = 0
        if upload is not None and upload.announcement.size_bytes == said.size_bytes:
            offset = upload.uploaded_bytes
        async with aclosing(self._blocks(order, offset)) as blocks:
            await self._put(said, offset, blocks)

    async def _blocks(self, order: Order, offset: int) -> AsyncGenerator[bytes, None]:
        size_bytes, end_time = order.said.size_bytes, order.grant.end_time
        if offset == size_bytes:
            return
        # Who sends ends it; this is for one that does not.
        left_s = (end_time + MAX_SKEW - self._clock.now()).total_seconds()
        fetching = self._stores.fetch(order.source, order.signed, offset, timeout_s=left_s)
        async with aclosing(fetching) as blocks:
            async for data in blocks:
                if self._clock.now() >= end_time + MAX_SKEW:
                    raise SiteUnreachable(order.source.site, run_out(order.grant))
                self._arrived = True
                offset += len(data)
                yield data
        if offset < size_bytes:
            raise DigestMismatch(order.said.digest, f"of {offset} bytes")

    def _note(self, order: Order, error: DomainError) -> None:
        self._message = str(error)
        if isinstance(error, DigestMismatch):
            self._mismatches[order.terms] += 1
        match consequence(error, mismatches=self._mismatches[order.terms]):
            case Consequence.GIVE_UP:
                self._drop(*self._orders.values())
            case Consequence.DROP_GRANT:
                self._drop(order)
        log.info(
            "transfer.broken",
            digest=self._said.digest,
            source=order.source.site,
            problem=self._message,
            left=len(self._orders),
        )

    def _drop_ended(self) -> bool:
        """Whether any order is left."""
        now = self._clock.now()
        ended = [each for each in self._orders.values() if each.grant.end_time <= now]
        if ended and not self._message:
            self._message = run_out(ended[-1].grant)
        self._drop(*ended)
        return bool(self._orders)

    def _drop(self, *orders: Order) -> None:
        for each in orders:
            self._over[each.terms] = self._message
            if self._orders.get(each.grant.tx) is each:
                del self._orders[each.grant.tx]
