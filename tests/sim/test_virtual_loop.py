"""Processes of a simulated world: what a dead one, a paused one and a wrong clock can do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from intertie.common.errors import EtcdUnavailable
from intertie.common.etcd.client import Put
from tests.sim.etcd_client import ModelClient
from tests.sim.etcd_model import EtcdModel
from tests.sim.virtual_loop import Killed, Process, Stuck, VirtualLoop, unwind

PROCESSES: list[Process] = []


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    unwind(made, PROCESSES)
    PROCESSES.clear()


def process(loop: VirtualLoop, offset_s: float = 0.0) -> Process:
    PROCESSES.append(Process(loop, "one", offset_s=offset_s, seed=0))
    return PROCESSES[-1]


def test_time_passes_only_where_somebody_waits(loop: VirtualLoop) -> None:
    loop.run_until_complete(loop.sleep(3600.0))
    assert loop.time() == 3600.0


def test_what_can_never_happen_is_an_error(loop: VirtualLoop) -> None:
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())


def test_a_clock_that_is_off_never_says_the_same_twice(loop: VirtualLoop) -> None:
    right, wrong = process(loop).clock, process(loop, 300.0).clock
    assert 299 < (wrong.now() - right.now()).total_seconds() < 301
    assert right.now() < right.now()


def test_a_dead_process_gets_no_turn_and_sends_nothing(loop: VirtualLoop) -> None:
    one, store = process(loop), EtcdModel(loop)
    client = ModelClient(store, one)

    async def writes() -> None:
        for number in range(10):
            await client.txn([], [Put(f"k{number}", b"")])
            await one.clock.sleep(1.0)

    async def whole() -> None:
        one.spawn(writes())
        await loop.sleep(2.5)
        one.kill()
        await loop.sleep(10.0)

    loop.run_until_complete(whole())
    assert [each.key for each in store.range("").entries] == ["k0", "k1", "k2"]


def test_what_a_killed_process_unwinds_reaches_nobody(loop: VirtualLoop) -> None:
    one, store = process(loop), EtcdModel(loop)
    client = ModelClient(store, one)
    tried: list[str] = []

    async def dies() -> None:
        try:
            one.kill()
            raise Killed
        finally:
            try:
                await client.txn([], [Put("late", b"")])
            except EtcdUnavailable:
                tried.append("in vain")

    async def whole() -> None:
        one.spawn(dies())
        await loop.sleep(10.0)

    loop.run_until_complete(whole())
    assert tried == ["in vain"]
    assert store.get("late") is None


def test_a_paused_process_goes_on_later_with_what_it_knew(loop: VirtualLoop) -> None:
    one, store = process(loop), EtcdModel(loop)
    client = ModelClient(store, one)
    at: list[float] = []

    async def ticks() -> None:
        while True:
            await client.txn([], [Put("tick", b"")])
            at.append(loop.time())
            await one.clock.sleep(1.0)

    async def whole() -> None:
        one.spawn(ticks())
        await loop.sleep(2.5)
        one.pause()
        await loop.sleep(20.0)
        one.resume()
        await loop.sleep(1.0)

    loop.run_until_complete(whole())
    assert at == [0.0, 1.0, 2.0, 22.5]
