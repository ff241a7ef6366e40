"""Batches on ten sites: the trace is read as it says, and whatever places them breaks no rule."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random

import pytest

from bench import batches
from bench.azure import (
    ARRIVALS,
    BIN_S,
    DURATIONS,
    FLAVOURS,
    INTERVALS,
    Batch,
    read_batches,
    read_flavours,
)
from bench.batch_fits import best_fit, first_fit
from bench.batch_world import HOST, LINK_MBIT_S, SITES, Sites, plan_of
from intertie.common.errors import FieldInvalid
from intertie.common.quantities import Vector
from intertie.metasched.domain.plan import Plan

FLAVOURS_BY_HAND = {
    "a": Vector(vcpus=1, memory_mib=768),
    "d": Vector(vcpus=16, memory_mib=114_688),
    "m": Vector(vcpus=8, memory_mib=14_336),
}


def trace(folder: Path, arrivals: str, durations: str) -> Path:
    (folder / FLAVOURS).write_text("1,0.75 a\n16,112 d\n8,14 m\n")
    (folder / INTERVALS).write_text("0 0\n300 1\n600 2\n900 2\n")
    (folder / ARRIVALS).write_text(arrivals)
    (folder / DURATIONS).write_text(durations)
    return folder


def test_a_trace_is_batches_whose_longest_machine_counts(tmp_path: Path) -> None:
    trace(tmp_path, "1800 a,m,a,|,d,|\n2100 a,|\n", "1800 U1,C2,U0,|,U0,|\n2100 U1,|\n")
    flavours = read_flavours(tmp_path)
    assert flavours == FLAVOURS_BY_HAND
    assert read_batches(tmp_path, flavours) == (
        Batch(id=0, arrival_s=0, duration_s=900, counts={"a": 2, "m": 1}),
        Batch(id=1, arrival_s=0, duration_s=BIN_S, counts={"d": 1}),
        Batch(id=2, arrival_s=300, duration_s=300, counts={"a": 1}),
    )


@pytest.mark.parametrize(
    ("arrivals", "durations"),
    [
        ("1800 a,|\n", "1800 U1,U1,|\n"),
        ("1800 a,|\n", "2100 U1,|\n"),
        ("1800 z,|\n", "1800 U1,|\n"),
        ("1800 a,|\n", "1800 U9,|\n"),
        ("1800 a,|\n2100 a,|\n", "1800 U1,|\n"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, arrivals: str, durations: str) -> None:
    trace(tmp_path, arrivals, durations)
    with pytest.raises(FieldInvalid):
        read_batches(tmp_path, read_flavours(tmp_path))


def some(seed: int, count: int, *, most: int = 150) -> list[Batch]:
    draw = Random(seed)
    return [
        Batch(
            id=number,
            arrival_s=BIN_S * (number // 5),
            duration_s=draw.choice([300, 600, 1500, 3000]),
            counts={
                name: draw.randint(1, most if name == "a" else most // 10)
                for name in draw.sample("adm", draw.choice([1, 1, 2]))
            },
        )
        for number in range(count)
    ]


def check_rules(done: batches.Result, asked: list[Batch], hosts: int) -> None:
    """Counts whatever runs at every start: hosts machine by machine, uplinks and links pair by
    pair."""
    of = {each.id: each for each in asked}
    for now_s in {at_s for _, at_s in done.begun.values()}:
        used: Counter[tuple[str, int, str]] = Counter()
        sent: Counter[frozenset[str]] = Counter()
        for number, (plan, at_s) in done.begun.items():
            if not at_s <= now_s < at_s + of[number].duration_s:
                continue
            homes = placed(plan)
            assert Counter(name for name, _, _ in homes) == Counter(of[number].counts)
            for name, site, host in homes:
                used[site, host, "vcpus"] += FLAVOURS_BY_HAND[name].vcpus
                used[site, host, "memory"] += FLAVOURS_BY_HAND[name].memory_mib
            for (_, *one), (_, *two) in combinations(homes, 2):
                if one[0] != two[0]:
                    sent[frozenset((str(one[0]), str(two[0])))] += 1
        for (_, host, what), amount in used.items():
            assert host < hosts // len(SITES)
            assert amount <= (HOST.vcpus if what == "vcpus" else HOST.memory_mib)
        assert max(sent.values(), default=0) <= LINK_MBIT_S


def placed(plan: Plan) -> list[tuple[str, str, int]]:
    return [
        (name, each.site, host)
        for each in plan.sites
        for host, counts in enumerate(each.packing)
        for name, count in counts.items()
        for _ in range(count)
    ]


@pytest.mark.parametrize("method", [*batches.METHODS])
def test_no_rule_is_broken_and_who_finds_no_room_is_refused(method: str) -> None:
    asked, hosts = some(1, 40), 10
    done = batches.replayed(
        asked,
        Sites(hosts, FLAVOURS_BY_HAND),
        batches.METHODS[method],
        until_s=BIN_S * 9,
        effort=0.05,
    )
    assert done.decided == len(asked)
    assert 0 < len(done.begun) < len(asked)
    assert all(
        0 <= at_s - asked[number].arrival_s <= batches.WAITS_S
        for number, (_, at_s) in done.begun.items()
    )
    check_rules(done, asked, hosts)
    figures = done.figures(asked, FLAVOURS_BY_HAND)
    assert figures["acceptance"] == round(len(done.begun) / len(asked), 4)


def test_fits_differ_in_where_they_put_what_both_have_room_for() -> None:
    sites = Sites(20, FLAVOURS_BY_HAND)
    there = Batch(id=0, arrival_s=0, duration_s=300, counts={"a": 50})
    sites.take(there, plan_of(sites.problem(there, 0), {"s3": ({}, {"a": 50})}), 0)
    small = Batch(id=1, arrival_s=0, duration_s=300, counts={"a": 10})
    problem = sites.problem(small, 0)
    one, other = first_fit(small, problem, sites), best_fit(small, problem, sites)
    assert one is not None
    assert other is not None
    assert (one.site_names, other.site_names) == (("s0",), ("s3",))
    assert [sum(each.values()) for each in other.sites[0].packing] == [0, 10]


@pytest.mark.parametrize("fit", [first_fit, best_fit])
def test_what_no_site_has_room_for_is_split_where_links_have_it(fit: batches.Fit) -> None:
    sites = Sites(10, FLAVOURS_BY_HAND)
    wide = Batch(id=0, arrival_s=0, duration_s=300, counts={"a": 128})
    plan = fit(wide, sites.problem(wide, 0), sites)
    assert plan is not None
    assert {sum(each.counts.values()) for each in plan.sites} == {64}
    assert {each.mbit_s for each in plan.links} == {64 * 64}
    sites.take(wide, plan, 0)
    wider = Batch(id=1, arrival_s=0, duration_s=300, counts={"a": 64 * 9})
    assert fit(wider, sites.problem(wider, 0), sites) is None


def test_what_has_ended_is_free_again() -> None:
    sites = Sites(10, FLAVOURS_BY_HAND)
    before = {name: list(hosts) for name, hosts in sites.free.items()}, dict(sites.width)
    wide = Batch(id=0, arrival_s=0, duration_s=300, counts={"a": 128})
    plan = first_fit(wide, sites.problem(wide, 0), sites)
    assert plan is not None
    sites.take(wide, plan, 0)
    sites.free_what_ended(299)
    assert (sites.free, sites.width) != before
    sites.free_what_ended(300)
    assert (sites.free, sites.width) == before


def test_the_load_is_what_is_asked_for_at_one_time() -> None:
    asked = [
        Batch(id=0, arrival_s=0, duration_s=900, counts={"m": 2}),
        Batch(id=1, arrival_s=600, duration_s=900, counts={"a": 4}),
    ]
    assert batches.offered(asked, FLAVOURS_BY_HAND, 600, 1200) == (16 * 300 + 4 * 600) / 600
    assert batches.offered(asked, FLAVOURS_BY_HAND, 0, 600) == 16


def test_it_prints_an_object_last_and_says_where_the_trace_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batches.main(["--data", str(tmp_path)])
    said = capsys.readouterr()
    assert "SKIPPED" in said.err
    assert json.loads(said.out.splitlines()[-1])["skipped"]
    lines = [f"{1800 + BIN_S * line} a,a,|,m,|" for line in range(8)]
    lasted = [each.replace("a,a,|,m", "U2,U1,|,U2") for each in lines]
    trace(tmp_path, "\n".join(lines) + "\n", "\n".join(lasted) + "\n")
    batches.main(["--data", str(tmp_path), "--every", "1", "--load", "0.9", "--limit", "12"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = found["loads"]
    assert row["counted"] == 6
    assert set(row["methods"]) == {"planner", "first-fit", "best-fit"}
    assert {each["acceptance"] for each in row["methods"].values()} == {1.0}
    assert {each["one_site"] for each in row["methods"].values()} == {1.0}
