"""What agents tell one another of their downlinks, through a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from intertie.common.clock import SystemClock
from intertie.common.etcd.client import Etcd, Put
from intertie.nodeagent.adapters.etcd_records import EtcdRecords
from intertie.nodeagent.domain.traffic_plan import IncastShare
from intertie.nodeagent.loops.incast import Sender
from tests.unit.nodeagent.parts import NOW

SHARE = IncastShare(share_kbit=5_000, floors={"0123456789ab": 1_000})


async def test_a_share_comes_as_it_was_written_with_a_new_number_each_time(etcd: Etcd) -> None:
    told, read = EtcdRecords(etcd, "n1"), EtcdRecords(etcd, "n2")
    await told.write_share(SHARE, at=NOW)
    (first, share) = (await read.shares())["n1"]
    assert share == SHARE
    await told.write_share(SHARE, at=NOW + timedelta(seconds=3))
    (second, share) = (await read.shares())["n1"]
    assert share == SHARE
    assert second != first
    await told.delete_share()
    assert await read.shares() == {}


async def test_what_cannot_be_read_is_passed_over_and_the_host_is_the_key_s(etcd: Etcd) -> None:
    """A host that writes another's name into its record speaks for itself all the same."""
    await EtcdRecords(etcd, "n1").write_share(SHARE, at=NOW)
    own = await etcd.get("incast/n1/share")
    assert own is not None
    await etcd.txn([], [Put("incast/n3/share", own.value), Put("incast/n4/share", b"\xff")])
    assert set(await EtcdRecords(etcd, "n2").shares()) == {"n1", "n3"}


async def test_a_sender_heeds_a_share_at_once_and_its_end_too(etcd: Etcd) -> None:
    told = EtcdRecords(etcd, "n1")
    heeded: asyncio.Queue[dict[str, IncastShare]] = asyncio.Queue()

    async def yield_to(shares: Mapping[str, IncastShare]) -> None:
        await heeded.put(dict(shares))

    sender = Sender(yield_to, EtcdRecords(etcd, "n2"), SystemClock(), "n2")
    running = asyncio.create_task(sender.run())
    try:
        async with asyncio.timeout(20):
            assert await heeded.get() == {}
            # Its watch stands from some moment on, and until then a look comes each 30 s: so what
            # is written before must be seen by what the watch yields when it stands.
            await told.write_share(SHARE, at=NOW)
            while await heeded.get() != {"n1": SHARE}:
                pass
            await told.delete_share()
            while await heeded.get() != {}:
                pass
    finally:
        running.cancel()
