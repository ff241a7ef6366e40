"""What one reader of all changes is told, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from intertie.common.changes.history import History
from intertie.common.changes.watching import (
    ALIVE_S,
    PAGE_BYTES,
    Alive,
    Changed,
    Reason,
    SnapshotBegin,
    SnapshotClusters,
    SnapshotEnd,
    WatchAll,
)
from intertie.common.errors import EtcdUnavailable, NotLeading
from intertie.common.etcd import feed as feeds
from intertie.common.etcd.client import Entry
from intertie.common.etcd.feed import Feed
from tests.fakes.changes import THINGS, Store, StoreEtcd, Things, key_of
from tests.fakes.clock import turns
from tests.unit.common.following import Reader, token_of, world

SCOPE = "sites/north/tenants/demo"


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
            if token := token_of(told):
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
        assert [token_of(each) for each in reader.told[:-1]] == [""] * 6


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
