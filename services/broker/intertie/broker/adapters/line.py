"""The line of changes that a leader writes: one transaction at a time, with many changes in each.

What is decided while a transaction is on its way goes into the next, so that the disk of etcd is
waited for once for all of them. Decisions are made on a book in memory, which is what etcd has and
what stands in line: no decision waits for the one before it to be written.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from intertie.broker.adapters import archive, keys
from intertie.broker.adapters.agent_records import standing_to_bytes, wanted_to_bytes
from intertie.broker.adapters.etcd_reads import EtcdReads
from intertie.broker.adapters.etcd_usage import SignedCheckpoint
from intertie.broker.adapters.mirror import Mirror
from intertie.broker.domain.account import UsageBatch
from intertie.broker.domain.book import Book
from intertie.broker.domain.lost_hosts import HostRecord
from intertie.broker.domain.records import Change, Tomb
from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, NotLeading, StaleWrite
from intertie.common.etcd.client import (
    MAX_OPERATIONS,
    Compare,
    DeleteKey,
    Etcd,
    EtcdRefused,
    Op,
    Put,
)
from intertie.common.etcd.records import MAX_BYTES, check_size, encode
from intertie.common.shared import Shared

log = structlog.get_logger(__name__)

LINGER_S = 0.006
"""A few transactions of a quiet disk. Only who finds a line standing waits: the fewer transactions
many admissions need, the less each costs."""
LOOK_LINGER_S = 0.002
"""Under a load of reads, looks at the election were a fifth of what a broker did."""
LARGE = 2000
"""Parts, from which on a book is made beside the event loop: of 100,000 it takes seconds."""
BATCH_BYTES = 1 << 19
"""Of one transaction of several changes."""


class Leadership(Protocol):
    """Of this replica, as intertie.common.etcd.election.Election has it."""

    @property
    def is_leader(self) -> bool: ...

    def leader_guard(self) -> Compare: ...

    async def leader(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    change: Change
    book: Book
    """That it was decided on."""
    written: asyncio.Future[int]
    compares: tuple[Compare, ...]
    ops: tuple[Op, ...]

    @property
    def keys(self) -> set[str]:
        return {each.key for each in (*self.compares, *self.ops)}

    @property
    def operations(self) -> int:
        """That it takes of a transaction."""
        return max(len(self.compares), len(self.ops))

    @property
    def size(self) -> int:
        return sum(len(each.value) for each in self.ops if isinstance(each, Put))

    def fail(self, error: Exception) -> None:
        if not self.written.done():
            self.written.set_exception(error)


class Line:
    """`changed` is called after every transaction, with the keys that it wrote."""

    def __init__(
        self,
        etcd: Etcd,
        leadership: Leadership,
        reads: EtcdReads,
        changed: Callable[[list[str]], None],
        clock: Clock,
    ) -> None:
        self._etcd = etcd
        self._leadership = leadership
        self._reads = reads
        self._changed = changed
        self._clock = clock
        self._book: Book | None = None
        self._mirror = Mirror()
        """Of what the book was read from, and of what was written since."""
        self._guard: Compare | None = None
        self._waiting: deque[_Waiting] = deque()
        self._sending = asyncio.Lock()
        """Held while a transaction, or the reading of the book, is on its way."""
        self._comparing = asyncio.Lock()
        self._drain_task: asyncio.Task[None] | None = None
        self._leads = Shared(self._look, linger=lambda: clock.sleep(LOOK_LINGER_S))

    async def book(self) -> Book:
        """As this replica knows the ledger; NotLeading when it does not lead. Good to decide on:
        what is decided is compared when it is written."""
        while True:
            guard = self._leadership.leader_guard()
            if self._book is not None and self._guard == guard:
                return self._book
            async with self._sending:
                # Nothing of ours is on its way, and the guard is older than what is read here:
                # whatever an earlier leader has written is in it.
                if self._book is None or self._guard != guard:
                    self._throw_away()
                    view, mirror = await self._reads.mirrored()
                    read = partial(Book.of, view, self._reads.policy.admission)
                    large = len(view.parts) >= LARGE
                    book = await asyncio.to_thread(read) if large else read()
                    self._book, self._mirror, self._guard = book, mirror, guard

    async def known(self) -> Book | None:
        """The book as it is; None when this replica does not lead. What an earlier leader that
        does not know it misses in it, it is told when it writes."""
        try:
            return await self.book()
        except NotLeading:
            return None

    async def confirmed(self) -> Book | None:
        """The book, linearizably: this replica was seen to lead after the call had begun, so
        nobody else has written. None when it does not lead."""
        try:
            await self.book()
            if not await self._leads(self._leadership.leader_guard()):
                return None
            if self._sending.locked():
                async with self._sending:
                    pass  # what others may have read in etcd already is in the book then
            return await self.book()
        except NotLeading:
            return None

    def submit(self, change: Change) -> asyncio.Future[int]:
        """See domain.ports.Ledger."""
        guard = self._leadership.leader_guard()
        if self._book is None or self._guard != guard:
            raise StaleWrite("ledger")
        written_keys = [keys.of_record(each.record) for each in change.writes]
        compares = tuple(_compares(change, written_keys))
        ops = tuple(_ops(change, written_keys))
        together = ops[: len(ops) - len(change.wanted)]
        check_size(each.value for each in together if isinstance(each, Put))
        self._book.reserve(change)
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(change, self._book, written, compares, ops))
        if self._drain_task is None or self._drain_task.done():
            self._drain_task = asyncio.create_task(self._drain())
        return written

    async def read_again(self) -> None:
        """Compares the book with what etcd has, by the revision of every key, and forgets it
        where they differ: whatever an answer may have kept from it is found. Where nothing
        does, nothing in line is disturbed, and what is written meanwhile goes on."""
        async with self._comparing:
            book, mirror = self._book, self._mirror
            if book is None or not (other := await self._other(book, mirror)):
                return
            log.warning("line.book_differs", key=other)
            async with self._sending:
                if self._book is book:
                    self._throw_away()

    async def _other(self, book: Book, mirror: Mirror) -> str:
        """A key that is not as the book has it; empty where there is none, or no such book any
        more."""
        pages = self._reads.listing()
        try:
            async with self._sending:
                # Nothing is on its way: what is known is of the revision of the first page.
                comparison = mirror.compare()
                comparison.take((await anext(pages)).keys)
            async for page in pages:
                comparison.take(page.keys)
                if self._book is not book:
                    return ""
            return comparison.other()
        finally:
            mirror.compared()
            await pages.aclose()

    async def why_refused(self, guard: Compare) -> Exception:
        """Of a transaction that compared `guard`."""
        if not (await self._etcd.txn([guard], [])).succeeded:
            return NotLeading(await self._leadership.leader())
        return StaleWrite("ledger")

    def _throw_away(self) -> None:
        """What was decided on the book goes with it."""
        self._book = None
        while self._waiting:
            self._waiting.popleft().fail(StaleWrite("ledger"))

    async def _drain(self) -> None:
        """A change that comes alone is written at once. While a line stands, each transaction
        waits a moment for more to go with it, unless it is full already."""
        stands = False
        while self._waiting:
            if stands and not self._enough():
                await self._clock.sleep(LINGER_S)
            async with self._sending:
                batch = self._next_batch()
                if batch:
                    await self._send(batch)
            stands = True

    def _enough(self) -> bool:
        """What stands in line fills a transaction."""
        operations = 2
        for each in self._waiting:
            operations += each.operations
            if operations > MAX_OPERATIONS:
                return True
        return False

    def _next_batch(self) -> list[_Waiting]:
        """As many as one transaction takes, in the order in which they came."""
        batch: list[_Waiting] = []
        touched: set[str] = set()
        operations, size = 2, 0
        while self._waiting:
            first = self._waiting[0]
            if conflict := first.book.conflict(first.change):
                self._waiting.popleft()
                self._give_up(first, conflict)
                if first.change.may_free:
                    self._give_up_later_ones(first, conflict)
                continue
            operations += first.operations
            size += first.size
            full = operations > MAX_OPERATIONS or size > BATCH_BYTES
            if batch and (full or not touched.isdisjoint(first.keys)):
                break
            touched |= first.keys
            batch.append(self._waiting.popleft())
            if full:
                break
        return batch

    def _give_up(self, one: _Waiting, conflict: str) -> None:
        one.book.cancel(one.change)
        one.fail(StaleWrite(conflict))

    def _give_up_later_ones(self, one: _Waiting, conflict: str) -> None:
        """Admissions after it, which may have been given what it would have freed."""
        kept: list[_Waiting] = []
        for each in self._waiting:
            if each.book is one.book and each.change.admitted_on is not None:
                self._give_up(each, conflict)
            else:
                kept.append(each)
        self._waiting = deque(kept)

    async def _send(self, batch: list[_Waiting]) -> None:
        book = batch[0].book
        compares = [each for item in batch for each in item.compares]
        ops = [each for item in batch for each in item.ops]
        admissions = sum(item.change.admitted_on is not None for item in batch)
        if admissions:
            compares.append(Compare.mod(keys.GENERATION, book.written_revision))
            ops.insert(0, Put(keys.GENERATION, str(book.written + admissions).encode()))
        try:
            guard = self._leadership.leader_guard()
            first, rest = _split(ops)
            if len(rest) > sum(len(item.change.wanted) for item in batch):
                raise ValueError("only records of hosts may follow in further transactions")
            done = await self._etcd.txn([guard, *compares], first)
            if not done.succeeded:
                raise await self.why_refused(guard)
            self._mirror.wrote(first, done.revision)
            await self._go_on(guard, batch[0].change, rest, done.revision)
        except Exception as error:
            # Whether it is written is not known, or the book is not what etcd has.
            for item in batch:
                item.fail(error)
            self._throw_away()
            if not isinstance(error, (EtcdUnavailable, EtcdRefused, NotLeading, StaleWrite)):
                log.exception("line.failed")
            return
        for item in batch:
            book.apply(item.change, done.revision)
            if not item.written.done():
                item.written.set_result(done.revision)
        self._changed([each.key for each in ops])

    async def _go_on(self, guard: Compare, change: Change, rest: list[Op], revision: int) -> None:
        """Records of hosts that did not fit into the transaction, while its first record still
        is as it was written there. What is broken off is found missing, or of an older
        generation, and written again."""
        if not rest:
            return
        key = keys.of_record(change.writes[0].record)
        while rest:
            first, rest = _split(rest)
            done = await self._etcd.txn([guard, Compare.mod(key, revision)], first)
            if not done.succeeded:
                raise await self.why_refused(guard)
            self._mirror.wrote(first, done.revision)

    async def _look(self, guard: Compare) -> bool:
        """Whether this replica still leads."""
        entry = await self._etcd.get(guard.key)
        return entry is not None and entry.create_revision == guard.number


def _split(ops: list[Op]) -> tuple[list[Op], list[Op]]:
    """As many as one transaction takes, one at least, and the rest."""
    size = 0
    for number, op in enumerate(ops):
        size += len(op.value) if isinstance(op, Put) else 0
        if number and (number == MAX_OPERATIONS or size > MAX_BYTES):
            return ops[:number], ops[number:]
    return ops, []


def _compares(change: Change, written_keys: list[str]) -> Iterator[Compare]:
    for key, write in zip(written_keys, change.writes, strict=True):
        yield Compare.mod(key, write.read_at)
    for erasure in change.erasures:
        yield Compare.mod(keys.of_record(erasure.record), erasure.read_at)
    for record in change.unchanged:
        yield Compare.mod(keys.of_unchanged(record), record.read_at)
    for vni, _ in change.vnis:
        yield Compare.absent(keys.vni_key(vni))
    for host, revision in change.silent:
        yield Compare.mod(keys.facts_key(host), revision)
    if change.usage is not None:
        yield Compare.mod(keys.USAGE_HEAD, change.usage.head_read_at)


def _ops(change: Change, written_keys: list[str]) -> Iterator[Op]:
    for key, write in zip(written_keys, change.writes, strict=True):
        yield Put(key, encode(write.record))
        if isinstance(write.record, HostRecord):
            host = write.record.name
            yield Put(keys.wanted_host_key(host), standing_to_bytes(write.record))
    for erasure in change.erasures:
        yield DeleteKey(keys.of_record(erasure.record))
        if isinstance(erasure.record, Tomb):
            yield from map(DeleteKey, keys.archived_keys_of(erasure.record))
    for record in change.archived:
        yield Put(keys.archived_key(record), archive.packed(record))
    for vni, part_uid in change.vnis:
        yield Put(keys.vni_key(vni), part_uid.encode())
    for vni in change.vnis_given_back():
        yield DeleteKey(keys.vni_key(vni))
    if change.usage is not None:
        yield from _usage_ops(change.usage)
    for host, part_uid in change.unwanted:
        yield DeleteKey(keys.wanted_key(host, part_uid))
    for host, wanted in change.wanted.items():
        yield Put(keys.wanted_key(host, wanted.part_uid), wanted_to_bytes(wanted))


def _usage_ops(batch: UsageBatch) -> Iterator[Op]:
    """Three for each record at most; the records themselves are kept by tenant, so that one's are
    read without passing over all others'."""
    for entry, body in zip(batch.entries, batch.bodies, strict=True):
        yield Put(keys.entry_key(entry.number), encode(entry))
        yield Put(keys.usage_record_key(entry.tenant, entry.number), body)
    checkpoint = batch.checkpoint
    signed = SignedCheckpoint(
        body=checkpoint.body,
        signature=checkpoint.signature,
        certificate=batch.head.certificate,
    )
    yield Put(keys.checkpoint_key(checkpoint.number), encode(signed))
    if batch.certificate_is_new:
        yield Put(keys.certificate_key(batch.head.certificate), checkpoint.certificate)
    yield Put(keys.USAGE_HEAD, encode(batch.head))
