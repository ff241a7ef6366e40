"""Images that a site lacks are brought there for new workspaces of a cluster that stands."""

from datetime import timedelta

import pytest

from intertie.common.errors import ImageNotReady, NoCapacity, Shortfall
from intertie.common.intervals import Window
from intertie.common.part_spec import Transfer
from intertie.common.spec import ClusterSpec
from intertie.common.tariff import Rates, RoomMade
from intertie.common.values import replace
from intertie.metasched.domain.amending import beside_standing, growth_of
from intertie.metasched.domain.bringing import LEAD
from intertie.metasched.domain.bringing_beside import begins_beside
from intertie.metasched.domain.ports import HoldOrder, Prepared
from intertie.metasched.domain.problem import LinkRoom, Problem
from tests.fakes.clock import START
from tests.fakes.part import State
from tests.fakes.site import FakeSite
from tests.unit.metasched.test_bringing import GUEST, Apart, transfers_at
from tests.unit.metasched.test_update import check_agreed, places, standing, update
from tests.unit.metasched.world import Process, World, order, spec

S = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Full(Apart):
    """North has the image, and room for a head and two workers; south has room, and no image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.north.vcpus = 3

    def slow(self, mbit_s: int) -> None:
        room = LinkRoom(egress_mbit_s=mbit_s, ingress_mbit_s=mbit_s, latency=S / 1000)
        self.north.links, self.south.links = {"south": room}, {"north": room}


async def made(world: Full, what: ClusterSpec | None = None) -> Process:
    process = await world.process()
    await process.create(order(what=what or spec(2)))
    await process.create.drain()
    world.boot()
    return process


async def test_a_site_that_joins_gets_what_it_lacks_and_both_ends_hold_it() -> None:
    world = Full()
    process = await made(world)
    before = places(await standing(process))
    view = await process.update(update(spec(4)))
    await process.update.drain()
    record = await standing(process)
    check_agreed(world, record)
    assert before.items() <= places(record).items()
    assert record.window == Window(START, START + HOUR)
    (sent,) = transfers_at(world.north)
    assert transfers_at(world.south) == (sent,)
    assert (sent.digest, sent.from_site, sent.to_site) == (GUEST.digest, "north", "south")
    assert world.clock.now() < sent.window.start
    assert sent.window.end < START + HOUR / 2
    assert [each.item for each in record.plan.transfers] == [GUEST.digest]
    assert any("is brought to south from north" in each for each in view.record.plan.reasons)
    assert [each.site for each in view.workspaces].count("south") == 2


@pytest.mark.parametrize("after_s", [-5, 5])
async def test_what_earlier_terms_bring_is_left_as_it_is(after_s: int) -> None:
    """Also while it is read through."""
    world = Full()
    process = await made(world)
    await process.update(update(spec(4)))
    await process.update.drain()
    first = transfers_at(world.south)
    await world.clock.advance((first[0].window.end - world.clock.now()).total_seconds() + after_s)
    await process.update(update(spec(5), request_id="u2"))
    await process.update.drain()
    check_agreed(world, await standing(process))
    assert transfers_at(world.south) == transfers_at(world.north) == first


async def test_what_has_not_come_is_brought_once_more() -> None:
    world = Full()
    process = await made(world)
    await process.update(update(spec(4)))
    await process.update.drain()
    (first,) = transfers_at(world.south)
    await world.clock.advance(600)
    await process.update(update(spec(5), request_id="u2"))
    await process.update.drain()
    (again,) = transfers_at(world.south)
    assert first.window.end < world.clock.now() < again.window.start
    assert transfers_at(world.north) == (again,)


async def test_what_is_sent_is_in_the_cost_and_stays_there() -> None:
    """Nothing else costs anything. It is paid for as it was agreed, not as time passes."""
    world = Full()
    world.north.rates = world.south.rates = Rates(link_mbit_s_hour=1.0)
    process = await made(world)
    await process.update(update(spec(4)))
    (sent,) = transfers_at(world.south)
    cost = 2 * sent.mbit_s * sent.window.duration / HOUR
    assert (await standing(process)).plan.cost == pytest.approx(cost)
    await process.update.drain()
    world.south.images = dict(world.north.images)
    await world.clock.advance(600)
    await process.update(update(spec(5), request_id="u2"))
    assert (await standing(process)).plan.cost == pytest.approx(cost)
    await process.update.drain()
    await process.update(update(spec(3), request_id="u3"))
    assert (await standing(process)).plan.cost == pytest.approx(cost)


async def test_a_site_without_workspaces_joins_to_send() -> None:
    world = Full()
    third = FakeSite(name="west", clock=world.clock, vcpus=0)
    room = LinkRoom(egress_mbit_s=100, ingress_mbit_s=100, latency=S / 1000)
    world.sites.by_name["west"] = third
    third.links, third.images = {"south": room, "north": room}, dict(world.north.images)
    world.south.links = {**world.south.links, "west": room}
    process = await made(world)
    world.north.images = {}
    await process.update(update(spec(4)))
    await process.update.drain()
    record = await standing(process)
    check_agreed(world, record)
    (sent,) = transfers_at(third)
    assert (sent.from_site, sent.to_site) == ("west", "south")
    assert transfers_at(world.south) == (sent,)
    assert set(record.parts) == {"north", "south", "west"}


async def test_it_comes_beside_what_is_promised_on_the_link() -> None:
    """Two new workers have promises to three others each: 30 Mbit/s each way of the 40."""
    world = Full()
    world.slow(40)
    process = await made(world, spec(2, mbit_s=5))
    await process.update(update(spec(4, mbit_s=5)))
    await process.update.drain()
    record = await standing(process)
    check_agreed(world, record)
    (sent,) = transfers_at(world.south)
    promised = sum(each.mbit_s for each in record.plan.links if each.from_site == "north")
    assert promised > 0
    assert sent.mbit_s + promised <= 40


async def test_what_would_come_too_late_is_not_brought() -> None:
    """A twentieth more than 100 MB at 0.4 Mbit/s takes more than half an hour."""
    world = Full()
    world.slow(1)
    big = replace(GUEST, size_bytes=300_000_000)
    world.north.images = {"guest": big, big.digest: big}
    process = await made(world)
    with pytest.raises((NoCapacity, ImageNotReady)):
        await process.update(update(spec(4)))
    record = await standing(process)
    assert (record.terms, record.plan.transfers) == (0, ())
    check_agreed(world, record)


async def test_a_refusal_of_who_sends_leaves_all_as_it_was() -> None:
    world = Full()
    process = await made(world)
    nobody = Shortfall(site="north", resource="reachability", peer="south")
    world.north.faults["prepare"] = [NoCapacity((nobody,))] * 3
    with pytest.raises((NoCapacity, ImageNotReady)):
        await process.update(update(spec(4)))
    await process.update.drain()
    assert world.south.parts == {} or {each.state for each in world.south.parts.values()} == {
        State.RELEASED
    }
    check_agreed(world, await standing(process))


async def test_what_is_tried_again_is_brought_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: the time went by that the first attempt took, and what was planned had begun."""
    world = Full()
    third = FakeSite(name="west", clock=world.clock, vcpus=4)
    room = LinkRoom(egress_mbit_s=100, ingress_mbit_s=100, latency=S / 1000)
    world.sites.by_name["west"] = third
    third.links = {"north": room}
    world.north.links = {**world.north.links, "west": room}
    process = await made(world)
    prepare, refused = world.sites.prepare, list[str]()

    async def slowly(order: HoldOrder) -> Prepared:
        site = order.part.site
        if site != "north" and not refused:
            refused.append(site)
            await world.clock.advance(15)
            full = Shortfall(site=site, resource="vcpus", wanted=2, available=0)
            raise NoCapacity((full,))
        return await prepare(order)

    monkeypatch.setattr(world.sites, "prepare", slowly)
    await process.update(update(spec(4)))
    await process.update.drain()
    (sent,) = (await standing(process)).plan.transfers
    assert [sent.to_site] != refused
    assert sent.begin >= START + 15 * S + LEAD


async def test_a_cluster_that_has_not_begun_gets_it_for_its_start_where_there_is_time() -> None:
    world = Full()
    start = world.clock.now() + 10 * MINUTE
    asked = spec(2)
    asked = replace(asked, lease=replace(asked.lease, start_time=start))
    process = await made(world, asked)
    await process.update(update(replace(asked, groups=spec(4).groups)))
    (sent,) = transfers_at(world.south)
    assert sent.window.end <= start
    assert isinstance(sent, Transfer)


def test_begins_are_ever_further_apart_and_leave_half_of_the_time() -> None:
    ahead = Window(START, START + HOUR)
    begins = [(each.start - START) / S for each in begins_beside(ahead, START + 10 * S)]
    assert begins == [40, 70, 130, 250, 490, 970, 1800]
    assert {each.duration for each in begins_beside(ahead, START + 10 * S)} == {HOUR}
    late = Window(START + HOUR, START + 2 * HOUR)
    assert begins_beside(late, START + 10 * S)[0] == late
    assert begins_beside(ahead, START + HOUR) == ()


async def test_what_was_to_come_and_did_not_is_no_more_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who was added later was asked for at that site alone, in vain; another one had room."""
    world = Full()
    process = await made(world)
    await process.update(update(spec(3)))
    await process.update.drain()
    west = FakeSite(name="west", clock=world.clock, vcpus=4, images=dict(world.north.images))
    room = LinkRoom(egress_mbit_s=100, ingress_mbit_s=100, latency=S / 1000)
    west.links = {"north": room, "south": room}
    for site in (world.north, world.south):
        site.links = {**site.links, "west": room}
    world.sites.by_name["west"] = west
    prepare = world.sites.prepare

    async def failed(order: HoldOrder) -> Prepared:
        if order.part.site == "south" and len(order.spec.workspaces) > 1:
            raise ImageNotReady(GUEST.digest, "south")
        return await prepare(order)

    monkeypatch.setattr(world.sites, "prepare", failed)
    await process.update(update(spec(5), request_id="u2"))
    await process.update.drain()
    assert (await standing(process)).counts()["worker"] == 5


async def test_a_site_that_was_left_asks_for_no_room_any_more() -> None:
    world = World()
    process = await world.process()
    made_room = RoomMade(vcpus=1, memory_mib=0, amount=6.0)
    for site in (world.north, world.south):
        site.asks, site.asks_for_room = 8.0, made_room
    record = (await process.create(order(what=spec()))).record
    now = record.window.start + record.window.duration / 4
    asked = Problem(groups=(), sites=(), windows=(record.window,), max_cost=10.0)
    left = replace(record, left=tuple(record.parts), parts={})
    beside = beside_standing(asked, left, growth_of(record, record.spec), now=now)
    assert beside.max_cost == pytest.approx(10 - 2.0)
