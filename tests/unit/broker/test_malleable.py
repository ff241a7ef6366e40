"""Best-effort leases that get more workspaces while they run, and go on with fewer for others."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from intertie.broker.domain.admission_policy import Quotas
from intertie.broker.domain.cluster import ClusterRecord, ClusterState
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Policy, WorkspaceState
from intertie.broker.domain.giving_way import (
    Admissible,
    allotted_before_others,
    writes_of,
)
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.price import amount_of
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.queueing import given_more, room_made, starting, stretches_over
from intertie.broker.domain.reconcile import GivenUp, Tell, step_of
from intertie.broker.domain.records import Change
from intertie.broker.domain.snapshots import begun, grant_of
from intertie.broker.domain.usage import charge_during, next_period
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import RESIZINGS
from intertie.common.part_rules import within
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms
from intertie.common.values import replace
from tests.unit.broker import line
from tests.unit.broker.line import (
    best_effort,
    in_time,
    name_of,
    part_of,
    reports_of,
    start,
    view,
    waits,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, NOW, POLICY, part_spec, workspace
from tests.unit.broker.standing import group, spec
from tests.unit.broker.test_elsewhere import full

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
LATER = NOW + 10 * MINUTE
GIVEN_UP = 5 * SECOND
STEADY = replace(POLICY, queue=QueuePolicy(resizing=RESIZINGS["steady"]))


def between(least: int, most: int, lasts: timedelta = 4 * HOUR, **lease: Any) -> ClusterSpec:
    terms = LeaseTerms(**{"duration": lasts, "kind": Kind.BEST_EFFORT, **lease})
    return spec(group(count=0, min_count=least, max_count=most), lease=terms)


def running(*asked: ClusterSpec, now: datetime = NOW) -> LedgerView:
    """`a`, `b` and so on, that came and began a minute after one another, and are all there."""
    here = view([])
    for number, each in enumerate(asked):
        name, at = "abcdef"[number], now + number * MINUTE
        here = with_records(here, waits(name, each, now=at))
        here = active(start(here, name, now=at), name)
    return here


def active(here: LedgerView, name: str) -> LedgerView:
    record = record_of(here, name).move(ClusterState.ACTIVE, now=NOW)
    return with_records(here, record)


def record_of(here: LedgerView, name: str) -> ClusterRecord:
    return here.clusters[name_of(name)].value


def count_of(here: LedgerView, name: str) -> int:
    count = dict(record_of(here, name).counts)["w"]
    part = part_of(here, name)
    assert {each.label for each in part.spec.workspaces} == {f"w-{each}" for each in range(count)}
    assert part.terms == record_of(here, name).terms
    return count


def grow(here: LedgerView, now: datetime = LATER, policy: Policy = POLICY) -> LedgerView:
    """All that get more do."""
    while (found := given_more(here, policy, (), now=now)) is not None:
        here = written(here, found[1])
    return here


asks = partial(line.asks, now=LATER)


def after(here: LedgerView, found: Admissible, now: datetime = LATER) -> LedgerView:
    return written(here, Change(writes=tuple(writes_of(found.aside, now=now))))


def obeyed(here: LedgerView, name: str, now: datetime = LATER) -> LedgerView:
    """Its hosts have been told, and have done it."""
    part, told = part_of(here, name), dict[str, int]()
    for _ in range(4):
        seen = reports_of(part, WorkspaceState.RUNNING)
        for host in part.left_hosts():
            gone = replace(next(iter(seen.values())), host=host, workspaces=(), gone=True)
            seen[host] = gone
        step = step_of(part, told, seen, here.fleet, POLICY, now=now)
        match step:
            case Tell(part=part, wanted=wanted):
                told = {host: each.generation for host, each in wanted.items()}
            case GivenUp(part=part, hosts=hosts):
                told = {host: each for host, each in told.items() if host not in hosts}
    assert not part.shed
    return with_records(here, part)


def vcpus(part: Part, at: datetime) -> int:
    return sum(
        amount
        for each in demands_of(part)
        if each.window.contains(at)
        for key, amount in each.amounts.items()
        if key.endswith("/vcpus")
    )


# More


def test_it_begins_with_as_many_as_fit() -> None:
    assert count_of(running(between(2, 5)), "a") == 5
    assert count_of(running(best_effort(5), between(2, 5)), "b") == 3
    with pytest.raises(NoCapacity):
        running(best_effort(7), between(2, 5))


def test_it_gets_more_once_there_is_room_until_it_ends() -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6))
    assert count_of(here, "b") == 3
    assert given_more(here, POLICY, (), now=NOW + 2 * MINUTE) is None
    before, here = part_of(here, "b"), grow(here)
    part = part_of(here, "b")
    assert count_of(here, "b") == 6
    assert part.window == before.window
    assert within(before.spec, part.spec)
    assert part.placed[:3] == before.placed, "who is there stays where it is"
    assert [each.nics for each in part.spec.workspaces[:3]] == [
        each.nics for each in before.spec.workspaces
    ]
    assert record_of(here, "b").state is ClusterState.ACTIVE
    assert record_of(here, "b").reasons == ("north has room for more of it",)
    assert not part.shed


def test_more_is_counted_with_the_disk_for_its_memory() -> None:
    here = grow(running(best_effort(5, lasts=5 * MINUTE), between(2, 6)))
    [demand] = demands_of(part_of(here, "b"))
    disk = sum(each for key, each in demand.amounts.items() if key.endswith("/disk_mib"))
    assert disk == 6 * (128 + 128)
    part = part_of(here, "b")
    assert part.keeping is not None
    assert part.keeping.save == 9 * SECOND, "of three on a host"


def test_more_costs_what_was_agreed_on_for_each_from_then_on() -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6))
    [agreed] = part_of(here, "b").price
    here = grow(here)
    first, second = part_of(here, "b").price
    assert (first.window.end, second.window.start) == (LATER, LATER)
    assert second.window.end == agreed.window.end
    assert second.kind == "best_effort"
    assert second.rates == first.rates == agreed.rates
    assert second.hour == pytest.approx(2 * agreed.hour)
    assert record_of(here, "b").cost == pytest.approx(amount_of((first, second)))


def test_a_record_of_usage_ends_where_it_got_more() -> None:
    here = grow(running(best_effort(5, lasts=5 * MINUTE), between(2, 6)))
    part = part_of(here, "b")
    period = next_period(part, None)
    assert period == Window(NOW + MINUTE, LATER)
    assert charge_during(part, period).reserved.hosts.vcpus == 3
    rest = Window(LATER, part.window.end)
    assert charge_during(part, rest).reserved.hosts.vcpus == 6


def test_what_one_in_line_could_use_before_it_is_over_is_for_that_one() -> None:
    """Four are free from minute five on. One that needs all has to wait for `c` anyway."""
    short, long = best_effort(4, lasts=5 * MINUTE), between(1, 1, lasts=2 * HOUR)
    here = running(short, long, between(3, 6, lasts=3 * HOUR))
    assert count_of(here, "c") == 3
    waiting = with_records(here, waits("wide", best_effort(8, lasts=HOUR), now=NOW + 4 * MINUTE))
    assert count_of(grow(waiting), "c") == 6
    soon = with_records(here, waits("soon", best_effort(4, lasts=HOUR), now=NOW + 4 * MINUTE))
    assert count_of(grow(soon), "c") == 3
    assert starting(soon, POLICY, now=LATER) == [name_of("soon")]


def test_what_one_in_line_could_use_until_a_reservation_is_for_that_one_too() -> None:
    """It would be put aside then, so there is no room for all of it."""
    here = with_records(view([]), full("n2", until=NOW + 9 * HOUR))
    asked = best_effort(1, lasts=20 * MINUTE), best_effort(2, lasts=5 * MINUTE), between(1, 2)
    for name, each in zip("abc", asked, strict=True):
        here = start(with_records(here, waits(name, each)), name)
    here = active(here, "c")
    reserved = full("n1", until=NOW + 9 * HOUR, vcpus=1, name="reserved")
    later = Window(NOW + HOUR, NOW + 9 * HOUR)
    here = with_records(here, replace(reserved, spec=replace(reserved.spec, window=later)))
    assert count_of(here, "c") == 1
    assert count_of(grow(here), "c") == 2
    waiting = with_records(here, waits("x", best_effort(3, 2 * HOUR), now=NOW + 4 * MINUTE))
    assert starting(waiting, POLICY, now=LATER) == []
    assert count_of(grow(waiting), "c") == 1
    assert starting(waiting, POLICY, now=NOW + 20 * MINUTE) == [name_of("x")]


def test_a_look_leaves_nothing_counted() -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6))
    here = with_records(here, waits("x", best_effort(8), now=NOW + 4 * MINUTE))
    here = replace(here, demands=calendar_of(here, POLICY))
    calendar, window = calendar_of(here, POLICY), Window(NOW, NOW + 99 * HOUR)
    before = calendar.peak("host/n1/vcpus", window), list(calendar.ends(NOW, window.end))
    given_more(here, POLICY, (), now=LATER)
    room_made(here, POLICY, now=LATER)
    asks(here, 4)
    assert before == (
        calendar.peak("host/n1/vcpus", window),
        list(calendar.ends(NOW, window.end)),
    )


def test_the_first_in_the_order_gets_more_first() -> None:
    here = running(between(1, 6), between(1, 6))
    assert (count_of(here, "a"), count_of(here, "b")) == (6, 2)
    here = after(here, asks(here, 5))
    assert (count_of(here, "a"), count_of(here, "b")) == (2, 1)
    here = grow(obeyed(obeyed(here, "a"), "b"), LATER + MINUTE)
    assert (count_of(here, "a"), count_of(here, "b")) == (6, 2)


@pytest.mark.parametrize(
    ("change", "gets"),
    [
        ({"state": ClusterState.SCHEDULED}, 3),
        ({"end_requested_time": NOW}, 3),
        ({}, 6),
    ],
)
def test_only_one_that_has_been_all_there_gets_more(change: dict[str, Any], gets: int) -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6))
    here = with_records(here, replace(record_of(here, "b"), **change))
    assert count_of(grow(here), "b") == gets


def test_who_is_nearly_over_or_is_to_be_put_aside_gets_no_more() -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6, lasts=HOUR))
    end = part_of(here, "b").window.end
    assert count_of(grow(here, now=end - 59 * SECOND), "b") == 3
    part = part_of(here, "b")
    assert part.keeping is not None
    kept = replace(part, keeping=replace(part.keeping, until=end + HOUR))
    assert count_of(grow(with_records(here, kept)), "b") == 3


def test_who_got_more_or_fewer_a_moment_ago_gets_no_more() -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 8))
    here = grow(here)
    assert count_of(here, "b") == 8
    here = obeyed(after(here, asks(here, 2)), "b")
    assert count_of(here, "b") == 6
    assert count_of(grow(here, LATER + MINUTE - SECOND), "b") == 6
    assert count_of(grow(here, LATER + MINUTE), "b") == 8
    often = replace(POLICY, queue=QueuePolicy(resize_pause=timedelta()))
    assert count_of(grow(here, LATER + SECOND, often), "b") == 8


def test_a_steady_one_keeps_what_it_began_with() -> None:
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6))
    assert given_more(here, STEADY, (), now=LATER) is None
    [aside] = asks(here, 6, policy=STEADY).aside
    assert (aside.fewer, aside.after.window.end) == (None, LATER)


# Fewer


def test_before_anybody_is_put_aside_others_are_left_with_fewer() -> None:
    here = running(best_effort(2), between(2, 6))
    was = part_of(here, "b")
    found = asks(here, 3)
    here = after(here, found)
    part = part_of(here, "b")
    assert count_of(here, "b") == 3, "as few as are enough go, those with the highest indices"
    assert part_of(here, "a").terms == 0
    assert part.placed == was.placed[:3]
    assert (part.window, part.keeping) == (was.window, was.keeping)
    assert "1 lease gives way that may have to" in found.draft.reasons
    assert record_of(here, "b").reasons == (
        "left with 3 fewer, for others",
        "3 of at most 6 w fit",
    )
    waited = record_of(here, "b").waits
    assert waited is not None
    assert waited.resized == LATER


def test_what_is_given_up_is_for_others_once_hosts_have_had_the_time_to_end_it() -> None:
    here = running(best_effort(2), between(2, 6))
    found = asks(here, 3)
    assert found.draft.start == LATER + GIVEN_UP
    here = after(here, found)
    part = part_of(here, "b")
    assert vcpus(part, LATER + GIVEN_UP - SECOND) == 6
    assert vcpus(part, LATER + GIVEN_UP) == 3
    assert part.window.end == NOW + MINUTE + 4 * HOUR
    assert vcpus(part, part.window.end - SECOND) == 3


def test_what_hosts_have_not_given_up_in_time_counts_on() -> None:
    here = running(best_effort(2), between(2, 6))
    here = after(here, asks(here, 3))
    at = LATER + GIVEN_UP
    assert list(stretches_over(here, now=at - SECOND)) == []
    [late] = stretches_over(here, now=at)
    assert late.admitted_on == here.generation, "who is admitted after it counts it"
    here = written(here, late)
    assert vcpus(part_of(here, "b"), at + 29 * SECOND) == 6
    assert vcpus(part_of(here, "b"), at + 30 * SECOND) == 3
    given_up = obeyed(here, "b", at)
    assert vcpus(part_of(given_up, "b"), at) == 3
    assert list(stretches_over(given_up, now=at + HOUR)) == []


def test_for_a_later_one_they_go_at_once() -> None:
    here = running(best_effort(2, lasts=4 * HOUR), between(2, 6))
    found = asks(here, 3, start_time=NOW + HOUR)
    assert found.draft.start == NOW + HOUR
    assert count_of(after(here, found), "b") == 3


def test_down_to_the_least_and_then_somebody_is_put_aside() -> None:
    here = running(best_effort(2), between(2, 6))
    then = after(here, asks(here, 4))
    assert count_of(then, "b") == 2
    found = asks(here, 5)
    [aside] = [each for each in found.aside if each.fewer is None]
    assert aside.record.value.name == name_of("b"), "who is last in the order"
    assert len(found.aside) == 1
    then = after(here, found)
    assert len(part_of(then, "b").spec.workspaces) == 6, "it is kept as it is, with all it has"
    assert record_of(then, "b").state is ClusterState.SUSPENDED
    found = asks(running(between(2, 6), best_effort(2)), 5)
    assert {each.record.value.name: each.fewer is None for each in found.aside} == {
        name_of("a"): False,
        name_of("b"): True,
    }
    assert dict(next(each.fewer.counts for each in found.aside if each.fewer)) == {"w": 3}


def test_the_last_in_the_order_is_left_with_fewer_first() -> None:
    here = running(between(1, 4), between(1, 4))
    then = after(here, asks(here, 2))
    assert (count_of(then, "a"), count_of(then, "b")) == (4, 2)
    then = after(here, asks(here, 5))
    assert (count_of(then, "a"), count_of(then, "b")) == (2, 1)


def test_the_last_group_gives_up_first() -> None:
    lease = LeaseTerms(duration=HOUR, kind=Kind.BEST_EFFORT)
    groups = (
        group("x", 0, min_count=1, max_count=4),
        group("y", 0, min_count=1, max_count=4),
    )
    here = running(spec(*groups, lease=lease))
    assert dict(record_of(here, "a").counts) == {"x": 4, "y": 4}
    assert dict(record_of(after(here, asks(here, 2)), "a").counts) == {"x": 4, "y": 2}
    assert dict(record_of(after(here, asks(here, 5)), "a").counts) == {"x": 2, "y": 1}


def test_one_that_is_cancellable_is_left_with_fewer_before_it_is_cancelled() -> None:
    here = running(between(2, 8, cancellable=True))
    then = after(here, asks(here, 6))
    assert count_of(then, "a") == 2
    assert part_of(then, "a").end_reason == ""
    assert part_of(after(here, asks(here, 7)), "a").end_reason == "PREEMPTED"


def test_who_has_a_deadline_keeps_what_it_has() -> None:
    asked = between(2, 8, kind=Kind.DEADLINE, deadline=NOW + 9 * HOUR)
    here, _ = in_time("a", asked, view([]))
    assert count_of(here, "a") == 8
    [aside] = asks(here, 6).aside
    assert aside.fewer is None


def test_none_is_given_up_that_an_image_is_being_made_of() -> None:
    """A bug: the image was gone with the workspace, and nobody was told."""
    here = running(between(2, 8))
    part = part_of(here, "a")
    grant = grant_of(part, "w-5", "image", "alice", now=NOW)
    here = with_records(here, begun(part, grant, "s1", b"g"))
    assert count_of(after(here, asks(here, 2)), "a") == 6
    [aside] = asks(here, 3).aside
    assert aside.fewer is None, "it is put aside, with all that it has"
    assert [each.id for each in aside.after.snapshots] == ["s1"]


def test_while_some_is_being_given_up_nobody_else_gives_way_for_what_that_leaves() -> None:
    here = running(best_effort(2), between(2, 6))
    then = after(here, asks(here, 2))
    found = asks(then, 2, now=LATER + SECOND)
    assert (found.aside, found.draft.start) == ((), LATER + GIVEN_UP)


def test_for_the_first_in_line_others_are_left_with_fewer() -> None:
    here = running(between(2, 8))
    here = with_records(here, waits("x", best_effort(3), now=LATER))
    assert starting(here, POLICY, now=LATER) == []
    change = room_made(here, POLICY, now=LATER)
    assert change is not None
    here = written(here, change)
    assert count_of(here, "a") == 5
    assert room_made(here, POLICY, now=LATER + SECOND) is None, "it is on its way"
    assert starting(here, POLICY, now=LATER + SECOND) == []
    assert given_more(here, POLICY, (), now=LATER + MINUTE) is None
    here = obeyed(here, "a")
    assert starting(here, POLICY, now=LATER + SECOND) == [name_of("x")]
    assert room_made(here, POLICY, now=LATER + SECOND) is None


def test_for_a_part_of_a_lease_over_several_sites_others_are_left_with_fewer_in_time() -> None:
    here = running(best_effort(2, lasts=4 * HOUR), between(2, 6))

    def held(start: datetime) -> list[int | None]:
        workspaces = [workspace(index=each) for each in range(3)]
        asked = part_spec(*workspaces, window=Window(start, start + HOUR))
        _, aside = allotted_before_others(asked, here, POLICY, tenant="demo", now=LATER, alone=True)
        return [dict(each.fewer.counts)["w"] if each.fewer else None for each in aside]

    assert held(LATER + GIVEN_UP) == [3]
    with pytest.raises(NoCapacity):
        held(LATER + GIVEN_UP - SECOND)


def test_nobody_is_left_with_fewer_in_vain() -> None:
    here = running(between(2, 8))
    here = with_records(here, waits("x", best_effort(7), now=LATER))
    assert room_made(here, POLICY, now=LATER) is None
    with pytest.raises(NoCapacity):
        asks(here, 9)
    with_room = with_records(running(between(2, 4)), waits("x", best_effort(4), now=LATER))
    assert room_made(with_room, POLICY, now=LATER) is None
    assert room_made(with_records(here), STEADY, now=LATER) is None


def test_one_that_goes_on_only_to_be_put_aside_again_may_be_left_with_fewer_meanwhile() -> None:
    """It has nothing to pay for while its memory is read back."""
    here = running(between(2, 8))
    part = part_of(here, "a")
    assert part.keeping is not None
    going = replace(
        part,
        spec=replace(part.spec, window=Window(LATER, LATER + 8 * SECOND)),
        keeping=replace(part.keeping, restore=12 * SECOND, until=LATER + HOUR),
        price=(),
    )
    there = with_records(here, going)
    [aside] = asks(there, 4, now=LATER + SECOND).aside
    assert aside.fewer is not None
    assert (len(aside.after.placed), aside.after.price) == (4, ())


def test_no_more_than_its_tenant_may_have() -> None:
    most = {"vcpus": 8 - 3}
    bounded = replace(POLICY, admission=Quotas(of={"demo": most}))
    here = running(best_effort(5, lasts=5 * MINUTE), between(2, 6))
    assert count_of(grow(here, policy=bounded), "b") == 5


def test_one_that_was_left_with_fewer_is_put_aside_and_goes_on_as_that() -> None:
    here = running(between(2, 8))
    here = obeyed(after(here, asks(here, 4)), "a")
    assert count_of(here, "a") == 4
    at = LATER + MINUTE
    then = after(here, asks(here, 8, now=at), at)
    assert record_of(then, "a").state is ClusterState.SUSPENDED
    assert len(part_of(then, "a").spec.workspaces) == 4
