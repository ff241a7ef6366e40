"""The rules by which worlds are judged do find what they are for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fault.commit.rules import broken, lost, unsettled
from tests.fault.commit.world import Guest, Part, Seen, Told, World

NORTH, SOUTH = "north/n1", "south/s1"
VCPUS = {NORTH: 2, SOUTH: 2}
SITES = frozenset({"north", "south"})
GUEST = Guest(pid=1, start_time=2)


def part(site: str, host: str, **changes: object) -> Part:
    made = Part(
        site=site,
        tx="t1",
        uid=f"part-{site}",
        state="CONFIRMED",
        ending=False,
        vcpus={host: 1},
        vnis=(7,),
        participants=SITES,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


PARTS = (part("north", NORTH), part("south", SOUTH))


def told(uid: str) -> Told:
    return Told(generation=1, gone=False, workspaces=frozenset({uid}))


def seen(uid: str) -> Seen:
    return Seen(generation=1, running=frozenset({uid}), gone=False)


GOOD = World(
    parts=PARTS,
    decisions={"t1": "COMMIT"},
    clusters={"c": "ACTIVE"},
    told={(NORTH, "part-north"): told("a"), (SOUTH, "part-south"): told("b")},
    seen={(NORTH, "part-north"): seen("a"), (SOUTH, "part-south"): seen("b")},
    guests={NORTH: {"a": GUEST}, SOUTH: {"b": GUEST}},
)


def test_a_good_world_is_good() -> None:
    assert broken(GOOD, VCPUS) == []
    assert unsettled(GOOD) == []


@pytest.mark.parametrize("state", ["RELEASED", "EXPIRED"])
@pytest.mark.parametrize("other", ["CONFIRMED", "ENDED"])
def test_a_mixed_outcome_is_found(state: str, other: str) -> None:
    mixed = (replace(PARTS[0], state=other), replace(PARTS[1], state=state))
    assert any("is mixed" in each for each in broken(replace(GOOD, parts=mixed), VCPUS))


@pytest.mark.parametrize(("decision", "state"), [("ABORT", "CONFIRMED"), ("COMMIT", "RELEASED")])
def test_what_goes_against_the_decision_is_found(decision: str, state: str) -> None:
    parts = tuple(replace(each, state=state) for each in PARTS)
    world = replace(GOOD, parts=parts, decisions={"t1": decision})
    assert len(broken(world, VCPUS)) == 2


def test_what_nobody_decided_is_found() -> None:
    assert broken(replace(GOOD, decisions={}), VCPUS) != []


@pytest.mark.parametrize("state", ["HELD", "PREPARED", "CONFIRMED"])
def test_a_double_booking_is_found_on_record(state: str) -> None:
    more = tuple(
        part("north", NORTH, tx=tx, state=state, vnis=(number,), participants=frozenset())
        for number, tx in enumerate(("t2", "t3"))
    )
    world = replace(GOOD, parts=PARTS + more, decisions=dict.fromkeys(("t1", "t2", "t3"), "COMMIT"))
    assert broken(world, VCPUS) == ["north/n1 has promised 3 vCPUs of 2"]


def test_a_double_booking_is_found_on_a_host() -> None:
    guests = {NORTH: dict.fromkeys("axy", GUEST), SOUTH: {"b": GUEST}}
    assert broken(replace(GOOD, guests=guests), VCPUS) == ["north/n1 runs 3 guests on 2 vCPUs"]


def test_a_guest_on_two_hosts_and_a_network_of_two_parts_are_found() -> None:
    guests = {NORTH: {"a": GUEST}, SOUTH: {"b": GUEST, "a": GUEST}}
    assert broken(replace(GOOD, guests=guests), VCPUS) == [
        "guest a runs on ['north/n1', 'south/s1']"
    ]
    parts = (*PARTS, part("north", NORTH, tx="t2", state="HELD"))
    assert any("VXLAN" in each for each in broken(replace(GOOD, parts=parts), VCPUS))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"participants": {"t1": SITES}}, id="participants"),
        pytest.param({"clusters": {"c": "PLANNED"}}, id="planned"),
        pytest.param({"ending": frozenset({"c"})}, id="cluster ending"),
        pytest.param({"parts": PARTS[:1]}, id="part missing"),
        pytest.param({"parts": (PARTS[0], replace(PARTS[1], state="HELD"))}, id="held"),
        pytest.param({"parts": (PARTS[0], replace(PARTS[1], state="PREPARED"))}, id="prepared"),
        pytest.param({"parts": (PARTS[0], replace(PARTS[1], ending=True))}, id="part ending"),
        pytest.param({"parts": (PARTS[0], replace(PARTS[1], state="ENDED"))}, id="part ended"),
        pytest.param({"told": {}}, id="not told"),
        pytest.param({"seen": {}}, id="not seen"),
        pytest.param({"guests": {NORTH: {"a": GUEST}, SOUTH: {}}}, id="guest missing"),
        pytest.param(
            {"guests": {NORTH: {"a": GUEST}, SOUTH: {"b": GUEST, "stray": GUEST}}}, id="stray guest"
        ),
    ],
)
def test_what_is_not_at_rest_is_found(change: dict[str, object]) -> None:
    assert unsettled(replace(GOOD, **change)) != []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "guests",
    [
        {NORTH: {}, SOUTH: {"b": GUEST}},
        {NORTH: {"a": Guest(pid=1, start_time=3)}, SOUTH: {"b": GUEST}},
        {NORTH: {}, SOUTH: {"b": GUEST, "a": GUEST}},
    ],
    ids=["gone", "started again", "elsewhere"],
)
def test_a_lost_guest_is_found(guests: dict[str, dict[str, Guest]]) -> None:
    after = replace(GOOD, guests=guests)
    assert lost(GOOD, GOOD, frozenset("ab")) == []
    assert len(lost(GOOD, after, frozenset("ab"))) == 1
    assert lost(GOOD, after, frozenset("b")) == []
