"""What is brought to a site before a window: when its store is asked, and what is written down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.decision import OpenedReceipt, ReceiptBody
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.reconcile import Phase, phase_of, until
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.sending import (
    GRACE,
    Arrival,
    ArrivalState,
    ImageSource,
    StoreAddress,
    sources_for,
)
from intertie.broker.loops.bring import ASK_S, Bring
from intertie.broker.receipts_proto import body_from_bytes, body_to_proto
from intertie.broker.usecases.sends import Sends
from intertie.common.clock import SystemClock
from intertie.common.errors import NoCapacity, SiteUnreachable
from intertie.common.part_spec import Transfer
from intertie.common.transfer import TransferGrant
from intertie.common.values import replace
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import DIGEST, HOUR, NOW, POLICY, part
from tests.unit.broker.test_carrying import later, transfer

S = timedelta(seconds=1)
SIZE = 1000
WAITING, RUNNING, DONE, FAILED = ArrivalState


def source(site: str = "south", **changes: object) -> ImageSource:
    values = {
        "digest": DIGEST,
        "from_site": site,
        "to_site": "north",
        "addresses": ("10.0.0.1:1",),
        "server_name": "imagestore.south",
        "end_time": NOW + 200 * S + GRACE,
        "grant": b"",
    }
    return ImageSource(**{**values, **changes})  # type: ignore[arg-type]


class Store:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Transfer, ImageSource]] = []
        self.state, self.done, self.message, self.silent = RUNNING, 0, "", False
        self.fails_once = False

    async def bring(self, tenant: str, transfer: Transfer, source: ImageSource) -> Arrival:
        self.asked.append((tenant, transfer, source))
        if self.fails_once:
            self.fails_once = False
            raise RuntimeError("a bug")
        for _ in range(20):  # others come meanwhile
            await SystemClock().sleep(0)
        if self.silent:
            raise SiteUnreachable("north", "its image store is down")
        return Arrival(
            digest=transfer.digest, done_bytes=self.done, state=self.state, message=self.message
        )


class Site:
    def __init__(self, **changes: Any) -> None:
        spec = later(transfer(100, 200, 1, size_bytes=SIZE))
        self.part = part(spec=spec, **{"sources": (source(),), **changes})
        self.clock, self.ledger, self.store = (
            FakeClock(NOW),
            MemoryLedger(POLICY),
            Store(),
        )
        self.bring = Bring(self.ledger, self.store, "north", self.clock)

    async def up(self) -> Site:
        await self.ledger.commit(Change(writes=(Write(record=self.part),)))
        return self

    async def at(self, second: float) -> tuple[Arrival, ...]:
        await self.clock.advance((NOW + second * S - self.clock.now()).total_seconds())
        await self.bring.sweep()
        return (await self.now()).arrivals

    async def now(self) -> Part:
        found = await self.ledger.part(self.part.path)
        assert found is not None
        return found.value


async def test_a_store_is_asked_when_the_window_comes_and_no_more_once_it_is_there() -> None:
    site = await Site().up()
    assert await site.at(90) == ()
    assert site.store.asked == []
    (arrival,) = await site.at(99)
    assert (arrival.state, arrival.done_bytes) == (RUNNING, 0)
    assert site.store.asked == [("demo", site.part.spec.transfers[0], source())]
    site.store.state, site.store.done = DONE, SIZE
    assert [each.state for each in await site.at(150)] == [DONE]
    await site.at(160)
    assert len(site.store.asked) == 2


async def test_progress_is_written_a_tenth_at_a_time() -> None:
    site = await Site().up()
    written = []
    for second in range(100, 150):
        site.store.done = (second - 100) * SIZE // 50
        written.append((await site.at(second))[0].done_bytes)
    assert len(set(written)) == 10
    assert len(site.store.asked) == 50


async def test_a_store_is_not_asked_more_often_for_hints() -> None:
    site = await Site().up()
    await site.at(100)
    for _ in range(5):
        await site.bring.sweep(frozenset({site.part.name}))
    assert len(site.store.asked) == 1
    await site.clock.advance(ASK_S)
    await site.bring.sweep(frozenset())
    assert len(site.store.asked) == 2


async def test_a_silent_store_is_asked_again_until_it_is_too_late() -> None:
    site = await Site().up()
    site.store.silent = True
    (arrival,) = await site.at(110)
    assert (arrival.state, "is down" in arrival.message) == (WAITING, True)
    assert [each.state for each in await site.at(261)] == [WAITING]
    assert [each.state for each in await site.at(262)] == [FAILED]
    asked = len(site.store.asked)
    await site.at(300)
    assert len(site.store.asked) == asked


async def test_what_fails_for_one_part_keeps_nobody_from_what_is_brought_for_others() -> None:
    site = await Site().up()
    other = replace(site.part, name=site.part.name + "-2")
    await site.ledger.commit(Change(writes=(Write(record=other),)))
    site.store.fails_once = True
    with pytest.raises(RuntimeError):
        await site.at(110)
    arrivals = [each.value.arrivals for each in await site.ledger.parts()]
    assert sorted(len(each) for each in arrivals) == [0, 1]
    await site.at(112)
    assert all(each.value.arrivals for each in await site.ledger.parts())


@pytest.mark.parametrize(
    "changes",
    [
        {"state": PartState.PREPARED, "confirm_time": None},
        {"end_requested_time": NOW},
        {"arrivals": (Arrival(digest=DIGEST, done_bytes=SIZE, state=DONE),)},
    ],
    ids=["undecided", "ending", "there"],
)
async def test_nothing_is_brought_for(changes: dict[str, Any]) -> None:
    site = await Site(**changes).up()
    await site.at(150)
    assert site.store.asked == []


async def test_a_source_that_said_nothing_is_told_of() -> None:
    site = await Site(sources=()).up()
    (arrival,) = await site.at(100)
    assert (arrival.state, arrival.message) == (
        FAILED,
        "south has not said where its store is",
    )


def test_only_the_senders_own_receipt_says_where_its_store_is() -> None:
    spec = later(transfer(100, 200, 1))
    assert sources_for(spec, "north", {"south": (source(), source())}) == (source(),)
    for strange in ({"end_time": NOW + HOUR}, {"grant": bytes(1 << 15)}):
        assert sources_for(spec, "north", {"south": (source(**strange),)}) == ()
    assert sources_for(spec, "north", {"west": (source(),)}) == ()
    assert sources_for(spec, "north", {"south": (source(digest="b3:" + "0" * 64),)}) == ()
    assert sources_for(spec, "south", {"south": (source(),)}) == ()


class PlainGrants:
    def sign(self, grant: object) -> bytes:
        raise AssertionError("no snapshot here")

    def sign_transfer(self, grant: TransferGrant) -> bytes:
        self.last = grant
        return b""


def test_a_receipt_says_what_is_sent_and_by_what_leave() -> None:
    out = transfer(100, 200, 7, from_site="north", to_site="south")
    store = StoreAddress(addresses=("10.0.0.9:1", "10.0.0.8:1"), server_name="store.north")
    grants = PlainGrants()
    sends = Sends("north", store, grants)
    held = part(spec=later(out))
    (said,) = sends(held, now=NOW)
    assert (said.from_site, said.to_site, said.addresses) == ("north", "south", store.addresses)
    assert grants.last == TransferGrant(
        digest=DIGEST,
        source_site="north",
        target_site="south",
        mbit_s=7,
        begin_time=out.window.start,
        end_time=out.window.end + GRACE,
        sign_time=NOW,
        tenant="demo",
        tx=held.tx,
    )
    assert sends(part(spec=later(transfer(0, 9, 1))), now=NOW) == ()
    body = ReceiptBody(
        tx="t",
        digest="d",
        site="north",
        part="p",
        state=PartState.PREPARED,
        sign_time=NOW,
        sends=(said,),
    )
    assert body_from_bytes(body_to_proto(body).SerializeToString()) == body
    assert OpenedReceipt(signer="north", body=body).body.sends == (said,)


def test_a_site_whose_store_nobody_reaches_sends_nothing() -> None:
    sends = Sends("north", None, PlainGrants())
    sends.check((transfer(0, 9, 1),))
    with pytest.raises(NoCapacity, match="no address that other sites reach"):
        sends.check((transfer(0, 9, 1, from_site="north", to_site="south"),))


@pytest.mark.parametrize(
    ("state", "phase"),
    [(None, Phase.EARLY), (RUNNING, Phase.EARLY), (DONE, Phase.DUE), (FAILED, Phase.DUE)],
)
def test_hosts_are_told_once_all_that_is_brought_is_there_or_will_not_be(
    state: ArrivalState | None, phase: Phase
) -> None:
    """They would ask the store for what is on its way, and fail."""
    arrivals = (Arrival(digest=DIGEST, done_bytes=1, state=state),) if state else ()
    held = part(spec=later(transfer(100, 590, 1)), arrivals=arrivals)
    assert phase_of(held, now=NOW + 500 * S) is Phase.EARLY
    for second in (541, 601):
        assert phase_of(held, now=NOW + second * S) is phase
        assert until(held, now=NOW + second * S) == held.ends
    ending = held.ending(now=NOW, reason="CANCELLED")
    assert phase_of(ending, now=NOW + 541 * S) is Phase.ENDING
