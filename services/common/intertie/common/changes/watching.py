"""One reader of all changes: a snapshot, then what happens, from wherever it was before.

What is kept for a reader is its position. One that is slower than the changes finds that they are
forgotten, and is given a snapshot: what a reader costs does not grow while it does not read.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

from intertie.common.changes.history import Event, History, Shown
from intertie.common.changes.positions import Mark, Position, decode, encode
from intertie.common.values import Struct

AT_ONCE = 64
PAGE_BYTES = 256 * 1024
"""Of clusters in one message of a snapshot; one at least."""
ALIVE_S = 10.0


class Reason(Enum):
    """Why there is a snapshot; as in the API."""

    NO_TOKEN = "NO_TOKEN"
    TOO_OLD = "TOO_OLD"
    FELL_BEHIND = "FELL_BEHIND"
    STORE_REPLACED = "STORE_REPLACED"


class SnapshotBegin(Struct, frozen=True):
    reason: Reason


class SnapshotClusters(Struct, frozen=True):
    messages: tuple[bytes, ...]


class SnapshotEnd(Struct, frozen=True):
    token: str


class Changed(Struct, frozen=True):
    message: bytes
    token: str


class Gone(Struct, frozen=True):
    name: str
    uid: str
    token: str


class Alive(Struct, frozen=True):
    token: str


Told = SnapshotBegin | SnapshotClusters | SnapshotEnd | Changed | Gone | Alive


class Followed(Protocol):
    """A state and its history, which hang together for as long as `number` is the same."""

    @property
    def number(self) -> int: ...
    @property
    def store(self) -> int: ...
    @property
    def history(self) -> History: ...

    def standing(self, tenant: str) -> tuple[Shown, ...]:
        """What there is at the history's head, by name."""
        ...


class Feed(Protocol):
    """Everything raises EtcdUnavailable where the store has not answered for some time, NotLeading
    once this replica stops: another goes on."""

    def reading(self) -> AbstractAsyncContextManager[None]:
        """Around all that a reader does: it is followed while somebody reads."""
        ...

    async def begin(self, mark: Mark | None) -> Reason | None:
        """None: its changes are there from that mark on. Else why a snapshot is due."""
        ...

    def now(self) -> tuple[Followed, Reason]:
        """And why it does not hang together with the one before."""
        ...

    async def wait(self, tenant: str, position: Position, seconds: float) -> tuple[Position, bool]:
        """From where to look on: nothing is between `position`, up to which the reader has looked,
        and that. At the latest after so long; and whether nothing has happened until then."""
        ...


class WatchAll:
    def __init__(self, feed: Feed, authority: str) -> None:
        self._feed = feed
        self._authority = authority

    async def __call__(self, tenant: str, token: str) -> AsyncGenerator[Told, None]:
        """`tenant` is empty for all. FieldInvalid for a token that is none of these changes."""
        scope = f"{self._authority}/tenants/{tenant or '-'}"
        mark = decode(token, scope) if token else None
        async with self._feed.reading():
            reason = await self._feed.begin(mark)
            position = mark.position if mark is not None else Position(0)
            followed, _ = self._feed.now()
            quiet = False
            while True:
                now, why = self._feed.now()
                if now.number != followed.number:
                    reason = why
                elif reason is None and not now.history.covers(position):
                    reason = Reason.FELL_BEHIND
                followed = now
                if reason is not None:
                    # Of one moment, however long the reader takes to read it.
                    position, standing = now.history.end, now.standing(tenant)
                    yield SnapshotBegin(reason)
                    for page in _pages(each.octets() for each in standing):
                        yield SnapshotClusters(page)
                    yield SnapshotEnd(encode(Mark(now.store, position), scope))
                    reason = None
                    continue
                events = now.history.after(position, tenant, most=AT_ONCE)
                for event in events:
                    position = event.behind
                    yield _told(event, encode(Mark(now.store, position), scope))
                if events:
                    quiet = False
                    continue
                position = max(position, now.history.end)
                if quiet:
                    quiet = False
                    yield Alive(encode(Mark(now.store, position), scope))
                    continue
                heard, quiet = await self._feed.wait(tenant, position, ALIVE_S)
                position = max(position, heard)


def _told(event: Event, token: str) -> Told:
    if event.gone:
        return Gone(event.shown.name, event.shown.uid, token)
    return Changed(event.shown.octets(), token)


def _pages(messages: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    page: list[bytes] = []
    size = 0
    for each in messages:
        if page and size + len(each) > PAGE_BYTES:
            yield tuple(page)
            page, size = [], 0
        page.append(each)
        size += len(each)
    if page:
        yield tuple(page)
