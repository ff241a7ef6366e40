"""What the checker takes for broken, and what not."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from intertie.api.nodeagent.v1 import records_pb2
from tests.sim.checker import broken
from tests.sim.etcd_model import Written
from tests.sim.guests import broken_guests
from tests.sim.record import Guest, Paused, Profile, Record
from tests.sim.switches import Switches
from tests.sim.terms import Terms
from tests.sim.waiting import Waiting

PART = "sites/north/tenants/demo/parts/c1"
PAUSED, SUSPENDED = 5, 9
"""Of intertie.cluster.v1.Workspace.State."""


def written(revision: int, second: float = 0.0, **puts: Any) -> Written:
    """By north's leader; records by the ids of their parts."""
    return Written(
        store="north",
        revision=revision,
        at=second,
        writer="north-1#1",
        puts=tuple((f"parts/demo/{uid}", json.dumps(part).encode()) for uid, part in puts.items()),
        deleted=(),
    )


LEADS = Written(
    store="north",
    revision=1,
    at=0.0,
    writer="north-1#1",
    puts=(("election/broker/1", b""),),
    deleted=(),
)


def moment(second: int) -> str:
    return f"2030-01-01T12:00:{second:02}Z"


# What is promised


def terms(uid: str, start: int, end: int, vcpus: int) -> Any:
    """Of one workspace on n1."""
    workspace = {
        "group": "worker",
        "index": 0,
        "allocation": {
            "vcpus": vcpus,
            "memory_mib": 1,
            "disk_mib": 1,
            "disk": {"cap_iops": 0, "cap_mib_s": 0},
            "nic": {"guarantee_mbit_s": 0},
        },
        "nics": [],
    }
    return {
        "spec": {
            "cluster": f"sites/north/tenants/demo/clusters/{uid}",
            "cluster_uid": uid,
            "window": {"start": moment(start), "end": moment(end)},
            "workspaces": [workspace],
            "networks": [],
            "links": [],
        },
        "placed": [{"workspace": "worker-0", "host": "n1"}],
        "gateway": "",
        "state": "PREPARED",
        "tx": f"t{uid}",
    }


def part(uid: str, start: int, end: int, vcpus: int, **other: Any) -> Any:
    return {
        **terms(uid, start, end, vcpus),
        "name": f"sites/north/tenants/demo/parts/{uid}",
        "keeping": None,
        "recalled_end": None,
        "shed": [],
        "amend": None,
        "terms": 0,
        "generation": 0,
        "network_ids": [],
        "switched": [],
        **other,
    }


@pytest.mark.parametrize(("second", "fits"), [(43.0, False), (45.0, True)])
def test_what_begins_in_the_past_takes_nothing_before_it_is_there(
    second: float, fits: bool
) -> None:
    """Of 8 vCPUs: one has 2 until 44, one is held late that was to begin at 42, and in the same
    transaction, after it, 4 instead of 2 for a third one, from now on."""
    record = Record(Profile(seed=0))
    more = {**terms("c", 0, 59, 4), "replaces": 0}
    record.writes += [
        LEADS,
        written(2, a=part("a", 30, 44, 2), c=part("c", 0, 59, 2)),
        written(3, second, b=part("b", 42, 59, 4), c=part("c", 0, 59, 2, amend=more)),
    ]
    wrong, _ = broken(record)
    said = [each for each in wrong if "is promised" in each]
    problem = f"{second:.3f} north@3: n1 vcpus is promised 10 of 8 at {second}"
    assert said == ([] if fits else [problem] * 2), "for either of both"


KEEPING = {
    "mib_s": 100,
    "save": "PT1S",
    "restore": "PT0S",
    "until": None,
    "again": "PT0S",
    "promised": None,
    "saved": False,
    "moves": 0,
}


@pytest.mark.parametrize(("took", "fits"), [("PT1.5S", True), ("PT3S", False)])
def test_what_is_free_because_a_guest_was_saved_sooner_may_be_had_at_once(
    took: str, fits: bool
) -> None:
    """A bug: of what was promised at the revision at which that was noted, it was not free yet.
    Of 8 vCPUs one has all until 40, and 5 s to be saved; another one begins at 42."""
    record = Record(Profile(seed=0))

    def aside(save: str, *, saved: bool) -> Any:
        keeping = {**KEEPING, "save": save, "until": moment(59), "saved": saved}
        return part("a", 0, 40, 8, state="CONFIRMED", tx="", generation=1, keeping=keeping)

    record.writes += [
        LEADS,
        written(2, a=aside("PT5S", saved=False)),
        written(3, 41.0, a=aside(took, saved=True), b=part("b", 42, 59, 8)),
    ]
    wrong, _ = broken(record)
    problem = "41.000 north@3: n1 vcpus is promised 16 of 8 at 42.0"
    assert [each for each in wrong if "is promised" in each] == ([] if fits else [problem])


# Terms that are given up


@pytest.mark.parametrize("state", ["SILENT", "FENCED"])
def test_of_earlier_terms_nothing_is_left_on_a_host_that_was_fenced(state: str) -> None:
    """Two workspaces, with a pair of them, and more of the lease's time: before n1 has obeyed that,
    the site finds n2 lost, and places on n1 what was there."""

    def of_two(second_host: str, end: int, **other: Any) -> Any:
        made = part("a", 0, end, 2, state="CONFIRMED", tx="", generation=1, **other)
        (first,) = made["spec"]["workspaces"]
        made["spec"]["workspaces"] = [first, {**first, "index": 1}]
        pair = {"a": "worker-0", "b": "worker-1", "bandwidth": {"guarantee_mbit_s": 10}}
        made["spec"]["networks"] = [{"pairs": [pair]}]
        made["placed"] += [{"workspace": "worker-1", "host": second_host}]
        return made

    said: list[str] = []
    terms = Terms(lambda written, problem: said.append(problem), {}, {})
    before, longer = of_two("n2", 50), of_two("n2", 59, terms=1)
    moved = of_two("n1", 59, terms=1)
    terms.part(written(2, 10.0), before, longer)
    assert not said
    terms.host("north", "n2", state)
    terms.part(written(3, 20.0), longer, moved)
    terms.host("north", "n2", "UP")
    terms.part(written(4, 30.0), moved, moved)
    problem = (
        f"{moved['name']}: terms before 1 are given up before its hosts have obeyed: "
        "worker-0 n1 uplink_mbit_s"
    )
    assert said == ([] if state == "FENCED" else [problem] * 2)


def test_what_was_given_up_last_counts_no_longer_for_what_was_given_up_before() -> None:
    """A bug: of one that may be put aside, what n2 had to give up by 30 was to count until 50, for
    an earlier piece, which was gone by then, had been given longer."""

    def of(hosts: str, shed: list[Any], **other: Any) -> Any:
        made = part("a", 0, 59, 2, state="CONFIRMED", tx="", keeping=KEEPING, **other)
        (first,) = made["spec"]["workspaces"]
        made["spec"]["workspaces"] = [{**first, "index": at} for at in range(len(hosts))]
        made["placed"] = [
            {"workspace": f"worker-{at}", "host": f"n{host}"} for at, host in enumerate(hosts)
        ]
        return {**made, "shed": shed}

    def given_up(by: int, generation: int, hosts: str) -> Any:
        return {**of(hosts, []), "until": moment(by), "generation": generation}

    earlier, later = given_up(50, 2, "121"), given_up(30, 3, "12")
    steps = [
        of("121", [], generation=1),
        of("12", [earlier], generation=2, terms=1),
        of("1", [earlier, later], generation=2, terms=2),
        of("1", [later], generation=3, terms=2),
    ]
    said: list[str] = []
    checked = Terms(lambda written, problem: said.append(problem), {}, {})
    checked.wanted(records_pb2.WantedPart(part=steps[0]["name"], part_uid="1"))
    for at, (before, after) in enumerate(pairwise(steps), start=1):
        if at == 3:
            for host in ("n1", "n2"):
                report = records_pb2.SeenPart(part_uid="1", generation=2, obeyed_generation=2)
                checked.seen("north", host, report.SerializeToString())
        checked.part(written(at, 10.0 + at), before, after)
    assert said == []


# What requests make


@pytest.mark.parametrize(("request_id", "made"), [("act-1", False), ("c-1", True)])
def test_an_action_makes_nothing_while_other_terms_are_held(request_id: str, made: bool) -> None:
    record = Record(Profile(seed=0))
    amend = {**terms("a", 0, 59, 2), "replaces": 0}
    name = part("a", 0, 59, 2)["name"]
    answer = {"request_id": request_id, "answer": name, "uid": "a"}
    acted = written(2, 5.0, a=part("a", 0, 59, 2, amend=amend, switched=[]))
    asked = replace(acted, puts=(*acted.puts, ("requests/demo/1", json.dumps(answer).encode())))
    record.writes += [written(1, a=part("a", 0, 59, 2, amend=amend)), asked]
    wrong, _ = broken(record)
    said = [each for each in wrong if "were made for" in each and "@2" in each]
    assert said == ([f"5.000 north@2: [] were made for [{name!r}]"] if made else [])


# What guests are to be


@pytest.mark.parametrize(
    ("back_at", "judged"), [(0.0, True), (20.0, True), (40.0, False), (None, False)]
)
def test_a_host_that_is_not_back_for_long_has_time_to_begin_its_guests(
    back_at: float | None, judged: bool
) -> None:
    record = Record(Profile(seed=0), busy_until=20.0, ended_at=45.0)
    if back_at is not None:
        record.began["agent-north-n1"] = back_at
    record.states["north/n1"] = {"it-w": "PAUSED"}
    stands = part("a", 0, 59, 2, state="CONFIRMED", generation=1, end_requested_time=None)
    said = [*Switches(lambda *_: None).done(record, "north", stands, {"worker-0": "w"})]
    name = stands["name"]
    assert said == ([f"north: worker-0 of {name} is to be ON, and is PAUSED"] if judged else [])


# Leases that wait


def kept(terms: int, start: int, end: int, *, until: str | None) -> Any:
    """A part on n1 that was put aside, or goes on."""
    return {
        "name": PART,
        "spec": {"window": {"start": moment(start), "end": moment(end)}},
        "placed": [{"workspace": "worker-0", "host": "n1"}],
        "terms": terms,
        "generation": 2,
        "keeping": {"until": until},
        "recalled_end": None,
    }


def report(second: int, state: int, *, obeyed: int) -> bytes:
    message = records_pb2.SeenPart(part=PART, part_uid="1", obeyed_generation=obeyed)
    message.report_time.FromJsonString(moment(second))
    message.workspaces.add(name="worker-0", state=state)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("reports", "is_saved"),
    [
        ((report(12, SUSPENDED, obeyed=2),), True),
        ((report(12, PAUSED, obeyed=0),), False),
        ((report(12, PAUSED, obeyed=0), report(15, SUSPENDED, obeyed=2)), True),
        ((report(15, SUSPENDED, obeyed=2), report(12, PAUSED, obeyed=0)), True),
        ((report(12, SUSPENDED, obeyed=2), report(15, PAUSED, obeyed=0)), False),
        ((report(12, SUSPENDED, obeyed=2), report(15, SUSPENDED, obeyed=0)), True),
    ],
)
def test_a_report_that_comes_after_a_newer_one_unsays_nothing(
    reports: tuple[bytes, ...], is_saved: bool
) -> None:
    """An agent had no answer to what it wrote first, and wrote again."""
    said: list[str] = []
    waiting = Waiting(lambda written, problem: said.append(problem))
    waiting.wanted(records_pb2.WantedPart(part=PART, part_uid="1"))
    for each in reports:
        waiting.seen("north", "n1", each)
    aside, on = kept(1, 0, 10, until=moment(59)), kept(2, 20, 30, until=None)
    waiting.part(written(9), aside, on)
    assert said == ([] if is_saved else [f"{PART} goes on before n1 has saved it"])


@pytest.mark.parametrize(("terms", "wrong"), [(2, 0), (1, 1)])
def test_one_that_goes_on_from_an_end_of_its_site_s_own_is_not_recalled(
    terms: int, wrong: int
) -> None:
    """Its coordinator has never agreed on that end, for it goes on already."""
    said: list[str] = []
    waiting = Waiting(lambda written, problem: said.append(problem))
    waiting.wanted(records_pb2.WantedPart(part=PART, part_uid="1"))
    waiting.seen("north", "n1", report(12, SUSPENDED, obeyed=2))
    aside, on = kept(1, 0, 10, until=moment(59)), kept(terms, 20, 30, until=None)
    waiting.part(written(9), {**aside, "recalled_end": moment(10)}, on)
    assert len(said) == wrong


@pytest.mark.parametrize(
    ("agent", "judged"),
    [("agent-north-n1", False), ("agent-north-n2", True), ("", True)],
)
def test_processors_of_a_guest_that_is_saved_late_count_unless_its_agent_stands_still(
    agent: str, judged: bool
) -> None:
    """Memory counts in any case."""
    record = Record(Profile(seed=0))
    record.guests = [
        Guest(20.0, "north", "n1", "it-a", "start", 6, 128),
        Guest(28.0, "north", "n1", "it-b", "start", 4, 128),
        Guest(42.0, "north", "n1", "it-a", "save", 6, 128),
    ]
    if agent:
        record.paused.append(Paused(agent, 28.0, 42.0))
    assert bool([*broken_guests(record)]) == judged
    record.guests[0].memory_mib = record.guests[1].memory_mib = 1 << 20
    assert [*broken_guests(record)]
