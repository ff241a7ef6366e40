"""Both sides of an incast: what a receiver tells, and what senders make of it."""

from __future__ import annotations

import pytest

from intertie.common.values import replace
from intertie.nodeagent.domain.incast import (
    STALE_S,
    Arrivals,
    Crowd,
    arrived_kbit_s,
    asked_of_senders,
    promised_in_kbit,
)
from intertie.nodeagent.domain.reconcile import Listing
from intertie.nodeagent.domain.traffic_plan import IncastShare, on_uplink
from intertie.nodeagent.domain.wanted import Tunnel, WantedPart
from intertie.nodeagent.loops.incast import PERIOD_S, TOLD_S, Receiver, Sender
from tests.unit.nodeagent.host import Host
from tests.unit.nodeagent.parts import LAN, PART, PLACE

CAPACITY_MBIT_S = 100


def test_what_arrives_is_counted_as_the_wire_does() -> None:
    before = Arrivals(seconds=10.0, bytes=0, packets=0)
    after = Arrivals(seconds=12.0, bytes=1476, packets=1)
    assert arrived_kbit_s(before, after) == pytest.approx(1500 * 8 / 1000 / 2)


@pytest.mark.parametrize("seconds", [10.0, 12.0])
def test_readings_that_do_not_tell_say_nothing(seconds: float) -> None:
    before = Arrivals(seconds=10.0, bytes=9000, packets=9)
    assert arrived_kbit_s(before, Arrivals(seconds=seconds, bytes=10, packets=1)) is None


def test_nics_have_their_promise_divided_among_those_who_may_send_to_them() -> None:
    """Once, however many send: it was admitted once."""
    more = Tunnel(host="n3", address="10.201.0.13")
    network = replace(LAN, tunnels=(*LAN.tunnels, more))
    part = replace(PART, networks=(network,))
    asked = asked_of_senders(Crowd(share_kbit=7_000.4), [part])
    nics = on_uplink(60, 1450) - on_uplink(50, 1450)
    assert asked == IncastShare(share_kbit=7_000, floors={LAN.uid: nics // 2})


def test_what_is_promised_within_one_host_does_not_come_in() -> None:
    alone = replace(PART, networks=(replace(LAN, tunnels=()),))
    assert promised_in_kbit([PART, alone]) == on_uplink(60, 1450)


class Receiving:
    def __init__(self) -> None:
        self.host = Host()
        self.parts: tuple[WantedPart, ...] = (PART,)
        self.bytes = 0
        self.loop = self.start()

    def start(self) -> Receiver:
        self.loop = Receiver(
            lambda: self.parts,
            self,
            self.host.records,
            self.host.clock,
            capacity_mbit_s=CAPACITY_MBIT_S,
        )
        return self.loop

    def arrivals(self) -> Arrivals:
        return Arrivals(seconds=self.host.clock.monotonic(), bytes=self.bytes, packets=0)

    async def period(self, mbit_s: float) -> IncastShare | None:
        """A period in which so much arrived; what stands in the records after it."""
        await self.host.clock.advance(PERIOD_S)
        self.bytes += round(mbit_s * 1e6 / 8 * PERIOD_S)
        await self.loop.sweep()
        return self.host.records.share


async def test_a_full_downlink_is_told_of_and_taken_back_when_it_is_over() -> None:
    receiving = Receiving()
    assert await receiving.period(0) is None
    assert await receiving.period(50) is None
    first = await receiving.period(100)
    assert first is not None
    assert 2 * first.share_kbit == pytest.approx(90_000 - on_uplink(60, 1450), abs=2)
    assert await receiving.period(100) == first, "it may have been sent before"
    second = await receiving.period(100)
    assert second is not None
    assert second.share_kbit == pytest.approx(first.share_kbit / 2, abs=1)
    said = [await receiving.period(0) for _ in range(12)]
    shares = [each.share_kbit for each in said if each]
    assert shares == sorted(shares)
    assert said[-1] is None


async def test_a_share_that_stands_is_written_again_now_and_then() -> None:
    receiving = Receiving()
    await receiving.period(0)
    await receiving.period(100)
    writes = receiving.host.records.share_writes
    periods = int(4 * TOLD_S / PERIOD_S)
    for _ in range(periods):
        await receiving.period(90)
    assert receiving.host.records.share_writes - writes == 4


async def test_what_an_earlier_agent_told_is_taken_back() -> None:
    receiving = Receiving()
    receiving.host.records.share = IncastShare(share_kbit=1)
    assert await receiving.period(0) is None


async def test_where_nothing_is_promised_nobody_is_asked_for_anything() -> None:
    receiving = Receiving()
    receiving.parts = ()
    await receiving.period(0)
    assert await receiving.period(100) is None


class Sending:
    """A sender's agent after its first pass; what n2 asks for is what it has to heed."""

    def __init__(self) -> None:
        self.host = Host()
        self.host.records.listing = Listing(parts=(PART,))
        self.loop = Sender(self.host.agent.yield_to, self.host.records, self.host.clock, PLACE.host)
        self.written = 0

    def ask(self, share_kbit: int, host: str = "n2") -> None:
        self.written += 1
        share = IncastShare(share_kbit=share_kbit)
        self.host.records.others[host] = (self.written, share)

    @property
    def held(self) -> list[int]:
        """Ceilings of the classes towards hosts whose downlinks are full."""
        plan = self.host.traffic.plans[PLACE.interface]
        return [each.ceil_kbit for each in plan.classes if each.key.startswith("to/")]


async def test_a_share_is_heeded_at_once_and_at_every_pass_until_it_is_gone() -> None:
    sending = Sending()
    await sending.host.agent.sweep()
    sending.ask(5_000)
    await sending.loop.sweep()
    assert sending.held == [5_000]
    await sending.host.agent.sweep()
    assert sending.held == [5_000]
    sending.host.records.others.clear()
    await sending.loop.sweep()
    assert sending.held == []


async def test_before_the_first_pass_nothing_is_shaped() -> None:
    """What an earlier agent has made would go, with all that is promised."""
    sending = Sending()
    sending.ask(5_000)
    await sending.loop.sweep()
    assert sending.host.traffic.plans == {}
    await sending.host.agent.sweep()
    assert sending.held == [5_000]


async def test_a_share_that_is_not_written_again_ceases_to_count() -> None:
    sending = Sending()
    await sending.host.agent.sweep()
    sending.ask(5_000)
    await sending.loop.sweep()
    await sending.host.clock.advance(STALE_S - 1)
    await sending.loop.sweep()
    assert sending.held == [5_000]
    sending.ask(5_000)
    await sending.loop.sweep()
    await sending.host.clock.advance(STALE_S - 1)
    await sending.loop.sweep()
    assert sending.held == [5_000], "the same, but written again"
    await sending.host.clock.advance(1)
    await sending.loop.sweep()
    assert sending.held == []


async def test_while_the_records_cannot_be_read_a_share_stands_until_it_is_too_old() -> None:
    sending = Sending()
    await sending.host.agent.sweep()
    sending.ask(5_000)
    await sending.loop.sweep()
    sending.host.records.readable = False
    await sending.loop.sweep()
    assert sending.held == [5_000]
    await sending.host.clock.advance(STALE_S)
    await sending.loop.sweep()
    assert sending.held == []


async def test_what_this_host_asks_for_is_not_asked_of_itself() -> None:
    sending = Sending()
    await sending.host.agent.sweep()
    sending.ask(5_000, host=PLACE.host)
    await sending.loop.sweep()
    assert sending.held == []
