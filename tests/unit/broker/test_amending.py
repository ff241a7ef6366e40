"""A cluster that stands gets other terms: what stays where it is, what counts, what is refused."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.broker.domain.amending import Amendment, amend, check_open
from intertie.broker.domain.amounts import host_key
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Fleet, SeenPart
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.reconcile import GivenUp, Step, Tell, step_of
from intertie.common.amend_rules import DURATION, GROUPS
from intertie.common.errors import ClusterOver, LeaseEnding, NoCapacity
from intertie.common.intervals import Window
from intertie.common.spec import BandwidthTerm, ClusterSpec, GroupPlacement, LeaseTerms, PairTerm
from intertie.common.values import replace
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts
from tests.unit.broker.standing import ALLOCATION, admitted, group, spec, view_of

FLEET = Fleet.of([facts("n1"), facts("n2")], POLICY)
LATER = NOW + timedelta(minutes=10)


def alive(*hosts: str, now: datetime = LATER) -> Fleet:
    silent = [facts(host) for host in ("n1", "n2") if host not in hosts]
    return Fleet.of([*silent, *(facts(host, report_time=now) for host in hosts)], POLICY)


def made(asked: ClusterSpec) -> tuple[ClusterRecord, Part]:
    return admitted("one", asked, view_of(FLEET, ()), now=NOW)


def changed(
    there: tuple[ClusterRecord, Part],
    asked: ClusterSpec,
    *paths: str,
    beside: tuple[Part, ...] = (),
    fleet: Fleet | None = None,
    now: datetime = LATER,
) -> Amendment:
    record, part = there
    view = view_of(fleet or alive("n1", "n2", now=now), (part, *beside))
    found = amend(record, part, asked, paths, view, POLICY, now=now)
    assert found is not None
    return found


def hosts(part: Part) -> dict[str, str]:
    return {each.workspace: each.host for each in part.placed}


def addresses(part: Part) -> dict[str, str]:
    return {each.label: each.nics[0].address for each in part.spec.workspaces}


def vcpus(part: Part, host: str, at: datetime) -> int:
    key = host_key(host, "vcpus")
    return sum(each.amounts.get(key, 0) for each in demands_of(part) if each.window.contains(at))


def step(of: Part, told: dict[str, int], *seen: SeenPart, at: datetime = LATER) -> Step:
    reports = {each.host: each for each in seen}
    return step_of(of, told, reports, alive("n1", "n2", now=at), POLICY, now=at)


def told_of(of: Part, told: dict[str, int]) -> tuple[Part, dict[str, int]]:
    found = step(of, told)
    assert isinstance(found, Tell)
    return found.part, {host: each.generation for host, each in found.wanted.items()}


def obeyed(host: str, generation: int, **changes: Any) -> SeenPart:
    report = SeenPart(host=host, part_uid="", generation=generation, obeyed_generation=generation)
    return replace(report, **changes)


def test_who_stays_keeps_host_and_address_though_groups_before_it_grow() -> None:
    there = made(spec(group("a", 1), group("b", 2)))
    before = there[1]
    after = changed(there, spec(group("a", 3), group("b", 2)), GROUPS)
    kept = {label: host for label, host in hosts(after.part).items() if label in hosts(before)}
    assert kept == hosts(before)
    assert {label: addresses(after.part)[label] for label in kept} == addresses(before)
    assert len(set(addresses(after.part).values())) == 5
    assert (after.record.terms, after.part.terms, after.takes_more) == (1, 1, True)
    assert dict(after.record.counts) == {"a": 3, "b": 2}
    assert after.part.spec.cluster_uid == before.spec.cluster_uid


def test_what_is_as_it_was_changes_nothing() -> None:
    record, part = made(spec(group("w", 2)))
    view = view_of(alive("n1", "n2"), (part,))
    asked = spec(group("w", 2))
    assert amend(record, part, asked, [GROUPS, DURATION], view, POLICY, now=LATER) is None


def test_the_highest_indices_go_and_count_until_their_host_has_obeyed() -> None:
    there = made(spec(group("w", 4)))
    part, told = told_of(there[1], {})
    found = changed((there[0], part), spec(group("w", 1)), GROUPS)
    assert set(hosts(found.part)) == {"w-0"}
    assert not found.takes_more
    assert found.record.cost < there[0].cost
    was = {host: vcpus(part, host, LATER) for host in ("n1", "n2")}
    assert {host: vcpus(found.part, host, LATER) for host in was} == was == {"n1": 2, "n2": 2}

    shrunk, told = told_of(found.part, told)
    stays = hosts(shrunk)["w-0"]
    left = "n2" if stays == "n1" else "n1"
    assert told == {"n1": 2, "n2": 2}
    late = obeyed(stays, 2), obeyed(left, 1, gone=True)
    assert step(shrunk, told, *late) is None, "gone of what it was told before"
    freed = step(shrunk, told, obeyed(stays, 2), obeyed(left, 2, obeyed_generation=0, gone=True))
    assert isinstance(freed, GivenUp)
    assert (freed.part.shed, freed.hosts) == ((), (left,))
    assert {host: vcpus(freed.part, host, LATER) for host in was} == {stays: 1, left: 0}
    assert step(freed.part, {stays: 2}) is None, "nothing is told to who stays"


def test_who_has_nothing_of_it_any_more_is_told_that_it_is_gone() -> None:
    part, told = told_of(made(spec(group("w", 2)))[1], {})
    record = made(spec(group("w", 2)))[0]
    found = changed((record, part), spec(group("w", 1)), GROUPS)
    telling = step(found.part, told)
    assert isinstance(telling, Tell)
    assert {host: each.gone for host, each in telling.wanted.items()} == {
        hosts(found.part)["w-0"]: False,
        hosts(part)["w-1"]: True,
    }
    ending = found.part.ending(now=LATER, reason="CANCELLED")
    over = step(ending, told)
    assert isinstance(over, Tell)
    assert {host: each.gone for host, each in over.wanted.items()} == {"n1": True, "n2": True}


def test_what_no_host_was_told_of_is_given_up_at_once() -> None:
    later = LeaseTerms(start_time=NOW + 5 * HOUR, duration=HOUR)
    there = made(spec(group("w", 4), lease=later))
    found = changed(there, spec(group("w", 1)), GROUPS)
    assert found.part.shed
    freed = step(found.part, {})
    assert isinstance(freed, GivenUp)
    assert not freed.part.shed


def test_who_comes_back_before_its_host_let_it_go_comes_back_there() -> None:
    """On the same host, with the same address: there are never two of it, and it takes nothing
    more, so a host that is silent has it too."""
    there = made(spec(group("w", 4)))
    part, told = told_of(there[1], {})
    less = changed((there[0], part), spec(group("w", 2)), GROUPS)
    back = changed((less.record, less.part), spec(group("w", 4)), GROUPS, fleet=alive("n1"))
    assert hosts(back.part) == hosts(part)
    assert addresses(back.part) == addresses(part)
    assert not back.takes_more
    assert demands_of(back.part)[0].amounts == demands_of(part)[0].amounts
    assert not back.part.shed, "what is in force takes all that was"
    assert step(back.part, told) is None, "and hosts were never told of less"


def test_a_silent_host_gets_nothing_more_of_time_neither() -> None:
    there = made(spec(group("w", 2)))
    for asked, path in (
        (spec(group("w", 2), lease=LeaseTerms(duration=2 * HOUR)), DURATION),
        (spec(group("w", 2, allocation=replace(ALLOCATION, memory_mib=256))), GROUPS),
    ):
        with pytest.raises(NoCapacity) as caught:
            changed(there, asked, path, fleet=alive("n1"))
        [short] = caught.value.shortfalls
        assert (short.resource, short.host) == ("hosts", "n2")
        assert "n2 is silent" in str(short)
    grown = changed(there, spec(group("w", 3)), GROUPS, fleet=alive("n1"))
    assert hosts(grown.part)["w-2"] == "n1"


def test_what_a_host_has_no_room_for_is_said_with_what_is_free() -> None:
    there = made(spec(group("w", 1, allocation=replace(ALLOCATION, vcpus=3))))
    asked = spec(group("w", 1, allocation=replace(ALLOCATION, vcpus=5)))
    with pytest.raises(NoCapacity) as caught:
        changed(there, asked, GROUPS)
    [short] = caught.value.shortfalls
    assert (short.host, short.resource, short.wanted, short.available) == ("n1", "vcpus", 2, 1)


def test_longer_is_held_against_what_comes_after() -> None:
    there = made(spec(group("w", 4)))
    after = LeaseTerms(start_time=NOW + HOUR, duration=HOUR)
    _, next_one = admitted(
        "two", spec(group("w", 6), lease=after), view_of(FLEET, (there[1],)), now=NOW
    )
    longer = spec(group("w", 4), lease=LeaseTerms(duration=2 * HOUR))
    with pytest.raises(NoCapacity):
        changed(there, longer, DURATION, beside=(next_one,))
    found = changed(there, longer, DURATION)
    assert found.record.window == Window(NOW, NOW + 2 * HOUR)
    assert found.record.cost == pytest.approx(2 * there[0].cost)
    assert [vcpus(found.part, "n1", NOW + hours * HOUR) for hours in (0, 1, 2)] == [2, 2, 0]


def test_shorter_counts_until_the_old_end_where_hosts_have_not_obeyed() -> None:
    there = made(spec(group("w", 2), lease=LeaseTerms(duration=2 * HOUR)))
    part, _ = told_of(there[1], {})
    found = changed((there[0], part), spec(group(), lease=LeaseTerms(duration=HOUR)), DURATION)
    assert [vcpus(found.part, "n1", NOW + hours * HOUR) for hours in (0, 1, 2)] == [1, 1, 0]
    assert found.record.window.end == NOW + HOUR


def test_room_that_is_there_later_only_or_earlier_only_is_told_apart() -> None:
    """A host of 4 vCPUs, 2 of them the cluster's: one more workspace of 2 fits beside it until
    another's window, though longer and more together do not."""
    both = (group("w", 2, allocation=replace(ALLOCATION, vcpus=2)),)
    there = made(spec(*both))
    three = spec(group("w", 4, allocation=replace(ALLOCATION, vcpus=2)))
    longer = replace(three, lease=LeaseTerms(duration=2 * HOUR))
    found = changed(there, longer, GROUPS, DURATION)
    assert [vcpus(found.part, "n1", NOW + hours * HOUR) for hours in (0, 1, 2)] == [4, 4, 0]
    assert found.takes_more


def test_one_of_the_cluster_gets_nothing_of_what_another_gives_up_before_it_has() -> None:
    there = made(
        spec(
            group("a", 1, allocation=replace(ALLOCATION, vcpus=2)),
            group("b", 1, allocation=replace(ALLOCATION, vcpus=2)),
        )
    )
    part, told = told_of(
        replace(there[1], placed=tuple(Placed(workspace=w, host="n1") for w in ("a-0", "b-0"))), {}
    )
    swapped = spec(
        group("a", 1, allocation=replace(ALLOCATION, vcpus=1)),
        group("b", 1, allocation=replace(ALLOCATION, vcpus=3)),
    )
    with pytest.raises(NoCapacity):
        changed((there[0], part), swapped, GROUPS)
    first = spec(
        group("a", 1, allocation=replace(ALLOCATION, vcpus=1)),
        group("b", 1, allocation=replace(ALLOCATION, vcpus=2)),
    )
    less = changed((there[0], part), first, GROUPS)
    given_up, told = told_of(less.part, told)
    freed = step(given_up, told, obeyed("n1", 2))
    assert isinstance(freed, GivenUp)
    assert changed((less.record, freed.part), swapped, GROUPS).takes_more


def test_a_range_that_was_changed_gets_as_many_as_fit_and_no_other_group_does() -> None:
    wide = group("a", 0, min_count=1, max_count=3)
    busy = [
        admitted("busy", spec(group("x", 6)), view_of(FLEET, ()), now=NOW)[1],
    ]
    record, part = admitted("one", spec(wide, group("b", 1)), view_of(FLEET, busy), now=NOW)
    assert dict(record.counts) == {"a": 1, "b": 1}
    asked = spec(wide, group("b", 0, min_count=1, max_count=9))
    found = changed((record, part), asked, GROUPS)
    assert dict(found.record.counts) == {"a": 1, "b": 7}
    assert "7 of at most 9 b fit" in found.record.reasons
    assert found.record.shortfalls


def test_rules_of_placement_hold_beside_those_that_are_there() -> None:
    one_a_host = GroupPlacement(max_per_host=1)
    there = made(spec(group("w", 1, placement=one_a_host)))
    found = changed(there, spec(group("w", 2, placement=one_a_host)), GROUPS)
    assert set(hosts(found.part).values()) == {"n1", "n2"}
    with pytest.raises(NoCapacity) as caught:
        changed(there, spec(group("w", 3, placement=one_a_host)), GROUPS)
    assert caught.value.shortfalls


def test_pairs_with_who_is_there_count_at_both_ends() -> None:
    pair = PairTerm(group="w", network="lan", bandwidth=BandwidthTerm(guarantee_mbit_s=150))
    crowd = replace(ALLOCATION, vcpus=3, pairs=(pair,))
    there = made(spec(group("w", 2, allocation=crowd)))
    assert set(hosts(there[1]).values()) == {"n1", "n2"}
    three = Fleet.of([facts(each, report_time=LATER) for each in ("n1", "n2", "n3")], POLICY)
    admits = replace(POLICY, hosts=("n1", "n2", "n3"))
    fleet = Fleet.of(three.facts.values(), admits)
    found = changed(there, spec(group("w", 3, allocation=crowd)), GROUPS, fleet=fleet)
    assert hosts(found.part)["w-2"] == "n3"
    [demand] = demands_of(found.part)
    assert [demand.amounts[host_key(h, "uplink_mbit_s")] for h in ("n1", "n2", "n3")] == [300] * 3
    more = replace(crowd, pairs=(replace(pair, bandwidth=BandwidthTerm(guarantee_mbit_s=201)),))
    with pytest.raises(NoCapacity):
        changed(there, spec(group("w", 3, allocation=more)), GROUPS, fleet=fleet)


def test_the_last_two_minutes_are_for_less_only() -> None:
    there = made(spec(group("w", 2)))
    late = NOW + HOUR - timedelta(seconds=119)
    with pytest.raises(LeaseEnding):
        changed(there, spec(group("w", 3)), GROUPS, now=late)
    with pytest.raises(LeaseEnding):
        changed(there, spec(group(), lease=LeaseTerms(duration=2 * HOUR)), DURATION, now=late)
    assert changed(there, spec(group("w", 1)), GROUPS, now=late)
    just = NOW + HOUR - timedelta(minutes=2)
    assert changed(there, spec(group("w", 3)), GROUPS, now=just).takes_more


def test_what_is_over_or_ends_is_not_open() -> None:
    record, _ = made(spec(group()))
    check_open(record, now=LATER)
    for over in (
        replace(record, state=ClusterState.FAILED),
        replace(record, end_requested_time=LATER),
        replace(record, window=Window(NOW, LATER)),
    ):
        with pytest.raises(ClusterOver):
            check_open(over, now=LATER)


def test_terms_that_came_and_went_leave_nothing_behind() -> None:
    """On a silent site one may ask for more and less for ever: the record does not grow."""
    there = made(spec(group("w", 4)))
    part, _ = told_of(there[1], {})
    record = there[0]
    for turn in range(20):
        found = changed((record, part), spec(group("w", 1 + turn % 3)), GROUPS)
        record, part = found.record, found.part
        assert len(part.shed) == 1
    assert (part.terms, vcpus(part, "n1", LATER)) == (20, 2)
