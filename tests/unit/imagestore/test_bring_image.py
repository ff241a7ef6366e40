"""What a store brings from others', with disk and wires in memory and a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from intertie.common.errors import (
    DigestMismatch,
    FieldInvalid,
    NameTaken,
    NotFound,
    OffsetMismatch,
    RoleDenied,
    SiteUnreachable,
    StoreFull,
)
from intertie.common.transfer import TransferGrant
from intertie.common.values import replace
from intertie.imagestore.domain.image import Announcement, Upload
from intertie.imagestore.domain.transfers import Order, PeerStore, State, Transfer
from intertie.imagestore.usecases.bring_image import BringImage
from tests.fakes.clock import START, FakeClock
from tests.fakes.image_files import MemoryImageFiles
from tests.fakes.peer_stores import MemoryPeerStores
from tests.unit.imagestore.test_put_image import (
    OCTETS,
    OTHER,
    SIZE,
    Store,
    blocks,
    digest_of,
    named,
    saying,
)

DIGEST = digest_of(OCTETS)
AWAY = SiteUnreachable("south", "its store says nothing")


def order(
    *, site: str = "south", image_id: str = "a", octets: bytes = OCTETS, **grant: Any
) -> Order:
    values: dict[str, Any] = {
        "digest": digest_of(octets),
        "source_site": site,
        "target_site": "north",
        "mbit_s": 10,
        "begin_time": START,
        "end_time": START + timedelta(minutes=10),
        "sign_time": START,
        "tenant": "demo",
        "tx": "t1",
    }
    return Order(
        said=replace(saying(octets, image_id=image_id), replaces=False),
        named=True,
        source=PeerStore(
            site=site, addresses=("10.0.0.1:7401",), server_name=f"imagestore.{site}.site.intertie"
        ),
        grant=TransferGrant(**values | grant),
        signed=b"signed",
    )


class Receiver(Store):
    def __init__(self, files: MemoryImageFiles, clock: FakeClock, peers: MemoryPeerStores) -> None:
        super().__init__(files, clock)
        self.peers = peers
        self.bring = BringImage(files, self.shelf, self.put, peers, clock)

    async def settled(self, asked: Order, seconds: float = 0.0) -> Transfer:
        """What is told after so long."""
        await self.bring(asked)
        await self.clock.advance(seconds)
        return await self.bring(asked)


@pytest.fixture
async def store() -> AsyncIterator[Receiver]:
    peers = MemoryPeerStores()
    peers.octets = {"south": OCTETS, "west": OCTETS}
    receiver = Receiver(MemoryImageFiles(), FakeClock(), peers)
    running = asyncio.create_task(receiver.bring.run())
    yield receiver
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_comes_and_stands_under_its_name(store: Receiver) -> None:
    begun = await store.bring(order())
    assert (begun.state, begun.size_bytes) == (State.WAITING, SIZE)
    await store.clock.settle()
    done = await store.bring(order())
    assert (done.state, done.done_bytes, done.message) == (State.DONE, SIZE, "")
    assert await store.read("a") == OCTETS
    assert store.peers.asked == [("south", 0)]
    assert await store.bring.find(named(DIGEST)) == done


async def test_what_is_here_already_is_not_fetched(store: Receiver) -> None:
    await store.put(saying(image_id="b"), 0, blocks(OCTETS))
    assert (await store.bring(replace(order(image_id="t-x"), named=False))).state is State.DONE
    with pytest.raises(NotFound):
        await store.read("t-x")
    assert (await store.bring(order())).state is State.DONE
    assert await store.read("a") == OCTETS
    assert store.peers.asked == []


async def test_a_data_set_is_what_it_is_whatever_it_looks_like(store: Receiver) -> None:
    gzip = b"\x1f\x8b" + bytes(1022)
    store.peers.octets = {"south": gzip}
    refused = await store.settled(order(octets=gzip), 1)
    assert refused.state is not State.DONE
    asked = order(octets=gzip, tx="t2")
    data = replace(asked, said=replace(asked.said, data=True))
    assert (await store.settled(data, 20)).state is State.DONE
    assert await store.read("a") == gzip


async def test_anothers_bytes_are_no_reason_not_to_fetch(store: Receiver) -> None:
    await store.put(saying(tenant="other"), 0, blocks(OCTETS))
    with pytest.raises(NotFound):
        await store.bring.find(named(DIGEST))
    assert (await store.settled(order())).state is State.DONE
    assert store.peers.asked == [("south", 0)]


async def test_two_who_ask_share_one(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY]
    store.peers.before_fault = 5000
    await asyncio.gather(*(store.bring(order(tx=tx)) for tx in ("t1", "t2", "t1")))
    await store.clock.advance(1)
    assert store.peers.asked == [("south", 0), ("south", 5000)]
    assert (await store.bring(order(tx="t2"))).state is State.DONE


async def test_it_goes_on_from_where_it_stood(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY, AWAY]
    store.peers.before_fault = 5000
    shown = await store.settled(order())
    assert (shown.state, shown.done_bytes) == (State.WAITING, 5000)
    assert "says nothing" in shown.message
    upload = await store.stat(named(DIGEST), any_tenant=False)
    assert isinstance(upload, Upload)
    assert upload.uploaded_bytes == 5000
    assert (await store.settled(order(), 1)).done_bytes == 10_000
    assert (await store.settled(order(), 1)).state is State.DONE
    assert [offset for _, offset in store.peers.asked] == [0, 5000, 10_000]


async def test_a_store_that_was_started_again_goes_on_when_it_is_asked(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY]
    store.peers.before_fault = 7000
    await store.settled(order())
    restarted = Receiver(store.files, store.clock, store.peers)
    await restarted.shelf.load()
    with pytest.raises(NotFound):
        await restarted.bring.find(named(DIGEST))
    assert (await restarted.settled(order())).state is State.DONE
    assert store.peers.asked == [("south", 0), ("south", 7000)]


async def test_wrong_bytes_are_thrown_away_and_fetched_once_more(store: Receiver) -> None:
    store.peers.octets["south"] = OTHER
    await store.bring(order())
    await store.clock.settle()
    store.peers.octets["south"] = OCTETS
    assert (await store.settled(order(), 1)).state is State.DONE
    assert store.peers.asked == [("south", 0), ("south", 0)]
    assert await store.read("a") == OCTETS


@pytest.mark.parametrize(
    "octets", [OTHER, OCTETS[:-1], OCTETS + b"x"], ids=["other", "less", "more"]
)
async def test_wrong_bytes_twice_are_given_up(store: Receiver, octets: bytes) -> None:
    store.peers.octets["south"] = octets
    failed = await store.settled(order(), 60)
    assert (failed.state, failed.done_bytes) == (State.FAILED, 0)
    assert "digest" in failed.message
    assert store.peers.asked == [("south", 0), ("south", 0)]
    assert await store.files.uploads() == []
    store.peers.octets["south"] = OCTETS
    assert (await store.settled(order(sign_time=START + timedelta(seconds=9)), 60)) == failed
    assert (await store.settled(order(tx="t2"))).state is State.DONE


async def test_a_damaged_source_is_given_up_and_another_one_serves(store: Receiver) -> None:
    store.peers.faults["south"] = [DigestMismatch(DIGEST, "damaged in the store")] * 9
    assert (await store.settled(order(), 60)).state is State.FAILED
    assert (await store.settled(order(site="west"), 0)).state is State.DONE


async def test_a_grant_that_is_refused_is_not_tried_again(store: Receiver) -> None:
    store.peers.faults["south"] = [RoleDenied("spiffe://x", "Send", "forged")]
    failed = await store.settled(order(), 60)
    assert failed.state is State.FAILED
    assert "forged" in failed.message
    assert len(store.peers.asked) == 1


async def test_it_is_tried_until_its_grant_has_run_out(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY] * 100
    assert (await store.settled(order(), 599)).state is State.WAITING
    tries = len(store.peers.asked)
    assert 35 < tries < 60
    assert (await store.settled(order(), 20)).state is State.FAILED
    assert (await store.bring(order())).state is State.FAILED
    assert len(store.peers.asked) - tries <= 1
    late = await store.bring(order(tx="t2"))
    assert (late.state, late.message) == (
        State.FAILED,
        "its grant has run out at 2026-03-01T12:10:00Z",
    )
    assert not store.bring._known


async def test_it_waits_for_its_grant_to_begin_unless_another_one_is_open(store: Receiver) -> None:
    later = order(begin_time=START + timedelta(minutes=5))
    assert (await store.settled(later, 299)).state is State.WAITING
    assert store.peers.asked == []
    assert (await store.settled(later, 1)).state is State.DONE

    sooner = order(octets=OTHER, image_id="b", site="west")
    store.peers.octets["west"] = OTHER
    await store.bring(order(octets=OTHER, image_id="b", begin_time=START + timedelta(minutes=9)))
    assert (
        await store.settled(replace(sooner, grant=replace(sooner.grant, tx="t9")))
    ).state is State.DONE
    assert store.peers.asked[1:] == [("west", 0)]


async def test_a_later_grant_of_the_same_reservation_takes_its_place(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY] * 100
    await store.settled(order(), 5)
    moved = order(site="west", sign_time=START + timedelta(seconds=5))
    await store.bring(moved)
    await store.bring(order())
    await store.clock.settle()
    assert (await store.bring(moved)).state is State.DONE
    assert store.peers.asked[-1] == ("west", 0)


async def test_it_takes_the_place_of_one_that_is_under_way(store: Receiver) -> None:
    store.peers.gate = asyncio.Event()
    assert (await store.settled(order())).state is State.RUNNING
    await store.bring(order(site="west", sign_time=START + timedelta(seconds=5)))
    await store.clock.settle()
    assert store.peers.asked == [("south", 0), ("west", 1000)]
    assert store.peers.open == 1


async def test_another_reservation_does_not_disturb_one_that_is_under_way(store: Receiver) -> None:
    store.peers.gate = asyncio.Event()
    await store.settled(order())
    shown = await store.settled(order(site="west", tx="t2"))
    assert (shown.state, shown.done_bytes) == (State.RUNNING, 1000)
    assert store.peers.asked == [("south", 0)]
    store.peers.gate.set()
    assert (await store.settled(order())).state is State.DONE


async def test_where_one_source_is_away_another_one_serves(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY] * 100
    await store.bring(order())
    other = order(site="west", tx="t2", begin_time=START + timedelta(seconds=1))
    assert (await store.settled(other, 4)).state is State.DONE
    assert store.peers.asked[-1] == ("west", 0)


async def test_a_grant_that_was_refused_is_forgotten_with_one_that_was_good(
    store: Receiver,
) -> None:
    store.peers.faults["south"] = [RoleDenied("spiffe://x", "Send", "forged")]
    assert (await store.settled(order(), 2)).state is State.FAILED
    good = order(site="west", tx="t2")
    assert (await store.settled(good)).state is State.DONE
    await store.shelf.withdraw(named("a"), etag="")
    assert (await store.settled(good)).state is State.DONE
    assert await store.read("a") == OCTETS


async def test_the_same_grant_signed_anew_disturbs_nothing(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY] * 3
    await store.settled(order())
    for second in range(5):
        await store.bring(order(sign_time=START + timedelta(seconds=second)))
        await store.clock.settle()
    assert len(store.peers.asked) == 1


async def test_a_store_without_room_refuses_before_it_begins(store: Receiver) -> None:
    store.files.capacity_bytes = SIZE - 1
    with pytest.raises(StoreFull):
        await store.bring(order())
    store.files.capacity_bytes = SIZE
    assert (await store.settled(order())).state is State.DONE


async def test_a_store_that_fills_up_meanwhile_is_waited_for(store: Receiver) -> None:
    later = order(begin_time=START + timedelta(seconds=5))
    await store.bring(later)
    store.files.capacity_bytes = 100
    shown = await store.settled(later, 5)
    assert shown.state is State.WAITING
    assert "bytes needed" in shown.message
    store.files.capacity_bytes = SIZE
    assert (await store.settled(later, 2)).state is State.DONE


async def test_a_name_that_stands_for_something_else_is_left_alone(store: Receiver) -> None:
    await store.put(saying(OTHER), 0, blocks(OTHER))
    with pytest.raises(NameTaken):
        await store.bring(order())
    await store.bring(order(image_id="b"))
    await store.put(saying(OTHER, image_id="b"), 0, blocks(OTHER))
    failed = await store.settled(order(image_id="c"), 5)
    assert failed.state is State.FAILED
    assert await store.read("b") == OTHER


async def test_one_that_is_being_put_is_waited_for(store: Receiver) -> None:
    gate = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield OCTETS[:4000]
        await gate.wait()
        yield OCTETS[4000:]

    putting = asyncio.create_task(store.put(saying(), 0, slowly()))
    await store.clock.settle()
    shown = await store.settled(order())
    assert (shown.state, shown.done_bytes) == (State.WAITING, 4000)
    gate.set()
    await putting
    assert (await store.settled(order(), 2)).state is State.DONE
    assert store.peers.asked == []


async def test_one_that_was_deleted_since_is_brought_again(store: Receiver) -> None:
    assert (await store.settled(order())).state is State.DONE
    await store.shelf.withdraw(named("a"), etag="")
    assert (await store.settled(order())).state is State.DONE
    assert len(store.peers.asked) == 2


async def test_one_that_comes_while_it_is_asked_for_is_told_as_whole(store: Receiver) -> None:
    store.peers.gate = asyncio.Event()
    await store.settled(order())
    looked = store.shelf.holds

    async def slowly(said: Announcement) -> bool:
        found = await looked(said)
        assert store.peers.gate is not None
        store.peers.gate.set()
        await store.clock.settle()
        return found

    store.shelf.holds = slowly  # type: ignore[method-assign]
    told = await store.bring(order())
    assert (told.state, told.done_bytes) == (State.DONE, SIZE)


async def test_nothing_is_on_its_way_when_the_store_has_ended(store: Receiver) -> None:
    store.peers.faults["south"] = [AWAY] * 100
    await store.settled(order())
    running = asyncio.create_task(store.bring.run())
    await store.clock.settle()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert store.clock.sleepers == 0
    assert store.peers.open == 0


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (replace(order(), said=replace(order().said, digest="b3:x")), "digest"),
        (replace(order(), said=replace(order().said, size_bytes=0)), "size_bytes"),
        (
            replace(order(), source=replace(order().source, server_name="elsewhere")),
            "source.server_name",
        ),
    ],
)
async def test_what_can_never_come_is_refused(store: Receiver, asked: Order, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        await store.bring(asked)
    assert caught.value.field == field


async def test_no_image_is_given_up_at_once(store: Receiver) -> None:
    gzip = b"\x1f\x8b" + bytes(SIZE - 2)
    store.peers.octets["south"] = gzip
    failed = await store.settled(order(octets=gzip), 60)
    assert failed.state is State.FAILED
    assert len(store.peers.asked) == 1


async def test_a_put_that_ends_early_still_says_where_it_stands(store: Receiver) -> None:
    """Beside transfers a Put is as it was."""
    with pytest.raises(OffsetMismatch):
        await store.put(saying(), 0, blocks(OCTETS[:10]))
