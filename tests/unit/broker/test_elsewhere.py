"""A lease that is put aside and can go on only on other hosts: when it is brought there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from intertie.broker.domain import elsewhere
from intertie.broker.domain.cluster import ClusterState
from intertie.broker.domain.elsewhere import TRIES
from intertie.broker.domain.fleet import Fleet
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.migrating import arrived, dropped
from intertie.broker.domain.pace import paces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.placement import place
from intertie.broker.domain.queueing import (
    brought,
    given_more,
    outlooks,
    room_made,
    starting,
    stretches_over,
)
from intertie.broker.domain.snapshots import begun, grant_of
from intertie.broker.domain.stretches import put_aside, suspended
from intertie.common.intervals import Window
from intertie.common.snapshot import SnapshotState
from intertie.common.spec import Kind, LeaseTerms
from intertie.common.values import replace
from tests.unit.broker.line import (
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
from tests.unit.broker.samples import HOUR, NOW, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.standing import group, spec
from tests.unit.broker.test_replacing import on

MINUTE = timedelta(minutes=1)
LATER = NOW + 30 * MINUTE
NAME = name_of("a")


def hosts(aside: bool = True) -> Fleet:
    found = [
        facts(each, report_time=NOW + 24 * HOUR, migrates_aside=aside, cpu="same")
        for each in ("n1", "n2")
    ]
    return Fleet.of(found, POLICY)


def full(host: str, *, until: datetime, vcpus: int = 4, name: str = "full") -> Part:
    """A lease that does not wait has that much of the host."""
    spec = part_spec(workspace("x", 0, vcpus=vcpus))
    window = Window(NOW, until)
    return on(replace(spec, window=window), host, name=part(name).name, generation=1)


def put(count: int = 1, *, aside: bool = True) -> tuple[LedgerView, str]:
    """`a` is put aside, and saved, and where."""
    here = start(view([waits("a", best_effort(count, 2 * HOUR))]), "a")
    before, record = part_of(here, "a"), here.clusters[NAME].value
    kept = put_aside(before, record, LATER, paces_of(here, POLICY), POLICY, now=LATER)
    kept = replace(kept, generation=2)
    off = suspended(record, kept, now=LATER + MINUTE)
    assert off.state is ClusterState.SUSPENDED
    here = with_records(replace(here, fleet=hosts(aside)), off, kept)
    return saved(here, "a"), kept.placed[0].host


AT = LATER + 2 * MINUTE


def other(host: str) -> str:
    return "n2" if host == "n1" else "n1"


def brought_to(here: LedgerView, now: datetime = AT) -> dict[str, str]:
    change = brought(here, POLICY, now=now)
    if change is None:
        return {}
    [write] = change.writes
    assert isinstance(write.record, Part)
    assert change.admitted_on == here.generation
    assert all(each.aside for each in write.record.moving)
    return {each.workspace: each.host for each in write.record.moving}


def test_where_its_host_has_no_room_and_another_has_it_goes_there_and_goes_on() -> None:
    here, host = put()
    here = with_records(here, full(host, until=NOW + 9 * HOUR))
    assert starting(here, POLICY, now=AT) == []
    assert brought_to(here) == {"w-0": other(host)}
    change = brought(here, POLICY, now=AT)
    assert change is not None
    moving = written(here, change)
    assert starting(moving, POLICY, now=AT) == []
    [short] = outlooks(moving, POLICY, now=AT)[NAME].shortfalls
    assert "on its way to another host" in short.message
    assert brought_to(moving) == {}, "one at a time"
    before = part_of(moving, "a")
    there = with_records(moving, arrived(before, before.moving[0]))
    there = saved(there, "a")
    assert starting(there, POLICY, now=AT) == [NAME]
    went_on = part_of(start(there, "a", now=AT), "a")
    assert hosts_of(went_on.placed) == {"w-0": other(host)}
    assert went_on.keeping is not None
    assert went_on.keeping.moves == 0


def test_while_it_moves_nobody_gets_the_room_in_which_it_is_to_go_on() -> None:
    here, host = put()
    beside = full(other(host), until=AT - MINUTE, vcpus=3, name="beside")
    here = with_records(here, full(host, until=NOW + 9 * HOUR), beside)
    many = spec(
        group(count=0, min_count=1, max_count=4),
        lease=LeaseTerms(duration=4 * HOUR, kind=Kind.BEST_EFFORT),
    )
    here = start(with_records(here, waits("many", many)), "many")
    record = here.clusters[name_of("many")].value.move(ClusterState.ACTIVE, now=NOW)
    here = with_records(here, record)
    assert len(part_of(here, "many").placed) == 1

    def gets(there: LedgerView) -> int:
        found = given_more(there, POLICY, (), now=AT)
        return len(found[0].part.placed) if found is not None else 1

    assert gets(here) == 4
    change = brought(here, POLICY, now=AT)
    assert change is not None
    moving = written(here, change)
    assert gets(moving) == 1
    before = part_of(moving, "a")
    there = replace(arrived(before, before.moving[0]), generation=3)
    arriving = with_records(moving, there)
    assert gets(arriving) == 1, "its host has yet to say that it has it"
    assert gets(saved(arriving, "a")) == 3, "it goes on in the rest"


def test_others_are_left_with_fewer_for_the_first_in_line_that_waits_for_room_alone() -> None:
    """A bug: for as long as what the first had was not saved, its host silent, nobody was."""
    here, host = put()
    many = spec(
        group(count=0, min_count=1, max_count=4),
        lease=LeaseTerms(duration=4 * HOUR, kind=Kind.BEST_EFFORT),
    )
    here = with_records(here, full(host, until=NOW + 9 * HOUR), waits("many", many))
    here = start(here, "many")
    here = with_records(here, waits("x", best_effort(2), now=LATER))
    assert room_made(here, POLICY, now=AT) is None, "that is `a`, which is to go on elsewhere"
    change = room_made(replace(here, seen={}), POLICY, now=AT)
    assert change is not None
    assert len(part_of(written(here, change), "many").placed) == 2


def test_while_it_moves_it_is_not_late() -> None:
    """Hosts that have yet to obey would make it one that is not saved: all that it had would count
    again on a host that has no room for it."""
    here, host = put()
    here = with_records(here, full(host, until=NOW + 9 * HOUR))
    change = brought(here, POLICY, now=AT)
    assert change is not None
    moving = written(here, change)
    moving = with_records(moving, replace(part_of(moving, "a"), generation=3))
    assert all(each.admitted_on is None for each in stretches_over(moving, now=AT + MINUTE))
    there = part_of(moving, "a")
    there = replace(arrived(there, there.moving[0]), generation=4)
    after = with_records(moving, there)
    assert all(each.admitted_on is None for each in stretches_over(after, now=AT + MINUTE))
    assert starting(after, POLICY, now=AT + MINUTE) == [], "before its new host has it in order"


def test_where_its_host_has_room_soon_it_waits() -> None:
    here, host = put()
    assert brought_to(here) == {}, "it has room now"
    soon = with_records(here, full(host, until=AT + timedelta(seconds=20)))
    assert brought_to(soon) == {}


def test_where_no_other_host_has_room_it_waits() -> None:
    here, _ = put()
    parts = (full(each, until=NOW + 9 * HOUR, name=f"full{each}") for each in ("n1", "n2"))
    assert brought_to(with_records(here, *parts)) == {}


def test_only_as_many_as_are_too_many_go() -> None:
    here, _ = put(4)
    placed = part_of(here, "a").placed
    counts = {each: sum(p.host == each for p in placed) for each in ("n1", "n2")}
    crowded = max(counts, key=lambda each: counts[each])
    here = with_records(here, full(crowded, until=NOW + 9 * HOUR, vcpus=4 - counts[crowded] + 1))
    found = brought_to(here)
    assert list(found.values()) == [other(crowded)]


def test_of_a_large_one_a_few_numbers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: each number of its workspaces was, and for each all hosts were gone through: on 1,000
    hosts a lease of 100 workspaces held the leader up for seconds, each 5 s, for as long as there
    was no room for it."""
    tried = []

    def counted(*asked: Any, **how: Any) -> Any:
        tried.append(asked)
        return place(*asked, **how)

    monkeypatch.setattr(elsewhere, "place", counted)
    here, _ = put(8)
    assert sum(each.host == "n1" for each in part_of(here, "a").placed) == 4
    assert brought_to(with_records(here, full("n1", until=NOW + 9 * HOUR))) == {}
    assert 0 < len(tried) <= 3


def test_not_by_agents_that_do_not_know_how_nor_before_it_is_saved() -> None:
    here, host = put(aside=False)
    here = with_records(here, full(host, until=NOW + 9 * HOUR))
    assert brought_to(here) == {}
    here, host = put()
    here = with_records(here, full(host, until=NOW + 9 * HOUR))
    assert brought_to(replace(here, seen={})) == {}


def test_not_while_an_image_is_made_of_its_disk() -> None:
    """A bug: it went, and the image that its owner had asked for before was lost."""
    here, host = put()
    here = with_records(here, full(host, until=NOW + 9 * HOUR))
    kept = part_of(here, "a")
    grant = grant_of(kept, "w-0", "before", "alice", now=NOW)
    copied = begun(kept, grant, "s1", b"signed")
    assert brought_to(with_records(here, copied)) == {}
    [made] = copied.snapshots
    done = replace(made, shown=replace(made.shown, state=SnapshotState.READY))
    here = with_records(here, replace(copied, snapshots=(done,)))
    assert brought_to(here) == {"w-0": other(host)}


def test_it_is_tried_a_few_times_and_then_it_waits() -> None:
    here, host = put()
    here = with_records(here, full(host, until=NOW + 9 * HOUR))
    for _ in range(TRIES):
        change = brought(here, POLICY, now=AT)
        assert change is not None
        here = written(here, change)
        back = dropped(part_of(here, "a"), part_of(here, "a").moving[0], "the tunnel broke")
        assert brought_to(saved(with_records(here, back), "a")) == {}, "until that is cleared"
        here = saved(with_records(here, replace(back, left=())), "a")
    assert brought_to(here) == {}
