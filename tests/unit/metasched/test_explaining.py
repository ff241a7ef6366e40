"""A request that is refused is told what it is refused for, and what it could have instead."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from intertie.common import errors
from intertie.common.explanation import CounterOffer, Explanation
from intertie.common.spec import (
    ClusterSpec,
    DiskTerm,
    GroupPlacement,
    Kind,
    LatencyBound,
    LeaseTerms,
    Placement,
)
from intertie.common.values import replace
from intertie.metasched.domain.levers import changed
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.usecases import explaining
from tests.fakes.clock import START
from tests.unit.metasched.waiting import named, queue, swept, waiting
from tests.unit.metasched.world import Process, World, order, spec

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
COUNT = "spec.groups[1].count"
VCPUS = "spec.groups[1].allocation.vcpus"


async def refused(process: Process, what: ClusterSpec) -> errors.NoCapacity:
    """By Create, and by a plan in the same words."""
    with pytest.raises(errors.NoCapacity) as planned:
        await process.create.plan_only(order("", named("plan"), what))
    with pytest.raises(errors.NoCapacity) as created:
        await process.create(order("r-refused", named("refused"), what))
    assert created.value.explanation == planned.value.explanation
    assert await process.clusters.get(str(named("refused"))) is None
    return planned.value


def fields(told: Explanation) -> list[set[str]]:
    return [{each.field for each in conflict.requirements} for conflict in told.conflicts]


def said(told: Explanation) -> dict[str, str]:
    return {each.message: ", ".join(c.value for c in each.changes) for each in told.counter_offers}


def as_asked(what: ClusterSpec, offer: CounterOffer) -> ClusterSpec:
    """The request with what is offered, read from its JSON by hand."""
    return changed(what, {each.field: _read(each.value) for each in offer.changes})


def _read(text: str) -> Any:
    value = json.loads(text)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and value.endswith("Z"):
        return datetime.fromisoformat(value).astimezone(UTC)
    if isinstance(value, str) and value[:-1].replace(".", "").isdigit():
        return timedelta(seconds=float(value[:-1]))
    return value


async def all_accepted(process: Process, what: ClusterSpec, told: Explanation) -> None:
    assert told.counter_offers
    for offer in told.counter_offers:
        view = await process.create.plan_only(order("", named("again"), as_asked(what, offer)))
        assert view.record.plan.window.start <= offer.start_time, "sooner, with a deadline"
        assert view.record.plan.cost == pytest.approx(offer.cost)


async def test_too_many_are_refused_with_how_many_could_be_had() -> None:
    process = await World().process()
    what = spec(9)
    told = (await refused(process, what)).explanation
    assert fields(told) == [{COUNT}]
    assert said(told)["7 worker instead of 9"] == "7"
    await all_accepted(process, what, told)


async def test_a_site_that_is_full_is_named_with_the_other_and_with_when() -> None:
    """North is taken for an hour; the workers may be there alone."""
    world = World()
    process = await world.process()
    at_north = GroupPlacement(allow_sites=("north",))

    def pinned(workers: int) -> ClusterSpec:
        what = spec(workers)
        return replace(what, groups=tuple(replace(e, placement=at_north) for e in what.groups))

    await process.create(order("r-first", named("first"), pinned(3)))
    await process.create.drain()
    what = spec(3)
    what = replace(what, groups=(what.groups[0], replace(what.groups[1], placement=at_north)))
    refusal = await refused(process, what)
    told = refusal.explanation
    assert fields(told) == [{"spec.groups[1].placement.allow_sites", "spec.lease.max_delay"}]
    assert all(each.enough for each in told.conflicts[0].requirements)
    offers = said(told)
    assert offers["worker at south as well"] == '["north", "south"]'
    [later] = [each for each in told.counter_offers if "later" in each.message]
    ends = world.clock.now() + HOUR
    assert ends - 2 * MINUTE <= later.start_time <= ends + MINUTE
    await all_accepted(process, what, told)
    [short] = [
        each for each in refusal.shortfalls if (each.site, each.resource) == ("north", "vcpus")
    ]
    assert (short.wanted, short.available) == (4, 0), "the head may be there too"
    assert short.until is not None
    assert short.until >= later.start_time


async def test_a_shorter_time_is_offered_where_somebody_else_comes_later() -> None:
    world = World()
    process = await world.process()
    begins = world.clock.now() + 30 * MINUTE
    booked = replace(spec(7), lease=LeaseTerms(start_time=begins, duration=HOUR))
    await process.create(order("r-first", named("first"), booked))
    what = spec(5)
    told = (await refused(process, what)).explanation
    assert "spec.lease.duration" in fields(told)[0]
    [shorter] = [each for each in told.counter_offers if each.message.startswith("for ")]
    seconds = float(json.loads(shorter.changes[0].value)[:-1])
    left = (begins - world.clock.now()).total_seconds()
    assert left - 3 <= seconds <= left
    await all_accepted(process, what, told)


@pytest.mark.parametrize(
    ("lease", "field"),
    [
        (LeaseTerms(kind=Kind.DEADLINE, duration=HOUR, deadline=START + 90 * MINUTE), "deadline"),
        (LeaseTerms(start_time=START + 10 * MINUTE, duration=HOUR), "start_time"),
        (LeaseTerms(start_time=START + 10 * MINUTE, end_time=START + 70 * MINUTE), "start_time"),
        (LeaseTerms(duration=HOUR, max_delay=20 * MINUTE), "max_delay"),
    ],
)
async def test_the_time_is_named_by_the_field_that_says_it(lease: LeaseTerms, field: str) -> None:
    world = World()
    process = await world.process()
    first = replace(spec(7), lease=LeaseTerms(duration=2 * HOUR))
    await process.create(order("r-first", named("first"), first))
    what = replace(spec(3), lease=lease)
    told = (await refused(process, what)).explanation
    assert any(f"spec.lease.{field}" in each for each in fields(told))
    [later] = [each for each in told.counter_offers if "later" in each.message]
    ends = START + 2 * HOUR
    assert ends <= later.start_time <= ends + MINUTE
    await all_accepted(process, what, told)


async def test_a_narrow_link_and_a_far_one_are_offered_what_they_have() -> None:
    process = await World().process()
    pinned = [GroupPlacement(allow_sites=(name,)) for name in ("north", "south")]

    def over_both(what: ClusterSpec) -> ClusterSpec:
        placed = zip(what.groups, pinned, strict=True)
        return replace(what, groups=tuple(replace(g, placement=p) for g, p in placed))

    what = over_both(spec(2, mbit_s=60))
    told = (await refused(process, what)).explanation
    pair = "spec.groups[1].allocation.pairs[0].bandwidth.guarantee_mbit_s"
    assert any(pair in each for each in fields(told))
    assert said(told)["50 Mbit/s instead of 60 between each worker and each head on lan"] == "50"
    assert said(told)["1 worker instead of 2"] == "1"
    await all_accepted(process, what, told)

    what = over_both(spec(2))
    near = LatencyBound(groups=("head", "worker"), max_latency=timedelta(milliseconds=2))
    what = replace(what, networks=(replace(what.networks[0], latency=(near,)),))
    told = (await refused(process, what)).explanation
    assert any("spec.networks[0].latency[0].max_latency" in each for each in fields(told))
    assert said(told)["5 ms instead of 2 ms between head and worker on lan"] == '"0.005s"'
    await all_accepted(process, what, told)


async def test_bounds_on_sites_are_offered_the_least_that_does() -> None:
    process = await World().process()
    what = replace(spec(5), placement=Placement(max_sites=1))
    told = (await refused(process, what)).explanation
    assert any("spec.placement.max_sites" in each for each in fields(told))
    assert said(told)["at most 2 sites in all instead of 1"] == "2"
    assert said(told)["3 worker instead of 5"] == "3"
    await all_accepted(process, what, told)


async def test_a_disk_gets_what_it_can_promise() -> None:
    process = await World().process()
    what = spec(1)
    fast = replace(what.groups[0].allocation, disk=DiskTerm(guarantee_iops=20000))
    what = replace(what, groups=(replace(what.groups[0], allocation=fast), what.groups[1]))
    told = (await refused(process, what)).explanation
    assert fields(told) == [{"spec.groups[0].allocation.disk.cap_iops"}]
    message = "10000 operations a second of disk instead of 20000 for each head"
    assert said(told)[message] == "10000, 10000"
    await all_accepted(process, what, told)


async def test_two_causes_are_offered_a_change_of_both() -> None:
    process = await World().process()
    what = spec(1)
    large = replace(what.groups[0].allocation, memory_mib=70000)
    fast = replace(what.groups[1].allocation, vcpus=5)
    groups = [replace(g, allocation=a) for g, a in zip(what.groups, (large, fast), strict=True)]
    what = replace(what, groups=tuple(groups))
    told = (await refused(process, what)).explanation
    assert sorted(map(sorted, fields(told))) == [["spec.groups[0].allocation.memory_mib"], [VCPUS]]
    assert all(each.enough for c in told.conflicts for each in c.requirements)
    message = (
        "65536 MiB of memory instead of 70000 for each head and 4 vCPU instead of 5 for each worker"
    )
    assert said(told) == {message: "65536, 4"}
    await all_accepted(process, what, told)


async def test_a_start_is_offered_when_others_have_given_way() -> None:
    world = World()
    process = await world.process()
    await queue(process, waiting(7, hours=2))
    await swept(world, process)
    world.north.saves_in = world.south.saves_in = timedelta(seconds=40)
    start = world.clock.now() + timedelta(seconds=12)
    what = replace(spec(5), lease=LeaseTerms(start_time=start, duration=HOUR))
    told = (await refused(process, what)).explanation
    [later] = [each for each in told.counter_offers if "later" in each.message]
    assert "once leases have given way that may have to at north and south" in later.message
    assert later.start_time < start + MINUTE
    await all_accepted(process, what, told)


async def test_one_that_waits_is_told_what_its_sites_never_have() -> None:
    process = await World().process()
    what = waiting(9)
    told = (await refused(process, what)).explanation
    assert fields(told) == [{COUNT}]
    assert said(told)["7 worker instead of 9"] == "7"
    assert not any("later" in each.message for each in told.counter_offers)
    view = await process.create.plan_only(
        order("", named("again"), as_asked(what, told.counter_offers[0]))
    )
    assert view.record.plan.reasons


async def test_what_is_refused_by_a_bound_on_who_waits_is_not_explained() -> None:
    process = await World(queue_policy=QueuePolicy(queued_leases=0)).process()
    with pytest.raises(errors.NoCapacity) as error:
        await process.create(order("r", named("one"), waiting(1)))
    assert not error.value.explanation


async def test_where_there_is_too_much_to_do_a_refusal_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = await World().process()
    monkeypatch.setattr(explaining, "WAITING", 0)
    results = await asyncio.gather(
        *(process.create.plan_only(order("", named(f"n{number}"), spec(9))) for number in range(3)),
        return_exceptions=True,
    )
    explained = [bool(each.explanation) for each in results if isinstance(each, errors.NoCapacity)]
    assert len(explained) == 3
    assert 1 <= sum(explained) < 3
    assert all(each.shortfalls for each in results if isinstance(each, errors.NoCapacity))


async def test_who_waits_and_who_does_not_are_explained_one_after_another() -> None:
    """A bug: each kind had its own turn, so two were explained at a time."""
    process = await World().process()
    assert process.queue._line._explaining is process.create._explaining


async def test_all_that_grows_with_what_sites_offer_is_done_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug: with 100 sites, to compare their offers and to find when there is room kept everybody
    from being answered for a second."""
    process = await World().process()
    threads: dict[str, list[int]] = {}

    def watched(name: str) -> None:
        done = getattr(explaining, name)

        def watching(*args: Any, **options: Any) -> Any:
            threads.setdefault(name, []).append(threading.get_ident())
            return done(*args, **options)

        monkeypatch.setattr(explaining, name, watching)

    for name in ("why_not", "instead"):
        watched(name)
    with pytest.raises(errors.NoCapacity):
        await process.create.plan_only(order("", named("plan"), spec(9)))
    assert len(threads) == 2
    assert not any(threading.get_ident() in each for each in threads.values())
