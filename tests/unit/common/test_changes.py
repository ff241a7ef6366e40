"""Tokens, the history, and what one reader is told, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from intertie.common.changes.history import Event, History, Shown
from intertie.common.changes.positions import Mark, Position, decode, encode
from intertie.common.changes.watching import (
    ALIVE_S,
    PAGE_BYTES,
    Alive,
    Changed,
    Gone,
    Reason,
    SnapshotBegin,
    SnapshotClusters,
    SnapshotEnd,
    Told,
    WatchAll,
)
from intertie.common.errors import EtcdUnavailable, FieldInvalid, NotLeading
from intertie.common.etcd import feed as feeds
from intertie.common.etcd.client import Entry
from intertie.common.etcd.feed import Feed
from tests.fakes.changes import THINGS, Store, StoreEtcd, Things, key_of
from tests.fakes.clock import FakeClock, turns

SCOPE = "sites/north/tenants/demo"


def shown(name: str, tenant: str = "demo", weight: int = 1) -> Shown:
    return Shown(name=name, uid=f"u-{name}", tenant=tenant, weight=weight, make=name.encode)


# Tokens


def test_a_token_says_where_its_reader_was() -> None:
    for mark in (
        Mark(0, Position(1)),
        Mark((1 << 64) - 1, Position((1 << 63) - 1, "sites/north/tenants/demo/clusters/ä")),
    ):
        assert decode(encode(mark, SCOPE), SCOPE) == mark


@pytest.mark.parametrize("other", ["sites/south/tenants/demo", "sites/north/tenants/other", ""])
def test_a_token_of_another_watch_is_refused(other: str) -> None:
    token = encode(Mark(7, Position(9)), SCOPE)
    with pytest.raises(FieldInvalid) as caught:
        decode(token, other)
    assert caught.value.field == "resume_token"
    assert "leave it out" in caught.value.problem


def test_what_is_no_token_is_refused() -> None:
    token = encode(Mark(7, Position(9, "a")), SCOPE)
    spoilt = [token[:-1], token[1:], token + "A", token.swapcase(), "x", "%", "ä", "A" * 5000]
    spoilt += [token[:5] + ("A" if token[5] != "A" else "B") + token[6:]]
    for each in spoilt:
        with pytest.raises(FieldInvalid):
            decode(each, SCOPE)


# The history


def test_a_history_tells_what_is_behind_a_position() -> None:
    history = History(4)
    history.take(5, [Event(5, shown("a")), Event(5, shown("b", "other"))])
    history.take(6, [])
    history.take(7, [Event(7, shown("b"))])
    assert history.end == Position(8)

    def names(position: Position, tenant: str = "", most: int = 9) -> list[tuple[int, str]]:
        found = history.after(position, tenant, most=most)
        return [(each.revision, each.shown.name) for each in found]

    assert names(Position(5)) == [(5, "a"), (5, "b"), (7, "b")]
    assert names(Position(5, "a")) == [(5, "b"), (7, "b")]
    assert names(Position(5), "demo") == [(5, "a"), (7, "b")]
    assert names(Position(5), most=2) == [(5, "a"), (5, "b")]
    assert names(Position(6)) == names(Position(7)) == [(7, "b")]
    assert names(Position(8)) == names(Position(20)) == []
    assert not history.covers(Position(4, "z"))
    assert history.covers(Position(5))


def test_the_last_of_a_revision_leaves_nothing_of_it() -> None:
    history = History(1)
    events = [Event(2, shown("a")), Event(2, shown("b"))]
    history.take(2, events)
    assert [each.behind for each in events] == [Position(2, "a"), Position(3)]


@pytest.mark.parametrize(("most", "most_weight"), [(2, 1000), (1000, 20)])
def test_a_history_forgets_the_oldest(most: int, most_weight: int) -> None:
    history = History(1, most=most, most_weight=most_weight)
    for number in range(2, 6):
        history.take(number, [Event(number, shown("a", weight=10))])
    assert history.full
    assert history.begin == Position(4)
    assert [each.revision for each in history.after(Position(4), "", most=9)] == [4, 5]


def test_a_revision_comes_once_and_in_order() -> None:
    history = History(3)
    with pytest.raises(ValueError, match="revision 3 after 3"):
        history.take(3, [])


def test_a_message_is_made_once_and_then_what_it_is_made_of_goes() -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"x"

    it = Shown(name="a", uid="", tenant="", weight=1, make=make)
    assert it.octets() == it.octets() == b"x"
    assert made == [1]
    assert it._make is None


# Readers


@dataclass
class Reader:
    """Reads all it is told, unless it is `slow`."""

    told: list[Told] = field(default_factory=list)
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Exception | None = None
    task: asyncio.Task[None] | None = None

    @property
    def token(self) -> str:
        return next(token for each in reversed(self.told) if (token := _token(each)))

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


def _token(told: Told) -> str:
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


async def test_a_snapshot_and_then_every_change() -> None:
    async with world() as up:
        await up.put("a", "1")
        await up.put("x", "1", tenant="other")
        reader = await up.read()
        assert reader.reasons == [Reason.NO_TOKEN]
        assert reader.snapshots == [["things/demo/a=1"]]
        for value in ("2", "3", "3"):
            await up.put("a", value)
        await up.put("b", "1")
        up.store.write({key_of("demo", "a"): None})
        await up.put("x", "2", tenant="other")
        assert reader.changes == [
            "things/demo/a=2",
            "things/demo/a=3",
            "things/demo/b=1",
            "-things/demo/a",
        ]
        everything = await up.read(tenant="")
        assert everything.snapshots == [["things/demo/b=1", "things/other/x=2"]]


async def test_every_token_goes_on_behind_its_message_at_any_replica() -> None:
    """Transactions of several lines too: a stream may be cut within one."""
    async with world() as up:
        other = up.replica()
        reader = await up.read()
        for value in (b"1", b"2", b"3"):
            up.store.write({key_of("demo", name): value for name in "cab"})
        await up.clock.settle()
        assert len(reader.changes) == 9
        for position, told in enumerate(list(reader.told)):
            if token := _token(told):
                behind = [
                    each.message.decode()
                    for each in reader.told[position + 1 :]
                    if isinstance(each, Changed)
                ]
                for replica in (0, other):
                    again = await up.read(replica, token=token)
                    assert again.reasons == []
                    assert again.changes == behind
                    await up.stop(again)


async def test_a_replica_that_has_just_begun_goes_through_what_was_before() -> None:
    async with world() as up:
        reader = await up.read()
        await up.put("a", "1")
        await up.stop(reader)
        for value in ("2", "3", "4"):
            await up.put("a", value)
        fresh = up.replica()
        late = await up.read(fresh)  # it follows from here on
        assert late.snapshots == [["things/demo/a=4"]]
        await up.clock.advance(feeds.OPENED_EACH_S)
        again = await up.read(fresh, token=reader.token)
        await up.clock.advance(feeds.OPENED_EACH_S)
        assert again.reasons == []
        assert again.changes == [f"things/demo/a={value}" for value in "234"]
        await up.put("a", "5")
        assert late.changes == ["things/demo/a=5"], "who read before goes on undisturbed"
        assert again.changes[-1] == "things/demo/a=5"


async def test_many_that_come_back_cost_the_store_no_more_than_one() -> None:
    async with world() as up:
        reader = await up.read()
        tokens = []
        for value in range(40):
            await up.put("a", str(value))
            tokens.append(reader.token)
        fresh = up.replica()
        before = up.etcds[fresh].asked
        readers = [await up.read(fresh, token=each) for each in reversed(tokens)]
        await up.clock.advance(2 * feeds.OPENED_EACH_S)
        for number, each in zip(reversed(range(40)), readers, strict=True):
            assert each.reasons == []
            assert len(each.changes) == 39 - number
        asked = up.etcds[fresh].asked - before
        assert asked <= 40 + 20, "a question where it is for each, and few more"
        before = up.etcds[fresh].asked
        for value in range(100):
            await up.put("a", f"more {value}")
        assert all(len(each.changes) >= 100 for each in readers)
        assert up.etcds[fresh].asked - before <= 2, "a change is not read for each reader"


async def test_a_token_from_before_a_compaction_gets_a_snapshot_that_says_so() -> None:
    async with world() as up:
        reader = await up.read()
        await up.put("a", "1")
        token = reader.token
        await up.put("a", "2")
        await up.put("a", "3")
        up.store.compacted = up.store.revision
        fresh = up.replica()
        again = await up.read(fresh, token=token)
        assert again.reasons == [Reason.TOO_OLD]
        assert again.snapshots == [["things/demo/a=3"]]
        assert again.changes == []
        await up.put("a", "4")
        assert again.changes == ["things/demo/a=4"]
        newest = await up.read(up.replica(), token=reader.token)
        assert newest.reasons == [], "one that is not older has missed nothing"


async def test_a_token_too_far_back_is_not_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "REACH", 10)
    async with world() as up:
        reader = await up.read()
        await up.put("a", "0")
        token = reader.token
        for value in range(30):
            await up.put("a", str(value))
        again = await up.read(up.replica(), token=token)
        assert again.reasons == [Reason.TOO_OLD]


async def test_a_slow_reader_gets_a_snapshot_and_the_others_every_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(History.__init__, "__kwdefaults__", {"most": 8, "most_weight": 1 << 20})
    async with world() as up:
        slow, quick = await up.read(), await up.read()
        slow.slow.clear()
        for value in range(100):
            await up.put("a", str(value))
        assert len(quick.changes) == 100
        assert quick.reasons == [Reason.NO_TOKEN]
        assert len(slow.told) <= 3
        slow.slow.set()
        await up.clock.settle()
        assert slow.reasons == [Reason.NO_TOKEN, Reason.FELL_BEHIND]
        assert slow.snapshots[-1] == ["things/demo/a=99"]
        await up.put("a", "100")
        assert slow.changes[-1] == "things/demo/a=100"


async def test_a_tenants_reader_is_not_behind_for_what_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(History.__init__, "__kwdefaults__", {"most": 8, "most_weight": 1 << 20})
    async with world() as up:
        reader = await up.read()
        for value in range(100):
            await up.put("x", str(value), tenant="other")
        await up.put("a", "1")
        assert reader.reasons == [Reason.NO_TOKEN]
        assert reader.changes == ["things/demo/a=1"]
        for value in range(100):
            await up.put("x", f"more {value}", tenant="other")
        await up.clock.advance(2 * ALIVE_S)
        assert reader.reasons == [Reason.NO_TOKEN]


async def test_a_quiet_stream_says_so_with_a_token_that_does_not_age() -> None:
    async with world() as up:
        reader = await up.read()
        await up.put("x", "1", tenant="other")
        old = reader.token
        await up.clock.advance(ALIVE_S + feeds.TICK_S)
        assert isinstance(reader.told[-1], Alive)
        assert reader.changes == []
        for value in range(5):
            await up.put("x", str(value), tenant="other")
        await up.clock.advance(ALIVE_S + feeds.TICK_S)
        up.store.compacted = up.store.revision
        aged = await up.read(up.replica(), token=old)
        assert aged.reasons == [Reason.TOO_OLD]
        kept = await up.read(up.replica(), token=reader.token)
        assert kept.reasons == []


@pytest.mark.parametrize("count", range(30))
async def test_what_happens_as_a_stream_is_about_to_say_that_nothing_did_is_told(
    count: int,
) -> None:
    async with world() as up:
        reader = await up.read()
        up.store.write({key_of("demo", "a"): b"1"})
        await turns(count)
        end = up.feeds[0].now()[0].history.end
        for heard in up.feeds[0]._waiting._until.get("demo", {}):
            heard.set_result((end, True))  # as the ticker does
        await up.clock.settle()
        assert reader.changes == ["things/demo/a=1"]


async def test_a_snapshot_comes_in_bounded_messages() -> None:
    async with world() as up:
        large = "x" * (PAGE_BYTES // 3)
        for number in range(10):
            await up.put(f"a{number}", large)
        reader = await up.read()
        pages = [each for each in reader.told if isinstance(each, SnapshotClusters)]
        assert [len(each.messages) for each in pages] == [2, 2, 2, 2, 2]
        assert len(reader.snapshots[0]) == 10
        assert [_token(each) for each in reader.told[:-1]] == [""] * 6


async def test_a_snapshot_is_of_one_moment_however_slowly_it_is_read() -> None:
    async with world() as up:
        large = "x" * PAGE_BYTES
        for name in "ab":
            await up.put(name, large)
        reader = await up.read()
        await up.stop(reader)
        reader = Reader()
        watch = WatchAll(up.feeds[0], "sites/north")("demo", "")
        assert isinstance(await anext(watch), SnapshotBegin)
        first = await anext(watch)
        await up.put("b", "2")
        await up.put("a", "2")
        second, end = await anext(watch), await anext(watch)
        assert isinstance(first, SnapshotClusters)
        assert isinstance(second, SnapshotClusters)
        assert second.messages[0].endswith(b"x"), "not as it was changed to meanwhile"
        assert isinstance(end, SnapshotEnd)
        after = [await anext(watch), await anext(watch)]
        assert [each.message for each in after if isinstance(each, Changed)] == [
            b"things/demo/b=2",
            b"things/demo/a=2",
        ]
        await watch.aclose()


async def test_another_store_is_told_of_by_a_snapshot() -> None:
    async with world() as up:
        reader = await up.read()
        for value in range(3):
            await up.put("a", str(value))
        rebuilt = Store(number=8)
        rebuilt.write({key_of("demo", "a"): b"back"})
        etcd = StoreEtcd(rebuilt)
        up.feeds.append(Feed(etcd, (THINGS,), Things, up.clock))
        again = await up.read(1, token=reader.token)
        assert again.reasons == [Reason.STORE_REPLACED]
        assert again.snapshots == [["things/demo/a=back"]]


async def test_a_store_that_was_put_back_is_noticed_by_who_reads() -> None:
    async with world() as up:
        reader = await up.read()
        for value in range(9):
            await up.put("a", str(value))
        back = Store()
        back.write({key_of("demo", "a"): b"2"})
        up.etcds[0].store = back
        await up.clock.advance(2 * feeds.CHECK_S)
        assert reader.reasons == [Reason.NO_TOKEN, Reason.STORE_REPLACED]
        assert reader.snapshots[-1] == ["things/demo/a=2"]
        again = await up.read(token=reader.token)
        assert again.reasons == []


async def test_a_token_that_is_ahead_of_a_replica_waits_for_it() -> None:
    async with world() as up:
        behind = up.replica()
        await up.read(behind)
        up.etcds[behind].delayed = 3
        reader = await up.read()
        for value in range(3):
            await up.put("a", str(value))
        again = await up.read(behind, token=reader.token)
        await up.clock.advance(1)
        assert (again.reasons, again.changes) == ([], [])
        up.etcds[behind].delayed = 0
        await up.put("a", "new")
        assert again.changes == ["things/demo/a=new"]


async def test_who_reads_from_a_replica_without_its_store_is_sent_elsewhere() -> None:
    async with world() as up:
        reader = await up.read()
        up.etcds[0].broken = True
        up.store.ring()
        await up.clock.advance(feeds.PATIENCE_S / 2)
        assert reader.failed is None, "a short break is nobody's business"
        await up.clock.advance(feeds.PATIENCE_S + 2 * feeds.RETRY_S)
        assert isinstance(reader.failed, EtcdUnavailable)
        again = await up.read()
        assert isinstance(again.failed, EtcdUnavailable)
        up.etcds[0].broken = False
        await up.clock.advance(2 * feeds.CHECK_S)
        assert (await up.read(token=reader.token)).failed is None


async def test_a_break_of_the_watch_loses_nothing() -> None:
    async with world() as up:
        reader = await up.read()
        up.etcds[0].broken = True
        up.store.ring()
        await up.put("a", "1")
        await up.put("a", "2")
        up.etcds[0].broken = False
        await up.clock.advance(feeds.RETRY_S)
        assert reader.changes == ["things/demo/a=1", "things/demo/a=2"]
        assert reader.reasons == [Reason.NO_TOKEN]


async def test_a_watch_that_fell_behind_a_compaction_begins_anew() -> None:
    async with world() as up:
        reader = await up.read()
        up.etcds[0].broken = True
        up.store.ring()
        for value in range(3):
            await up.put("a", str(value))
        up.store.compacted = up.store.revision
        up.etcds[0].broken = False
        await up.clock.advance(2 * feeds.RETRY_S)
        assert reader.reasons == [Reason.NO_TOKEN, Reason.TOO_OLD]
        assert reader.snapshots[-1] == ["things/demo/a=2"]


async def test_a_compaction_as_it_is_opened_from_earlier_is_that_readers_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as up:
        early = await up.read()
        await up.put("a", "1")
        token = early.token
        for value in ("2", "3"):
            await up.put("a", value)
        fresh = up.replica()
        reader = await up.read(fresh)
        as_of = StoreEtcd.as_of

        async def compacted_then(
            etcd: StoreEtcd, prefixes: Sequence[str], revision: int
        ) -> tuple[Entry, ...]:
            found = await as_of(etcd, prefixes, revision)
            up.store.compacted = up.store.revision
            return found

        monkeypatch.setattr(StoreEtcd, "as_of", compacted_then)
        late = await up.read(fresh, token=token)
        await up.clock.advance(2 * feeds.OPENED_EACH_S)
        assert late.reasons == [Reason.TOO_OLD]
        assert late.snapshots == [["things/demo/a=3"]]
        await up.put("a", "4")
        assert reader.reasons == [Reason.NO_TOKEN]
        assert reader.changes == late.changes == ["things/demo/a=4"]


async def test_nobody_reads_and_nothing_is_followed() -> None:
    async with world() as up:
        reader = await up.read()
        await up.stop(reader)
        await up.clock.advance(feeds.KEPT_S / 2)
        assert up.feeds[0]._current is not None
        await up.clock.advance(feeds.KEPT_S)
        assert up.feeds[0]._current is None
        before = up.etcds[0].asked
        await up.clock.advance(100)
        assert up.etcds[0].asked == before
        await up.put("a", "1")
        assert (await up.read(token=reader.token)).changes == ["things/demo/a=1"]


async def test_readers_are_sent_elsewhere_when_a_replica_stops() -> None:
    async with world() as up:
        reader = await up.read()
        await up.feeds[0].close()
        await up.clock.settle()
        assert isinstance(reader.failed, NotLeading)
        assert isinstance((await up.read()).failed, NotLeading)
