"""Replicas that follow a store in virtual time, and their readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from intertie.common.changes.watching import (
    Changed,
    Gone,
    Reason,
    SnapshotBegin,
    SnapshotClusters,
    SnapshotEnd,
    Told,
    WatchAll,
)
from intertie.common.etcd.feed import Feed
from tests.fakes.changes import THINGS, Store, StoreEtcd, Things, key_of
from tests.fakes.clock import FakeClock


@dataclass
class Reader:
    """Reads all it is told, unless it is `slow`."""

    told: list[Told] = field(default_factory=list)
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Exception | None = None
    task: asyncio.Task[None] | None = None

    @property
    def token(self) -> str:
        return next(token for each in reversed(self.told) if (token := token_of(each)))

    @property
    def reasons(self) -> list[Reason]:
        return [each.reason for each in self.told if isinstance(each, SnapshotBegin)]

    @property
    def changes(self) -> list[str]:
        return [
            each.message.decode() if isinstance(each, Changed) else f"-{each.name}"
            for each in self.told
            if isinstance(each, Changed | Gone)
        ]

    @property
    def snapshots(self) -> list[list[str]]:
        """Each that is whole."""
        found: list[list[str]] = []
        open_one: list[str] = []
        for each in self.told:
            if isinstance(each, SnapshotBegin):
                open_one = []
            elif isinstance(each, SnapshotClusters):
                open_one += [one.decode() for one in each.messages]
            elif isinstance(each, SnapshotEnd):
                found.append(open_one)
        return found


def token_of(told: Told) -> str:
    return getattr(told, "token", "")


@dataclass
class World:
    store: Store
    clock: FakeClock
    feeds: list[Feed] = field(default_factory=list)
    etcds: list[StoreEtcd] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)

    def replica(self) -> int:
        etcd = StoreEtcd(self.store)
        self.etcds.append(etcd)
        self.feeds.append(Feed(etcd, (THINGS,), Things, self.clock))
        return len(self.feeds) - 1

    async def read(self, replica: int = 0, tenant: str = "demo", token: str = "") -> Reader:
        reader = Reader()
        reader.slow.set()
        watch = WatchAll(self.feeds[replica], "sites/north")

        async def run() -> None:
            changes = watch(tenant, token)
            try:
                async for each in changes:
                    reader.told.append(each)
                    await reader.slow.wait()
            except Exception as error:
                reader.failed = error
            finally:
                await changes.aclose()

        reader.task = asyncio.create_task(run())
        self.readers.append(reader)
        await self.clock.settle()
        return reader

    async def put(self, name: str, value: str, tenant: str = "demo") -> None:
        self.store.write({key_of(tenant, name): value.encode()})
        await self.clock.settle()

    async def stop(self, reader: Reader) -> None:
        assert reader.task is not None
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)

    async def close(self) -> None:
        for reader in self.readers:
            await self.stop(reader)
        for feed in self.feeds:
            await feed.close()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    up = World(Store(), FakeClock())
    up.replica()
    try:
        yield up
    finally:
        await up.close()
