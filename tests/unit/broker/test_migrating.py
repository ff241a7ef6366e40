"""Whether a workspace may go to another host, where to, and what is next on its way."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from intertie.broker.domain import migrating
from intertie.broker.domain.acting import acted
from intertie.broker.domain.admission_policy import Quotas
from intertie.broker.domain.amounts import amounts_of
from intertie.broker.domain.demands import demands_of
from intertie.broker.domain.difference import with_terms
from intertie.broker.domain.fleet import (
    Fleet,
    MigrationOutcome,
    SeenMigration,
    SeenPart,
    SeenWorkspace,
    WorkspaceState,
)
from intertie.broker.domain.keeping import Keeping
from intertie.broker.domain.migrating import begun, next_of
from intertie.broker.domain.moving import Left, Moving, MovingState
from intertie.broker.domain.part import Part
from intertie.broker.domain.placed import hosts_of
from intertie.broker.domain.reconcile import GivenUp, Tell, step_of
from intertie.broker.domain.replacing import Replaced, without
from intertie.broker.domain.wanted import Role, wanted_of
from intertie.common.actions import Action
from intertie.common.errors import (
    ActionIllegal,
    AmendPending,
    FieldInvalid,
    LeaseEnding,
    NoCapacity,
)
from intertie.common.etcd.records import encode
from intertie.common.values import replace
from tests.unit.broker.samples import facts, part, part_spec, workspace
from tests.unit.broker.standing import view_of
from tests.unit.broker.test_replacing import BEGUN, SMALL, THREE, again, fleet, on

KINDS = MigrationOutcome
LATER = BEGUN + timedelta(seconds=5)


def of_two(**changes: Any) -> Part:
    """`w-0` on n1 and `w-1` on n2, with 40 Mbit/s between them."""
    return on(
        part_spec(workspace("w"), workspace("w", 1), pairs=(("w-0", "w-1", 40),)),
        "n1",
        "n2",
        **changes,
    )


def asked(
    of: Part,
    *labels: str,
    to: str = "",
    states: str = "RUNNING",
    beside: tuple[Part, ...] = (),
    hosts: Fleet | None = None,
) -> Part | None:
    view = view_of(hosts or fleet("n1", "n2", "n3"), (of, *beside))
    known = {each.workspace: states for each in of.placed}
    return begun(of, known, labels, to, view, THREE, now=BEGUN)


def moving(of: Part, label: str = "w-0", to: str = "n3") -> Part:
    found = asked(of, label, to=to)
    assert found is not None
    return found


def said(
    host: str, label: str, outcome: MigrationOutcome, number: int, why: str = ""
) -> dict[str, SeenPart]:
    told = SeenMigration(number=number, outcome=outcome, message=why)
    seen = SeenWorkspace(name=label, state=WorkspaceState.RUNNING, migration=told)
    return {host: SeenPart(host=host, part_uid="", generation=9, workspaces=(seen,))}


def after(
    of: Part, seen: dict[str, SeenPart], *, fenced: tuple[str, ...] = (), at: Any = LATER
) -> Part | None:
    there = fleet("n1", "n2", "n3")
    return next_of(of, seen, replace(there, fenced=frozenset(fenced)), now=at)


def sending(of: Part) -> Part:
    number = of.moving[0].number
    found = after(of, said("n3", "w-0", KINDS.READY, number))
    assert found is not None
    return found


def test_it_goes_where_placement_finds_room_and_both_places_count() -> None:
    found = asked(of_two(), "w-0")
    assert found is not None
    [each] = found.moving
    assert (each.workspace, each.state, each.number) == ("w-0", MovingState.PREPARING, 5)
    assert each.host in ("n2", "n3")
    assert hosts_of(found.placed) == {"w-0": "n1", "w-1": "n2"}
    found = moving(of_two())
    [demand] = demands_of(found)
    here = amounts_of(found.spec, {"w-0": "n1", "w-1": "n2"}, "")
    there = amounts_of(found.spec, {"w-0": "n3", "w-1": "n2"}, "")
    assert demand.amounts == {**there, **here}
    assert demand.amounts["host/n3/uplink_mbit_s"] == 40
    assert found.hosts() == ("n1", "n2", "n3")


def test_what_is_short_is_said_and_nothing_is_done() -> None:
    full = on(part_spec(workspace("x", 0, vcpus=2)), "n3", name=part("other").name)
    with pytest.raises(NoCapacity) as refused:
        asked(of_two(), "w-0", to="n3", beside=(full,))
    assert refused.value.shortfalls
    bound = on(
        part_spec(workspace("w", 0, max_per_host=1), workspace("w", 1, max_per_host=1)), "n1", "n2"
    )
    assert moving(bound).moving[0].host == "n3"
    with pytest.raises(NoCapacity):
        asked(bound, "w-0", hosts=fleet("n1", "n2"))


def test_all_of_them_or_none() -> None:
    """n3 has room for one of them, and the hosts that they leave are full until they have left."""
    spec = part_spec(workspace("w", 0, max_per_host=1), workspace("w", 1, max_per_host=1))
    with pytest.raises(NoCapacity):
        asked(on(spec, "n1", "n2"))
    found = asked(on(part_spec(workspace("w"), workspace("w", 1)), "n1", "n2"))
    assert found is not None
    assert {each.host for each in found.moving} == {"n3"}


@pytest.mark.parametrize(
    ("of", "labels", "to", "states", "error"),
    [
        (of_two(), ("w-7",), "", "RUNNING", FieldInvalid),
        (of_two(), ("w-0",), "n1", "RUNNING", FieldInvalid),
        (of_two(), ("w-0",), "n9", "RUNNING", FieldInvalid),
        (of_two(keeping=Keeping(mib_s=1, save=timedelta())), ("w-0",), "", "RUNNING", FieldInvalid),
        (of_two(), ("w-0",), "", "STOPPED", ActionIllegal),
        (of_two(), ("w-0",), "", "STAGING", ActionIllegal),
    ],
)
def test_what_may_not_be_asked_for(
    of: Part, labels: tuple[str, ...], to: str, states: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        asked(of, *labels, to=to, states=states)


def test_nothing_else_is_done_to_it_meanwhile() -> None:
    found = moving(of_two())
    assert asked(found, "w-0") is None, "it is on its way already"
    running = SeenWorkspace(name="w-0", state=WorkspaceState.RUNNING)
    seen = {"n1": SeenPart(host="n1", part_uid="", generation=5, workspaces=(running,))}
    with pytest.raises(ActionIllegal) as refused:
        acted(found, seen, Action.STOP, ["w-0"])
    assert refused.value.state == "MIGRATING"


def test_not_while_an_image_of_its_disk_is_made() -> None:
    of = of_two()
    view = view_of(fleet("n1", "n2", "n3"), (of,))
    states = {"w-0": "RUNNING", "w-1": "RUNNING"}
    with pytest.raises(ActionIllegal) as refused:
        begun(of, states, ["w-0"], "", view, THREE, copied={"w-0"}, now=BEGUN)
    assert refused.value.state == "RUNNING with a SNAPSHOT under way"
    assert refused.value.legal == "STOP, REBOOT, PAUSE, SUSPEND"
    assert begun(of, states, ["w-1"], "", view, THREE, copied={"w-0"}, now=BEGUN)


def test_not_while_earlier_terms_count_nor_in_the_last_minutes() -> None:
    of = of_two()
    smaller = with_terms(of, part_spec(workspace("w"), workspace("w", 1)), of.placed)
    assert smaller.shed
    arrived = migrating.arrived(moved := moving(of), moved.moving[0])
    for pending in (smaller, arrived):
        with pytest.raises(AmendPending):
            asked(pending, "w-0")
    view = view_of(fleet("n1", "n2", "n3"), (of,))
    late = of.window.end - timedelta(seconds=60)
    with pytest.raises(LeaseEnding):
        begun(of, {"w-0": "RUNNING", "w-1": "RUNNING"}, ["w-0"], "", view, THREE, now=late)


def test_hosts_are_told_by_turns() -> None:
    found = moving(of_two())
    fleet_of = fleet("n1", "n2", "n3")

    def roles(of: Part) -> dict[str, Any]:
        return {
            host: each.migration
            for host, wanted in wanted_of(of, fleet_of, THREE, gone=False).items()
            for each in wanted.workspaces
            if each.name == "w-0"
        }

    told = roles(found)
    assert told["n1"] is None
    assert (told["n3"].role, told["n3"].host, told["n3"].number) == (Role.TAKE, "n1", 5)
    told = roles(sending(found))
    assert (told["n1"].role, told["n1"].host) == (Role.SEND, "n3")
    wanted = wanted_of(found, fleet_of, THREE, gone=False)["n3"]
    assert {
        (each.local_mac, each.bandwidth.guarantee_mbit_s) for each in wanted.networks[0].pairs
    } == {(found.spec.workspaces[0].nics[0].mac, 40)}
    assert {each.host for each in wanted.networks[0].tunnels} == {"n1", "n2"}


def test_it_is_there_once_its_source_or_the_target_says_so() -> None:
    found = sending(moving(of_two()))
    for host, outcome in (("n1", KINDS.GIVEN), ("n3", KINDS.TAKEN)):
        there = after(found, said(host, "w-0", outcome, 5))
        assert there is not None
        assert hosts_of(there.placed) == {"w-0": "n3", "w-1": "n2"}
        assert there.moving == ()
        left = Left(workspace="w-0", host="n1", generation=there.generation + 1, live=True)
        assert there.left == (left,)
        [demand] = demands_of(there)
        assert demand.amounts["host/n1/vcpus"] == 1, "until it has obeyed"
        assert there.left_hosts() == ("n1",)


@pytest.mark.parametrize("number", [4, 6])
def test_words_of_another_try_are_not_heard(number: int) -> None:
    found = moving(of_two())
    assert after(found, said("n3", "w-0", KINDS.READY, number)) is None
    assert after(sending(found), said("n1", "w-0", KINDS.GIVEN, number)) is None


def test_one_host_does_not_speak_for_the_other() -> None:
    found = sending(moving(of_two()))
    for host, outcome in (("n2", KINDS.GIVEN), ("n3", KINDS.GIVEN), ("n1", KINDS.TAKEN)):
        assert after(found, said(host, "w-0", outcome, 5)) is None
    assert after(found, said("n3", "w-0", KINDS.KEPT, 5)) is None


def test_a_failure_is_asked_about_and_only_the_answer_decides() -> None:
    found = sending(moving(of_two()))
    failed = after(found, said("n1", "w-0", KINDS.FAILED, 5, "the tunnel broke"))
    assert failed is not None
    assert failed.moving[0].state is MovingState.ANSWERING
    assert after(failed, {}, at=LATER + timedelta(days=1)) is None
    kept = after(failed, said("n1", "w-0", KINDS.KEPT, 5))
    assert kept is not None
    assert kept.moving == ()
    assert hosts_of(kept.placed)["w-0"] == "n1"
    assert [(each.workspace, each.host) for each in kept.left] == [("w-0", "n3")]
    assert dict(kept.unmoved)["w-0"] == "it was to go to n3, and stays: the tunnel broke"
    assert kept.left_hosts() == ("n3",)
    given = after(failed, said("n1", "w-0", KINDS.GIVEN, 5))
    assert given is not None
    assert hosts_of(given.placed)["w-0"] == "n3"


def test_what_takes_too_long_is_broken_off() -> None:
    found = moving(of_two())
    at = BEGUN + migrating.PREPARED_WITHIN
    assert migrating.until(found) == at
    dropped = after(found, {}, at=at)
    assert dropped is not None
    assert dropped.moving == ()
    going = sending(found)
    at = LATER + migrating.SENT_WITHIN
    assert migrating.until(going) == at
    assert after(going, {}, at=at - timedelta(seconds=1)) is None
    broken = after(going, {}, at=at)
    assert broken is not None
    assert broken.moving[0].state is MovingState.ANSWERING


def test_of_lost_hosts() -> None:
    found = moving(of_two())
    for host in ("n1", "n3"):
        dropped = after(found, {}, fenced=(host,))
        assert dropped is not None
        assert dropped.moving == ()
    going = sending(found)
    asks = after(going, {}, fenced=("n3",))
    assert asks is not None
    assert asks.moving[0].state is MovingState.ANSWERING, "its source may have given it up"
    gone = after(going, {}, fenced=("n1",))
    assert gone is not None
    assert [each.host for each in gone.left] == ["n3"], "the copy goes first"
    taken = after(going, said("n3", "w-0", KINDS.TAKEN, 5), fenced=("n1",))
    assert taken is not None
    assert hosts_of(taken.placed)["w-0"] == "n3"


def test_an_agent_that_would_start_what_it_is_to_take_gets_nothing() -> None:
    for old in ("n1", "n3"):
        known = [facts(each, capacity=SMALL, migrates=each != old) for each in ("n1", "n2", "n3")]
        with pytest.raises(NoCapacity):
            asked(of_two(), "w-0", to="n3", hosts=Fleet.of(known, THREE))


def test_hosts_must_be_of_a_kind() -> None:
    other = Fleet.of(
        [
            *(facts(host, capacity=SMALL) for host in ("n1", "n2")),
            facts("n3", capacity=SMALL, hypervisors=("kvm",)),
        ],
        THREE,
    )
    with pytest.raises(NoCapacity):
        asked(of_two(), "w-0", to="n3", hosts=other)


def test_a_part_of_many_that_have_moved_still_fits_its_record() -> None:
    """A bug: each that arrived left a copy of the part's whole terms, until the record was too
    large to be written, and nothing of the part was told to anybody any more."""
    count = 120
    spec = part_spec(*(workspace("w", each) for each in range(count)))
    of = on(spec, *["n1"] * count)
    ways = tuple(
        Moving(workspace=f"w-{each}", host="n3", number=each, since=BEGUN) for each in range(count)
    )
    of = replace(of, moving=ways)
    size = len(encode(of))
    arrived = dropped = of
    for each in ways:
        arrived = migrating.arrived(arrived, each)
        dropped = migrating.dropped(dropped, each, "why " * 1000)
    assert len(encode(arrived)) < size
    assert len(encode(dropped)) < size + 400 * count
    smaller = with_terms(arrived, part_spec(*spec.workspaces[1:]), arrived.placed[1:])
    assert not smaller.left
    assert len(encode(smaller)) < 5 * size, "other terms then have no copy of it for each either"
    assert "n1" in smaller.left_hosts()
    assert demands_of(smaller)[0].amounts["host/n1/vcpus"] == count


def test_what_is_left_counts_until_its_host_has_obeyed() -> None:
    found = sending(moving(of_two()))
    there = after(found, said("n1", "w-0", KINDS.GIVEN, 5))
    assert there is not None
    fleet_of, generation = fleet("n1", "n2", "n3"), there.generation
    told = step_of(there, {}, {}, fleet_of, THREE, now=LATER)
    assert isinstance(told, Tell)
    assert told.wanted["n1"].gone
    of = told.part
    hosts = dict.fromkeys(("n1", "n2", "n3"), of.generation)
    for obeyed, is_rid in ((generation, False), (of.generation, True)):
        seen = {"n1": SeenPart(host="n1", part_uid=of.uid, generation=9, obeyed_generation=obeyed)}
        step = step_of(of, hosts, seen, fleet_of, THREE, now=LATER)
        assert isinstance(step, GivenUp) is is_rid
        if isinstance(step, GivenUp):
            assert (step.part.left, step.hosts) == ((), ("n1",))
            assert "host/n1/vcpus" not in demands_of(step.part)[0].amounts


def test_what_two_that_go_together_are_promised_counts_until_both_are_there() -> None:
    """A bug: they go one by one, and each may stay, and yet both were only counted as if they were
    on one host at every moment."""
    spec = part_spec(workspace("w"), workspace("w", 1), pairs=(("w-0", "w-1", 40),))
    of = on(spec, "n1", "n1")
    assert "host/n1/uplink_mbit_s" not in demands_of(of)[0].amounts
    both = asked(of, to="n3")
    assert both is not None
    one_there = migrating.arrived(both, both.moving[0])
    one_stays = migrating.dropped(one_there, one_there.moving[0], "")
    for each in (both, one_there, one_stays):
        for host in ("n1", "n3"):
            assert demands_of(each)[0].amounts[f"host/{host}/uplink_mbit_s"] == 40
    there = migrating.arrived(one_there, one_there.moving[0])
    assert "host/n3/uplink_mbit_s" not in demands_of(replace(there, left=()))[0].amounts
    for label in ("w-0", "w-1"):
        amounts = demands_of(moving(of, label))[0].amounts
        assert (amounts["host/n1/uplink_mbit_s"], amounts["host/n3/uplink_mbit_s"]) == (40, 40)


def test_what_counts_is_enough_wherever_each_of_them_is() -> None:
    labels, hosts = ("w-0", "w-1", "w-2"), ("n1", "n2", "n3")
    pairs = (("w-0", "w-1", 40), ("w-1", "w-2", 7))
    spec = part_spec(*(workspace("w", each) for each in range(3)), pairs=pairs)
    for here in product(hosts, repeat=3):
        for there in product((*hosts, ""), repeat=3):
            of = replace(
                on(spec, *here),
                moving=tuple(
                    Moving(workspace=label, host=to, number=5, since=BEGUN)
                    for label, own, to in zip(labels, here, there, strict=True)
                    if to not in ("", own)
                ),
            )
            counted = demands_of(of)[0].amounts
            for at in product(*({own, to or own} for own, to in zip(here, there, strict=True))):
                taken = amounts_of(spec, dict(zip(labels, at, strict=True)), "")
                assert all(amount <= counted[key] for key, amount in taken.items())


def test_one_after_the_other_and_its_time_is_not_for_waiting() -> None:
    """A bug: all were told to go at once, a host sends one at a time, and the last of them were
    broken off after half an hour in which they had only waited."""
    of = asked(on(part_spec(workspace("w"), workspace("w", 1)), "n1", "n1"), to="n3")
    assert of is not None
    ready = tuple(
        SeenWorkspace(
            name=each.workspace,
            state=WorkspaceState.STAGING,
            migration=SeenMigration(number=each.number, outcome=KINDS.READY),
        )
        for each in of.moving
    )
    seen = {"n3": SeenPart(host="n3", part_uid="", generation=9, workspaces=ready)}
    first = after(of, seen)
    assert first is not None
    assert [each.state.name for each in first.moving] == ["SENDING", "PREPARING"]
    late = BEGUN + migrating.PREPARED_WITHIN
    assert after(first, seen, at=late) is None
    until = migrating.until(first)
    assert until is not None
    assert until > late, "nobody looks again and again"
    there = migrating.arrived(first, first.moving[0])
    second = after(there, seen, at=late + timedelta(minutes=25))
    assert second is not None
    [each] = second.moving
    assert (each.state, each.since) == (MovingState.SENDING, late + timedelta(minutes=25))


def test_each_that_goes_leaves_less_room_for_those_after_it() -> None:
    """A bug: what those before it in the same request would take was taken for free, both were to
    go to one host, and that there was no room was all that was said."""
    half = part_spec(workspace("x", memory_mib=600))
    beside = tuple(on(half, host, name=part(f"on-{host}").name) for host in ("n2", "n3"))
    two = part_spec(workspace("v", memory_mib=400), workspace("w", memory_mib=400))
    of = on(two, "n1", "n1")
    found = asked(of, beside=beside)
    assert found is not None
    assert {each.host for each in found.moving} == {"n2", "n3"}


def test_of_one_that_is_gone_or_elsewhere_by_now_nobody_hears_that_it_stayed() -> None:
    """A bug: what was said of a migration that came to nothing was said for good, of one that was
    begun anew on another host, and of a label that was another machine's by then."""
    ways = (("w-0", "it stays"), ("w-1", "it stays"))
    of = on(part_spec(again(0), again(1)), "n1", "n2", unmoved=ways)
    view = view_of(fleet("n2", "n3"), (of,))
    found = without(of, {"n1"}, view, THREE, now=BEGUN)
    assert isinstance(found, Replaced)
    assert dict(found.part.unmoved) == {"w-1": "it stays"}
    smaller = with_terms(of, part_spec(again(0)), of.placed[:1])
    assert dict(smaller.unmoved) == {"w-0": "it stays"}


def test_a_tenant_has_no_more_of_its_quota_while_it_moves() -> None:
    """A bug: both places went off the quota, so that a tenant at its limit got nothing else until
    the old place was given up."""
    most = Quotas({"demo": {"vcpus": 2, "uplink_mbit_s": 500}})
    of = of_two()
    found = moving(of)
    there = migrating.arrived(found, found.moving[0])
    for each in (of, found, there):
        amounts = demands_of(each, most)[0].amounts
        assert amounts["tenant/demo/vcpus"] == 2
        assert amounts["tenant/demo/uplink_mbit_s"] == 80
    assert sum(demands_of(found)[0].amounts[f"host/{host}/vcpus"] for host in ("n1", "n3")) == 2


@pytest.mark.parametrize(
    ("asked_for", "here", "there", "may"),
    [
        ("", ("qemu",), ("qemu",), True),
        ("", ("kvm", "qemu"), ("qemu",), False),
        ("qemu", ("kvm", "qemu"), ("qemu",), True),
        ("qemu", ("qemu",), ("kvm", "qemu"), True),
        ("", ("kvm",), ("kvm",), True),
        ("kvm", ("qemu", "kvm"), ("kvm",), True),
    ],
)
def test_by_what_guests_run_and_whose_processors(
    asked_for: str, here: tuple[str, ...], there: tuple[str, ...], may: bool
) -> None:
    """Two bugs: a guest of plain qemu was kept from a host without kvm, and one of kvm, which has
    its host's processors as they are, was let go to any others."""
    uses_own = "kvm" in (asked_for, here[0] if not asked_for else "")
    of = on(part_spec(workspace("w", environment={"hypervisor": asked_for})), "n1")
    for one, other in (("x 1", "x 1"), ("x 1", "x 2"), ("", "")):
        hosts = [
            facts("n1", capacity=SMALL, hypervisors=here, cpu=one),
            facts("n3", capacity=SMALL, hypervisors=there, cpu=other),
        ]
        if may and (one == other != "" or not uses_own):
            assert asked(of, "w-0", hosts=Fleet.of(hosts, THREE))
        else:
            with pytest.raises(NoCapacity):
                asked(of, "w-0", hosts=Fleet.of(hosts, THREE))
