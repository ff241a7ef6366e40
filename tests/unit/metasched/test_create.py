"""Creating a cluster: all sites or none, whatever they answer."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.names import ClusterName, Parent
from intertie.common.spec import Network
from intertie.common.values import replace
from intertie.metasched.domain import planner
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.commit import Outcome
from tests.fakes.part import State
from tests.fakes.site import Fault, Late
from tests.unit.metasched.world import World, order, spec


async def test_a_cluster_that_fits_no_site_alone_is_held_by_both_and_committed() -> None:
    world = World()
    process = await world.process()
    view = await process.create(order(what=spec(5)))
    assert view.record.state is ClusterState.SCHEDULED
    assert {each.site for each in view.workspaces} == {"north", "south"}
    await process.create.drain()
    assert list(world.states().values()) == [{"north": State.CONFIRMED, "south": State.CONFIRMED}]
    decision = await process.register.decision(view.record.tx)
    assert decision is not None
    assert decision.outcome is Outcome.COMMIT
    assert len(decision.receipts) == 2
    assert await process.register.transactions() == ()
    assert process.points.passed == ["after_prepare", "after_decide"]


async def test_what_sites_hold_is_what_was_planned() -> None:
    world = World()
    process = await world.process()
    view = await process.create(order(what=spec(5, mbit_s=10)))
    held = {site.name: next(iter(site.parts.values())).spec for site in (world.north, world.south)}
    labels = [each.label for part in held.values() for each in part.workspaces]
    assert sorted(labels) == sorted(each.label for each in view.workspaces)
    assert all(
        each.environment.image.startswith("b3:") for p in held.values() for each in p.workspaces
    )
    for name, part in held.items():
        assert part.window == view.record.window
        assert {each.site for each in part.networks[0].members} == {"north", "south"}
        assert [each.peer for each in part.links] == [({"north", "south"} - {name}).pop()]
        assert part.links[0].egress_mbit_s == part.links[0].ingress_mbit_s > 0
        assert len(part.host_entries) == 6


async def test_plan_only_takes_and_writes_nothing() -> None:
    world = World()
    process = await world.process(leads=False)
    view = await process.create.plan_only(order(what=spec(5)))
    assert view.record.state is ClusterState.PLANNED
    assert sum(view.record.counts().values()) == 6
    assert world.etcd.history == []
    assert world.states() == {}


async def test_a_replica_that_does_not_lead_refuses() -> None:
    world = World()
    await world.process()
    other = await world.process(leads=False)
    with pytest.raises(errors.NotLeading) as caught:
        await other.create(order())
    assert caught.value.leader == "replica-1"


async def test_the_same_request_again_gives_the_same_cluster() -> None:
    world = World()
    process = await world.process()
    first = await process.create(order())
    again = await process.create(order())
    assert again.record.uid == first.record.uid
    assert len(world.states()) == 1


async def test_a_retry_after_the_start_has_passed_gives_the_cluster_too() -> None:
    """The bug: the retry was validated before its first call was looked for, and start_time
    lay in the past by then."""
    world = World()
    process = await world.process()
    begins = replace(spec().lease, start_time=world.clock.now() + timedelta(minutes=10))
    once = order(what=replace(spec(), lease=begins))
    first = await process.create(once)
    await world.clock.advance(1800)
    assert (await process.create(once)).record.uid == first.record.uid
    with pytest.raises(errors.FieldInvalid):
        await process.create(replace(once, request_id="r2"))


async def test_the_same_request_at_once_makes_one_cluster() -> None:
    world = World()
    process = await world.process()
    calls = [asyncio.create_task(process.create(order())) for _ in range(4)]
    while not all(each.done() for each in calls):
        await asyncio.wait(calls, timeout=0.01)
        await world.clock.advance(0.2)
    assert len({each.result().record.uid for each in calls}) == 1
    assert len(world.confirmed()) == 1


async def test_the_same_request_at_once_has_one_outcome() -> None:
    """A bug: each copy was planned by itself, so that one could be refused, which says that nothing
    is held, while another went on and was committed; or say that its own name was taken."""
    world = World()
    process = await world.process()
    calls = [asyncio.create_task(process.create(order(what=spec(20)))) for _ in range(3)]
    refused = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in refused} == {errors.NoCapacity}
    planned = world.north.calls.count("offers")
    with pytest.raises(errors.NoCapacity):
        await process.create(order(what=spec(20)))
    assert world.north.calls.count("offers") == 2 * planned


async def test_the_same_request_id_with_another_body_is_refused() -> None:
    world = World()
    process = await world.process()
    await process.create(order())
    with pytest.raises(errors.RequestIdReuse):
        await process.create(order(what=spec(1)))
    with pytest.raises(errors.RequestIdReuse):
        await process.create(order(name=ClusterName(Parent("metascheds/meta", "demo"), "c2")))


async def test_the_request_id_is_the_callers_own() -> None:
    world = World(vcpus=20)
    process = await world.process()
    await process.create(order())
    other = ClusterName(Parent("metascheds/meta", "demo"), "c2")
    bob = replace(order(name=other), caller="spiffe://meta.meta.intertie/tenant/demo/user/bob")
    assert (await process.create(bob)).record.name == str(other)


async def test_a_name_in_use_is_taken() -> None:
    process = await World().process()
    await process.create(order())
    with pytest.raises(errors.NameTaken):
        await process.create(order("r2"))


async def test_a_site_that_refuses_leads_to_another_plan() -> None:
    world = World()
    world.north.hidden_vcpus = 2
    process = await world.process()
    view = await process.create(order(what=spec(3)))
    assert view.record.state is ClusterState.SCHEDULED
    assert world.north.used() + world.south.used() == 4
    assert len(world.confirmed()) == 1
    assert await process.register.transactions() == ()


@pytest.mark.parametrize("policy", [{"takes_no_lease": True}, {"quota_vcpus": 0}])
async def test_a_site_whose_policy_refuses_is_left_out_at_once(policy: dict[str, Any]) -> None:
    """A bug: it was asked for one workspace less each time, until no attempt was left."""
    world = World(vcpus=20)
    for name, value in policy.items():
        setattr(world.south, name, value)
    process = await world.process()
    view = await process.create(order(what=spec(8)))
    assert view.record.plan.site_names == ("north",)
    assert world.south.calls.count("prepare") == 1


async def test_of_a_quota_what_is_left_is_used() -> None:
    world = World(vcpus=8)
    world.south.quota_vcpus = 2
    process = await world.process()
    view = await process.create(order(what=spec(9)))
    counts = {each.site: sum(each.counts.values()) for each in view.record.plan.sites}
    assert counts == {"north": 8, "south": 2}
    assert world.south.calls.count("prepare") <= 3


async def test_where_no_plan_is_left_the_refusals_say_what_was_short() -> None:
    world = World()
    world.north.hidden_vcpus = world.south.hidden_vcpus = 2
    process = await world.process()
    with pytest.raises(errors.NoCapacity) as caught:
        await process.create(order(what=spec(8)))
    assert {each.site for each in caught.value.shortfalls} >= {"north", "south"}
    assert await process.clusters.listed() == ()
    assert await process.clusters.requests() == {}
    assert world.north.used() == world.south.used() == 0


async def test_an_error_is_not_kept_a_retry_plans_anew() -> None:
    world = World(vcpus=1)
    process = await world.process()
    with pytest.raises(errors.NoCapacity):
        await process.create(order())
    world.north.vcpus = 4
    assert (await process.create(order())).record.state is ClusterState.SCHEDULED


async def test_nothing_is_tried_more_than_four_times() -> None:
    world = World(vcpus=20)
    short = errors.NoCapacity((errors.Shortfall(site="north", resource="vcpus", wanted=1),))
    world.north.faults["prepare"] = [short] * 9
    world.south.faults["prepare"] = [short] * 9
    process = await world.process()
    with pytest.raises(errors.NoCapacity):
        await process.create(order(what=spec(9, most=15)))
    assert len((await world.etcd.range("decision/")).entries) == 4


async def test_a_group_that_a_site_may_not_run_is_not_asked_of_it_again() -> None:
    world = World(vcpus=9)
    barred = errors.Shortfall(site="north", resource="policy", group="worker", message="no")
    world.north.faults["prepare"] = [errors.NoCapacity((barred,))]
    world.south.vcpus = 8
    view = await (await world.process()).create(order(what=spec(8)))
    assert view.record.plan.count("worker", "south") == 8
    assert view.record.plan.count("head", "north") == 1
    assert len((await world.etcd.range("decision/")).entries) == 2


async def test_no_image_anywhere_is_told_as_that() -> None:
    world = World()
    world.north.images = world.south.images = {}
    with pytest.raises(errors.ImageNotReady) as caught:
        await (await world.process()).create(order())
    assert (caught.value.image, caught.value.site) == ("guest", "")


async def test_an_image_that_went_between_offer_and_prepare_means_another_site() -> None:
    world = World()
    world.north.faults["prepare"] = [errors.ImageNotReady("b3:" + "1" * 64, "north")]
    view = await (await world.process()).create(order())
    assert view.record.plan.site_names == ("south",)


async def test_a_site_that_is_down_is_planned_around() -> None:
    world = World()
    world.north.down = True
    view = await (await world.process()).create(order(what=spec(3)))
    assert view.record.plan.site_names == ("south",)
    assert any("north" in reason for reason in view.record.plan.reasons)


async def test_a_site_that_is_down_and_needed_is_what_the_caller_is_told() -> None:
    world = World()
    world.north.down = True
    with pytest.raises(errors.SiteUnreachable):
        await (await world.process()).create(order(what=spec(5)))


@pytest.mark.parametrize("method", ["prepare", "resolve"])
@pytest.mark.parametrize("fault", list(Fault))
async def test_one_lost_message_is_sent_again(method: str, fault: Fault) -> None:
    world = World()
    world.north.faults[method] = [fault]
    process = await world.process()
    view = await process.create(order(what=spec(5)))
    await world.settle(process, seconds=3)
    assert world.confirmed() == {view.record.tx}
    assert await process.register.transactions() == ()


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_site_that_stays_silent_before_the_decision_leaves_nothing(fault: Fault) -> None:
    world = World()
    world.north.faults["prepare"] = [fault] * 2
    process = await world.process()
    with pytest.raises(errors.SiteUnreachable):
        await process.create(order(what=spec(5)))
    await world.settle(process)
    world.check_all_or_nothing()
    assert world.north.used() == world.south.used() == 0
    assert await process.clusters.listed() == ()
    assert await process.register.transactions() == ()


async def slept(world: World, task: asyncio.Task[Any], seconds: float) -> None:
    """Once the task sleeps: planning is done in a thread, which no virtual clock waits for."""
    while not world.clock.sleepers and not task.done():
        await world.clock.settle()
    await world.clock.advance(seconds)


async def test_a_site_between_two_leaders_is_waited_for() -> None:
    """A bug: for the seconds after a broker was killed, all that involved its site was refused."""
    world = World()
    world.north.faults["prepare"] = [errors.NotLeading("another")] * 5
    process = await world.process()
    creating = asyncio.create_task(process.create(order(what=spec(5))))
    await slept(world, creating, 3)
    assert world.confirmed() == {(await creating).record.tx}


async def test_a_site_that_stays_without_a_leader_leaves_nothing() -> None:
    world = World()
    world.north.faults["prepare"] = [errors.NotLeading("")] * 100
    process = await world.process()
    creating = asyncio.create_task(process.create(order(what=spec(5))))
    await slept(world, creating, 9)
    with pytest.raises(errors.SiteUnreachable):
        await creating
    await world.settle(process)
    world.check_all_or_nothing()
    assert world.north.used() == world.south.used() == 0


async def test_a_site_that_was_asked_late_is_asked_again() -> None:
    """A bug: a hold that was 2 s on its way, from a leader that was killed to the next or over a
    link that broke, was refused for clocks that differ."""
    world = World()
    world.north.faults["prepare"] = [Late(2.2), Late(3.0)]
    process = await world.process()
    creating = asyncio.create_task(process.create(order(what=spec(5))))
    await slept(world, creating, 7)
    assert world.confirmed() == {(await creating).record.tx}


@pytest.mark.parametrize(
    ("late", "refused"),
    [(Late(0.1, ahead_s=2.1), errors.ClockSkew), (Late(3.0), errors.SiteUnreachable)],
    ids=["its clock is ahead", "it always is late"],
)
async def test_a_site_that_refuses_for_its_clock_leaves_nothing(
    late: Late, refused: type[errors.DomainError]
) -> None:
    world = World()
    world.north.faults["prepare"] = [late] * 100
    process = await world.process()
    creating = asyncio.create_task(process.create(order(what=spec(5))))
    await slept(world, creating, 12)
    with pytest.raises(refused):
        await creating
    await world.settle(process)
    world.check_all_or_nothing()
    assert world.north.used() == world.south.used() == 0


async def test_a_site_that_goes_silent_is_planned_around() -> None:
    world = World(vcpus=20)
    process = await world.process()
    world.north.faults["prepare"] = [Fault.LOSE_REPLY] * 2
    view = await process.create(order(what=spec(5)))
    await world.settle(process, seconds=3)
    assert view.record.plan.site_names == ("south",)
    assert world.confirmed() == {view.record.tx}
    assert world.north.used() == 0


async def test_a_site_that_is_away_after_the_decision_is_told_later() -> None:
    world = World()
    world.south.faults["resolve"] = [Fault.LOSE_REQUEST] * 5
    process = await world.process()
    view = await process.create(order(what=spec(5)))
    assert view.record.state is ClusterState.SCHEDULED
    assert world.confirmed() == set()
    for _ in range(6):
        await process.settle.sweep()
    assert world.confirmed() == {view.record.tx}
    assert await process.register.transactions() == ()


async def test_a_receipt_of_another_site_commits_nothing() -> None:
    world = World()
    process = await world.process()
    world.south.signs_as = "north"
    with pytest.raises(errors.Aborted):
        await process.create(order(what=spec(5)))
    world.check_all_or_nothing()
    assert world.north.used() == world.south.used() == 0


async def test_a_start_is_put_off_only_as_long_as_the_owner_accepts() -> None:
    world = World()
    process = await world.process()
    late = replace(spec(3), lease=replace(spec().lease, max_delay=timedelta(minutes=7)))
    view = await process.create(order(what=late))
    assert view.record.window.start == world.clock.now()


async def test_a_thousand_groups_are_refused_for_what_they_are_before_anything_is_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    process = await world.process()
    monkeypatch.setattr(planner, "solve", None)
    one = spec().groups[0]
    many = replace(
        spec(),
        groups=tuple(replace(one, name=f"g{number}") for number in range(1000)),
        networks=(Network(name="lan", subnet="10.0.0.0/16"),),
    )
    for call in (process.create.plan_only, process.create):
        with pytest.raises(errors.FieldInvalid, match=r"spec\.groups.*1000 groups"):
            await call(order(what=many))
    assert world.states() == {}
