"""Who waits for whose problems to be solved."""

import asyncio
import threading

from intertie.metasched.domain.cluster import ClusterState
from tests.fakes.clock import turns
from tests.unit.metasched.world import World, order


async def test_a_create_does_not_stand_behind_looks_ahead_for_leases_that_wait() -> None:
    """A bug: two of them, of the queue and of who asks when one would start, kept all others from
    being planned for as long as they took."""
    process = await World().process()
    planning, over = process.queue._line._planning, threading.Event()
    looks = [asyncio.create_task(planning.foreseen(lambda _: over.wait(60))) for _ in range(2)]
    try:
        await turns(1)
        view = await asyncio.wait_for(process.create(order()), 30)
        assert view.record.state is ClusterState.SCHEDULED
        assert not any(each.done() for each in looks)
    finally:
        over.set()
        await asyncio.gather(*looks)
