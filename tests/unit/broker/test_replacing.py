"""What becomes of a part without one of its hosts: decisions alone."""

from datetime import timedelta
from typing import Any

import pytest

from intertie.broker.domain.counted import Used
from intertie.broker.domain.fleet import Fleet, Policy, SeenPart, SeenWorkspace, WorkspaceState
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.placed import Placed, hosts_of
from intertie.broker.domain.replacing import Over, Replaced, without
from intertie.broker.domain.terms import Amend, AmendState
from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import AvailabilityTerm, OnHostLoss
from intertie.common.values import replace
from tests.unit.broker.samples import NOW, POLICY, facts, part, part_spec, workspace
from tests.unit.broker.standing import view_of

THREE = replace(POLICY, hosts=("n1", "n2", "n3"))
SMALL = Vector(
    vcpus=2, memory_mib=1024, disk_mib=4096, iops=1000, throughput_mib_s=200, uplink_mbit_s=200
)
RESTART = AvailabilityTerm(on_host_loss=OnHostLoss.RESTART)
BEGUN = NOW + timedelta(seconds=10)


def fleet(*hosts: str, policy: Policy = THREE) -> Fleet:
    return Fleet.of([facts(host, capacity=SMALL) for host in hosts], policy)


def again(index: int, **changes: Any) -> PartWorkspace:
    return workspace("w", index, **{"availability": RESTART, **changes})


def on(spec: PartSpec, *hosts: str, **changes: Any) -> Part:
    placed = tuple(
        Placed(workspace=each.label, host=host)
        for each, host in zip(spec.workspaces, hosts, strict=True)
    )
    return part(**{"spec": spec, "placed": placed, "generation": 4, **changes})


def become(
    of: Part,
    *others: Part,
    hosts: tuple[str, ...] = ("n2", "n3"),
    said: SeenPart | None = None,
) -> Replaced | Over | None:
    view = view_of(fleet("n1", *hosts), (of, *others))
    if said is not None:
        view = replace(view, seen={of.uid: {said.host: said}})
    held = replace(view, fleet=replace(view.fleet, held=frozenset({"n1"})))
    return without(of, {"n1"}, held, THREE, now=BEGUN)


def test_what_was_on_the_lost_host_goes_elsewhere_and_nothing_else_moves() -> None:
    found = become(on(part_spec(again(0), again(1), again(2)), "n1", "n2", "n1"))
    assert isinstance(found, Replaced)
    hosts = hosts_of(found.part.placed)
    assert hosts["w-1"] == "n2"
    assert "n1" not in hosts.values()
    assert {each.workspace: (each.times, each.host) for each in found.part.moved} == {
        "w-0": (1, "n1"),
        "w-2": (1, "n1"),
    }


def test_what_the_lost_host_had_counted_is_kept() -> None:
    before = on(part_spec(again(0)), "n1")
    counted = SeenWorkspace(
        name="w-0", state=WorkspaceState.RUNNING, used=Used(read_time=NOW, cpu_ns=7)
    )
    said = SeenPart(host="n1", part_uid=before.uid, generation=4, workspaces=(counted,))
    found = become(before, said=said)
    assert isinstance(found, Replaced)
    [kept] = found.part.used
    assert (kept.host, kept.used.cpu_ns) == ("n1", 7)


def test_spec_and_with_it_addresses_and_macs_stay() -> None:
    before = on(part_spec(again(0)), "n1")
    found = become(before)
    assert isinstance(found, Replaced)
    assert found.part.spec is before.spec
    assert found.part.network_ids == before.network_ids


def test_all_of_it_or_nothing() -> None:
    full = on(part_spec(workspace("x", 0, vcpus=2)), "n3", name=part("other").name)
    found = become(on(part_spec(again(0), again(1, vcpus=2)), "n1", "n1"), full)
    assert isinstance(found, Over)
    assert [each.resource for each in found.shortfalls]
    assert "no room" in found.why


def test_the_bound_on_workspaces_a_host_holds_with_those_that_stay() -> None:
    spec = part_spec(again(0, max_per_host=1), again(1, max_per_host=1))
    found = become(on(spec, "n1", "n2"))
    assert isinstance(found, Replaced)
    assert hosts_of(found.part.placed) == {"w-0": "n3", "w-1": "n2"}
    assert isinstance(become(on(spec, "n1", "n2"), hosts=("n2",)), Over)


def test_pairs_count_against_the_new_host() -> None:
    """Only n3 has a vCPU left, and its uplink 10 Mbit/s."""
    policy = replace(THREE, hosts=("n1", "n2", "n3", "n4"))
    taken = part_spec(workspace("x"), workspace("x", 1, vcpus=2), pairs=(("x-0", "x-1", 190),))
    other = on(taken, "n3", "n4", name=part("other").name)
    for mbit_s, fits in ((50, False), (5, True)):
        pairs = (("w-0", "w-1", mbit_s),)
        of = on(part_spec(again(0), workspace("w", 1, vcpus=2), pairs=pairs), "n1", "n2")
        view = view_of(fleet("n1", "n2", "n3", "n4", policy=policy), (of, other))
        found = without(of, {"n1"}, view, policy, now=BEGUN)
        assert isinstance(found, Replaced if fits else Over)


def test_one_that_is_to_end_ends_all_of_it() -> None:
    found = become(on(part_spec(again(0), workspace("w", 1)), "n1", "n1"))
    assert isinstance(found, Over)
    assert found.why == "host n1 was lost, and with it w-1"


def test_one_that_is_to_end_and_was_elsewhere_ends_nothing() -> None:
    assert isinstance(become(on(part_spec(again(0), workspace("w", 1)), "n1", "n2")), Replaced)


def test_what_has_not_begun_is_placed_elsewhere_whatever_was_asked_for() -> None:
    later = on(part_spec(workspace("w", 0)), "n1")
    spec = replace(later.spec, window=replace(later.window, start=BEGUN + timedelta(minutes=5)))
    found = become(replace(later, spec=spec))
    assert isinstance(found, Replaced)
    assert found.part.moved == ()


def best_effort(**changes: Any) -> Part:
    """128 MiB of disk, and as much again for its memory when it is put aside."""
    keeping = Keeping(mib_s=50, save=timedelta(seconds=10), **changes)
    return on(part_spec(again(0)), "n1", keeping=keeping)


def test_one_that_may_be_put_aside_goes_where_its_memory_has_room_on_disk_too() -> None:
    """It was placed by its disk alone: n2, which fits that best, had no room for the memory, and
    the lease ended although n3 had."""
    of = best_effort()
    tight = facts("n2", capacity=replace(SMALL, disk_mib=192))
    roomy = facts("n3", capacity=replace(SMALL, disk_mib=8192))
    view = view_of(Fleet.of([facts("n1", capacity=SMALL), tight, roomy], THREE), (of,))
    found = without(of, {"n1"}, view, THREE, now=BEGUN)
    assert isinstance(found, Replaced), found
    assert hosts_of(found.part.placed) == {"w-0": "n3"}


def test_one_that_is_kept_goes_where_its_disk_fits_until_it_is_kept_no_more() -> None:
    """It was placed by what is free in its window: n2, which fits best until then, has promised
    its disk for the time after, in which n3 has room, whose processors are promised then."""
    of = best_effort(until=NOW + timedelta(hours=5))
    later = Window(NOW + timedelta(hours=2), NOW + timedelta(hours=3))
    disks = part_spec(workspace("x", disk_mib=4000), window=later)
    processors = part_spec(workspace("x", vcpus=2), window=later)
    now_there = part_spec(workspace("x"))
    others = (
        on(disks, "n2", name=part("disks").name),
        on(processors, "n3", name=part("processors").name),
        on(now_there, "n2", name=part("now").name),
    )
    found = become(of, *others)
    assert isinstance(found, Replaced), found
    assert hosts_of(found.part.placed) == {"w-0": "n3"}


def test_a_gateway_is_not_replaced() -> None:
    found = become(on(part_spec(again(0), remote=("r-0",)), "n2", gateway="n1"))
    assert isinstance(found, Over)
    assert "gateway" in found.why


@pytest.mark.parametrize("state", [PartState.HELD, PartState.PREPARED])
def test_an_undecided_part_moves_or_waits_for_its_decision(state: PartState) -> None:
    early = on(part_spec(workspace("w", 0, availability=RESTART)), "n1", state=state)
    assert isinstance(become(early), Replaced)
    assert become(early, hosts=()) is None


def test_a_part_whose_next_terms_are_undecided_waits_for_them() -> None:
    """A COMMIT would put what was moved back to where those terms have it, and start it there
    while it still runs where it was moved to."""
    of = on(part_spec(again(0)), "n1")
    amend = Amend(
        tx="t2",
        digest="d",
        participants=("north", "south"),
        replaces=0,
        spec=of.spec,
        placed=of.placed,
        gateway="",
        state=AmendState.PREPARED,
        create_time=NOW,
        decide_by=NOW + timedelta(seconds=20),
    )
    assert become(replace(of, amend=amend)) is None
    assert isinstance(become(of), Replaced)


def test_the_second_loss_counts_on() -> None:
    first = become(on(part_spec(again(0)), "n1"))
    assert isinstance(first, Replaced)
    back = replace(first.part, placed=(Placed(workspace="w-0", host="n1"),))
    second = become(back)
    assert isinstance(second, Replaced)
    assert [(each.workspace, each.times) for each in second.part.moved] == [("w-0", 2)]
