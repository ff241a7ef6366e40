"""What a site vouches for when it prepares a part, and when it does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.archiving import Move
from intertie.broker.domain.decision import OpenedReceipt, Receipt, ReceiptBody
from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.networks import Endpoint
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Caller
from intertie.broker.domain.records import Change, RequestKey, Write
from intertie.broker.usecases.admission import Admission, there
from intertie.broker.usecases.hold_part import HoldOrder, HoldPart
from intertie.broker.usecases.prepare_part import PreparePart
from intertie.common.errors import FieldInvalid, NameTaken, NoCapacity, NotFound, PartOver
from intertie.common.names import PartName
from intertie.common.values import replace
from tests.fakes.clock import START, FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.fakes.room import FakeRoom
from tests.unit.broker.samples import COORDINATOR, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.test_passes import OneImage

META = Caller(spiffe=COORDINATOR, tenant="")
WIDE = part_spec(workspace(), remote=("v-0",), link_mbit_s=10)
HELD = part("t1", PartState.HELD, spec=WIDE, gateway="n1")


class Signs:
    """Keeps what it was asked to sign."""

    def __init__(self) -> None:
        self.signed: list[ReceiptBody] = []

    def sign(self, body: ReceiptBody) -> Receipt:
        self.signed.append(body)
        return Receipt(body=b"", signature=b"", certificate=b"")

    def open(self, receipt: Receipt) -> OpenedReceipt:
        raise AssertionError


class World:
    def __init__(self, *hosts: HostFacts) -> None:
        self.ledger = MemoryLedger(POLICY)
        for each in hosts:
            self.ledger.report(each)
        self.notary = Signs()
        self.clock = FakeClock()

    async def prepare(self, held: Part) -> Part:
        await self.ledger.commit(Change(writes=(Write(record=held),)))
        prepare = PreparePart(self.ledger, self.notary, POLICY, self.clock)
        prepared, _ = await prepare(held.path, META)
        return prepared

    async def hold(self, *, prepare: bool = False, **asked: Any) -> Part:
        admission = Admission(self.ledger, self.clock, FakeRoom())
        hold = HoldPart(
            self.ledger, OneImage(), admission, self.notary, POLICY, self.clock, lambda: "seed"
        )
        order = HoldOrder(
            name=HELD.path,
            spec=WIDE,
            tx="t1",
            digest="d",
            ttl=timedelta(seconds=30),
            coordinator=COORDINATOR,
            participants=("north", "south"),
            decide_by=START + timedelta(seconds=20),
            coordinator_time=START,
            owner="alice",
            request=RequestKey(caller=COORDINATOR, request_id="r1", digest="d"),
            prepare=prepare,
        )
        held, _ = await hold(replace(order, **asked), META)
        return held

    async def state(self) -> PartState:
        found = await self.ledger.part(PartName.parse(HELD.name))
        assert found is not None
        return found.value.state


async def test_a_network_that_leaves_the_site_is_taken_in_at_its_gateway() -> None:
    world = World(facts("n1"), facts("n2"))
    prepared = await world.prepare(HELD)
    there = Endpoint(network="lan", address="10.250.0.11", port=4790, vni=prepared.vni_of("lan"))
    assert prepared.endpoints == (there,)
    assert world.notary.signed[0].endpoints == (there,)


@pytest.mark.parametrize(
    ("gateway", "known"),
    [
        pytest.param("n1", (facts("n2"),), id="its facts are gone"),
        pytest.param("n2", (facts("n1"), facts("n2")), id="it is a gateway no more"),
        pytest.param("", (facts("n1"),), id="there never was one"),
    ],
)
async def test_nothing_that_leaves_the_site_is_prepared_without_a_gateway(
    gateway: str, known: tuple[HostFacts, ...]
) -> None:
    """A bug: it was, with no endpoint, so that the cluster committed and its machines at
    other sites could not be reached."""
    world = World(*known)
    with pytest.raises(NoCapacity) as refused:
        await world.prepare(replace(HELD, gateway=gateway))
    [short] = refused.value.shortfalls
    assert (short.site, short.resource, short.host) == ("north", "reachability", gateway)
    assert gateway in short.message
    assert "gateway" in short.message
    assert world.notary.signed == []
    assert await world.state() is PartState.HELD
    assert (await world.ledger.view()).vnis == {}


async def test_a_network_that_stays_needs_no_gateway() -> None:
    local = replace(HELD, spec=part_spec(workspace()), gateway="")
    prepared = await World(facts("n2")).prepare(local)
    assert (prepared.state, prepared.endpoints) == (PartState.PREPARED, ())


@pytest.mark.parametrize(
    "known",
    [
        pytest.param((facts("n2"),), id="none there"),
        pytest.param(
            (facts("n1", report_time=START - timedelta(seconds=16)), facts("n2")), id="none alive"
        ),
        pytest.param((facts("n1", wide_address=""), facts("n2")), id="none with an address"),
    ],
)
async def test_nothing_that_leaves_the_site_is_held_without_a_live_gateway(
    known: tuple[HostFacts, ...],
) -> None:
    world = World(*known)
    with pytest.raises(NoCapacity) as refused:
        await world.hold()
    assert [each.resource for each in refused.value.shortfalls] == ["reachability"]
    assert await world.ledger.parts() == ()
    world.ledger.report(facts("n1"))
    assert (await world.hold()).gateway == "n1"


async def test_what_is_held_and_prepared_at_once_is_as_if_it_were_done_in_two_steps() -> None:
    once, twice = World(facts("n1"), facts("n2")), World(facts("n1"), facts("n2"))
    at_once = await once.hold(prepare=True)
    in_two = await twice.hold()
    prepare = PreparePart(twice.ledger, twice.notary, POLICY, twice.clock)
    in_two, _ = await prepare(in_two.path, META)
    assert at_once == in_two
    assert once.notary.signed[-1] == twice.notary.signed[-1]
    assert (await once.ledger.view()).vnis == (await twice.ledger.view()).vnis != {}
    assert at_once.state is PartState.PREPARED
    assert at_once.expire_time is None


async def test_who_asks_again_to_prepare_at_once_gets_the_same_receipt() -> None:
    world = World(facts("n1"), facts("n2"))
    assert await world.hold(prepare=True) == await world.hold(prepare=True)
    first, again = world.notary.signed
    assert first == again
    assert first.state is PartState.PREPARED


async def test_no_receipt_is_signed_again_of_what_was_prepared_and_is_over() -> None:
    world = World(facts("n1"), facts("n2"))
    part = await world.hold(prepare=True)
    found = await world.ledger.part(part.path)
    assert found is not None
    released = part.move(PartState.RELEASED, now=START)
    await world.ledger.commit(Change(writes=(Write(record=released, read_at=found.revision),)))
    with pytest.raises(PartOver):
        await world.hold(prepare=True)
    assert len(world.notary.signed) == 1


async def test_what_is_prepared_at_once_needs_no_time_to_live() -> None:
    world = World(facts("n1"), facts("n2"))
    with pytest.raises(FieldInvalid, match="ttl"):
        await world.hold(ttl=timedelta())
    assert (await world.hold(prepare=True, ttl=timedelta())).state is PartState.PREPARED


@pytest.mark.parametrize("prepare", [False, True])
async def test_no_site_is_bound_for_longer_than_ten_minutes_without_a_word(prepare: bool) -> None:
    """A bug: a coordinator could name any day by which to decide, and a prepared part waits."""
    world = World(facts("n1"), facts("n2"))
    late = START + timedelta(minutes=10, seconds=3)
    with pytest.raises(FieldInvalid, match=r"decide_by.*10 minutes"):
        await world.hold(prepare=prepare, decide_by=late)
    await world.hold(prepare=prepare, decide_by=START + timedelta(minutes=10))


async def test_a_late_copy_of_what_is_over_and_put_aside_begins_nothing() -> None:
    """Its request is forgotten; the part's tombstone is not."""
    world = World(facts("n1"), facts("n2"))
    over = replace(HELD, state=PartState.RELEASED, end_time=START)
    written = await world.ledger.commit(Change(writes=(Write(record=over),)))
    move = Move(part=Versioned(value=over, revision=written))
    await world.ledger.commit(move.change(now=START))
    with pytest.raises(NameTaken):
        await world.hold()
    with pytest.raises(PartOver):
        there(await world.ledger.view(), HELD.name)
    with pytest.raises(NotFound):
        there(await world.ledger.view(), f"{HELD.name}2")
    assert await world.state() is PartState.RELEASED
