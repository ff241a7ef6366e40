"""What a site says of its ways to others: by its gateway's word, while that reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.agent_records import facts_from_bytes
from intertie.broker.convert import part_to_proto
from intertie.broker.domain.cluster import part_view
from intertie.broker.domain.fleet import ALIVE_FOR, HostFacts, HostWay
from intertie.broker.domain.networks import Endpoint, RemoteEndpoint
from intertie.broker.domain.part import PartState
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.ways import ways_of
from intertie.broker.usecases.get_parts import GetParts
from intertie.broker.usecases.hosts import Inventory
from intertie.common.rpc.spec_proto import timestamp_to_proto
from intertie.common.values import replace
from intertie.common.ways import Way
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import COORDINATOR, NOW, POLICY, facts, part

SOON, LATER = timedelta(milliseconds=20), timedelta(milliseconds=35)
SOUTH, EAST, OLD = "10.250.0.12", "10.250.0.13", "10.250.0.22"
LOST = NOW - timedelta(seconds=7)


def remote(site: str, address: str, network: str = "lan") -> RemoteEndpoint:
    return RemoteEndpoint(
        site=site, endpoint=Endpoint(network=network, address=address, port=4790, vni=7)
    )


WIDE = part(gateway="n1", remotes=(remote("south", SOUTH), remote("east", EAST)))


def told(*ways: HostWay, **changes: Any) -> dict[str, HostFacts]:
    """By the gateway; the other host's word is not asked for."""
    wrong = (HostWay(address=SOUTH, lost_since=NOW), HostWay(address=EAST, lost_since=NOW))
    return {"n1": facts("n1", ways=ways, **changes), "n2": facts("n2", ways=wrong)}


def test_it_is_by_the_part_s_own_gateway_and_of_sites_that_it_goes_to() -> None:
    said = told(
        HostWay(address=SOUTH, round_trip=SOON),
        HostWay(address=EAST, lost_since=LOST),
        HostWay(address="10.250.0.99", lost_since=LOST),
    )
    assert ways_of(WIDE, said, now=NOW) == (
        Way(site="east", lost_since=LOST),
        Way(site="south", round_trip=SOON),
    )
    assert ways_of(WIDE, told(), now=NOW) == (Way(site="east"), Way(site="south"))
    assert ways_of(replace(WIDE, remotes=()), said, now=NOW) == ()
    assert ways_of(replace(WIDE, gateway=""), said, now=NOW) == ()


def test_a_gateway_that_is_silent_says_nothing_current() -> None:
    said = told(HostWay(address=EAST, lost_since=LOST), report_time=NOW - ALIVE_FOR)
    assert ways_of(WIDE, said, now=NOW) != ()
    assert ways_of(WIDE, said, now=NOW + timedelta(seconds=1)) == ()
    assert ways_of(replace(WIDE, gateway="n9"), said, now=NOW) == ()


def test_a_part_that_is_over_has_no_way() -> None:
    said = told(HostWay(address=EAST, lost_since=LOST))
    assert ways_of(WIDE.move(PartState.ENDED, now=NOW), said, now=NOW) == ()


def test_of_several_addresses_at_a_site_the_worst_counts() -> None:
    both = part(gateway="n1", remotes=(remote("south", SOUTH), remote("south", OLD, "back")))
    said = (HostWay(address=SOUTH, round_trip=SOON), HostWay(address=OLD, round_trip=LATER))
    assert ways_of(both, told(*said), now=NOW) == (Way(site="south", round_trip=LATER),)
    said = (HostWay(address=SOUTH, round_trip=SOON), HostWay(address=OLD, lost_since=LOST))
    assert ways_of(both, told(*said), now=NOW) == (
        Way(site="south", round_trip=SOON, lost_since=LOST),
    )


async def test_get_and_list_say_them_and_the_etag_does_not_change() -> None:
    ledger, clock = MemoryLedger(POLICY), FakeClock(NOW)
    get = GetParts(ledger, clock)
    await ledger.commit(Change(writes=(Write(record=WIDE),)))
    etags = set()
    for way in (HostWay(address=SOUTH, round_trip=SOON), HostWay(address=SOUTH, lost_since=LOST)):
        ledger.report(facts("n1", ways=(way,)))
        expected = (
            Way(site="east"),
            Way(site="south", round_trip=way.round_trip, lost_since=way.lost_since),
        )
        one = await get.one(WIDE.path, coordinator=COORDINATOR)
        assert one.ways == expected
        assert [each.ways for each in await get.all("demo", coordinator=None)] == [expected]
        etags.add(one.etag)
    assert len(etags) == 1
    await clock.advance(ALIVE_FOR.total_seconds() + 1)
    assert (await get.one(WIDE.path, coordinator=None)).ways == ()


def test_they_go_out_with_the_part() -> None:
    ways = (Way(site="east", lost_since=LOST), Way(site="south", round_trip=SOON))
    east, south = part_to_proto(part_view(WIDE, {}, {}, ways)).ways
    assert (east.site, south.site) == ("east", "south")
    assert east.lost_since.ToDatetime(LOST.tzinfo) == LOST
    assert south.round_trip.ToTimedelta() == SOON
    assert not east.HasField("round_trip")
    assert not south.HasField("lost_since")


@pytest.mark.parametrize("span", [SOON, -SOON])
def test_a_host_s_word_is_taken_for_what_can_be(span: timedelta) -> None:
    message = records_pb2.HostFacts(schema=1, host="n1", report_time=timestamp_to_proto(NOW))
    message.ways.add(address=SOUTH, lost_since=timestamp_to_proto(LOST))
    message.ways.add(address=EAST).round_trip.FromTimedelta(span)
    found = facts_from_bytes(message.SerializeToString(), "n1")
    assert found is not None
    assert found.ways == (
        HostWay(address=SOUTH, lost_since=LOST),
        HostWay(address=EAST, round_trip=span if span > timedelta() else None),
    )


class Passes:
    """Looks, each after what is done in between."""

    def __init__(self, ledger: MemoryLedger, *between: HostFacts) -> None:
        self._ledger = ledger
        self._between = between

    async def passes(self, *, period_s: float) -> AsyncIterator[None]:
        yield None
        for each in self._between:
            self._ledger.report(each)
            yield None


async def test_a_round_trip_is_no_change_of_a_host() -> None:
    """Who follows hosts would hear of each gateway every 5 s, and every pass look at all parts."""
    ledger = MemoryLedger(POLICY)
    ledger.report(facts("n1"))
    another = facts("n1", ways=(HostWay(address=SOUTH, round_trip=SOON),))
    assert another.standing() == facts("n1", revision=9, report_time=LOST).standing()
    assert another.standing() != facts("n1", mtu=9000).standing()
    hints = Passes(ledger, another, facts("n1", mtu=9000))
    inventory = Inventory(ledger, hints, POLICY, FakeClock(NOW))
    assert [each.facts.mtu async for each in inventory.watch()] == [1500, 9000]
