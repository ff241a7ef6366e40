"""Who gives way by migration, when, and for whom."""

from __future__ import annotations

from intertie.broker.domain.amending import amend_before_others
from intertie.broker.domain.cluster import workspaces_of
from intertie.broker.domain.fleet import Fleet, Policy
from intertie.broker.domain.fleet import WorkspaceState as State
from intertie.broker.domain.giving_way import (
    allotted_before_others,
    writes_of,
)
from intertie.broker.domain.keeping import ANSWERED_WITHIN
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.offers import offers_of
from intertie.broker.domain.preemptible import free_from
from intertie.broker.domain.queue_policy import QueuePolicy
from intertie.broker.domain.records import Change, Write
from intertie.broker.domain.snapshots import begun, grant_of
from intertie.broker.domain.vacating import GOES
from intertie.broker.domain.wanted import Role, wanted_of
from intertie.common.amend_rules import GROUPS
from intertie.common.intervals import Window
from intertie.common.leasing.plugins import MIGRATIONS
from intertie.common.spec import ClusterSpec, Kind, LeaseTerms
from intertie.common.values import replace
from tests.unit.broker.line import (
    best_effort,
    by_deadline,
    in_time,
    name_of,
    part_of,
    view,
    with_records,
    written,
)
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part_spec, workspace
from tests.unit.broker.standing import ALLOCATION, admitted, group, spec
from tests.unit.broker.vacating import (
    ALONE,
    LATER,
    MINUTE,
    SAVE,
    SECOND,
    SENT,
    after,
    asks,
    gone,
    least_free,
    one,
    placed_on,
    runs,
    split,
)


def sized(cluster_id: str, host: str, vcpus: int, here: LedgerView) -> LedgerView:
    lease = LeaseTerms(kind=Kind.BEST_EFFORT, duration=4 * HOUR)
    allocation = replace(ALLOCATION, vcpus=vcpus)
    return one(cluster_id, host, spec(group(allocation=allocation), lease=lease), here)


def by(name: str) -> Policy:
    return replace(POLICY, queue=QueuePolicy(migration=MIGRATIONS[name]))


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
