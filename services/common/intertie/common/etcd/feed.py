"""One state made of a store's keys, followed revision by revision for all who read its changes.

It is followed while somebody reads, and a while after. Who wants to go on from earlier than is
remembered has it opened anew from there, with what etcd has of that time: once for all who wait.
What it costs etcd is one watch and now and then a question, however many read.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import structlog

from intertie.common.changes.history import Event, History, Shown
from intertie.common.changes.positions import Mark, Position
from intertie.common.changes.waiting import Waiting
from intertie.common.changes.watching import Reason
from intertie.common.clock import Clock
from intertie.common.errors import DomainError, EtcdUnavailable, NotLeading
from intertie.common.etcd.client import Compacted, Entry, Etcd, EtcdRefused, Place, Revision

log = structlog.get_logger(__name__)

REACH = 50_000
"""Revisions that are gone through to go on from an earlier one, at most."""
OPENED_EACH_S = 2.0
"""Not more often is it opened from earlier; who comes meanwhile waits, and goes with the next."""
KEPT_S = 60.0
"""After the last reader has gone."""
CHECK_S = 5.0
QUIET_S = 0.5
"""Of a watch that tells nothing for so long after it began, nothing more is waited for."""
RETRY_S = 0.5
PATIENCE_S = 5.0
"""So long readers wait for a store that does not answer, before they are sent elsewhere."""
TICK_S = 1.0
TAKEN_AT_ONCE = 50
"""Revisions, before others have their turn."""
MANY = 2000
"""Entries, from which on they are read beside the event loop."""


class Fold(Protocol):
    """What keys make of the state, without I/O."""

    def begin(self, entries: Sequence[Entry]) -> None:
        """All that there is; nothing else is known."""
        ...

    def take(self, revision: Revision) -> Sequence[Event]:
        """What it changes, in the order of names. Whatever keys came when, the same keys at two
        revisions that follow one another make the same events everywhere."""
        ...

    def standing(self) -> Iterable[Shown]:
        """What there is now, by name."""
        ...


@dataclass(slots=True)
class _Followed:
    """See changes.watching.Followed."""

    number: int
    store: int
    fold: Fold
    history: History
    _standing: tuple[int, tuple[Shown, ...]] | None = None

    def take(self, revision: Revision) -> Sequence[Event]:
        events = self.fold.take(revision)
        self.history.take(revision.number, events)
        if events:
            self._standing = None
        return events

    def standing(self, tenant: str) -> tuple[Shown, ...]:
        """Readers that come at the same moment share it."""
        if self._standing is None:
            self._standing = self.history.head, tuple(self.fold.standing())
        shown = self._standing[1]
        return tuple(each for each in shown if each.tenant == tenant) if tenant else shown


class Feed:
    """See changes.watching.Feed."""

    def __init__(
        self, etcd: Etcd, prefixes: Sequence[str], make: Callable[[], Fold], clock: Clock
    ) -> None:
        """`prefixes` are of the keys that the state is made of."""
        self._etcd = etcd
        self._prefixes = prefixes
        self._make = make
        self._clock = clock
        self._current: _Followed | None = None
        self._why = Reason.TOO_OLD
        self._number = 0
        self._void = False
        """What is followed does not go on: it is to be opened anew, as it is then."""
        self._lost = 0
        """Nothing can be opened at this revision or before."""
        self._opened_s = -OPENED_EACH_S
        self._asked: dict[asyncio.Future[None], int] = {}
        """Who waits for it to be opened, and from which revision; 0: from now on."""
        self._stirred = asyncio.Event()
        self._waiting = Waiting()
        self._readers = 0
        self._left_s = 0.0
        self._failing_s: float | None = None
        self._trouble: Callable[[], DomainError] | None = None
        """Made anew for each that is told."""
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._closed = False

    # For readers

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        if self._closed:
            self._check()
        self._readers += 1
        if not self._tasks:
            self._trouble, self._failing_s = None, None
            # Of no call, though one began it.
            nobody = contextvars.Context()
            self._tasks = (
                asyncio.create_task(self._follow(), context=nobody),
                asyncio.create_task(self._tick(), context=nobody.copy()),
            )
        try:
            yield
        finally:
            self._readers -= 1
            self._left_s = self._clock.monotonic()

    async def begin(self, mark: Mark | None) -> Reason | None:
        self._check()
        place = await self._etcd.place()
        reason = Reason.NO_TOKEN
        if mark and (mark.store != place.store or mark.position.revision - 1 > place.revision):
            reason, mark = Reason.STORE_REPLACED, None
        await self._reach(mark.position.revision - 1 if mark else 0)
        await self._caught_up(place.revision)
        if mark is None:
            return reason
        return None if self.now()[0].history.covers(mark.position) else Reason.TOO_OLD

    def now(self) -> tuple[_Followed, Reason]:
        self._check()
        if self._current is None:
            raise EtcdUnavailable("what there is, is being read again")
        return self._current, self._why

    async def wait(self, tenant: str, position: Position, seconds: float) -> tuple[Position, bool]:
        self._check()
        return await self._waiting.wait(tenant, self._clock.monotonic() + seconds)

    async def close(self) -> None:
        """Readers are sent elsewhere, and nobody is taken any more."""
        self._closed = True
        self._trouble = partial(NotLeading, "")
        self._fail()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check(self) -> None:
        if self._trouble is not None:
            raise self._trouble()

    async def _reach(self, revision: int) -> None:
        """Returns when it is open, from that revision on if that can be had."""
        self._check()
        if self._is_open(revision):
            return
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[opened] = revision
        self._stirred.set()
        try:
            await opened
        finally:
            self._asked.pop(opened, None)

    def _is_open(self, revision: int) -> bool:
        now = self._current
        if now is None:
            return False
        beyond = revision <= self._lost or now.history.full
        return not revision or beyond or now.history.covers(Position.behind(revision))

    async def _caught_up(self, revision: int) -> None:
        """What is written elsewhere in the store is not heard of here, so not for long."""
        until = self._clock.monotonic() + QUIET_S
        while self.now()[0].history.head < revision and self._clock.monotonic() < until:
            await self._clock.sleep(0.02)

    # Following

    async def _follow(self) -> None:
        try:
            while not self._deserted():
                try:
                    await self._session()
                except (EtcdUnavailable, EtcdRefused) as error:
                    self._failed(error)
                    await self._clock.sleep(RETRY_S)
        except Exception:
            log.exception("feed.failed")
            self._trouble = partial(EtcdUnavailable, "changes cannot be followed here")
        finally:
            self._current = None
            tasks, self._tasks = self._tasks, ()
            self._fail()
            for each in tasks:
                if each is not asyncio.current_task():
                    each.cancel()

    async def _session(self) -> None:
        """Until something must be opened anew, or nobody reads any more."""
        self._stirred.clear()
        place, followed = await self._open()
        now = None if self._void else self._current
        target = max(place.revision, now.history.head if now is not None else 0)
        if followed is self._current or followed.history.head >= target:
            self._adopt(followed)
        expected = 0
        async with _Told(self._etcd, followed.history.head + 1) as told:
            heard_s = self._clock.monotonic()
            timer: asyncio.Future[Any] = asyncio.ensure_future(self._clock.sleep(QUIET_S))
            stirred: asyncio.Future[Any] = asyncio.ensure_future(self._stirred.wait())
            try:
                while True:
                    waited: set[asyncio.Future[Any]] = {told.coming, timer}
                    if followed is self._current:
                        waited.add(stirred)
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                    if told.coming.done():
                        revisions = told.take()
                        heard_s = self._clock.monotonic()
                        await self._take(followed, revisions)
                        self._well()
                        if followed is not self._current and followed.history.head >= target:
                            self._adopt(followed)
                    if timer.done():
                        wait_s = CHECK_S
                        if followed is not self._current:
                            quiet_s = self._clock.monotonic() - heard_s
                            if quiet_s < QUIET_S / 2:
                                wait_s = QUIET_S
                            else:
                                self._adopt(followed)
                        else:
                            head = followed.history.head
                            place = await self._etcd.place()
                            if place.store != followed.store or place.revision < head:
                                self._begin_anew(Reason.STORE_REPLACED)
                                return
                            if head < expected or self._deserted():
                                return  # whom it listens to may have lost the others: another
                            expected = place.revision
                            self._well()
                        timer = asyncio.ensure_future(self._clock.sleep(wait_s))
                    if stirred.done() and followed is self._current:
                        wait_s = self._opened_s + OPENED_EACH_S - self._clock.monotonic()
                        if wait_s <= 0:
                            return
                        stirred = asyncio.ensure_future(self._clock.sleep(max(wait_s, 0.05)))
            except Compacted:
                if followed is self._current:
                    self._begin_anew(Reason.TOO_OLD)
                else:
                    self._lost = max(self._lost, followed.history.head)
            finally:
                timer.cancel()
                stirred.cancel()

    def _deserted(self) -> bool:
        return not self._readers and self._clock.monotonic() >= self._left_s + KEPT_S

    async def _open(self) -> tuple[Place, _Followed]:
        """What is followed already, unless somebody asks for more than that."""
        while True:
            place = await self._etcd.place()
            self._lost = max(self._lost, place.revision - REACH)
            wanted = [each for each in self._asked.values() if not self._is_open(each)]
            revision = min((each for each in wanted if each > self._lost), default=0)
            if self._void:
                revision = 0
            elif not revision and self._current is not None:
                return place, self._current
            try:
                opened = await self._opened(place, revision or place.revision)
            except Compacted:
                self._lost = max(self._lost, revision)
                continue
            self._opened_s = self._clock.monotonic()
            return place, opened

    async def _opened(self, place: Place, revision: int) -> _Followed:
        entries = await self._etcd.as_of(self._prefixes, revision)
        fold = self._make()
        if len(entries) < MANY:
            fold.begin(entries)
        else:
            await asyncio.to_thread(fold.begin, entries)
        log.info("feed.opened", revision=revision, entries=len(entries), head=place.revision)
        return _Followed(self._number, place.store, fold, History(revision))

    def _adopt(self, followed: _Followed) -> None:
        if followed is not self._current:
            self._current = followed
            self._void = False
            self._waiting.look_again()
        for opened, revision in list(self._asked.items()):
            if self._is_open(revision) and not opened.done():
                opened.set_result(None)

    def _begin_anew(self, why: Reason) -> None:
        """What is told from now on does not hang together with what was."""
        log.warning("feed.begun_anew", why=why.value)
        self._number += 1
        self._why = why
        self._void = True
        self._lost = 0

    async def _take(self, followed: _Followed, revisions: Iterable[Revision]) -> None:
        """With pauses, since etcd tells up to a thousand at once of what has been."""
        for count, revision in enumerate(revisions, start=1):
            if not count % TAKEN_AT_ONCE:
                await self._clock.sleep(0)
            if revision.number <= followed.history.head:
                continue
            events = followed.take(revision)
            if events and followed is self._current:
                self._waiting.wake(events)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            if self._current is not None:
                self._waiting.nothing_until(self._clock.monotonic(), self._current.history.end)

    # Trouble

    def _well(self) -> None:
        self._trouble, self._failing_s = None, None

    def _failed(self, error: Exception) -> None:
        now = self._clock.monotonic()
        if self._failing_s is None:
            self._failing_s = now
            log.warning("feed.interrupted", problem=str(error))
        if now - self._failing_s >= PATIENCE_S:
            self._trouble = partial(EtcdUnavailable, str(error))
            self._fail()

    def _fail(self) -> None:
        trouble = self._trouble or partial(EtcdUnavailable, "this replica follows no changes")
        self._waiting.fail(trouble)
        for opened in self._asked:
            if not opened.done():
                opened.set_exception(trouble())


class _Told:
    """What a watch tells, one after the other."""

    def __init__(self, etcd: Etcd, first: int) -> None:
        self._revisions: AsyncGenerator[tuple[Revision, ...], None] = etcd.revisions(first)
        self.coming: asyncio.Future[tuple[Revision, ...]]

    async def __aenter__(self) -> _Told:
        self._listen()
        return self

    def _listen(self) -> None:
        self.coming = asyncio.ensure_future(anext(self._revisions))

    def take(self) -> tuple[Revision, ...]:
        revisions = self.coming.result()
        self._listen()
        return revisions

    async def __aexit__(self, *_: object) -> None:
        self.coming.cancel()
        await asyncio.gather(self.coming, return_exceptions=True)
        await self._revisions.aclose()
