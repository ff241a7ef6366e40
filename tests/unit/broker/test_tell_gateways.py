"""What gateways are told of links that stores send over: which, when, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta

from intertie.api.nodeagent.v1 import records_pb2
from intertie.broker.adapters.agent_records import standing_to_bytes
from intertie.broker.domain.ledger import LedgerView, Versioned
from intertie.broker.domain.link_reservations import LEAD, LinkReservation
from intertie.broker.domain.lost_hosts import HostRecord, HostState
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.sending import GRACE
from intertie.broker.loops.tell_gateways import TellGateways
from intertie.common.intervals import Window
from intertie.common.part_spec import Transfer
from intertie.common.values import replace
from intertie.nodeagent.convert import standing_from_proto
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import MemoryLedger
from tests.unit.broker.samples import DIGEST, NOW, POLICY, facts, part
from tests.unit.broker.test_carrying import OTHER, later, transfer

S = timedelta(seconds=1)
LEAD_S = int(LEAD.total_seconds())
TWO = replace(POLICY, hosts=("n1", "n2"))


def sent(start_s: int, end_s: int, mbit_s: int, digest: str = DIGEST) -> Transfer:
    return transfer(start_s, end_s, mbit_s, digest=digest, from_site="north", to_site="south")


def reserved(start_s: int, end_s: int, mbit_s: int) -> LinkReservation:
    window = Window(NOW + start_s * S, NOW + end_s * S + GRACE)
    return LinkReservation(site="south", mbit_s=mbit_s, window=window)


class Site:
    """n1 is a gateway, n2 is not."""

    def __init__(self) -> None:
        self.clock, self.ledger = FakeClock(NOW), MemoryLedger(TWO)
        self.ledger.report(facts("n1", gateway=True, wide_address="10.250.0.11"))
        self.ledger.report(facts("n2", gateway=False, wide_address=""))
        self.loop = TellGateways(self.ledger, "north", self.clock)

    async def put(self, of: Part) -> None:
        found = await self.ledger.part(of.path)
        read_at = found.revision if found else 0
        await self.ledger.commit(Change(writes=(Write(record=of, read_at=read_at),)))

    async def told(self, second: float, host: str = "n1") -> tuple[LinkReservation, ...]:
        await self.clock.advance((NOW + second * S - self.clock.now()).total_seconds())
        await self.loop.sweep()
        found = (await self.ledger.view()).hosts.get(host)
        return found.value.reserved if found else ()


async def test_a_gateway_knows_of_what_is_sent_a_while_before_and_until_nobody_may_send_it() -> (
    None
):
    site = Site()
    await site.put(part(spec=later(sent(100, 200, 30))))
    assert await site.told(99 - LEAD_S) == ()
    assert (await site.ledger.view()).hosts == {}
    assert await site.told(100 - LEAD_S) == (reserved(100, 200, 30),)
    assert await site.told(150, "n2") == ()
    assert await site.told(200) == (reserved(100, 200, 30),)
    assert await site.told(200 + GRACE.total_seconds()) == ()


async def test_what_comes_is_the_senders_to_leave_room_for() -> None:
    site = Site()
    await site.put(part(spec=later(transfer(100, 200, 30))))
    assert await site.told(150) == ()


async def test_of_one_window_it_is_the_sum() -> None:
    site = Site()
    spec = later(
        sent(100, 200, 30), sent(100, 200, 12, OTHER), sent(150, 200, 5, "b3:" + "88" * 32)
    )
    await site.put(part(spec=spec))
    assert await site.told(100) == (reserved(100, 200, 42), reserved(150, 200, 5))


async def test_nothing_is_written_that_a_gateway_knows() -> None:
    site = Site()
    await site.put(part(spec=later(sent(100, 200, 30))))
    await site.told(100)
    before = (await site.ledger.view()).hosts["n1"].revision
    await site.told(140)
    assert (await site.ledger.view()).hosts["n1"].revision == before


async def test_from_when_a_grant_is_out_it_is_reserved_and_of_one_that_is_over_too() -> None:
    site = Site()
    prepared = part(state=PartState.PREPARED, spec=later(sent(100, 200, 30)))
    await site.put(replace(prepared, state=PartState.HELD))
    assert await site.told(100) == ()
    await site.put(prepared)
    assert await site.told(110) == (reserved(100, 200, 30),)
    confirmed = part(spec=prepared.spec)
    await site.put(confirmed)
    assert await site.told(131) == (reserved(100, 200, 30),)
    ended = confirmed.ending(now=site.clock.now(), reason="DELETED")
    await site.put(ended.move(PartState.ENDED, now=site.clock.now(), reason="DELETED"))
    await site.loop.sweep(frozenset({confirmed.name}))
    assert await site.told(150) == (reserved(100, 200, 30),)
    assert await site.told(202) == ()


async def test_a_host_that_is_a_gateway_no_more_has_nothing_to_leave_room_for() -> None:
    site = Site()
    await site.put(part(spec=later(sent(100, 200, 30))))
    await site.told(100)
    site.ledger.report(facts("n1", gateway=False, wide_address=""))
    assert await site.told(110) == ()


async def test_a_gateway_that_is_admitted_no_more_still_leaves_room() -> None:
    site = Site()
    site.ledger.policy = replace(TWO, hosts=("n2",))
    await site.put(part(spec=later(sent(100, 200, 30))))
    assert await site.told(100) == (reserved(100, 200, 30),)


class Leading(MemoryLedger):
    """As of who leads: what a view shows of hosts goes on with it. `meanwhile` is written by
    another loop, after the first write."""

    def __init__(self) -> None:
        super().__init__(TWO)
        self.shown: dict[str, Versioned[HostRecord]] = {}
        self.meanwhile: HostRecord | None = None

    async def view(self) -> LedgerView:
        view = await super().view()
        self.shown.update(view.hosts)
        return replace(view, hosts=self.shown)

    async def commit(self, change: Change) -> int:
        revision = await super().commit(change)
        if self.meanwhile is not None:
            record, self.meanwhile = self.meanwhile, None
            read_at = self.shown[record.name].revision
            await super().commit(Change(writes=(Write(record=record, read_at=read_at),)))
        await self.view()
        return revision


async def test_what_another_loop_says_of_a_gateway_meanwhile_stands() -> None:
    """A bug: of the second of two gateways an older record was written over one that was read for
    its revision alone, so a host that was being fenced might start guests again."""
    ledger, clock = Leading(), FakeClock(NOW + 100 * S)
    for host in ("n1", "n2"):
        ledger.report(facts(host, gateway=True, wide_address="10.250.0.11"))
    silent = HostRecord(name="n2", since=NOW).move(HostState.SILENT, now=NOW)
    await ledger.commit(Change(writes=(Write(record=silent),)))
    await ledger.commit(Change(writes=(Write(record=part(spec=later(sent(100, 200, 30)))),)))
    fencing = silent.move(HostState.FENCING, now=NOW)
    ledger.meanwhile = fencing
    loop = TellGateways(ledger, "north", clock)
    await loop.sweep()
    (second,) = (each.value for name, each in ledger.shown.items() if name == "n2")
    assert second == replace(fencing, reserved=(reserved(100, 200, 30),))


async def test_the_agent_reads_what_the_broker_has_written() -> None:
    site = Site()
    await site.put(part(spec=later(sent(100, 200, 30))))
    await site.told(100)
    record = (await site.ledger.view()).hosts["n1"].value
    message = records_pb2.WantedHost.FromString(standing_to_bytes(record))
    standing = standing_from_proto(message)
    for second, mbit_s in ((97.9, 0), (98, 30), (201.9, 30), (202, 0)):
        rates = standing.reserved_mbit_s(now=NOW + second * S, ahead=2 * S)
        assert rates.get("south", 0) == mbit_s
