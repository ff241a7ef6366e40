"""However leases wait for however many sites: in a round all start who would start one after
another, as well off as then, and nobody gets room that there is not, or that is kept for another.

What sites have is counted here from plans, a host a site, and shares nothing with what places.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from intertie.common.intervals import Window
from intertie.common.leasing.backfilling import Aggressive, Backfilling, Conservative
from intertie.common.leasing.lease import Lease
from intertie.common.leasing.requests import BestEffort
from intertie.metasched.domain.plan import Plan, check
from intertie.metasched.domain.planner import best_plan
from intertie.metasched.domain.problem import Offer, Problem, over
from intertie.metasched.domain.rooms import Rooms
from intertie.metasched.domain.rounds import MOST_SOLVED, Start, round_of
from intertie.metasched.domain.taken import Taken
from tests.unit.metasched.problems import group, link, offer, problem, promise, window

SITES, SLOTS = "abc", 2
Asked = dict[str, Problem]


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Asked, Backfilling]:
    """Three sites of one host each, that have no less later than now."""
    prices = draw(st.sampled_from([(1, 1, 1), (1, 1, 2), (0, 0, 0)]))
    width = draw(st.integers(0, 8))
    links = {name: link(width) for name in SITES}

    def offered(name: str, price: int, now: int, more: int) -> list[Offer]:
        peers = {peer: room for peer, room in links.items() if peer != name}
        return [offer(now + slot * more, links=peers, price=price) for slot in range(SLOTS)]

    sizes = st.tuples(st.integers(0, 4), st.integers(0, 3))
    sites = {
        name: offered(name, price, *draw(sizes)) for name, price in zip(SITES, prices, strict=True)
    }

    def asks() -> Problem:
        fewest = draw(st.integers(1, 4))
        most = draw(st.sampled_from([0, 0, fewest + 1]))
        at = tuple(draw(st.sets(st.sampled_from(SITES), max_size=2)))
        mbit_s = draw(st.integers(0, 2))
        promises = [promise("worker", "worker", mbit_s)] if mbit_s else []
        return problem(
            [group("worker", fewest, most, allow_sites=tuple(sorted(at)))], sites, promises=promises
        )

    asked = {f"l{number}": asks() for number in range(draw(st.integers(2, 6)))}
    kinds: list[Backfilling] = [Aggressive(), Conservative(), Aggressive(protected=0)]
    return asked, draw(st.sampled_from(kinds))


def one_by_one(asked: Asked, backfilling: Backfilling) -> tuple[list[Lease], list[Lease], Rooms]:
    line = [
        Lease(request=BestEffort(name=name, nodes=1, duration_s=3600), submit_s=number)
        for number, name in enumerate(asked)
    ]
    moments = [window(slot).start for slot in range(SLOTS)]
    rooms = Rooms(asked, moments, lambda each: best_plan(each, effort=0.2))
    begun = backfilling.starts(
        line, rooms, rooms.untaken(), lambda _: 3600, lambda _: 3600, rooms.now_s
    )
    return line, begun, rooms


def together(asked: Asked, backfilling: Backfilling) -> tuple[list[Start], Rooms]:
    line, begun, rooms = one_by_one(asked, backfilling)
    before = rooms.solved
    starts = round_of(line, begun, rooms)
    # The last that is looked at may go over it: two to end what was begun, and its later starts.
    assert rooms.solved - before <= MOST_SOLVED + 2 + SLOTS
    return starts, rooms


def plan_of(lease: str, rooms: Rooms) -> Plan:
    start = window().start
    (plan,) = (
        each.plan
        for each in rooms._taken
        if each.lease == lease and each.plan.window.start == start
    )
    return plan


def names(leases: list[Lease]) -> list[str]:
    return [each.request.name for each in leases]


@settings(max_examples=150, deadline=None)
@given(rounds())
def test_whoever_starts_one_after_another_starts_and_is_as_well_off(
    given_round: tuple[Asked, Backfilling],
) -> None:
    asked, _ = given_round
    _, begun, before = one_by_one(*given_round)
    starts, rooms = together(*given_round)
    started = names([each.lease for each in starts])
    assert set(names(begun)) <= set(started)
    assert started == [name for name in asked if name in started], "in line"
    for name in names(begun):
        had, has = plan_of(name, before), plan_of(name, rooms)
        assert has.window == had.window
        assert has.count("worker") >= had.count("worker")
        assert len(has.site_names) <= len(had.site_names)
        assert round(has.cost - had.cost, 6) <= 0


@settings(max_examples=150, deadline=None)
@given(rounds())
def test_all_that_is_taken_fits_and_what_is_kept_for_others_stays(
    given_round: tuple[Asked, Backfilling],
) -> None:
    asked, _ = given_round
    _, begun, before = one_by_one(*given_round)
    starts, rooms = together(*given_round)
    started = names([each.lease for each in starts])
    for name in started:
        whole = over(asked[name], (0,))
        assert not check(whole, plan_of(name, rooms))
    later = {each.lease for each in before._taken} - set(names(begun)) - set(started)
    assert {(each.lease, each.window) for each in before._taken if each.lease in later} == {
        (each.lease, each.window) for each in rooms._taken if each.lease in later
    }
    _check_room(asked, rooms._taken)


@settings(max_examples=40, deadline=None)
@given(rounds())
def test_a_round_is_decided_the_same_again(given_round: tuple[Asked, Backfilling]) -> None:
    (one, _), (two, _) = together(*given_round), together(*given_round)
    assert names([each.lease for each in one]) == names([each.lease for each in two])
    assert [each.leaves for each in one] == [each.leaves for each in two]


def _check_room(asked: Asked, taken: list[Taken]) -> None:
    """Of what begins later, from when it is there: what is kept before is for nobody else."""
    some = next(iter(asked.values()))
    for slot in range(SLOTS):
        at = Window(window(slot).start, window(slot).start + timedelta(seconds=1))
        here = [each for each in taken if each.plan.window.overlaps(at)]
        vcpus: Counter[str] = Counter()
        sent: Counter[tuple[str, str]] = Counter()
        for each in here:
            for site in each.plan.sites:
                vcpus[site.site] += sum(site.counts.values())
            for way in each.plan.links:
                sent[way.from_site, way.to_site] += way.mbit_s
        for name in SITES:
            offered = some.site(name).offers[slot]
            assert vcpus[name] <= offered.hosts[0].free.vcpus
            for peer, room in offered.links.items():
                assert sent[name, peer] <= room.egress_mbit_s
                assert sent[peer, name] <= room.ingress_mbit_s
