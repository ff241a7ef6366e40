"""The simulator's model of etcd and the real one answer the same cases the same way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from intertie.common.clock import SystemClock
from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Change, Compare, DeleteKey, Etcd, Op, Put
from intertie.common.etcd.election import Election
from tests.sim.etcd_client import ModelClient
from tests.sim.etcd_model import EtcdModel
from tests.sim.virtual_loop import Process, VirtualLoop

pytestmark = pytest.mark.etcd

Case = Callable[[Etcd], Awaitable[Any]]
KEYS = ("a", "b", "b/1", "b/2", "c/x")


class Ranks:
    """Revisions of one store, as numbers that those of another can be compared with."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __call__(self, revision: int) -> int:
        return revision - self._first if revision >= self._first else 0


async def transactions(etcd: Etcd) -> list[Any]:
    """Many, at random: what each came to, and everything that is there after it."""
    draw = random.Random("transactions")
    start = (await etcd.txn([], [Put("start", b"")])).revision
    rank, known = Ranks(start), {start}
    found: list[Any] = []
    for number in range(200):
        compare: list[Compare] = []
        for key in draw.sample(KEYS, draw.randrange(3)):
            at = draw.choice([0, *sorted(known)[-6:]])
            value = str(draw.randrange(number + 1)).encode()
            compare.append(
                draw.choice(
                    (
                        Compare.mod(key, at),
                        Compare.created(key, at),
                        Compare.absent(key),
                        Compare.value(key, value),
                    )
                )
            )
        then: list[Op] = [
            Put(key, str(number).encode()) if draw.random() < 0.65 else DeleteKey(key)
            for key in draw.sample(KEYS, draw.randrange(1, 4))
        ]
        done = await etcd.txn(compare, then)
        known.add(done.revision)
        entries = (await etcd.range("")).entries
        found.append(
            (
                done.succeeded,
                rank(done.revision),
                [
                    (each.key, each.value, rank(each.mod_revision), rank(each.create_revision))
                    for each in entries
                ],
            )
        )
    return found


async def old_keys(etcd: Etcd) -> list[Any]:
    """As of an earlier revision, in however many pages."""
    start = (await etcd.txn([], [Put(f"k/{n:03}", b"") for n in range(40)])).revision
    await etcd.txn([], [DeleteKey("k/007"), Put("k/008", b"2"), Put("k/0085", b"")])
    rank, found = Ranks(start), []
    for revision in (start, 0):
        listed = [each async for page in etcd.keys("k/", revision=revision) for each in page.keys]
        found.append([(key, rank(at)) for key, at in listed])
    return found


async def refusals(etcd: Etcd) -> list[str]:
    """What etcd does not do at all, and says so."""
    found = []
    for then in ([Put("d", b"1"), Put("d", b"2")], [Put("d", b"1", lease=4711)]):
        try:
            await etcd.txn([], list(then))
        except EtcdUnavailable:
            found.append("refused")
    found.append(str(await etcd.get("d")))
    return found


async def leases(etcd: Etcd) -> list[Any]:
    """A key goes with its lease, all of one lease's keys at once, unless it was written again."""
    granted = await etcd.leases.grant(30, timeout=5.0)
    start = (
        await etcd.txn([], [Put(each, b"", lease=granted.ID) for each in ("l/1", "l/2", "l/3")])
    ).revision
    await etcd.txn([], [Put("l/3", b"kept")])
    found: list[Any] = []
    stream = etcd.leases.keep_alive(granted.ID)
    async for answer in stream:
        found.append(answer.TTL)
        break
    stream.cancel()
    await etcd.leases.revoke(granted.ID, timeout=5.0)
    after = await etcd.range("l/")
    found.append(([each.key for each in after.entries], after.revision - start))
    stream = etcd.leases.keep_alive(granted.ID)
    async for answer in stream:
        found.append(max(answer.TTL, 0))
        break
    stream.cancel()
    return found


async def watches(etcd: Etcd) -> list[Any]:
    """From a revision that has passed, what each key came to."""
    start = (await etcd.txn([], [Put("w/0", b""), Put("v/0", b"")])).revision
    await etcd.txn([], [Put("w/1", b"1"), Put("v/1", b"")])
    await etcd.txn([], [DeleteKey("w/0"), Put("w/1", b"2")])
    await etcd.txn([], [Put("w/end", b"")])
    came: dict[str, Any] = {}
    changes = etcd.watch("w/", start)
    async with asyncio.timeout(20):
        async for change in changes:
            _fold(came, change, start)
            if "w/end" in came:
                break
    await changes.aclose()
    return sorted(came.items())


async def compacted(etcd: Etcd) -> int:
    """A watch from what is not kept any more says so, once, and ends."""
    start = (await etcd.txn([], [Put("w/a", b"")])).revision
    last = (await etcd.txn([], [Put("w/a", b"")])).revision
    if isinstance(etcd, ModelClient):
        etcd.store.compact(last)
    else:
        await etcd._kv.compact(last)
    async with asyncio.timeout(20):
        return len([change async for change in etcd.watch("w/", start)])


def _fold(came: dict[str, Any], change: Change, start: int) -> None:
    for each in change.puts:
        came[each.key] = each.value, each.mod_revision - start
    for key, at in change.deleted:
        came[key] = None, at - start


CASES: tuple[Case, ...] = (transactions, old_keys, refusals, leases, watches)


def of_the_model(case: Case) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(case(ModelClient(EtcdModel(loop))))
    finally:
        loop.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_the_model_does_as_etcd_does(etcd: Etcd, case: Case) -> None:
    # In a thread of its own: a loop cannot run within another.
    assert await asyncio.to_thread(of_the_model, case) == await case(etcd)


async def test_a_watch_from_what_is_compacted_ends_the_same_way_over_both(own_etcd: Etcd) -> None:
    assert await asyncio.to_thread(of_the_model, compacted) == await compacted(own_etcd) == 1


async def test_an_election_goes_the_same_way_over_both(etcd: Etcd) -> None:
    async def hand_over(store: Etcd, clocks: Callable[[], Any]) -> list[str]:
        first, second = (Election(store, "e", name, clocks()) for name in ("first", "second"))
        running = [asyncio.create_task(first.run())]
        found = []
        async with asyncio.timeout(30):
            await first.wait_until_leading()
            guard = first.leader_guard()
            running.append(asyncio.create_task(second.run()))
            found.append(await second.leader())
            running[0].cancel()
            await second.wait_until_leading()
            found.append(await first.leader())
            found.append(str((await store.txn([guard], [])).succeeded))
        running[1].cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return found

    def simulated() -> list[str]:
        loop = VirtualLoop()
        process = Process(loop, "both", offset_s=0.0, seed=0)
        try:
            client = ModelClient(EtcdModel(loop), process)
            return loop.run_until_complete(process.spawn(hand_over(client, lambda: process.clock)))
        finally:
            loop.close()

    assert await asyncio.to_thread(simulated) == await hand_over(etcd, SystemClock)
