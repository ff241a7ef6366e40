"""A lease gives way by migration: how both outcomes count until one is known, and what becomes
of it if it does not get there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from intertie.broker.domain.cluster import ClusterState, workspaces_of
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import MigrationOutcome
from intertie.broker.domain.giving_way import (
    writes_of,
)
from intertie.broker.domain.keeping import ANSWERED_WITHIN
from intertie.broker.domain.migrating import dropped, next_of, until
from intertie.broker.domain.moving import MovingState
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.preemptible import free_from
from intertie.broker.domain.queueing import stretches_over
from intertie.broker.domain.records import Change
from intertie.broker.domain.vacating import HAS_GONE
from intertie.common.errors import NoCapacity
from intertie.common.etcd.records import decode, encode
from intertie.common.values import replace
from tests.unit.broker.line import (
    best_effort,
    name_of,
    part_of,
    view,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, POLICY
from tests.unit.broker.vacating import (
    ALONE,
    LATER,
    MINUTE,
    SAVE,
    SECOND,
    SENT,
    after,
    amount,
    asks,
    gone,
    least_free,
    noted,
    one,
    passed,
    placed_on,
    said,
    split,
)


def test_both_outcomes_count_until_one_is_known() -> None:
    then = after(split(), asks(split()))
    part = part_of(then, "b")
    on_its_way, late, over = LATER + SECOND, ALONE + SECOND, part.window.end + SECOND
    vcpus = {
        host: [amount(part, f"host/{host}/vcpus", at) for at in (on_its_way, late, over)]
        for host in ("n1", "n2")
    }
    assert vcpus == {"n1": [1, 1, 0], "n2": [1, 0, 0]}
    disk = {
        host: [amount(part, f"host/{host}/disk_mib", at) for at in (on_its_way, late, over)]
        for host in ("n1", "n2")
    }
    assert disk == {"n1": [256, 256, 256], "n2": [256, 256, 256]}, "it may be kept at either"


def test_once_it_is_there_it_has_no_more_than_any_other_lease() -> None:
    here = gone(after(split(), asks(split())))
    part = part_of(here, "b")
    assert (hosts_of(part.placed), part.moving) == ({"w-0": "n1"}, ())
    assert amount(part, "host/n2/vcpus", LATER + MINUTE) == 1, "not cleared yet"
    here = passed(here, LATER + 30 * SECOND)
    part = part_of(here, "b")
    assert part.vacating is None
    assert part.window == part_of(split(), "b").window
    assert here.clusters[name_of("b")].value.reasons == (HAS_GONE,)
    cleared = replace(part, left=())
    [demand] = demands_of(cleared)
    assert demand.amounts["host/n1/vcpus"] == 1
    assert "host/n2/vcpus" not in demand.amounts
    assert least_free(with_records(here, cleared)) >= 0


def test_one_that_does_not_get_there_is_put_aside_in_time_for_the_other() -> None:
    here = after(split(), asks(split()))
    failed = said(part_of(here, "b"), "n1", MigrationOutcome.FAILED, "no room")
    here = noted(here, failed, LATER + SECOND)
    here = passed(here, LATER + 2 * SECOND)
    part, record = part_of(here, "b"), here.clusters[name_of("b")].value
    assert (part.vacating, part.moving) == (None, ())
    assert part.window.end == ALONE - SAVE, "it runs until then"
    assert free_from(part) == ALONE
    assert (record.state, record.window) == (ClusterState.SCHEDULED, part.window)
    assert part.terms == record.terms == 1
    assert part.price[-1].window.end == part.window.end
    assert least_free(here) >= 0
    here = passed(here, ALONE - SAVE)
    assert here.clusters[name_of("b")].value.state is ClusterState.SUSPENDED
    [shown] = workspaces_of(part, {})
    assert shown.message == "it was to go to n1, and stays: no room"


def test_where_one_workspace_stays_the_others_go_no_further_and_it_counts_as_put_aside() -> None:
    """A bug that the property test has found: it counted as if it might yet run on where it was, in
    room that had been promised to the other lease."""
    here = one("b", "n2", best_effort(2, 4 * HOUR), placed_on("n1", "a", view([])))
    here = after(here, asks(here))
    part = part_of(here, "b")
    assert [each.workspace for each in part.moving] == ["w-0", "w-1"]
    first, second = part.moving
    sent = replace(part, moving=(first.move(MovingState.SENDING, now=LATER), second))
    one_stays = dropped(sent, sent.moving[0], "the tunnel broke")
    at = LATER + 5 * SECOND
    assert least_free(with_records(here, one_stays), ALONE + 4 * SECOND) >= 0
    neither = next_of(one_stays, {}, here.fleet, now=at)
    assert neither is not None
    assert neither.moving == ()
    assert neither.unmoved[-1][1].endswith("another one of the lease stays")
    both_sent = replace(one_stays, moving=(second.move(MovingState.SENDING, now=LATER),))
    asked = next_of(both_sent, {}, here.fleet, now=at)
    assert asked is not None
    assert asked.moving[0].state is MovingState.ANSWERING
    aside = part_of(passed(with_records(here, neither), at), "b")
    assert part.vacating is not None
    assert aside.window.end == part.vacating.by


def test_one_that_is_late_is_broken_off_and_its_source_says_who_has_it() -> None:
    here = after(split(), asks(split()))
    here = noted(here, said(part_of(here, "b"), "n1", MigrationOutcome.READY), LATER + SECOND)
    part = part_of(here, "b")
    broken_off = ALONE - SAVE - ANSWERED_WITHIN
    assert part.moving[0].state is MovingState.SENDING
    assert until(part) == broken_off
    assert next_of(part, {}, here.fleet, now=broken_off - SECOND) is None
    here = noted(here, {}, broken_off)
    part = part_of(here, "b")
    assert part.moving[0].state is MovingState.ANSWERING
    assert until(part) is None, "the time alone asks for nothing more"
    assert passed(here, broken_off) == here, "it may be at either"

    kept = noted(here, said(part, "n2", MigrationOutcome.KEPT), broken_off + SECOND)
    kept = passed(kept, broken_off + SECOND)
    assert part_of(kept, "b").window.end == ALONE - SAVE
    assert least_free(kept) >= 0
    given = noted(here, said(part, "n2", MigrationOutcome.GIVEN), broken_off + SECOND)
    given = passed(given, broken_off + SECOND)
    assert part_of(given, "b").window == part.window
    assert hosts_of(part_of(given, "b").placed) == {"w-0": "n1"}


def test_what_is_not_even_ready_then_is_dropped() -> None:
    here = after(split(), asks(split()))
    broken_off = ALONE - SAVE - ANSWERED_WITHIN
    here = noted(here, said(part_of(here, "b"), "n1", MigrationOutcome.READY), broken_off)
    here = passed(here, broken_off)
    part = part_of(here, "b")
    assert (part.moving, part.window.end) == ((), ALONE - SAVE)
    assert part.unmoved[0][1].endswith("not there in time for the lease that it makes room for")


def test_what_nobody_has_answered_in_time_counts_on_and_is_put_aside_after_that() -> None:
    """A host that is cut off, or a leader that comes late: what may be there is counted there."""
    here = after(split(), asks(split()))
    here = noted(here, said(part_of(here, "b"), "n1", MigrationOutcome.READY), LATER + SECOND)
    here = noted(here, {}, ALONE)
    at = ALONE + 5 * SECOND
    here = passed(here, at)
    part = part_of(here, "b")
    assert amount(part, "host/n2/vcpus", at + 29 * SECOND) == 1
    assert amount(part, "host/n2/vcpus", at + 31 * SECOND) == 0
    assert passed(here, at + 29 * SECOND) == here
    at += MINUTE
    here = passed(here, at)
    assert amount(part_of(here, "b"), "host/n2/vcpus", at + 29 * SECOND) == 1
    here = noted(here, said(part, "n2", MigrationOutcome.KEPT), at + SECOND)
    here = passed(here, at + 2 * SECOND)
    part = part_of(here, "b")
    assert part.window.end == at + 2 * SECOND, "at once, whatever was counted meanwhile"
    assert part.keeping is not None
    assert part.keeping.until == part.window.end + POLICY.queue.longest_wait
    assert here.clusters[name_of("b")].value.state is ClusterState.SUSPENDED


def test_what_is_saved_later_than_was_counted_is_decided_like_an_admission() -> None:
    """A bug: its answer came after the end that it was to have, and who was admitted at that
    moment had not counted that it is saved from then on."""
    here = after(split(), asks(split()))
    here = noted(here, said(part_of(here, "b"), "n1", MigrationOutcome.READY), LATER + SECOND)
    here = noted(here, {}, ALONE - SAVE - ANSWERED_WITHIN)
    kept = said(part_of(here, "b"), "n2", MigrationOutcome.KEPT)
    for late in (timedelta(), SECOND, MINUTE):
        now = ALONE - SAVE + late
        there = noted(here, kept, now)
        [change] = stretches_over(there, now=now)
        aside = part_of(written(there, change), "b")
        assert free_from(aside) == ALONE + late
        assert change.admitted_on == (here.generation if late else None)


def test_a_target_that_is_lost_changes_nothing_for_the_other_lease() -> None:
    here = after(split(), asks(split()))
    here = noted(here, {}, LATER + SECOND, fenced=["n1"])
    here = passed(here, LATER + SECOND)
    assert part_of(here, "b").window.end == ALONE - SAVE


def test_one_that_is_cancellable_goes_as_well_and_is_cancelled_only_if_it_does_not() -> None:
    here = one(
        "b", "n2", best_effort(1, 4 * HOUR, cancellable=True), placed_on("n1", "a", view([]))
    )
    found = asks(here)
    [gives_way] = found.aside
    assert gives_way.after.moving
    assert found.draft.start == LATER + SENT + ANSWERED_WITHIN
    then = after(here, found)
    assert least_free(then) >= 0
    failed = said(part_of(then, "b"), "n1", MigrationOutcome.FAILED, "no room")
    then = passed(noted(then, failed, LATER + SECOND), LATER + SECOND)
    part = part_of(then, "b")
    assert (part.window.end, part.end_reason) == (found.draft.start, "PREEMPTED")
    there = passed(gone(after(here, found)), LATER + MINUTE)
    assert part_of(there, "b").end_reason == ""


def test_who_comes_next_may_have_it_put_aside_where_it_was_and_was_to_be() -> None:
    """Else it would be refused for the sake of a lease that gives way."""
    here = after(split(), asks(split()))
    now = LATER + 5 * SECOND
    found = asks(here, vcpus=4, now=now)
    assert {each.record.value.name for each in found.aside} == {name_of("a"), name_of("b")}
    [called_off] = [each.after for each in found.aside if each.record.value.name == name_of("b")]
    assert called_off.vacating is not None
    assert called_off.vacating.called_off
    assert found.draft.reasons[-1] == "2 leases give way that may have to", "none goes elsewhere"
    free = now + ANSWERED_WITHIN + SAVE
    assert free_from(called_off) == free == found.draft.start
    there = written(here, Change(writes=tuple(writes_of(found.aside, now=now))))
    assert least_free(there, now) >= 0
    with pytest.raises(NoCapacity):
        asks(there, vcpus=4, now=now, count=2)
    there = noted(there, {}, now)
    assert part_of(there, "b").moving == (), "at once"
    there = passed(there, now + SECOND)
    assert part_of(there, "b").window.end == now + ANSWERED_WITHIN


def test_one_that_is_there_by_then_is_put_aside_there() -> None:
    here = after(split(), asks(split()))
    now = LATER + 5 * SECOND
    found = asks(here, vcpus=4, now=now)
    there = written(here, Change(writes=tuple(writes_of(found.aside, now=now))))
    part = part_of(there, "b")
    arrived = noted(there, said(part, "n1", MigrationOutcome.TAKEN), now)
    arrived = passed(arrived, now + SECOND)
    part = part_of(arrived, "b")
    assert hosts_of(part.placed) == {"w-0": "n1"}
    assert part.window.end == now + ANSWERED_WITHIN
    assert least_free(arrived, now) >= 0


def test_it_is_on_record_as_it_is_and_older_records_are_read() -> None:
    part = part_of(after(split(), asks(split())), "b")
    assert decode(Part, encode(part)) == part
    plain = part_of(split(), "b")
    old = encode(plain).replace(b'"vacating":null,', b"")
    assert b"vacating" not in old
    assert decode(Part, old) == plain
