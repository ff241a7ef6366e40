"""Images that a site lacks are brought there before a cluster starts, where there is time."""

from datetime import timedelta

import pytest

from intertie.common.errors import ImageNotReady, NoCapacity, Shortfall
from intertie.common.names import ClusterName
from intertie.common.part_spec import Transfer
from intertie.common.spec import ClusterSpec, Dataset, GroupPlacement, LeaseTerms
from intertie.common.tariff import Rates
from intertie.common.values import replace
from intertie.metasched.domain import refusal
from intertie.metasched.domain.alternatives import Merit
from intertie.metasched.domain.bringing import LEAD
from intertie.metasched.domain.brought_later import TO_ASK_AGAIN
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.counter_offers import Ground
from intertie.metasched.domain.problem import ImageFound, LinkRoom
from intertie.metasched.domain.refusal import WhyNot
from intertie.metasched.usecases import explaining
from tests.fakes.part import State
from tests.fakes.site import FakeSite
from tests.unit.metasched.test_explaining import as_asked
from tests.unit.metasched.world import IMAGE, Process, World, order, spec

GUEST = replace(IMAGE, size_bytes=100_000_000)
MINUTE = timedelta(minutes=1)
S = timedelta(seconds=1)


class Apart(World):
    """North alone has the image, and south has the room."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.north.images = {"guest": GUEST, GUEST.digest: GUEST}
        self.south.images = {}
        self.north.vcpus = 0

    def later(self, minutes: int = 10, workers: int = 2) -> ClusterSpec:
        start = self.clock.now() + minutes * MINUTE
        asked = spec(workers)
        return replace(asked, lease=replace(asked.lease, start_time=start))


def named(cluster: str) -> ClusterName:
    return ClusterName(order().name.parent, cluster)


def transfers_at(site: FakeSite) -> tuple[Transfer, ...]:
    return tuple(each for part in site.parts.values() for each in part.spec.transfers)


async def test_both_ends_hold_what_is_sent_and_the_cluster_begins_after_it() -> None:
    world = Apart()
    process = await world.process()
    view = await process.create(order(what=world.later()))
    assert view.record.state is ClusterState.SCHEDULED
    (sent,) = transfers_at(world.north)
    assert transfers_at(world.south) == (sent,)
    assert (sent.digest, sent.size_bytes) == (GUEST.digest, GUEST.size_bytes)
    assert (sent.from_site, sent.to_site) == ("north", "south")
    assert world.clock.now() < sent.window.start
    assert sent.window.end <= view.record.window.start
    assert sent.carries_bytes >= GUEST.size_bytes
    assert {each.site for each in view.workspaces} == {"south"}
    assert list(world.states().values()) == [{"north": State.CONFIRMED, "south": State.CONFIRMED}]
    assert any("is brought to south from north" in each for each in view.record.plan.reasons)


async def test_a_slow_link_is_planned_for_and_one_that_is_too_slow_is_not() -> None:
    world = Apart()
    room = LinkRoom(egress_mbit_s=2, ingress_mbit_s=2, latency=S)
    world.north.links, world.south.links = {"south": room}, {"north": room}
    process = await world.process()
    await process.create(order(what=world.later()))
    (sent,) = transfers_at(world.north)
    assert sent.mbit_s == 2
    assert sent.window.duration >= 400 * S
    with pytest.raises(NoCapacity):
        await process.create(order("r2", named("c2"), world.later(5)))


async def test_a_source_that_refuses_is_asked_no_more() -> None:
    world = Apart()
    full = Shortfall(site="north", resource="link_egress", peer="south", wanted=5, available=0)
    world.north.faults["prepare"] = [NoCapacity((full,))]
    process = await world.process()
    with pytest.raises((NoCapacity, ImageNotReady)):
        await process.create(order(what=world.later()))
    assert world.north.calls.count("prepare") == 1
    world.check_all_or_nothing()


async def test_who_cannot_send_has_its_workspaces_all_the_same() -> None:
    """A bug: its refusal was taken for one of workspaces, and none could be there any more."""
    world = Apart()
    world.north.vcpus = 3
    nobody = Shortfall(site="north", resource="reachability", peer="south")
    world.north.faults["prepare"] = [NoCapacity((nobody,))]
    process = await world.process()
    asked = world.later()
    groups = (asked.groups[0], replace(asked.groups[1], count=0, min_count=2, max_count=5))
    view = await process.create(order(what=replace(asked, groups=groups)))
    assert sum(view.record.counts().values()) == 3
    assert {each.site for each in view.workspaces} == {"north"}
    assert view.record.plan.transfers == ()


async def test_what_is_another_image_at_each_site_is_not_brought() -> None:
    world = Apart()
    third = replace(world.south, name="west", parts={}, links={})
    third.images = {"guest": replace(GUEST, digest="b3:" + "2" * 64)}
    third.vcpus = 0
    world.sites.by_name["west"] = third
    process = await world.process()
    with pytest.raises((NoCapacity, ImageNotReady)):
        await process.create(order(what=world.later()))


async def test_who_has_the_image_is_not_sent_it() -> None:
    world = Apart()
    world.north.vcpus = 1
    process = await world.process()
    view = await process.create(order(what=world.later(workers=4)))
    assert {each.site for each in view.workspaces} == {"north", "south"}
    assert [each.to_site for each in transfers_at(world.north)] == ["south"]


async def test_where_nothing_of_it_may_be_an_image_may_come_from() -> None:
    world = Apart()
    process = await world.process()
    asked = world.later()
    here = GroupPlacement(allow_sites=("south",))
    groups = tuple(replace(each, placement=here) for each in asked.groups)
    view = await process.create(order(what=replace(asked, groups=groups)))
    assert {each.site for each in view.workspaces} == {"south"}
    assert [each.from_site for each in transfers_at(world.north)] == ["north"]


async def test_a_data_set_is_brought_as_an_image_is() -> None:
    world = Apart()
    data = ImageFound(digest="b3:" + "3" * 64, size_bytes=50 * 1024 * 1024)
    world.north.images = {**world.north.images, "corpus": data, data.digest: data}
    process = await world.process()
    asked = replace(world.later(), datasets=(Dataset(name="corpus", source="corpus"),))
    view = await process.create(order(what=asked))
    assert {each.site for each in view.workspaces} == {"south"}
    sent = {each.digest: each for each in transfers_at(world.south)}
    assert {digest: each.data for digest, each in sent.items()} == {
        GUEST.digest: False,
        data.digest: True,
    }
    assert sent[data.digest].size_bytes == data.size_bytes
    parts = [each.spec for each in world.south.parts.values()]
    assert {disk.image for part in parts for each in part.workspaces for disk in each.disks} == {
        data.digest
    }


async def test_what_is_chosen_is_brought_as_it_was_told_at_the_last_moment_too() -> None:
    world = Apart()
    world.north.rates = world.south.rates = Rates(link_mbit_s_hour=1.0)
    world.south.vcpus = 12
    process = await world.process()
    what = world.later(workers=3)
    what = replace(what, lease=replace(what.lease, max_delay=10 * MINUTE))
    (option,) = await process.plan(order(what=what))
    (told,) = option.plan.transfers
    hours = (told.end - told.begin) / timedelta(hours=1)
    assert option.plan.cost == pytest.approx(2 * told.mbit_s * hours)
    assert option.plan.site_names == ("north", "south")
    assert told.begin >= option.accept_before + LEAD
    assert any("is brought to south" in each for each in option.plan.reasons)
    await world.clock.advance((option.accept_before - world.clock.now()) / S - 1)
    view = await process.create(replace(order(what=what), plan_token=option.token))
    assert view.record.plan.transfers == (told,)
    (sent,) = transfers_at(world.north)
    assert (sent.window.start, sent.mbit_s) == (told.begin, told.mbit_s)
    assert transfers_at(world.south) == (sent,)


async def test_what_would_have_to_begin_before_it_is_accepted_is_no_plan_to_choose() -> None:
    world = Apart()
    process = await world.process()
    await process.create.plan_only(order(what=world.later(5)))
    with pytest.raises(NoCapacity) as refused:
        await process.plan(order(what=world.later(5)))
    assert any(each.resource == "data" for each in refused.value.shortfalls)
    (later,) = (
        each for each in refused.value.explanation.counter_offers if "later" in each.message
    )
    (option,) = await process.plan(order(what=as_asked(world.later(5), later)))
    assert option.plan.window.start == later.start_time


async def test_to_wait_until_it_is_brought_to_where_it_is_cheaper_is_a_choice() -> None:
    world = Apart()
    world.north.vcpus = 4
    world.north.rates, world.south.rates = Rates(vcpu_hour=1.0), Rates(vcpu_hour=0.1)
    process = await world.process()
    what = spec(2)
    what = replace(what, lease=replace(what.lease, max_delay=20 * MINUTE))
    options = await process.plan(order(what=what))
    by = {merit: each for each in options for merit in each.merits}
    soon, cheap = by[Merit.EARLIEST], by[Merit.CHEAPEST]
    assert (soon.plan.site_names, soon.plan.transfers) == (("north",), ())
    assert [each.to_site for each in cheap.plan.transfers] == ["south"]
    assert cheap.plan.cost == pytest.approx(0.3)
    assert cheap.plan.window.start > cheap.plan.transfers[0].end > soon.plan.window.start
    assert [each.gives_way for each in options] == [()] * len(options)
    view = await process.create(replace(order(what=what), plan_token=cheap.token))
    assert {each.site for each in view.workspaces} == {"south"}
    assert [each.size_bytes for each in transfers_at(world.north)] == [GUEST.size_bytes]


def at_south(what: ClusterSpec) -> ClusterSpec:
    here = GroupPlacement(allow_sites=("south",))
    return replace(what, groups=tuple(replace(each, placement=here) for each in what.groups))


async def refused(process: Process, what: ClusterSpec) -> NoCapacity:
    with pytest.raises(NoCapacity) as caught:
        await process.create(order("r-refused", named("refused"), what))
    return caught.value


async def test_what_begins_too_soon_is_told_what_it_takes_and_from_when_on_it_could() -> None:
    world = Apart()
    slow = LinkRoom(egress_mbit_s=20, ingress_mbit_s=20, latency=S)
    world.north.links, world.south.links = {"south": slow}, {"north": slow}
    process = await world.process()
    told = await refused(process, at_south(spec(2)))
    assert world.states() == {}
    late = [each for each in told.shortfalls if each.resource == "data"]
    assert {(each.site, each.peer, each.group) for each in late} == {("south", "north", "head")}
    (short,) = late
    # A twentieth more than 100 MB, and the next whole MiB.
    takes = 102 * 1024 * 1024 * 8 / 20e6
    ready = world.clock.now() + LEAD + timedelta(seconds=takes)
    assert short.until is not None
    assert timedelta() <= short.until - ready < 1 * S
    assert "takes 0:00:43 at 20 Mbit/s, too long for a start by 2026-03-01 12:00:00Z" in str(short)


@pytest.mark.parametrize("lease", ["at once", "fixed", "until", "within"])
async def test_a_later_start_for_which_it_is_brought_is_offered_and_accepted(lease: str) -> None:
    world = Apart()
    slow = LinkRoom(egress_mbit_s=2, ingress_mbit_s=2, latency=S)
    world.north.links, world.south.links = {"south": slow}, {"north": slow}
    world.north.rates = world.south.rates = Rates(vcpu_hour=0.1, link_mbit_s_hour=1.0)
    process = await world.process()
    now, what = world.clock.now(), at_south(spec(2))
    terms = {
        "at once": what.lease,
        "fixed": replace(what.lease, start_time=now + 5 * MINUTE),
        "until": LeaseTerms(start_time=now + 5 * MINUTE, end_time=now + 65 * MINUTE),
        "within": replace(what.lease, max_delay=3 * MINUTE),
    }
    what = replace(what, lease=terms[lease])
    told = (await refused(process, what)).explanation
    assert any(
        {"spec.groups[0].environment.image"} < {each.field for each in conflict.requirements}
        for conflict in told.conflicts
    )
    (later,) = [each for each in told.counter_offers if "later" in each.message]
    assert later.message.endswith("and what is missing brought to south until then")
    # 428 s, what it takes to hold it, and the time to ask again; to the next whole minute.
    assert later.start_time == now + 10 * MINUTE
    await world.clock.advance(TO_ASK_AGAIN.total_seconds())
    view = await process.create(order("r2", named("again"), as_asked(what, later)))
    assert view.record.window.start == later.start_time
    assert view.record.window.duration == what.lease.window(now=now).duration
    (sent,) = transfers_at(world.south)
    assert sent.window.end <= later.start_time
    assert view.record.plan.cost == pytest.approx(later.cost)


async def test_once_all_could_be_there_a_later_start_is_looked_at_only_where_it_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[WhyNot] = []
    done = refusal.why_not

    def watched(ground: Ground, *, effort: float) -> WhyNot:
        found.append(done(ground, effort=effort))
        return found[-1]

    monkeypatch.setattr(explaining, "why_not", watched)
    world = Apart()
    process = await world.process()
    for mbit_s, most in ((100, 1), (1, 30)):
        room = LinkRoom(egress_mbit_s=mbit_s, ingress_mbit_s=mbit_s, latency=S)
        world.north.links, world.south.links = {"south": room}, {"north": room}
        found.clear()
        await refused(process, at_south(spec(2)))
        assert 1 <= len(found[0].times.later) <= most


async def test_what_no_link_brings_is_refused_for_its_image_as_before() -> None:
    world = Apart()
    world.north.links, world.south.links = {}, {}
    process = await world.process()
    with pytest.raises(ImageNotReady):
        await process.create(order(what=at_south(spec(2))))


async def test_where_it_could_be_brought_is_offered_though_the_request_keeps_it_out() -> None:
    """North alone may have it, and has no room."""
    world = Apart()
    process = await world.process()
    here = GroupPlacement(allow_sites=("north",))
    what = spec(2)
    what = replace(what, groups=tuple(replace(each, placement=here) for each in what.groups))
    told = (await refused(process, what)).explanation
    (offer,) = (
        each
        for each in told.counter_offers
        if {"spec.groups[0].placement.allow_sites", "spec.lease.start_time"}
        < {change.field for change in each.changes}
    )
    view = await process.create(order("r2", named("again"), as_asked(what, offer)))
    assert {each.site for each in view.workspaces} == {"south"}
    assert len(view.record.plan.transfers) == 1


async def test_a_data_set_that_comes_too_late_is_offered_to_be_left_out_or_brought() -> None:
    world = Apart()
    data = ImageFound(digest="b3:" + "3" * 64, size_bytes=50 * 1024 * 1024)
    world.north.images = {**world.north.images, "corpus": data, data.digest: data}
    world.south.images = {"guest": GUEST, GUEST.digest: GUEST}
    process = await world.process()
    what = replace(at_south(spec(2)), datasets=(Dataset(name="corpus", source="corpus"),))
    told = (await refused(process, what)).explanation
    named = {each.field for conflict in told.conflicts for each in conflict.requirements}
    assert {"spec.datasets[0]", "spec.lease.max_delay"} <= named
    assert any("later" in each.message for each in told.counter_offers)
