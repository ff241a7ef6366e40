"""A lease gives way by migration: who does and when, how both outcomes count until one is known,
and what becomes of it if it does not get there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.broker.domain.amending import amend_before_others
from intertie.broker.domain.amounts import host_key
from intertie.broker.domain.cluster import ClusterState, workspaces_of
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.fleet import Fleet, MigrationOutcome, Policy, SeenMigration, SeenPart
from intertie.broker.domain.fleet import WorkspaceState as State
from intertie.broker.domain.giving_way import (
    Admissible,
    allotted_before_others,
    draft_before_others,
    writes_of,
)
from intertie.broker.domain.keeping import ANSWERED_WITHIN
from intertie.broker.domain.ledger import LedgerView, calendar_of
from intertie.broker.domain.migrating import dropped, next_of, until
from intertie.broker.domain.moving import MovingState
from intertie.broker.domain.offers import offers_of
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.preemptible import free_from
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.queueing import stretches_over
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.snapshots import begun, grant_of
from intertie.broker.domain.vacating import GOES, HAS_GONE
from intertie.broker.domain.wanted import Role, wanted_of
from intertie.common.amend_rules import GROUPS
from intertie.common.errors import NoCapacity
from intertie.common.etcd.records import decode, encode
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import MIGRATIONS
from intertie.common.names import ClusterName
from intertie.common.quantities import DIMENSIONS
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms, normalise
from intertie.common.values import replace
from tests.unit.broker.line import (
    best_effort,
    by_deadline,
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
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part_spec, workspace
from tests.unit.broker.standing import ALLOCATION, admitted, group, spec

MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
LATER = NOW + 10 * MINUTE
SAVE = 4 * SECOND
"""Of 128 MiB at 50 MiB/s, and the margin."""
SENT = 40 * SECOND
"""256 MiB of disk and memory at 25 MiB/s, half of the uplink, and what hosts take to begin."""
ALONE = LATER + SENT + ANSWERED_WITHIN + SAVE
"""When there is room where one was that went now."""


def placed_on(host: str, cluster_id: str, here: LedgerView, *, now: datetime = NOW) -> LedgerView:
    """With a best-effort lease of one workspace that runs there."""
    return one(cluster_id, host, best_effort(1, 4 * HOUR), here, now=now)


def one(
    cluster_id: str, host: str, asked: Any, here: LedgerView, *, now: datetime = NOW
) -> LedgerView:
    record = waits(cluster_id, asked, now=now)
    here = start(with_records(here, record), cluster_id, now=now)
    part = part_of(here, cluster_id)
    placed = tuple(replace(each, host=host) for each in part.placed)
    return runs(with_records(here, replace(part, placed=placed, generation=3)), cluster_id)


def runs(here: LedgerView, cluster_id: str) -> LedgerView:
    """As its hosts say."""
    part = part_of(here, cluster_id)
    return replace(here, seen={**here.seen, part.uid: reports_of(part, State.RUNNING)})


def split() -> LedgerView:
    """`a` has one vCPU of four on n1, and `b`, which came later, one on n2."""
    return placed_on("n2", "b", placed_on("n1", "a", view([])), now=NOW + MINUTE)


def sized(cluster_id: str, host: str, vcpus: int, here: LedgerView) -> LedgerView:
    lease = LeaseTerms(kind=Kind.BEST_EFFORT, duration=4 * HOUR)
    allocation = replace(ALLOCATION, vcpus=vcpus)
    return one(cluster_id, host, spec(group(allocation=allocation), lease=lease), here)


def asks(
    here: LedgerView,
    *,
    now: datetime = LATER,
    vcpus: int = 4,
    count: int = 1,
    policy: Policy = POLICY,
    **lease: Any,
) -> Admissible:
    """For guests of so many vCPUs: a whole host has four."""
    allocation = replace(ALLOCATION, vcpus=vcpus)
    terms = LeaseTerms(**{"duration": HOUR, **lease})
    asked = normalise(spec(group(count=count, allocation=allocation), lease=terms), now=now)
    return draft_before_others(
        ClusterName.parse(name_of("urgent")), "urgent", asked, here, policy, now=now
    )


def by(name: str) -> Policy:
    return replace(POLICY, queue=QueuePolicy(migration=MIGRATIONS[name]))


def after(here: LedgerView, found: Admissible, *, now: datetime = LATER) -> LedgerView:
    """With what gives way as it does, and the lease for which it does."""
    urgent = Part(
        name="sites/north/tenants/demo/parts/urgent",
        state=PartState.CONFIRMED,
        spec=found.draft.allotment.spec,
        owner="alice",
        create_time=now,
        seed="",
        placed=found.draft.allotment.placed,
    )
    here = written(here, Change(writes=tuple(writes_of(found.aside, now=now))))
    return with_records(here, urgent)


def said(
    part: Part, host: str, outcome: MigrationOutcome, message: str = ""
) -> dict[str, SeenPart]:
    [moving] = part.moving
    seen = reports_of(part, State.RUNNING)
    told = SeenMigration(number=moving.number, outcome=outcome, message=message)
    [workspace] = reports_of(part, State.RUNNING)[part.placed[0].host].workspaces
    return {
        **seen,
        host: replace(seen[host], workspaces=(replace(workspace, migration=told),)),
    }


def noted(
    here: LedgerView, seen: dict[str, SeenPart], now: datetime, fenced: Any = ()
) -> LedgerView:
    """After what `b`'s hosts say of its migration."""
    fleet: Fleet = replace(here.fleet, fenced=frozenset(fenced))
    found = next_of(part_of(here, "b"), seen, fleet, now=now)
    return here if found is None else with_records(here, found)


def passed(here: LedgerView, now: datetime) -> LedgerView:
    """After the queue's passes."""
    while (change := next(stretches_over(here, now=now), None)) is not None:
        here = written(here, change)
    return here


def gone(here: LedgerView, now: datetime = LATER + 20 * SECOND) -> LedgerView:
    """Once `b` was given to n1."""
    here = noted(here, said(part_of(here, "b"), "n1", MigrationOutcome.READY), now)
    return noted(here, said(part_of(here, "b"), "n2", MigrationOutcome.GIVEN), now)


def least_free(here: LedgerView, since: datetime = LATER) -> int:
    calendar = calendar_of(here, POLICY)
    window = Window(since, since + 9 * HOUR)
    keys = [host_key(host, each) for host in ("n1", "n2") for each in DIMENSIONS]
    return min(calendar.free(key, window) for key in keys)


def amount(part: Part, key: str, at: datetime) -> int:
    return sum(each.amounts.get(key, 0) for each in demands_of(part) if each.window.contains(at))


def test_who_has_room_at_another_host_goes_there_while_it_runs() -> None:
    here = split()
    found = asks(here)
    [gives_way] = found.aside
    assert gives_way.record.value.name == name_of("b"), "as the policy says"
    assert found.draft.start == ALONE
    assert found.draft.reasons[-2:] == (
        "1 lease gives way that may have to",
        "of these 1 goes to other hosts meanwhile",
    )
    then = after(here, found)
    before, part = part_of(here, "b"), part_of(then, "b")
    assert [(each.workspace, each.host, each.aside) for each in part.moving] == [
        ("w-0", "n1", False)
    ]
    assert (part.window, part.terms, part.price) == (before.window, before.terms, before.price)
    assert part.keeping == before.keeping
    record = then.clusters[name_of("b")].value
    assert record.state is here.clusters[name_of("b")].value.state
    assert record.reasons == (GOES,)
    [shown] = workspaces_of(part, then.seen[part.uid])
    assert (shown.host, shown.migrating_to, shown.state) == ("n2", "n1", State.RUNNING)
    assert least_free(then) >= 0
    told = wanted_of(part, then.fleet, POLICY, gone=False)
    assert {each.keep_until for each in told.values()} == {None}, "it runs as any other part"
    [taken] = told["n1"].workspaces
    assert taken.migration is not None
    assert (taken.migration.role, taken.migration.aside) == (Role.TAKE, False)


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


def test_who_is_put_aside_beside_one_that_goes_runs_until_then() -> None:
    """It could be saved at once, and nobody had its room for most of a minute."""
    here = one("c", "n1", best_effort(2, 4 * HOUR), split(), now=NOW + 2 * MINUTE)
    here = one("d", "n2", best_effort(3, 4 * HOUR), here, now=NOW + 3 * MINUTE)
    found = asks(here)
    ways = {each.record.value.name.rpartition("/")[2]: each.after for each in found.aside}
    [goes] = [each for each in ways.values() if each.moving]
    [aside] = [each for each in ways.values() if not each.moving]
    assert goes.vacating is not None
    assert goes.vacating.free_from == found.draft.start
    assert free_from(aside) == found.draft.start
    assert aside.window.end > LATER + SENT
    assert least_free(after(here, found)) >= 0


def test_nobody_goes_to_room_that_one_beside_it_has_until_it_is_gone() -> None:
    """A bug that the property test has found: one that could be cancelled at once left its room to
    another on its way, and was then let run on, or go elsewhere itself, until the lease began."""
    here = view([])
    for name, host, vcpus in (("a", "n1", 1), ("b", "n2", 2)):
        here = sized(name, host, vcpus, here)
    here = one("c", "n1", best_effort(3, 4 * HOUR, cancellable=True), here, now=NOW + MINUTE)
    part = part_of(here, "c")
    hosts = ("n2", "n2", "n1")
    placed = tuple(replace(at, host=host) for at, host in zip(part.placed, hosts, strict=True))
    here = runs(with_records(here, replace(part, placed=placed)), "c")
    here = one("d", "n1", best_effort(1, 4 * HOUR), here, now=NOW + 2 * MINUTE)
    for start_time in (None, LATER + MINUTE):
        then = after(here, asks(here, start_time=start_time))
        assert least_free(then) >= 0


def test_for_an_advance_lease_only_who_is_there_before_its_start() -> None:
    here = split()
    found = asks(here, start_time=ALONE)
    assert found.draft.start == ALONE
    [gives_way] = found.aside
    assert gives_way.after.moving
    early = asks(here, start_time=ALONE - SECOND)
    assert early.draft.start == ALONE - SECOND
    [gives_way] = early.aside
    assert not gives_way.after.moving
    assert gives_way.after.window.end == ALONE - SECOND - SAVE
    later = asks(here, start_time=NOW + 2 * HOUR)
    [gives_way] = later.aside
    assert gives_way.after.vacating is not None
    assert gives_way.after.vacating.by == NOW + 2 * HOUR - SAVE, "that is when it would be saved"
    assert least_free(after(here, later)) >= 0


def test_the_operator_says_whether_a_lease_waits_until_others_have_gone() -> None:
    here = split()
    assert asks(here, policy=by("first")).draft.start == ALONE
    for name in ("in-advance", "never"):
        found = asks(here, policy=by(name))
        assert found.draft.start == LATER + SAVE
        assert not found.aside[0].after.moving
    advance = asks(here, policy=by("in-advance"), start_time=ALONE)
    assert advance.aside[0].after.moving
    never = asks(here, policy=by("never"), start_time=ALONE)
    assert not never.aside[0].after.moving
    with_end = asks(here, duration=None, end_time=LATER + HOUR)
    assert with_end.draft.start == LATER + SAVE, "what it waits would be less of the lease"
    slow = tuple(
        facts(each, report_time=NOW + 24 * HOUR, capacity=replace(one_.capacity, uplink_mbit_s=32))
        for each, one_ in here.fleet.facts.items()
    )
    far = replace(here, fleet=Fleet.of(slow, POLICY))
    assert asks(far).draft.start == LATER + SAVE, "two minutes at most"


def test_it_does_not_wait_for_others_where_it_would_begin_sooner_without() -> None:
    """Within the delay that its owner allows."""
    here = split()
    part = part_of(here, "b")
    soon = replace(part, spec=replace(part.spec, window=Window(NOW, LATER + 30 * SECOND)))
    here = with_records(here, soon)
    ends = placed_on("n1", "c", here)
    found = asks(ends, max_delay=5 * MINUTE)
    assert not any(each.after.moving for each in found.aside)
    assert found.draft.start <= LATER + 30 * SECOND


def test_who_cannot_go_is_put_aside_as_ever() -> None:
    here = split()
    part = part_of(here, "b")
    old = Fleet.of(
        [facts(each, report_time=NOW + 24 * HOUR, migrates=False) for each in ("n1", "n2")], POLICY
    )
    arm = Fleet.of(
        [
            facts("n1", report_time=NOW + 24 * HOUR, architecture="aarch64"),
            facts("n2", report_time=NOW + 24 * HOUR),
        ],
        POLICY,
    )
    kvm = Fleet.of(
        [
            facts(each, report_time=NOW + 24 * HOUR, hypervisors=("kvm",), cpu=each)
            for each in ("n1", "n2")
        ],
        POLICY,
    )
    grant = grant_of(part, "w-0", "image", "alice", now=NOW)
    keeping = part.keeping
    assert keeping is not None
    cases = {
        "an agent of an earlier release": replace(here, fleet=old),
        "another architecture": replace(here, fleet=arm),
        "another processor": replace(here, fleet=kvm),
        "it does not run yet": replace(here, seen={}),
        "a part of a migration is left": with_records(
            here,
            replace(part, shed=(), left=gone(after(here, asks(here))).parts[part.name].value.left),
        ),
        "an image is being made": with_records(here, begun(part, grant, "s1", b"g")),
        "it is to be saved in any case": with_records(
            here, replace(part, keeping=replace(keeping, until=NOW + 99 * HOUR))
        ),
        "it is about to end": with_records(
            here, replace(part, spec=replace(part.spec, window=Window(NOW, LATER + MINUTE)))
        ),
    }
    for why, there in cases.items():
        found = asks(there)
        assert not any(each.after.moving for each in found.aside), why
    full = placed_on("n1", "c", placed_on("n1", "d", placed_on("n1", "e", here)))
    found = asks(full)
    assert [each.after.moving for each in found.aside] == [()], "no room elsewhere"


def test_one_with_a_deadline_is_put_off_as_ever() -> None:
    here = placed_on("n1", "a", view([]))
    here, _ = in_time("b", by_deadline(1, 2 * HOUR, deadline=NOW + 9 * HOUR), here)
    part = part_of(here, "b")
    placed = tuple(replace(each, host="n2") for each in part.placed)
    here = runs(with_records(here, replace(part, placed=placed, generation=3)), "b")
    here = replace(here, seen={part.uid: here.seen[part.uid]})  # and `a` cannot go
    found = asks(here, vcpus=4, count=2)
    assert {each.after.name for each in found.aside} >= {part.name}
    assert not any(each.after.moving for each in found.aside)


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


def test_as_few_of_its_workspaces_as_are_enough_go() -> None:
    here = one("b", "n2", best_effort(3, 4 * HOUR), placed_on("n1", "a", view([])))
    found = asks(here, vcpus=3)
    assert found.aside == (), "n1 has three"
    found = asks(here, vcpus=2, count=2)
    [gives_way] = found.aside
    assert [each.workspace for each in gives_way.after.moving] == ["w-0"]
    then = after(here, found)
    assert least_free(then) >= 0
    part = part_of(then, "b")
    assert part.vacating is not None
    assert [each.workspace for each in part.vacating.leaves] == ["w-0"]


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


def test_for_a_part_that_is_held_and_for_more_time_it_is_the_same() -> None:
    here = split()
    wanted = part_spec(workspace(vcpus=4), window=Window(ALONE, ALONE + HOUR))
    _, [gives_way] = allotted_before_others(
        wanted, here, POLICY, tenant="demo", now=LATER, alone=True
    )
    assert gives_way.after.moving
    soon = replace(wanted, window=Window(ALONE - SECOND, ALONE + HOUR))
    _, [gives_way] = allotted_before_others(
        soon, here, POLICY, tenant="demo", now=LATER, alone=True
    )
    assert not gives_way.after.moving


def test_for_one_to_come_that_is_to_be_larger_others_go_before_it_begins() -> None:
    lease = LeaseTerms(start_time=NOW + HOUR, duration=HOUR)

    def of(vcpus: int) -> ClusterSpec:
        return spec(group(allocation=replace(ALLOCATION, vcpus=vcpus)), lease=lease)

    record, part = admitted("one", of(2), view([]), now=NOW)
    [there] = part.placed
    here = placed_on(there.host, "b", with_records(view([]), part))
    amendment, aside = amend_before_others(
        record, part, of(4), (GROUPS,), here, POLICY, now=LATER, alone=True
    )
    assert amendment is not None
    [gives_way] = aside
    assert [each.host for each in gives_way.after.moving] == ["n2" if there.host == "n1" else "n1"]
    assert gives_way.after.vacating is not None
    assert gives_way.after.vacating.free_from == NOW + HOUR
    writes = (*writes_of(aside, now=LATER), Write(record=amendment.part))
    assert least_free(written(here, Change(writes=writes))) >= 0


def test_offers_say_what_could_be_had_of_those_on_their_way() -> None:
    here = after(split(), asks(split()))
    here = replace(
        here, parts={key: each for key, each in here.parts.items() if "urgent" not in key}
    )
    now = LATER + SECOND
    [offer] = offers_of(here, POLICY, (Window(now, now + HOUR),), (), now=now, before_others=True)
    assert now + ANSWERED_WITHIN + SAVE in offer.room_from


def test_it_is_on_record_as_it_is_and_older_records_are_read() -> None:
    part = part_of(after(split(), asks(split())), "b")
    assert decode(Part, encode(part)) == part
    plain = part_of(split(), "b")
    old = encode(plain).replace(b'"vacating":null,', b"")
    assert b"vacating" not in old
    assert decode(Part, old) == plain
