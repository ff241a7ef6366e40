"""Plans to choose from: what is told, and what becomes of the one that is accepted."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.names import ClusterName, Parent
from intertie.common.spec import GroupPlacement, Kind, LeaseTerms
from intertie.common.values import replace
from intertie.metasched.adapters.etcd_plans import EtcdPlans
from intertie.metasched.domain.alternatives import Merit
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Offer
from intertie.metasched.domain.told_plan import ToldPlan
from intertie.metasched.usecases.brief import HOLD_WITHIN
from intertie.metasched.usecases.order import Order
from intertie.metasched.usecases.plan_cluster import Option, accepted
from intertie.metasched.usecases.update_cluster import UpdateOrder
from tests.fakes.clock import START
from tests.fakes.part import State
from tests.unit.metasched.waiting import named, queue, swept, waiting
from tests.unit.metasched.world import ALICE, NAME, Process, World, order, spec

E, C, L, R = Merit.EARLIEST, Merit.CHEAPEST, Merit.MOST_LOCAL, Merit.MOST_RELIABLE
FOUR = spec(3)
"""A head and three workers: for one site by the planner's objective, and for two if it is to lose
as little as can be."""


@dataclass
class Told:
    options: tuple[Option, ...]

    def by(self, merit: Merit) -> Option:
        return next(each for each in self.options if merit in each.merits)


async def told(process: Process, what: Order | None = None) -> Told:
    return Told(await process.plan(what or order("", what=FOUR)))


def accepting(option: Option, request_id: str = "r1") -> Order:
    return replace(order(request_id, what=FOUR), plan_token=option.token)


def workers(plan: Plan) -> dict[str, int]:
    return {each.site: each.counts.get("worker", 0) for each in plan.sites}


async def test_there_is_a_choice_and_nothing_is_taken_for_it() -> None:
    world = World()
    process = await world.process()
    first, spread = (await told(process)).options
    assert (first.merits, list(workers(first.plan).values())) == ((E, C, L), [3])
    assert spread.merits == (R,)
    assert sorted(workers(spread.plan).values()) == [1, 2]
    assert first.gives_way == spread.gives_way == ()
    assert first.token != spread.token
    assert first.accept_before == world.clock.now() + timedelta(minutes=5)
    assert world.states() == {}
    assert [op.key.split("/")[0] for ops in world.etcd.history for op in ops if "plan" in op.key]


async def test_what_is_told_is_forgotten_by_etcd_itself() -> None:
    world = World()
    process = await world.process()
    await told(process)
    assert world.etcd.granted == [301]
    kept = [op for ops in world.etcd.history for op in ops if op.key.startswith("plans/demo/")]
    assert [getattr(op, "lease", 0) for op in kept] == [1, 1]


async def test_the_plan_that_is_accepted_is_held_as_it_was_told() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(R)
    planned = world.north.calls.count("offers")
    view = await process.create(accepting(option))
    assert view.record.state is ClusterState.SCHEDULED
    assert workers(view.record.plan) == workers(option.plan)
    assert view.record.window == option.plan.window
    assert view.record.plan.reasons == option.plan.reasons
    assert world.north.calls.count("offers") == planned, "it was planned again"
    await process.create.drain()
    assert list(world.states().values()) == [{"north": State.CONFIRMED, "south": State.CONFIRMED}]


async def test_sites_are_bound_to_how_it_is_spread_over_hosts() -> None:
    """And what an Update adds is, too."""
    world = World(vcpus=9)
    process = await world.process()
    option = (await told(process)).by(R)
    bound = replace(option.plan, max_per_host={"worker": 1})
    stored = await process.plans.get("demo", option.token)
    assert stored is not None
    await process.plans.keep("demo", {"e" * 32: replace(stored, plan=bound)}, timedelta(minutes=5))
    await process.create(replace(accepting(option), plan_token="e" * 32))
    assert on_host(world) == {("head", 0), ("worker", 1)}
    await process.create.drain()
    six = UpdateOrder(
        name=str(NAME),
        spec=spec(7),
        paths=("spec.groups",),
        etag="",
        caller=ALICE,
        request_id="u1",
    )
    with pytest.raises(errors.NoCapacity):  # two more, one on the one host of each
        await process.update(six)
    await process.update(replace(six, spec=spec(4), request_id="u2"))
    await process.update.drain()
    assert on_host(world) == {("head", 0), ("worker", 1)}


def on_host(world: World) -> set[tuple[str, int]]:
    """How many of each group sites may have on one host."""
    return {
        (each.group, each.max_per_host)
        for site in (world.north, world.south)
        for part in site.parts.values()
        for each in part.spec.workspaces
    }


async def test_any_replica_tells_plans_and_any_that_leads_takes_what_another_told() -> None:
    world = World()
    leader = await world.process()
    option = (await told(await world.process(leads=False))).by(R)
    view = await leader.create(accepting(option))
    assert workers(view.record.plan) == workers(option.plan)


async def test_what_went_to_another_meanwhile_is_refused_and_nothing_is_held() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(E)
    other = ClusterName(Parent("metascheds/meta", "demo"), "c2")
    await process.create(order("r2", other, spec(1)))
    await process.create.drain()
    before = world.states()
    asked = world.north.calls.count("prepare") + world.south.calls.count("prepare")
    with pytest.raises(errors.PlanStale) as caught:
        await process.create(accepting(option))
    after = world.north.calls.count("prepare") + world.south.calls.count("prepare")
    assert after == asked + 1, "once"
    assert {(each.site, each.resource) for each in caught.value.shortfalls} == {
        (option.plan.site_names[0], "vcpus")
    }
    assert world.states().items() >= before.items()
    assert world.confirmed() == set(before)
    assert await process.clusters.get(str(NAME)) is None
    assert {each.cluster for each in (await process.clusters.requests()).values()} == {str(other)}
    again = await process.create(order(what=FOUR))
    assert again.record.state is ClusterState.SCHEDULED, "planned anew, there is room"


async def test_a_site_that_does_not_answer_is_no_reason_to_plan_again() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(R)
    world.south.down = True
    with pytest.raises(errors.SiteUnreachable):
        await process.create(accepting(option))
    world.south.down = False
    assert workers((await process.create(accepting(option))).record.plan) == workers(option.plan)


async def test_at_a_higher_price_than_was_told_it_is_not_taken() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(E)
    world.north.asks = world.south.asks = 7.5
    with pytest.raises(errors.PlanStale, match=r"ask 7\.5 by now, and 0 was told"):
        await process.create(accepting(option))
    assert world.confirmed() == set()
    assert await process.clusters.get(str(NAME)) is None


async def test_the_same_request_again_has_the_same_answer_after_its_time_too() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(R)
    first = await process.create(accepting(option))
    await world.clock.advance(600)
    again = await process.create(accepting(option))
    assert again.record.uid == first.record.uid
    with pytest.raises(errors.RequestIdReuse):
        await process.create(order(what=FOUR))


async def test_when_its_time_is_over_it_is_not_accepted_any_more() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(R)
    await world.clock.advance(300)
    with pytest.raises(errors.FieldInvalid) as caught:
        await process.create(accepting(option))
    assert caught.value.field == "plan_token"
    assert "plan again" in caught.value.problem


async def test_accepted_later_it_begins_then_and_lasts_as_long() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(R)
    await world.clock.advance(200)
    view = await process.create(accepting(option))
    assert view.record.window.start == world.clock.now()
    assert view.record.window.duration == timedelta(hours=1)


@pytest.mark.parametrize("token", ["f" * 32, "x", "../requests/a", "0" * 33])
async def test_a_token_that_nobody_was_told_is_of_no_plan(token: str) -> None:
    process = await World().process()
    await told(process)
    with pytest.raises(errors.FieldInvalid) as caught:
        await process.create(replace(order(what=FOUR), plan_token=token))
    assert caught.value.field == "plan_token"


async def test_what_is_no_token_is_not_looked_for() -> None:
    """It may be as long as a message can be."""

    class NotAsked(EtcdPlans):
        async def get(self, tenant: str, token: str) -> ToldPlan | None:
            raise AssertionError

    asked = replace(order(what=FOUR), plan_token="0" * 1_000_000)
    with pytest.raises(errors.FieldInvalid):
        await accepted(NotAsked(World().etcd), asked, now=START)


async def test_the_plan_of_another_tenant_is_of_no_plan() -> None:
    """It is not said that there is one."""
    process = await World().process()
    option = (await told(process)).by(E)
    theirs = ClusterName(Parent("metascheds/meta", "other"), "c1")
    with pytest.raises(errors.FieldInvalid, match="of no plan that may be accepted"):
        await process.create(replace(accepting(option), name=theirs))


async def test_the_plan_of_another_request_is_not_accepted() -> None:
    process = await World().process()
    option = (await told(process)).by(E)
    for other in (
        replace(accepting(option), spec=spec(2)),
        replace(accepting(option), name=ClusterName(Parent("metascheds/meta", "demo"), "c2")),
    ):
        with pytest.raises(errors.FieldInvalid, match="for another request"):
            await process.create(other)


async def test_the_plan_only_of_a_token_is_that_plan() -> None:
    world = World()
    process = await world.process()
    option = (await told(process)).by(R)
    view = await process.create.plan_only(accepting(option))
    assert view.record.state is ClusterState.PLANNED
    assert workers(view.record.plan) == workers(option.plan)
    assert world.states() == {}


async def test_what_fits_nowhere_is_refused_and_explained() -> None:
    process = await World().process()
    with pytest.raises(errors.NoCapacity) as caught:
        await process.plan(order("", what=spec(20)))
    assert caught.value.explanation.conflicts


async def test_of_a_lease_that_runs_when_it_can_there_is_nothing_to_choose() -> None:
    process = await World().process()
    lease = LeaseTerms(duration=timedelta(hours=1), kind=Kind.BEST_EFFORT)
    with pytest.raises(errors.FieldInvalid) as caught:
        await process.plan(order("", what=replace(FOUR, lease=lease)))
    assert caught.value.field == "spec.lease.kind"


async def test_where_the_store_is_short_of_room_no_plans_are_told() -> None:
    world = World()
    process = await world.process()
    world.room.short = True
    with pytest.raises(errors.LedgerFull):
        await process.plan(order("", what=FOUR))


async def accepted_by_a_deadline(world: World) -> ClusterRecord:
    """An hour within four, by the plan that loses the least with a site."""
    process = await world.process()
    lease = LeaseTerms(
        duration=timedelta(hours=1),
        kind=Kind.DEADLINE,
        deadline=world.clock.now() + timedelta(hours=4),
    )
    what = order(what=replace(FOUR, lease=lease))
    option = (await told(process, what)).by(R)
    view = await process.create(replace(what, plan_token=option.token))
    assert workers(view.record.plan) == workers(option.plan)
    return view.record


async def test_one_with_a_deadline_is_promised_room_to_go_on_when_it_is_accepted() -> None:
    record = await accepted_by_a_deadline(World())
    assert record.plan.promised is not None
    assert record.waits is not None


async def test_a_room_to_go_on_that_sites_do_not_promise_does_not_cost_the_plan() -> None:
    world = World()
    world.north.unpromised_vcpus = world.south.unpromised_vcpus = 4
    assert (await accepted_by_a_deadline(world)).plan.promised is None


async def test_who_gives_way_is_told_and_that_nobody_does() -> None:
    """One site has a lease of 3 of 4 that gives way at once."""
    world = World()
    process = await world.process()
    await queue(process, waiting(2, hours=2))
    await swept(world, process)
    full = next(site for site in (world.north, world.south) if site.used())
    assert full.used() == 3
    full.saves_in = timedelta()
    what = order("", named("urgent"), spec(6))
    (option,) = await process.plan(what)
    assert [
        (each.site, each.resource, each.wanted, each.available) for each in option.gives_way
    ] == [(full.name, "vcpus", sum(_at(option.plan, full.name).values()), 1)]
    away = GroupPlacement(deny_sites=(full.name,))
    groups = tuple(replace(each, placement=away) for each in spec(2).groups)
    found = await process.plan(order("", named("urgent"), replace(spec(2), groups=groups)))
    assert all(each.gives_way == () for each in found)


async def test_what_begins_when_others_are_saved_is_put_off_by_as_long_as_it_was_waited() -> None:
    """A bug to be: accepted two minutes later, they could not have been saved any more by the
    moment that was told."""
    world = World()
    process = await world.process()
    await queue(process, waiting(7, hours=2))
    await swept(world, process)
    world.north.saves_in = world.south.saves_in = timedelta(seconds=30)
    what = order("r2", named("urgent"), spec(5))
    option = (await process.plan(what))[0]
    lead = option.plan.window.start - world.clock.now()
    assert lead == timedelta(seconds=30) + HOLD_WITHIN
    assert {each.site for each in option.gives_way} == {"north", "south"}
    await world.clock.advance(120)
    view = await process.create(replace(what, plan_token=option.token))
    assert view.record.window.start == world.clock.now() + lead
    assert workers(view.record.plan) == workers(option.plan)


async def test_a_site_that_does_not_say_what_is_free_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else others would be put aside that nobody had told of."""
    world = World()
    process = await world.process()
    offers = world.sites.offers

    async def silent(site: str, *asked: Any, before_others: bool = False) -> tuple[Offer, ...]:
        if not before_others:
            raise errors.SiteUnreachable(site, "it is down")
        return await offers(site, *asked, before_others=before_others)

    monkeypatch.setattr(world.sites, "offers", silent)
    with pytest.raises(errors.SiteUnreachable):
        await told(process)


def _at(plan: Plan, site: str) -> dict[str, int]:
    return dict(next(each.counts for each in plan.sites if each.site == site))
