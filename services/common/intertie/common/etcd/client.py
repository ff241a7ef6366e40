"""The one wrapper around an etcd library: guarded transactions, consistent snapshots, watch hints.

Keys are given without the prefix of `EtcdSettings`; the client adds it, so that nothing can reach
outside its own part of a store. The library's retries are switched off for writes: it would
repeat a transaction whose answer was lost.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from itertools import groupby
from typing import Any, Self, TypeAlias, TypeVar

import grpc
import structlog
from etcd3aio import EtcdError, EtcdPermissionDeniedError, EtcdUnauthenticatedError
from etcd3aio._protobuf import Compare as WireCompare
from etcd3aio.auth import AuthService
from etcd3aio.kv import KVService, prefix_range_end
from etcd3aio.lease import LeaseService
from etcd3aio.maintenance import MaintenanceService
from etcd3aio.watch import WatchService

from intertie.common.clock import Clock, SystemClock
from intertie.common.errors import EtcdUnavailable, LedgerFull
from intertie.common.etcd.channel import channel_to
from intertie.common.settings import EtcdSettings
from intertie.common.values import Struct

log = structlog.get_logger(__name__)

T = TypeVar("T")

CALL_TIMEOUT_S = 5.0
MAX_OPERATIONS = 128
"""Of one transaction: what etcd allows by default."""
_PAGE = 1000
_PAGE_OF_KEYS = 5000
"""Some 500 kB, and a few milliseconds to read. etcd counts all that follow for each page."""
_PUT = 0
"""mvccpb.Event.EventType."""


_FULL = "database space exceeded"
"""What etcd says while its NOSPACE alarm is raised. It goes on to read, delete and renew leases."""

AT_QUOTA = (
    "etcd has reached its quota and takes nothing new; what stands goes on. Its operator makes "
    "room: etcdctl compaction, defrag, alarm disarm"
)


class EtcdRefused(Exception):
    """etcd does not let this client do that: a fault of configuration, not of a request."""


class Entry(Struct, frozen=True, kw_only=True):
    key: str
    value: bytes
    mod_revision: int
    create_revision: int


class Snapshot(Struct, frozen=True, kw_only=True):
    """All entries under a prefix, ordered by key, as they were at one revision."""

    entries: tuple[Entry, ...]
    revision: int


class Keys(Struct, frozen=True, kw_only=True):
    """Some of the keys under a prefix, each with the revision at which it was last written, as
    they were at `revision`."""

    keys: tuple[tuple[str, int], ...]
    revision: int


class Change(Struct, frozen=True, kw_only=True):
    """A hint that something under the prefix may be different from `revision` on."""

    revision: int
    puts: tuple[Entry, ...] = ()
    deleted: tuple[tuple[str, int], ...] = ()
    """Keys, each with the revision at which it went."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Without any, changes may have gone unseen."""
        return (*(each.key for each in self.puts), *(key for key, _ in self.deleted))


class Place(Struct, frozen=True, kw_only=True):
    """Where a store is: which one, and at which revision."""

    store: int
    """etcd's own number of the cluster."""
    revision: int


class Status(Struct, frozen=True, kw_only=True):
    """What one member says of itself."""

    member: int
    revision: int
    """That its store has come to."""
    size: int
    """Octets of its database's file, which is what its quota bounds."""
    in_use: int
    """Octets of those that hold anything; the rest is written over before the file grows."""
    quota: int
    """0: it does not say."""
    full: bool
    """Its NOSPACE alarm is raised."""


class Revision(Struct, frozen=True, kw_only=True):
    """All that one transaction has changed under the prefix."""

    number: int
    puts: tuple[Entry, ...] = ()
    deleted: tuple[str, ...] = ()


class Compacted(Exception):
    """What was then is not remembered by etcd any more, or has not been yet."""


class Compare(Struct, frozen=True):
    """One condition of a transaction. Made by the class methods."""

    key: str
    target: str
    number: int = 0
    octets: bytes = b""

    @classmethod
    def mod(cls, key: str, revision: int) -> Self:
        """The key was last written at `revision`; 0: it does not exist."""
        return cls(key, "mod", revision)

    @classmethod
    def absent(cls, key: str) -> Self:
        return cls(key, "create", 0)

    @classmethod
    def created(cls, key: str, revision: int) -> Self:
        """The key exists, made at `revision`, and was not deleted since."""
        return cls(key, "create", revision)

    @classmethod
    def value(cls, key: str, octets: bytes) -> Self:
        return cls(key, "value", 0, octets)


class Put(Struct, frozen=True):
    key: str
    value: bytes
    lease: int = 0
    """0: for good. Tied to a lease are the keys of elections, and plans that may be accepted for
    some minutes."""


class DeleteKey(Struct, frozen=True):
    key: str


Op: TypeAlias = Put | DeleteKey


class TxnResult(Struct, frozen=True, kw_only=True):
    succeeded: bool
    revision: int


class Etcd:
    """A connection to one store. Every method raises EtcdUnavailable when there is no answer."""

    def __init__(self, channel: grpc.aio.Channel, prefix: str) -> None:
        self._channel = channel
        self._prefix = prefix.rstrip("/") + "/"
        self._kv = KVService(channel, max_attempts=1)
        self._watches = WatchService(channel, max_attempts=1, max_reconnect_backoff_seconds=1.0)
        self.leases = LeaseService(channel, max_attempts=1)
        self.auth = AuthService(channel, max_attempts=1)
        self._maintenance = MaintenanceService(channel, max_attempts=1)

    @classmethod
    async def connect(cls, settings: EtcdSettings, clock: Clock | None = None) -> Self:
        """Does not wait for a server: the first call finds out. Follows its files, as channels to
        other services do; SettingsInvalid where they are of no use from the start."""
        return cls(await channel_to(settings, clock or SystemClock()), settings.prefix)

    async def close(self) -> None:
        await self._channel.close()

    @property
    def prefix(self) -> str:
        """With the slash at its end."""
        return self._prefix

    async def get(self, key: str) -> Entry | None:
        """Linearizable."""
        answer = await reach(self._kv.get(self._prefix + key, timeout=CALL_TIMEOUT_S))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str, *, without: tuple[str, ...] = ()) -> Snapshot:
        """Linearizable, and consistent however many pages it takes. `without` are longer prefixes,
        whose entries are left out and not read; none is the beginning of another."""
        start = (self._prefix + prefix).encode()
        end = prefix_range_end(start)
        spans = []
        for out in sorted((self._prefix + each).encode() for each in without):
            spans.append((start, out))
            start = prefix_range_end(out)
        spans.append((start, end))
        entries: list[Entry] = []
        revision = 0
        for first, last in spans:
            async for answer in self._pages(first, last, revision=revision, limit=_PAGE):
                revision = revision or answer.header.revision
                entries.extend(self._entry(each) for each in answer.kvs)
        return Snapshot(entries=tuple(entries), revision=revision)

    async def some(self, first: str, last: str, *, most: int) -> tuple[Entry, ...]:
        """Entries from the key `first` on, in order, up to and with the key `last`, `most` of them
        at most. Linearizable."""
        start, end = (self._prefix + first).encode(), (self._prefix + last).encode() + b"\0"
        answer = await reach(self._kv.get(start, end, limit=most, timeout=CALL_TIMEOUT_S))
        return tuple(self._entry(each) for each in answer.kvs)

    async def keys(self, prefix: str, *, revision: int = 0) -> AsyncGenerator[Keys, None]:
        """All of them in order, in pages, without what is written there. Linearizable, or as of
        an earlier `revision`; consistent however many pages it takes."""
        start = (self._prefix + prefix).encode()
        end = prefix_range_end(start)
        async for answer in self._pages(
            start, end, revision=revision, limit=_PAGE_OF_KEYS, keys_only=True
        ):
            revision = revision or answer.header.revision
            own = tuple((self._own(each.key), each.mod_revision) for each in answer.kvs)
            yield Keys(keys=own, revision=revision)

    async def _pages(
        self, start: bytes, end: bytes, *, revision: int, limit: int, keys_only: bool = False
    ) -> AsyncGenerator[Any, None]:
        """etcd's answers, one at least, until there is no more; all as of `revision` or, where
        that is 0, as of the first answer."""
        more = True
        while more:
            answer = await reach(
                self._kv.get(
                    start,
                    end,
                    revision=revision,
                    limit=limit,
                    keys_only=keys_only,
                    timeout=CALL_TIMEOUT_S,
                )
            )
            yield answer
            revision, more = revision or answer.header.revision, answer.more
            if more:
                start = answer.kvs[-1].key + b"\0"

    async def txn(self, compare: Sequence[Compare], then: Sequence[Op]) -> TxnResult:
        """All of `then` or nothing. EtcdUnavailable leaves open whether it was done: read again."""
        if len(then) > MAX_OPERATIONS or len(compare) > MAX_OPERATIONS:
            raise ValueError(f"a transaction has at most {MAX_OPERATIONS} operations")
        answer = await reach(
            self._kv.txn(
                [self._wire_compare(each) for each in compare],
                [self._wire_op(each) for each in then],
                timeout=CALL_TIMEOUT_S,
                max_attempts=1,
            )
        )
        return TxnResult(succeeded=answer.succeeded, revision=answer.header.revision)

    async def grant(self, ttl_s: int) -> int:
        """A lease. What is put with it is gone after so long, or some time later: etcd begins to
        count anew when its leader changes."""
        granted: Any = await reach(self.leases.grant(ttl_s, timeout=CALL_TIMEOUT_S))
        number: int = granted.ID
        return number

    async def watch(self, prefix: str, start_revision: int = 0) -> AsyncGenerator[Change, None]:
        """Hints, from `start_revision` on: some may be missing, some may come twice.

        Yields after every reconnection too (from 0, when it stands as well), and ends when etcd
        cannot go on from where it was (compacted, refused): the caller lists again, then watches
        again.
        """
        start = (self._prefix + prefix).encode()
        answers: Any = self._watches.watch(
            start, prefix_range_end(start), start_revision, progress_notify=True
        )
        # Before a watch from now on stands, and while one is reconnected, changes go unseen.
        gap = start_revision == 0
        try:
            async for answer in answers:
                revision = answer.header.revision
                if answer.compact_revision or answer.canceled:
                    yield Change(revision=revision)
                    return
                if answer.created:
                    if gap:
                        yield Change(revision=revision)
                    gap = True
                if answer.events:
                    yield self._change(answer)
        except (grpc.aio.AioRpcError, EtcdError) as error:
            log.warning("etcd.watch_ended", prefix=prefix, problem=_problem(error))
        finally:
            await answers.aclose()

    async def place(self) -> Place:
        """Linearizable."""
        nothing = self._prefix + "\0"
        answer = await reach(self._kv.get(nothing, count_only=True, timeout=CALL_TIMEOUT_S))
        return Place(store=answer.header.cluster_id, revision=answer.header.revision)

    async def status(self) -> Status:
        """Of one member; each call is another's turn."""
        said: Any = await reach(self._maintenance.status(timeout=CALL_TIMEOUT_S))
        return Status(
            member=said.header.member_id,
            revision=said.header.revision,
            size=said.dbSize,
            in_use=said.dbSizeInUse,
            quota=max(said.dbSizeQuota, 0),
            full=any("NOSPACE" in each for each in said.errors),
        )

    async def compact(self, revision: int) -> None:
        """Has the store forget what was before that revision; what is there stays. Nothing where
        it has forgotten that already."""
        try:
            await reach(_remembered(self._kv.compact(revision, timeout=CALL_TIMEOUT_S)))
        except Compacted:
            return

    async def as_of(self, prefixes: Sequence[str], revision: int) -> tuple[Entry, ...]:
        """All entries under any of the prefixes as they were at `revision`. Compacted where that
        is not to be had."""
        entries: list[Entry] = []
        for prefix in prefixes:
            begin = (self._prefix + prefix).encode()
            end, more = prefix_range_end(begin), True
            while more:
                answer = await reach(
                    _remembered(
                        self._kv.get(
                            begin, end, revision=revision, limit=_PAGE, timeout=CALL_TIMEOUT_S
                        )
                    )
                )
                entries.extend(self._entry(each) for each in answer.kvs)
                more = answer.more
                if more:
                    begin = answer.kvs[-1].key + b"\0"
        return tuple(entries)

    async def revisions(self, first: int) -> AsyncGenerator[tuple[Revision, ...], None]:
        """Every revision from `first` on that touches the prefix, once and in order, and goes on
        with those to come. No hint: what it tells is all there was.

        Compacted where it cannot begin there. EtcdUnavailable when the stream breaks; the caller
        goes on behind the last revision that it was told.
        """
        start = self._prefix.encode()
        answers: Any = self._watches.watch(start, prefix_range_end(start), first)
        created = False
        try:
            async for answer in answers:
                if answer.compact_revision:
                    raise Compacted
                if answer.canceled:
                    raise EtcdUnavailable(f"the watch was ended: {answer.cancel_reason}")
                if answer.created and created:
                    # The library has connected again, from where etcd was and not from what
                    # it had told.
                    raise EtcdUnavailable("the watch was broken off")
                created = created or answer.created
                if answer.events:
                    yield tuple(self._revisions(answer.events))
        except (grpc.aio.AioRpcError, EtcdError) as error:
            raise EtcdUnavailable(_problem(error)) from error
        finally:
            await answers.aclose()
        raise EtcdUnavailable("the watch was ended")

    def _revisions(self, events: Sequence[Any]) -> Iterator[Revision]:
        """etcd tells whole revisions, in order; a transaction touches a key once."""
        for number, touched in groupby(events, key=lambda each: each.kv.mod_revision):
            told = list(touched)
            yield Revision(
                number=number,
                puts=tuple(self._entry(each.kv) for each in told if each.type == _PUT),
                deleted=tuple(self._own(each.kv.key) for each in told if each.type != _PUT),
            )

    def _change(self, answer: Any) -> Change:
        """What each key came to, whatever it was in between."""
        last = {each.kv.key: each for each in answer.events}.values()
        return Change(
            revision=answer.header.revision,
            puts=tuple(self._entry(each.kv) for each in last if each.type == _PUT),
            deleted=tuple(
                (self._own(each.kv.key), each.kv.mod_revision) for each in last if each.type != _PUT
            ),
        )

    def _entry(self, pair: Any) -> Entry:
        return Entry(
            key=self._own(pair.key),
            value=pair.value,
            mod_revision=pair.mod_revision,
            create_revision=pair.create_revision,
        )

    def _own(self, key: bytes) -> str:
        return key.decode().removeprefix(self._prefix)

    def _wire_compare(self, compare: Compare) -> Any:
        key = (self._prefix + compare.key).encode()
        equal = WireCompare.EQUAL
        if compare.target == "mod":
            # Fields, not a message: a transaction is given copies, and these are most of it.
            target, revision = WireCompare.MOD, compare.number
            return {"result": equal, "target": target, "key": key, "mod_revision": revision}
        if compare.target == "create":
            return KVService.txn_compare_create_revision(key, compare.number)
        return KVService.txn_compare_value(key, compare.octets)

    def _wire_op(self, op: Op) -> Any:
        key = self._prefix + op.key
        if isinstance(op, Put):
            put = {"key": key.encode(), "value": op.value, "lease": op.lease}
            return {"request_put": put}
        return KVService.txn_op_delete(key)


async def reach(call: Awaitable[T]) -> T:
    """Turns what the library raises into errors of ours."""
    try:
        return await call
    except (EtcdPermissionDeniedError, EtcdUnauthenticatedError) as error:
        raise EtcdRefused(_problem(error)) from error
    except (EtcdError, TimeoutError, grpc.aio.AioRpcError) as error:
        if _is_full(error):
            raise LedgerFull(AT_QUOTA) from error
        raise EtcdUnavailable(_problem(error)) from error


async def _remembered(call: Awaitable[T]) -> T:
    """Compacted where etcd refuses a revision: too old for it, or in its future."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.OUT_OF_RANGE:
            raise Compacted from error
        raise


def _is_full(error: BaseException) -> bool:
    return (
        isinstance(error, grpc.aio.AioRpcError)
        and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        and _FULL in str(error.details())
    )


def _problem(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
