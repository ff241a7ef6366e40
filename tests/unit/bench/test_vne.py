"""Instances of several sizes through the planner: every answer is counted anew."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from bench import vne
from bench.bid_price import FIRST, BidPrice
from bench.vne_world import Embedded, Instance, Request, Substrate, read_instance
from intertie.common.errors import FieldInvalid
from intertie.metasched.domain.plan import check
from intertie.metasched.domain.planner import best_plan
from tests.unit.bench.vne_instances import instance

EFFORT = 0.05


def replayed(given: Instance, done: vne.Done) -> int:
    """The revenue, if no rule is broken at any arrival."""
    revenue = 0
    running: list[tuple[Request, Embedded]] = []
    for request, answer in zip(done.requests, done.answers, strict=True):
        running = [
            each for each in running if each[0].arrival_s + each[0].lifetime_s > request.arrival_s
        ]
        if answer is None:
            continue
        assert len(set(answer.nodes)) == len(request.cpus)
        for (a, b, _), path in zip(request.links, answer.paths, strict=True):
            assert (path[0], path[-1]) == (answer.nodes[a], answer.nodes[b])
            assert len(set(path)) == len(path)
        running.append((request, answer))
        revenue += request.revenue
        cpu = list(given.cpus)
        width = {frozenset((u, v)): b for u, v, b in given.links}
        for each, where in running:
            for at, amount in zip(where.nodes, each.cpus, strict=True):
                cpu[at] -= amount
            for (_, _, amount), path in zip(each.links, where.paths, strict=True):
                for u, v in pairwise(path):
                    width[frozenset((u, v))] -= amount
        assert min(cpu) >= 0
        assert min(width.values()) >= 0
    return revenue


@pytest.mark.parametrize(
    ("seed", "nodes", "requests", "between_s", "most"),
    [(1, 40, 25, 20.0, 10), (2, 60, 40, 1.5, 8), (3, 25, 25, 40.0, 5), (4, 8, 12, 60.0, 3)],
)
@pytest.mark.parametrize("admission", vne.ADMISSIONS)
def test_no_rule_is_broken(
    seed: int, nodes: int, requests: int, between_s: float, most: int, admission: str
) -> None:
    given = instance(seed, nodes=nodes, requests=requests, between_s=between_s, most=most)
    done = vne.embed(given, admission=admission, effort=EFFORT)
    figures = done.figures()
    assert replayed(given, done) == figures["revenue"] > 0
    assert 0 < figures["r2c"] <= 1


def test_where_there_is_room_all_are_let_in_and_most_links_are_one_link() -> None:
    given = instance(5, nodes=60, requests=40, between_s=60.0, most=8)
    figures = vne.embed(given, effort=EFFORT).figures()
    assert (figures["acceptance"], figures["too_dear"]) == (1.0, 0)
    assert figures["r2c"] >= 0.9


@pytest.mark.parametrize("seed", range(5))
def test_a_price_earns_more_where_there_is_no_room_for_all(seed: int) -> None:
    """Of 20 places that are asked for twice over, one at a time, for half an hour in the mean."""
    draw, price = Random(seed), BidPrice(capacity=20.0)
    now_h, had, taken_by = 0.0, {"priced": 0, "all": 0}, dict[str, list[float]](priced=[], all=[])
    for _ in range(1500):
        now_h += draw.expovariate(80)
        lasts_h = draw.expovariate(2)
        price.see(now_h=now_h, takes=lasts_h, worth=1.0)
        for name, ends in taken_by.items():
            ends[:] = [end for end in ends if end > now_h]
            if name == "priced" and not price.admits(takes=lasts_h, worth=1.0):
                continue
            free = len(ends) < 20
            if name == "priced":
                price.told(planned=free)
            if free:
                ends.append(now_h + lasts_h)
                had[name] += 1
    assert had["priced"] > 1.3 * had["all"]


def test_a_request_is_a_cluster_whose_plan_costs_what_is_published_as_cost() -> None:
    """Two hops for a link of 10 between nodes of 3 and 4, for 1,800 s: half of 3 + 4 + 20."""
    given = Instance(
        cpus=(5, 0, 5),
        links=((0, 1, 10), (1, 2, 10)),
        requests=(
            Request(id=0, arrival_s=5.0, lifetime_s=1800.0, cpus=(3, 4), links=((0, 1, 10),)),
        ),
    )
    substrate, request = Substrate(given), given.requests[0]
    problem = substrate.problem(request)
    plan = best_plan(problem)
    assert plan is not None
    assert check(problem, plan) == ()
    assert plan.cost == pytest.approx(13.5)
    embedded = substrate.embedded(request, plan)
    assert sorted(embedded.nodes) == [0, 2]
    assert [len(path) for path in embedded.paths] == [3]
    assert embedded.cost(request) == 27
    substrate.take(request, embedded)
    assert best_plan(substrate.problem(request)) is None
    substrate.free_what_ended(1804.0)
    assert best_plan(substrate.problem(request)) is None
    substrate.free_what_ended(1805.0)
    assert best_plan(substrate.problem(request)) == plan


def test_a_price_asks_nothing_while_there_is_room_for_all() -> None:
    price = BidPrice(capacity=100.0)
    for at in range(5 * FIRST):
        price.see(now_h=float(at), takes=99.0, worth=1.0)
        assert price.admits(takes=1e9, worth=1.0)


def test_a_price_lets_in_as_many_of_the_least_dear_as_there_is_room_for() -> None:
    """Each hour one that takes 50 and one that takes 100, of 120: the first alone has room."""
    price = BidPrice(capacity=120.0)
    for at in range(FIRST):
        for takes in (50.0, 100.0):
            price.see(now_h=float(at), takes=takes, worth=10.0)
    assert price.admits(takes=50.0, worth=10.0)
    assert price.admits(takes=100.0, worth=20.0)
    assert not price.admits(takes=101.0, worth=10.0)
    assert price.admits(takes=100.0, worth=10.0)  # the last that has room, in part
    for _ in range(60):
        price.told(planned=False)
    assert not price.admits(takes=100.0, worth=10.0)
    for _ in range(4000):
        price.told(planned=True)
    assert price.admits(takes=100.0, worth=10.0)


def test_the_command_writes_a_solution_and_prints_every_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = instance(4, nodes=8, requests=6, between_s=60.0, most=3)
    file, solution = tmp_path / "small.json", tmp_path / "small.jsonl"
    requests = [
        {
            "id": each.id,
            "arrival": each.arrival_s,
            "lifetime": each.lifetime_s,
            "nodes": each.cpus,
            "links": each.links,
        }
        for each in given.requests
    ]
    substrate = {"nodes": given.cpus, "links": given.links}
    file.write_text(json.dumps({"substrate": substrate, "requests": requests}))
    assert read_instance(file) == given
    vne.main(["--instance", str(file), "--solution", str(solution), "--limit", "5"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"acceptance", "r2c", "revenue", "ms_mean", "ms_p99"} <= said.keys()
    answers = [json.loads(line) for line in solution.read_text().splitlines()]
    assert [each["id"] for each in answers] == [0, 1, 2, 3, 4]
    assert sum(each["nodes"] is not None for each in answers) == 5 * said["acceptance"]


def test_without_the_instances_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vne.run(quick=True, data=tmp_path)
    told = capsys.readouterr()
    assert "SKIPPED" in told.err
    assert len(json.loads(told.out)["skipped"]) == 2


def test_a_file_that_is_no_instance_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    for text in ("[]", "{", '{"substrate": {"nodes": [1], "links": [[0, 1]]}, "requests": []}'):
        file.write_text(text)
        with pytest.raises(FieldInvalid, match="is no instance"):
            read_instance(file)


NO_GRAPHS: list[dict[str, object]] = [
    {"nodes": [1, -2]},
    {"nodes": [1, 1.5]},
    {"links": [[0, 2, 5]]},
    {"links": [[-1, 0, 5]]},
    {"links": [[1, 1, 5]]},
    {"links": [[0, 1, -5]]},
]
NO_TIMES: list[dict[str, object]] = [{"lifetime": 0}, {"arrival": float("nan")}, {"arrival": -1}]


@pytest.mark.parametrize(
    ("of", "changed"),
    [(of, each) for of in ("substrate", "request") for each in NO_GRAPHS]
    + [("request", each) for each in NO_TIMES],
)
def test_numbers_that_mean_nothing_are_refused(
    tmp_path: Path, of: str, changed: dict[str, object]
) -> None:
    graph = {"nodes": [1, 2], "links": [[0, 1, 5]]}
    given: dict[str, dict[str, object]] = {
        "substrate": {**graph},
        "request": {"id": 0, "arrival": 0.5, "lifetime": 9, **graph},
    }
    file = tmp_path / "small.json"

    def written() -> Path:
        said = {"substrate": given["substrate"], "requests": [given["request"]]}
        file.write_text(json.dumps(said))
        return file

    assert len(read_instance(written()).requests) == 1
    given[of].update(changed)
    with pytest.raises(FieldInvalid, match="is no instance"):
        read_instance(written())
