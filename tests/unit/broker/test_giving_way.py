"""Who is put aside for a lease that does not wait, what that takes, and how it goes on."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.broker.domain import fewest
from intertie.broker.domain.account import Account
from intertie.broker.domain.cluster import ClusterRecord, ClusterState, settled
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import MemoryMove
from intertie.broker.domain.giving_way import Admissible, draft_before_others, writes_of
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.ledger import LedgerView, Versioned, calendar_of
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.pricing import Flat
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.queueing import starting
from intertie.broker.domain.reconcile import End, step_of
from intertie.broker.domain.records import Change
from intertie.broker.domain.stretches import TICK, put_aside, saved_or_late
from intertie.broker.domain.usage import charge_during, next_period
from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import PREEMPTIONS
from intertie.common.names import ClusterName
from intertie.common.spec import LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.line import (
    asks,
    best_effort,
    name_of,
    part_of,
    saved,
    start,
    view,
    waits,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, NOW, POLICY
from tests.unit.broker.standing import group, spec

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
SAVE = 12 * SECOND
"""Of four times 128 MiB on a host, at 50 MiB/s, and the margin."""


def running(*counts: int) -> LedgerView:
    """`a`, `b` and so on, that came and began a minute after one another."""
    here = view([])
    for number, count in enumerate(counts):
        name, now = "abcdef"[number], NOW + number * MINUTE
        record = waits(name, best_effort(count, 4 * HOUR), now=now)
        here = replace(here, clusters={**here.clusters, **view([record]).clusters})
        here = start(here, name, now=now)
    return here


def aside(found: Admissible) -> list[str]:
    return [each.record.value.name.rpartition("/")[2] for each in found.aside]


def after(here: LedgerView, found: Admissible, *, now: datetime) -> LedgerView:
    return written(here, Change(writes=tuple(writes_of(found.aside, now=now))))


LATER = NOW + 10 * MINUTE


def test_no_more_are_asked_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that ran were, for each Create that found no room: 54 ms beside a hundred."""
    here = running(2, 2, 1, 1, 1, 1)
    asked: list[str] = []

    def counting(part: Part, record: ClusterRecord, *rest: Any, **more: Any) -> Part:
        asked.append(record.name.rpartition("/")[2])
        return put_aside(part, record, *rest, **more)

    monkeypatch.setattr(fewest, "put_aside", counting)
    assert aside(asks(here, 1, now=LATER)) == asked == ["f"]
    asked.clear()
    assert aside(asks(here, 3, now=LATER)) == ["f", "e", "d"]
    assert asked == ["f", "e", "d", "c"]


def test_no_price_is_asked_while_it_is_looked_for_who_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was for each that was tried: by load, a look at every host."""
    here, asked = running(2, 2, 1, 1, 1, 1), list[Window]()
    monkeypatch.setattr(Flat, "rates", lambda _, kind, window, load: asked.append(window))
    assert aside(asks(here, 3, now=LATER)) == ["f", "e", "d"]
    assert asked == []


def test_a_part_that_may_be_put_aside_counts_what_that_takes_throughout() -> None:
    here = running(8)
    part = part_of(here, "a")
    assert part.keeping == Keeping(mib_s=50, save=SAVE)
    [demand] = demands_of(part)
    assert demand.window == Window(NOW, NOW + 4 * HOUR)
    assert demand.amounts["host/n1/disk_mib"] == 4 * (128 + 128)
    assert demand.amounts["host/n1/throughput_mib_s"] == 4 * 100, "its disks are idle meanwhile"


def test_one_that_begins_at_once_begins_when_they_are_saved() -> None:
    here = running(8)
    found = asks(here, 4, now=LATER)
    assert aside(found) == ["a"]
    assert found.draft.allotment.spec.window == Window(LATER + SAVE, LATER + SAVE + HOUR)
    then = after(here, found, now=LATER)
    record, part = then.clusters[name_of("a")].value, part_of(then, "a")
    assert record.waits is not None
    assert (record.state, record.waits.ran) == (ClusterState.SUSPENDED, 10 * MINUTE)
    whole, kept = demands_of(part)
    assert whole.window == Window(NOW, LATER + SAVE)
    assert kept.window.end == LATER + POLICY.queue.longest_wait
    assert dict(kept.amounts) == {"host/n1/disk_mib": 1024, "host/n2/disk_mib": 1024}


def test_for_a_later_one_they_run_until_they_have_to_be_saved() -> None:
    here = running(8)
    at = NOW + 2 * HOUR
    found = asks(here, 8, now=LATER, start_time=at)
    assert found.draft.allotment.spec.window.start == at
    then = after(here, found, now=LATER)
    assert part_of(then, "a").window.end == at - SAVE
    assert then.clusters[name_of("a")].value.state is ClusterState.SCHEDULED


def test_as_few_as_are_needed_in_the_order_of_the_policy() -> None:
    here = running(3, 2, 3)
    assert aside(asks(here, 2, now=LATER)) == ["c"]
    assert aside(asks(here, 5, now=LATER)) == ["c", "b"]
    assert aside(asks(running(3, 3, 2), 3, now=LATER)) == ["b"], "who makes no difference is spared"
    least_done = replace(POLICY, queue=QueuePolicy(preemption=PREEMPTIONS["least-done"]))
    again = replace(here.clusters[name_of("b")].value, create_time=NOW + 5 * MINUTE)
    last = replace(here, clusters={**here.clusters, **view([again]).clusters})
    assert aside(asks(last, 2, now=LATER)) == ["b"], "who came last"
    assert aside(asks(last, 2, now=LATER, policy=least_done)) == ["c"], "who has run the shortest"


def test_nobody_is_put_aside_in_vain_and_a_look_leaves_nothing_counted() -> None:
    here = running(4, 4)
    calendar = calendar_of(here, POLICY)
    here = replace(here, demands=calendar)
    window = Window(NOW, NOW + 99 * HOUR)
    before = calendar.peak("host/n1/vcpus", window), list(calendar.ends(NOW, window.end))
    with pytest.raises(NoCapacity):
        asks(here, 9, now=LATER)
    asks(here, 3, now=LATER)
    assert before == (
        calendar.peak("host/n1/vcpus", window),
        list(calendar.ends(NOW, window.end)),
    )


def test_it_goes_on_where_it_was_once_all_is_saved() -> None:
    here = running(8)
    then = after(here, asks(here, 4, now=LATER), now=LATER)
    at = LATER + MINUTE
    assert starting(then, POLICY, now=at) == [], "nobody has said that it is saved"
    then = saved(then, "a")
    assert starting(then, POLICY, now=at) == [name_of("a")]
    on = start(then, "a", now=at)
    part = part_of(on, "a")
    assert part.placed == part_of(here, "a").placed
    assert part.keeping == Keeping(mib_s=50, save=SAVE, restore=SAVE)
    assert part.window == Window(at, at + SAVE + 4 * HOUR - 10 * MINUTE)
    assert (part.terms, part.seed) == (2, "seed")


def test_a_stretch_is_priced_for_the_time_that_it_runs_and_by_its_kind() -> None:
    here = running(8)
    then = after(here, asks(here, 4, now=LATER), now=LATER)
    [first] = part_of(then, "a").price
    assert (first.kind, first.window) == ("best_effort", Window(NOW, LATER))
    at = LATER + MINUTE
    part = part_of(start(saved(then, "a"), "a", now=at), "a")
    assert [each.window for each in part.price] == [
        Window(NOW, LATER),
        Window(at + SAVE, part.window.end),
    ]


def test_it_runs_as_long_as_there_is_room_and_is_saved_in_time() -> None:
    """Before a lease that comes in an hour, of the two hours that it is for."""
    lease = LeaseTerms(start_time=NOW + HOUR, duration=HOUR)
    coming = normalise(spec(group(count=8), lease=lease), now=NOW)
    here = view([waits("a", best_effort(8, 2 * HOUR))])
    found = draft_before_others(
        ClusterName.parse(name_of("later")), "later", coming, here, POLICY, now=NOW
    )
    reserved = replace(
        part_of(start(here, "a"), "a"),
        name="sites/north/tenants/demo/parts/later",
        spec=found.draft.allotment.spec,
        placed=found.draft.allotment.placed,
        keeping=None,
    )
    here = with_records(here, reserved)
    assert starting(here, POLICY, now=NOW) == [name_of("a")]
    part = part_of(start(here, "a"), "a")
    assert part.window == Window(NOW, NOW + HOUR - SAVE)
    assert part.keeping is not None
    assert part.keeping.until == NOW + HOUR - SAVE + POLICY.queue.longest_wait
    too_near = NOW + HOUR - SAVE - 59 * SECOND
    assert starting(here, POLICY, now=too_near) == [], "it is not worth it for less than a minute"


def test_estimates_are_the_slowest_of_what_each_host_says() -> None:
    here = saved(running(8), "a", saved=MemoryMove(octets=128 << 20, duration=8 * SECOND))
    paces = paces_of(here, POLICY)
    assert paces.saved == {"n1": 16.0, "n2": 16.0}
    part = part_of(here, "a")
    assert paces.save(part.spec, part.placed) == 33 * SECOND
    assert paces.restore(part.spec, part.placed) == SAVE


def test_what_is_not_saved_in_time_counts_on() -> None:
    here = running(8)
    then = after(here, asks(here, 4, now=LATER), now=LATER)
    part = part_of(then, "a")
    assert saved_or_late(part, {}, now=LATER + SAVE - SECOND) is part
    longer = saved_or_late(part, {}, now=LATER + SAVE)
    assert demands_of(longer)[0].window.end == LATER + SAVE + 30 * SECOND
    uid = part.uid
    seen = saved(then, "a").seen[uid]
    assert saved_or_late(part, seen, now=LATER + SAVE) is part
    soon = saved_or_late(longer, seen, now=LATER + SAVE + SECOND)
    assert demands_of(soon)[0].window.end == LATER + SAVE + SECOND
    assert demands_of(soon)[0].amounts == demands_of(longer)[0].amounts
    assert saved_or_late(soon, seen, now=LATER + SAVE + MINUTE) is soon


def test_what_is_saved_before_its_time_gives_the_rest_of_it_up() -> None:
    here = running(8)
    then = after(here, asks(here, 4, now=LATER), now=LATER)
    part = part_of(then, "a")
    seen = saved(then, "a").seen[part.uid]
    for now in (LATER, LATER + SECOND):
        soon = saved_or_late(part, seen, now=now)
        assert demands_of(soon)[0].window.end == max(now, LATER + TICK)
        assert demands_of(soon)[1].amounts == demands_of(part)[1].amounts, (
            "its disk, its memory's too"
        )


def test_one_that_was_saved_late_does_not_go_on_where_others_have_been_promised_room() -> None:
    """A bug that simulated worlds have found: what counted of it because it was late was taken for
    room of its own, though it had been promised to the lease for which it gave way."""
    here = running(8)
    found = asks(here, 8, now=LATER)
    then = after(here, found, now=LATER)
    urgent = replace(
        part_of(here, "a"),
        name="sites/north/tenants/demo/parts/urgent",
        spec=found.draft.allotment.spec,
        placed=found.draft.allotment.placed,
        keeping=None,
    )
    part = part_of(then, "a")
    longer = saved_or_late(part, {}, now=LATER + SAVE)
    assert longer is not part
    parts = {each.name: Versioned(value=each, revision=1) for each in (longer, urgent)}
    then = saved(replace(then, parts=parts), "a")
    soon = replace(POLICY, queue=QueuePolicy(worth=SECOND))
    assert starting(then, soon, now=LATER + SAVE) == []
    with pytest.raises(NoCapacity):
        start(then, "a", now=LATER + SAVE, policy=soon)
    alone = replace(then, parts={longer.name: parts[longer.name]})
    assert starting(alone, soon, now=LATER + SAVE + MINUTE) == [name_of("a")]


def test_to_go_on_for_as_long_as_there_is_room_is_one_step_of_its_terms() -> None:
    """A bug that simulated worlds have found: each length that was tried counted."""
    here = running(8)
    then = after(here, asks(here, 4, now=LATER), now=LATER)
    coming = replace(
        part_of(here, "a"),
        name="sites/north/tenants/demo/parts/later",
        spec=replace(part_of(here, "a").spec, window=Window(NOW + HOUR, NOW + 9 * HOUR)),
        keeping=None,
    )
    then = saved(with_records(then, coming), "a")
    part = part_of(start(then, "a", now=LATER + MINUTE), "a")
    assert part.window.end == NOW + HOUR - SAVE
    assert part.terms == part_of(then, "a").terms + 1


def test_usage_has_all_of_a_stretch_and_the_disk_that_is_kept_between_two() -> None:
    here = running(4)
    aside = replace(
        part_of(here, "a"),
        spec=replace(part_of(here, "a").spec, window=Window(NOW, LATER)),
        keeping=Keeping(mib_s=50, save=SAVE, until=NOW + 9 * HOUR),
    )
    first = next_period(aside, None)
    assert first == Window(NOW, LATER)
    assert charge_during(aside, first).reserved.hosts.vcpus == 4
    then = charge_during(aside, Window(LATER, LATER + HOUR)).reserved.hosts
    assert (then.vcpus, then.memory_mib, then.disk_mib) == (0, 0, 4 * (128 + 128))
    on = start(
        saved(after(here, asks(here, 8, now=LATER), now=LATER), "a"), "a", now=LATER + MINUTE
    )
    part = part_of(on, "a")
    periods, account = [], None
    for number in range(3):
        period = next_period(part, account)
        assert period is not None
        hosts = charge_during(part, period).reserved.hosts
        periods.append((period, hosts.vcpus, hosts.memory_mib, hosts.disk_mib))
        account = Account(name=part.name, until=period.end, number=number)
    assert periods == [
        (Window(NOW, LATER), 4, 512, 512),
        (Window(LATER, LATER + MINUTE), 0, 0, 1024),
        (Window(LATER + MINUTE, part.window.end), 4, 512, 512),
    ]


def test_one_that_may_be_cancelled_is_and_takes_no_room_to_be_kept() -> None:
    record = waits("a", best_effort(8, 4 * HOUR, cancellable=True))
    here = start(view([record]), "a")
    [demand] = demands_of(part_of(here, "a"))
    assert demand.amounts["host/n1/disk_mib"] == 4 * 128
    found = asks(here, 4, now=LATER)
    assert found.draft.allotment.spec.window.start == LATER, "nothing has to be saved"
    part = part_of(after(here, found, now=LATER), "a")
    assert (part.window.end, part.ends, part.end_reason) == (LATER, LATER, "PREEMPTED")
    told = step_of(part, {}, {}, here.fleet, POLICY, now=LATER)
    assert isinstance(told, End)
    over = settled(record_of(here), told.part, (), now=LATER)
    assert over.state is ClusterState.CANCELLED
    assert over.failure is not None
    assert over.failure.reason == "PREEMPTED"
    assert over.waits is not None
    assert over.waits.ran == 10 * MINUTE


def record_of(here: LedgerView) -> ClusterRecord:
    return here.clusters[name_of("a")].value


def test_one_that_ends_sooner_than_it_could_be_saved_runs_to_its_end() -> None:
    """To save it would take what another is promised from its end on."""
    here = view([waits("a", best_effort(8, HOUR))])
    here = start(here, "a", now=NOW)
    later = asks(here, 4, now=NOW, start_time=NOW + HOUR)
    other = replace(
        part_of(here, "a"),
        name="sites/north/tenants/demo/parts/later",
        spec=later.draft.allotment.spec,
        placed=later.draft.allotment.placed,
        keeping=None,
    )
    here = with_records(here, other)
    now = NOW + HOUR - 5 * SECOND
    found = asks(here, 4, now=now)
    there = after(here, found, now=now)
    calendar = calendar_of(there, POLICY)
    span = Window(now, now + SAVE)
    assert min(calendar.free(f"host/{each}/vcpus", span) for each in ("n1", "n2")) == 0
    assert aside(found) == []
    assert found.draft.allotment.spec.window.start == NOW + HOUR


def test_one_that_is_to_be_saved_soon_is_saved_at_once_where_that_is_sooner() -> None:
    """A bug: its end was taken for all that there is of it, so who came next waited until it was
    saved for another, a second later than it could be."""
    here = running(7)
    asked = asks(here, 2, now=LATER, start_time=LATER + SAVE + 2 * SECOND)
    then = after(here, asked, now=LATER)
    now = LATER + SECOND
    found = asks(then, 2, now=now)
    assert found.draft.allotment.spec.window.start == now + SAVE
    assert aside(found) == ["a"]
