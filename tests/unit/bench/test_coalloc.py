"""The bench of co-allocation on few requests: what is drawn, what is promised in its worlds, and
what is said to be a bound."""

import json
import sys
from itertools import pairwise

import pytest

from bench import coalloc
from bench.coalloc_bound import Bound
from bench.coalloc_greedy import beside_one_another, first_fit, one_after_another
from bench.coalloc_requests import LOAD, TOPOLOGIES, Scenario, scenario
from bench.coalloc_world import EPOCH, SLOT, World
from intertie.common.values import replace
from intertie.metasched.domain.plan import check
from intertie.metasched.domain.planner import best_plan

pytest.importorskip("topohub")
SITES = 5


@pytest.fixture(scope="module")
def given() -> Scenario:
    return scenario(TOPOLOGIES[SITES], requests=12, seed=7)


@pytest.fixture(scope="module")
def done(given: Scenario) -> dict[str, coalloc.Done]:
    return coalloc.placed(given, coalloc.ways(0.2))


@pytest.mark.parametrize("sites", TOPOLOGIES)
def test_topologies_have_as_many_sites_and_all_reach_all(sites: int) -> None:
    drawn = scenario(TOPOLOGIES[sites], requests=1, seed=1)
    reached, line = {drawn.places[0].name}, [drawn.places[0].name]
    while line:
        here = line.pop()
        for wire in drawn.wires:
            if here in (wire.one, wire.two):
                there = wire.two if here == wire.one else wire.one
                line += [there] if there not in reached else []
                reached.add(there)
    assert len(reached) == len(drawn.places) == sites


def test_a_seed_draws_the_same_again_and_another_does_not(given: Scenario) -> None:
    assert scenario(TOPOLOGIES[SITES], requests=12, seed=7) == given
    assert scenario(TOPOLOGIES[SITES], requests=12, seed=8).requests != given.requests


def test_what_is_scarcest_is_asked_for_at_the_load_that_is_said(given: Scenario) -> None:
    assert max(given.loads.values()) == pytest.approx(LOAD)
    arrivals = [each.arrives_s for each in given.requests]
    assert arrivals == sorted(arrivals)
    assert len(given.requests) == given.filling + 12
    assert all(any(item.at for item in each.items) for each in given.requests)


def test_a_world_offers_windows_up_to_the_longest_delay_and_the_time_between(
    given: Scenario,
) -> None:
    request = given.requests[0]
    found = World(given).problem(request)
    starts = [each.start for each in found.windows]
    assert (starts[0] - EPOCH).total_seconds() == pytest.approx(request.arrives_s)
    assert starts[-1] - starts[0] == request.most_delay
    assert max(b - a for a, b in pairwise(starts)) <= SLOT
    assert [each.start for each in found.spans] == starts[:-1]
    assert [each.end for each in found.spans] == starts[1:]


def test_what_is_taken_is_not_offered_until_it_ends(given: Scenario) -> None:
    request, world = given.requests[0], World(given)
    found = world.problem(request)
    plan = best_plan(found)
    assert plan is not None
    world.take(request, plan)
    assert not world.overfull()
    beside = world.problem(replace(request, name="beside"))
    slot = found.windows.index(plan.window)
    for each in plan.sites:
        for before, after in zip(
            found.site(each.site).offers[slot].hosts,
            beside.site(each.site).offers[slot].hosts,
            strict=True,
        ):
            assert after.free <= before.free
    taken = beside.sites != found.sites
    later = request.arrives_s + (plan.window.end - found.windows[0].start).total_seconds()
    over = world.problem(replace(request, name="after", arrives_s=later))
    empty = World(given).problem(replace(request, name="after", arrives_s=later))
    assert taken
    assert over == empty


def test_what_takes_too_much_is_seen(given: Scenario) -> None:
    request, world = given.requests[0], World(given)
    plan = best_plan(world.problem(request))
    assert plan is not None
    for number in range(40):
        world.take(replace(request, name=f"again{number}"), plan)
    assert world.overfull()


def test_all_plans_are_sound_in_a_world_that_holds(done: dict[str, coalloc.Done]) -> None:
    for each in done.values():
        assert each.accepted
        assert (each.unsound, each.world.overfull()) == (0, False)


def test_the_planner_is_never_better_than_the_bound(done: dict[str, coalloc.Done]) -> None:
    for each in done["planner"].answers:
        if each.plan is None:
            continue
        assert each.bound_s is not None
        assert each.delay_s >= each.bound_s - 1e-3
        assert each.plan.cost >= each.bound_cost - 1e-3
        assert each.bound_cost > 0


def test_nor_is_first_fit(given: Scenario) -> None:
    world = World(given)
    for request in given.requests[:8]:
        found = world.problem(request)
        slot = Bound(found).first_slot()
        for stage in (one_after_another, beside_one_another):
            plan = first_fit(found, stage)
            if plan is not None:
                assert check(found, plan) == ()
                assert slot is not None
                assert found.windows.index(plan.window) >= slot


def test_one_after_another_is_one_at_a_time(done: dict[str, coalloc.Done]) -> None:
    several = [each.plan for each in done["a"].accepted if each.plan and each.plan.transfers[1:]]
    assert several
    for plan in several:
        for one, two in pairwise(plan.transfers):
            assert one.end <= two.begin


def test_figures_are_of_what_was_accepted(done: dict[str, coalloc.Done]) -> None:
    said = coalloc.compared(done)
    row = coalloc.figures(done["planner"])
    accepted = done["planner"].accepted
    starts = [
        (each.plan.window.start - EPOCH).total_seconds() - each.request.arrives_s
        for each in accepted
        if each.plan
    ]
    assert row["accepted"] == len(accepted)
    assert row["start_s"] == pytest.approx(sum(starts) / len(starts), abs=0.1)
    other = coalloc.figures(done["a"])["start_s"]
    assert said["earlier_than_a"] == pytest.approx(1 - row["start_s"] / other, abs=1e-3)
    assert said["gap_start"] is not None
    assert said["gap_cost"] is not None
    assert said["gap_start"] >= 0
    assert said["gap_cost"] >= -1e-4


def test_it_prints_tables_and_last_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    coalloc.main(["--sites", "5", "--limit", "2", "--effort", "0.1", "--seed", "3"])
    *table, last = capsys.readouterr().out.splitlines()
    said = json.loads(last)
    assert said["bench"] == "coalloc"
    assert said["sites"]["5"]["requests"] == 2
    assert any("(b)" in line for line in table)


def test_without_its_topologies_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "topohub", None)
    coalloc.run(quick=True)
    told = capsys.readouterr()
    assert "SKIPPED" in told.err
    assert "skipped" in json.loads(told.out)
