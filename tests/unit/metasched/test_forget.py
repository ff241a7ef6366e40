"""Decisions are forgotten once no participant can ask for them, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intertie.common import errors
from intertie.metasched.domain.commit import Outcome, Settled
from intertie.metasched.domain.register import KEPT, forgettable
from tests.fakes.clock import START
from tests.fakes.crashing import CrashPlan
from tests.fakes.part import State
from tests.unit.metasched.test_crashes import STEPS, crashed_at
from tests.unit.metasched.world import NAME, Process, World, order, spec

HOUR = timedelta(hours=1)


def settled(tx: str, *, at: int = 0, until: int = 1, uid: str = "u1") -> Settled:
    return Settled(
        tx=tx, cluster_uid=uid, settle_time=START + at * HOUR, until=START + until * HOUR
    )


def names(
    found: Sequence[Settled], now: datetime, *, clusters: Any = (), unsettled: Any = ()
) -> list[str]:
    return [each.tx for each in forgettable(found, clusters=clusters, unsettled=unsettled, now=now)]


def test_it_is_kept_for_its_window_and_a_day_more() -> None:
    due = START + HOUR + KEPT
    assert names([settled("t1")], due) == ["t1"]
    assert names([settled("t1")], due - timedelta(seconds=1)) == []
    # A site that was away for long has answered late.
    assert names([settled("t1", at=5)], due) == []
    assert names([settled("t1", at=5)], due + 4 * HOUR) == ["t1"]


def test_of_a_cluster_on_record_or_unsettled_nothing_is_forgotten() -> None:
    late = START + 100 * HOUR
    assert names([settled("t1")], late, clusters={"u1"}) == []
    assert names([settled("t1")], late, unsettled={"u1"}) == []
    assert names([settled("t1")], late, clusters={"u2"}, unsettled={"u3"}) == ["t1"]


def test_decisions_of_one_cluster_go_together() -> None:
    """It was extended: what its first parts were begun by may be asked for as long."""
    both = [settled("t1"), settled("t2", until=9), settled("t3", uid="u2")]
    assert names(both, START + HOUR + KEPT) == ["t3"]
    assert names(both, START + 9 * HOUR + KEPT) == ["t1", "t2", "t3"]


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from(["u1", "u2"])), max_size=6
    ),
    st.integers(0, 90),
    st.sets(st.sampled_from(["u1", "u2"])),
)
def test_whatever_there_is_none_goes_before_its_own_time(
    found: list[tuple[int, int, str]], hours: int, clusters: set[str]
) -> None:
    records = [
        settled(f"t{number}", at=at, until=until, uid=uid)
        for number, (at, until, uid) in enumerate(found)
    ]
    now = START + hours * HOUR
    gone = set(names(records, now, clusters=clusters))
    for each in records:
        due = max(each.until, each.settle_time) + KEPT
        assert each.tx not in gone or (now >= due and each.cluster_uid not in clusters)
        assert now < START + 50 * HOUR + KEPT or each.cluster_uid in clusters or each.tx in gone


async def pass_time(world: World, process: Process, hours: float) -> None:
    for _ in range(int(hours)):
        await world.settle(process)
        await process.forget.sweep()
        await world.clock.advance(3600)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, STEPS + 2))
async def test_after_a_crash_at_any_step_all_of_it_is_forgotten_in_the_end(
    step: int, after: bool
) -> None:
    """And while any site could be in doubt, what was decided stands."""
    world = World()
    await crashed_at(step, after=after, world=world)
    successor = await world.process()
    await world.settle(successor)
    decided = {tx: await successor.register.decision(tx) for tx in world.states()}
    world.boot()
    await pass_time(world, successor, 20)
    for tx, decision in decided.items():
        assert decision is not None
        assert await successor.register.decision(tx) == decision
    await pass_time(world, successor, 40)
    world.check_all_or_nothing()
    assert await successor.register.settled() == ()
    assert await successor.clusters.listed() == ()
    for tx, decision in decided.items():
        # One that crashed before its record was written is known by the site's ABORT alone.
        assert decision is not None
        known = decision.decided_by == "spiffe://meta.meta.intertie/metasched"
        assert (await successor.register.decision(tx) is None) == known
    assert not any(site.in_doubt() for site in world.sites.by_name.values())


async def test_a_part_that_comes_late_is_told_again_that_it_was_aborted() -> None:
    """Its HOLD was on its way for longer than the ABORT was kept."""
    world = World()
    process = await world.process()
    await process.create(order(what=spec(5)))
    await process.create.drain()
    [tx] = world.states()
    await process.delete(str(NAME))
    await pass_time(world, process, 60)
    assert await process.register.decision(tx) is None
    stands = await process.decisions.resolve("t9", caller="broker", site="north", reason="late")
    assert stands.outcome is Outcome.ABORT


async def test_what_another_call_kept_from_being_begun_is_forgotten_too() -> None:
    """A bug: its ABORT was kept for ever, as its transaction was not on record when it was told."""
    world = World()
    process = await world.process()
    both = [process.create(order(f"r{number}", what=spec(2))) for number in (1, 2)]
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert sum(isinstance(each, errors.NameTaken) for each in answers) == 1
    await process.create.drain()
    assert len((await world.etcd.range("decision/")).entries) == 2
    await process.delete(str(NAME))
    await pass_time(world, process, 60)
    assert (await world.etcd.range("decision/")).entries == ()


async def test_while_a_site_has_not_answered_its_decision_stands() -> None:
    world = World()
    plan = CrashPlan(at=5, after=True)  # one of two sites was told
    process = await world.process(plan)
    await asyncio.wait([asyncio.ensure_future(process.create(order(what=spec(5))))])
    successor = await world.process()
    [(tx, states)] = world.states().items()
    assert sorted(state.name for state in states.values()) == ["CONFIRMED", "PREPARED"]
    for _ in range(80):
        await successor.forget.sweep()
        await world.clock.advance(3600)
    decision = await successor.register.decision(tx)
    assert decision is not None
    assert decision.outcome is Outcome.COMMIT
    await successor.settle.sweep()
    assert set(world.states()[tx].values()) == {State.CONFIRMED}
