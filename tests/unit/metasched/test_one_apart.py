"""What is wrong with one cluster keeps no other from its turn, and what is too large for a step
that it may have to take is refused before it begins."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.errors import Shortfall
from intertie.common.spec import ClusterSpec
from intertie.common.term_rules import MAX_USER_DATA
from intertie.common.terms import Contextualization
from intertie.common.values import replace
from intertie.metasched.domain import planned
from intertie.metasched.domain.cluster import ClusterState
from intertie.metasched.domain.commit import TxRecord
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.usecases.fits_aside import FitsAside
from tests.unit.metasched.waiting import filled, looked, named, queue, record_of, swept, waiting
from tests.unit.metasched.world import NAME, Process, World, order


def large(workers: int) -> ClusterSpec:
    """Each site is told what the user says to each of its guests."""
    what = waiting(workers)
    said = Contextualization(user_data=b"#" * MAX_USER_DATA)
    head, worker = what.groups
    environment = replace(worker.environment, contextualization=said)
    return replace(what, groups=(head, replace(worker, environment=environment)))


async def both_recalled(monkeypatch: pytest.MonkeyPatch) -> tuple[World, Process]:
    """One, which comes first, that a release before this one has let begin, and is too large."""
    monkeypatch.setattr(FitsAside, "check", lambda *_, **__: None)
    world = World(vcpus=100)
    process = await world.process()
    await queue(process, large(80), "big")
    await queue(process, waiting(), "small")
    for _ in range(2):
        await swept(world, process)
        world.boot()
    world.north.recall(world.clock.now())
    world.south.recall(world.clock.now())
    return world, process


async def test_one_that_is_too_large_keeps_no_other_from_being_put_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: each pass ended at it."""
    world, process = await both_recalled(monkeypatch)
    await looked(world, process)
    assert (await record_of(process, named("big"))).state is ClusterState.ACTIVE
    assert (await record_of(process, named("small"))).state is ClusterState.SUSPENDED


async def test_what_is_wrong_with_the_store_ends_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _, process = await both_recalled(monkeypatch)
    asked: list[str] = []

    async def away(tx: TxRecord, *_: Any, **__: Any) -> int:
        asked.append(tx.cluster)
        raise errors.EtcdUnavailable("away")

    monkeypatch.setattr(process.register, "begin_amend", away)
    with pytest.raises(errors.EtcdUnavailable):
        await process.aside.sweep()
    assert asked == [str(named("big"))]


async def test_what_could_not_be_put_aside_is_refused_at_once() -> None:
    """A bug: it ran, and could be put aside at none of its sites."""
    world = World(vcpus=100)
    process = await world.process()
    for call in (process.create, process.create.plan_only):
        with pytest.raises(errors.FieldInvalid) as invalid:
            await call(order("r", NAME, large(80)))
        assert invalid.value.field == "spec"
        assert "give them less user data" in str(invalid.value)
    assert await process.clusters.listed() == ()


async def test_one_that_is_too_large_by_the_plan_that_it_would_run_by_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(vcpus=100)
    process = await world.process()
    with monkeypatch.context() as before:
        before.setattr(FitsAside, "check", lambda *_, **__: None)
        await queue(process, large(80))
    for _ in range(5):
        await swept(world, process)
    assert "prepare" not in world.north.calls + world.south.calls
    record = await record_of(process)
    assert record.state is ClusterState.QUEUED
    assert "kB in a ledger" in record.plan.reasons[0]


async def test_the_largest_that_is_taken_is_put_aside_and_goes_on() -> None:
    world = World(vcpus=100)
    process = await world.process()
    for workers in range(70, 50, -1):
        try:
            await queue(process, large(workers))
            break
        except errors.FieldInvalid:
            continue
    else:
        raise AssertionError("none is taken")
    await swept(world, process)
    assert (await record_of(process)).state is ClusterState.SCHEDULED
    world.boot()
    await swept(world, process)
    world.north.recall(world.clock.now())
    world.south.recall(world.clock.now())
    await looked(world, process)
    assert (await record_of(process)).state is ClusterState.SUSPENDED
    await looked(world, process, times=3)
    record = await record_of(process)
    assert (record.state, record.terms) == (ClusterState.SCHEDULED, 2)


@pytest.mark.parametrize("step", ["gives up", "tells"])
async def test_one_that_cannot_be_written_keeps_no_other_in_the_queue(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world = World()
    process = await world.process()
    await filled(world, process, hours=9)
    for name in ("a", "b"):
        await queue(process, waiting(max_wait=timedelta(minutes=3)), name)
    if step == "gives up":
        await world.clock.advance(200)
    save = process.clusters.save

    async def picky(record: Any, **options: Any) -> int:
        if record.name == str(named("a")):
            raise errors.FieldInvalid("spec", "takes too much")
        return await save(record, **options)

    monkeypatch.setattr(process.clusters, "save", picky)
    await process.queue.sweep()
    record = await record_of(process, named("b"))
    if step == "gives up":
        assert record.state is ClusterState.FAILED
    else:
        assert record.plan.shortfalls


async def test_one_whose_plan_is_unsound_keeps_no_other_from_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: the pass ended at it, each time, and nobody behind it ever began."""
    world = World()
    process = await world.process()
    for name, workers in (("a", 2), ("b", 1)):
        await queue(process, waiting(workers), name)
        await world.clock.advance(1)

    def broken(_: Problem, plan: Plan) -> tuple[Shortfall, ...]:
        large = sum(each for site in plan.sites for each in site.counts.values()) == 3
        return (Shortfall(site="north", resource="vcpus"),) if large else ()

    monkeypatch.setattr(planned, "check", broken)
    await swept(world, process)
    record = await record_of(process, named("a"))
    assert record.state is ClusterState.QUEUED
    assert record.plan.reasons[0] == "its meta-scheduler could not plan it"
    assert (await record_of(process, named("b"))).state is ClusterState.SCHEDULED


async def test_one_that_cannot_be_settled_keeps_no_other_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    process = await world.process()
    settle = process.register.settle

    async def picky(tx: TxRecord, **options: Any) -> None:
        if tx.cluster == str(named("a")):
            raise errors.StaleWrite(tx.tx)
        await settle(tx, **options)

    monkeypatch.setattr(process.register, "settle", picky)
    for name in ("a", "b"):
        await queue(process, waiting(1), name)
    await swept(world, process)
    await process.delete(str(named("b")))
    await process.settle.sweep()
    ending = {
        part.spec.cluster: part.ending
        for site in world.sites.by_name.values()
        for part in site.parts.values()
    }
    assert ending == {str(named("a")): False, str(named("b")): True}
