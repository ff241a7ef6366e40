"""Whatever happens, and wherever its streams are cut, a reader is told of everything once and in
order, or given a snapshot where what it missed is not remembered.

What it is told is compared with all that the store ever was, by code that shares nothing with what
follows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.changes.watching import (
    Alive,
    Changed,
    Gone,
    SnapshotBegin,
    SnapshotClusters,
    SnapshotEnd,
    Told,
    WatchAll,
)
from intertie.common.etcd.feed import Feed
from tests.fakes.changes import THINGS, Store, StoreEtcd, Things, key_of
from tests.fakes.clock import FakeClock

KEYS = [key_of(tenant, name) for tenant in ("demo", "other") for name in "abc"]
VALUES = st.sampled_from([None, b"1", b"2", b"3"])

write = st.tuples(st.just("write"), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1))
other_key = st.tuples(st.just("write"), st.just({"elsewhere": b"x"}))
read = st.tuples(st.just("read"), st.integers(1, 6))
cut = st.tuples(st.just("cut"), st.integers(0, 1))
restart = st.tuples(st.just("restart"), st.integers(0, 1))
delay = st.tuples(st.just("delay"), st.integers(0, 3))
compact = st.tuples(st.just("compact"), st.integers(0, 3))
steps = st.lists(st.one_of(write, write, other_key, read, cut, restart, delay), max_size=60)
steps_with_compactions = st.lists(st.one_of(write, write, read, cut, restart, compact), max_size=60)


class Rig:
    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.store = Store()
        self.clock = FakeClock()
        self.etcds: list[StoreEtcd] = []
        self.feeds: list[Feed] = []
        for _ in range(2):
            self._add()
        self.token = ""
        self.stream: AsyncGenerator[Told, None] | None = None
        self.coming: asyncio.Task[Told] | None = None
        self.told: list[Told] = []
        self.at = 0

    def _add(self) -> None:
        self.etcds.append(StoreEtcd(self.store))
        self.feeds.append(Feed(self.etcds[-1], (THINGS,), Things, self.clock))

    async def read(self, most: int) -> None:
        for _ in range(most):
            if self.stream is None:
                self.stream = WatchAll(self.feeds[self.at], "sites/north")(self.tenant, self.token)
            if self.coming is None:
                self.coming = asyncio.create_task(anext(self.stream))
            await self.clock.settle()
            if not self.coming.done():
                await self.clock.advance(5)
            if not self.coming.done():
                return
            told = self.coming.result()
            self.coming = None
            self.told.append(told)
            self.token = getattr(told, "token", "") or self.token

    async def cut(self, to: int) -> None:
        if self.coming is not None:
            self.coming.cancel()
            await asyncio.gather(self.coming, return_exceptions=True)
            self.coming = None
        if self.stream is not None:
            await self.stream.aclose()
            self.stream = None
        self.at = to

    async def restart(self, number: int) -> None:
        if number == self.at:
            await self.cut(number)
        await self.feeds[number].close()
        self.etcds[number] = StoreEtcd(self.store)
        self.feeds[number] = Feed(self.etcds[number], (THINGS,), Things, self.clock)

    async def close(self) -> None:
        await self.cut(0)
        for each in self.feeds:
            await each.close()


async def play(tenant: str, script: list[tuple[str, Any]]) -> Rig:
    rig = Rig(tenant)
    try:
        await rig.read(2)
        for act, what in script:
            match act:
                case "write":
                    rig.store.write(what)
                case "read":
                    await rig.read(what)
                case "cut":
                    await rig.cut(what)
                case "restart":
                    await rig.restart(what)
                case "delay":
                    rig.etcds[what % 2].delayed = what
                    rig.store.ring()
                case "compact":
                    rig.store.compacted = max(rig.store.compacted, rig.store.revision - what)
        for each in rig.etcds:
            each.delayed = 0
        rig.store.ring()
        await rig.clock.advance(5)
        while True:
            before = len(rig.told)
            await rig.read(200)
            if all(isinstance(each, Alive) for each in rig.told[before:]):
                return rig
    finally:
        await rig.close()


def changes_of(store: Store, tenant: str) -> list[tuple[int, str, bytes]]:
    """All that ever happened: at which revision, to whom, and what it became; nothing: gone."""
    found = []
    for number in range(2, store.revision + 1):
        before, after = store.state(number - 1), store.state(number)
        for key in sorted(before.keys() | after.keys()):
            was = before[key].value if key in before else b""
            became = after[key].value if key in after else b""
            if was != became and key.startswith(f"{THINGS}{tenant}/" if tenant else THINGS):
                found.append((number, key, became))
    return found


def state_of(store: Store, tenant: str, revision: int) -> dict[str, bytes]:
    return {
        key: each.value
        for key, each in store.state(revision).items()
        if key.startswith(f"{THINGS}{tenant}/" if tenant else THINGS)
    }


def check(rig: Rig, *, may_begin_anew: bool) -> None:
    """The stream's own words against the store's."""
    everything = changes_of(rig.store, rig.tenant)
    known: dict[str, bytes] = {}
    at: int | None = None
    snapshot: dict[str, bytes] | None = None
    snapshots = 0
    for told in rig.told:
        match told:
            case SnapshotBegin():
                snapshot = {}
            case SnapshotClusters():
                assert snapshot is not None
                for each in told.messages:
                    name, _, line = each.partition(b"=")
                    snapshot[name.decode()] = line
            case SnapshotEnd():
                assert snapshot is not None
                snapshots += 1
                # Which moment it is of is not said in clear: one that it was, and no earlier one.
                first = everything[at - 1][0] if at else 1
                moments = [
                    number
                    for number in range(first, rig.store.revision + 1)
                    if state_of(rig.store, rig.tenant, number) == snapshot
                ]
                assert moments, "a state that there never was"
                known, snapshot, at = snapshot, None, None
            case Changed() | Gone():
                assert snapshot is None
                if isinstance(told, Changed):
                    raw_key, _, value = told.message.partition(b"=")
                    key = raw_key.decode()
                    known[key] = value
                else:
                    key, value = told.name, b""
                    known.pop(key)
                if at is None:
                    # Behind a snapshot: wherever that change was.
                    at = next(
                        number
                        for number in range(len(everything))
                        if everything[number][1:] == (key, value)
                        and _leads_to(rig, everything, number, known)
                    )
                else:
                    assert everything[at][1:] == (key, value), "the next one, and no other"
                at += 1
    assert known == state_of(rig.store, rig.tenant, rig.store.revision), "all is told in the end"
    if at is not None:
        assert at == len(everything)
    if not may_begin_anew:
        assert snapshots == 1, "all is remembered: nothing is told over again"


def _leads_to(
    rig: Rig, everything: list[tuple[int, str, bytes]], number: int, known: dict[str, bytes]
) -> bool:
    """Whether what is known is what there was in the middle of that revision."""
    revision = everything[number][0]
    state = state_of(rig.store, rig.tenant, revision - 1)
    for at, key, value in everything[: number + 1]:
        if at == revision:
            if value:
                state[key] = value
            else:
                state.pop(key)
    return state == known


@settings(max_examples=120, deadline=None)
@given(script=steps, tenant=st.sampled_from(["demo", ""]))
def test_nothing_is_missed_and_nothing_told_twice(
    script: list[tuple[str, Any]], tenant: str
) -> None:
    check(asyncio.run(play(tenant, script)), may_begin_anew=False)


@settings(max_examples=120, deadline=None)
@given(script=steps_with_compactions, tenant=st.sampled_from(["demo", ""]))
def test_where_the_past_is_forgotten_there_is_a_snapshot(
    script: list[tuple[str, Any]], tenant: str
) -> None:
    check(asyncio.run(play(tenant, script)), may_begin_anew=True)
