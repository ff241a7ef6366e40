"""One process's connection to a model of etcd, with the interface of the real one's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import (
    CALL_TIMEOUT_S,
    MAX_OPERATIONS,
    Change,
    Compare,
    Entry,
    Etcd,
    Keys,
    Op,
    Snapshot,
    Status,
    TxnResult,
)
from tests.sim.etcd_model import EtcdModel
from tests.sim.virtual_loop import Process

T = TypeVar("T")


class ModelClient(Etcd):
    """`process` is who asks; None: nobody that could fail."""

    def __init__(self, store: EtcdModel, process: Process | None = None) -> None:
        self.store = store
        self._process = process
        self.leases: Any = _Leases(self)

    async def close(self) -> None:
        """Nothing is open."""

    async def get(self, key: str) -> Entry | None:
        return await self.call(lambda: self.store.get(key))

    async def status(self) -> Status:
        """It never fills, so nobody waits for the answer."""
        return Status(member=1, revision=0, size=0, in_use=0, quota=1 << 30, full=False)

    async def range(self, prefix: str, *, without: tuple[str, ...] = ()) -> Snapshot:
        return await self.call(lambda: self.store.range(prefix, without))

    async def some(self, first: str, last: str, *, most: int) -> tuple[Entry, ...]:
        return await self.call(lambda: self.store.some(first, last, most))

    async def keys(self, prefix: str, *, revision: int = 0) -> AsyncGenerator[Keys, None]:
        after = ""
        while True:
            page, more = await self._page(prefix, after, revision)
            revision = page.revision
            yield page
            if not more:
                return
            after = page.keys[-1][0]

    async def _page(self, prefix: str, after: str, revision: int) -> tuple[Keys, bool]:
        return await self.call(lambda: self.store.keys(prefix, after, revision))

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        if len(then) > MAX_OPERATIONS or len(compare) > MAX_OPERATIONS:
            raise ValueError(f"a transaction has at most {MAX_OPERATIONS} operations")
        writer = self._process.name if self._process else ""
        return await self.call(lambda: self.store.txn(compare, then, writer), writes=True)

    async def watch(self, prefix: str, start_revision: int = 0) -> AsyncGenerator[Change, None]:
        stream = await self.call(lambda: self.store.open(prefix, start_revision, self._process))
        try:
            while True:
                while stream.queue:
                    yield stream.queue.popleft()
                if stream.ended:
                    return
                stream.heard.clear()
                await stream.heard.wait()
        finally:
            self.store.close(stream)

    async def call(
        self, act: Callable[[], T], *, writes: bool = False, timeout: float = CALL_TIMEOUT_S
    ) -> T:
        """Done at etcd when the request arrives, whether or not anybody still waits for it."""
        process, store, loop = self._process, self.store, self.store.loop
        if process is not None:
            await process.gate()
            if process.dead or process.closing:
                raise EtcdUnavailable("the process is gone")
        fate = store.faults.of_call(store, process, writes=writes)
        answer: asyncio.Future[T] = loop.create_future()

        def settle(found: T | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found)  # type: ignore[arg-type]

        def arrive() -> None:
            if store.down:
                return
            found: T | None = None
            problem: Exception | None = None
            try:
                found = act()
            except EtcdUnavailable as error:
                problem = error
            if fate.answer_s is not None:
                loop.later(fate.answer_s, settle, found, problem)

        if fate.request_s is not None:
            loop.later(fate.request_s, arrive)
        timer = loop.call_later(timeout, settle, None, EtcdUnavailable("no answer in time"))
        try:
            return await answer
        finally:
            timer.cancel()


class _Leases:
    """As etcd3aio's, of which only these are used."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self._store = client.store

    async def grant(self, ttl: int, *, timeout: float) -> Any:
        number = await self._client.call(lambda: self._store.grant(ttl), timeout=timeout)
        return SimpleNamespace(ID=number, TTL=ttl)

    async def revoke(self, number: int, *, timeout: float) -> None:
        await self._client.call(lambda: self._store.revoke(number), timeout=timeout)

    def keep_alive(self, number: int) -> _KeptAlive:
        return _KeptAlive(self._client, number)


class _KeptAlive:
    """One answer, and no more."""

    def __init__(self, client: ModelClient, number: int) -> None:
        self._client = client
        self._number = number
        self._asked = False

    def __aiter__(self) -> _KeptAlive:
        return self

    async def __anext__(self) -> Any:
        if self._asked:
            raise StopAsyncIteration
        self._asked = True
        store = self._client.store
        ttl = await self._client.call(lambda: store.renew(self._number))
        return SimpleNamespace(ID=self._number, TTL=int(ttl))

    def cancel(self) -> None:
        """Nothing is open."""
