"""The bench of refusals: what it draws, and that it sees an explanation that is wrong."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from bench import explain
from bench.explain_requests import CAUSES, draw_request, given_up
from bench.explain_sites import NOW, draw_sites
from intertie.common.errors import NoCapacity
from intertie.common.explanation import Change, Explanation
from intertie.common.spec import ClusterSpec, normalise, validate
from intertie.common.values import replace
from intertie.metasched.domain.levers import value_at
from intertie.metasched.usecases.explaining import Explaining
from tests.fakes.solvers import SolverThreads


def request(cause: int, seed: int = 0) -> ClusterSpec:
    """What the cause makes of the first request that it can be done to."""
    draw = random.Random(seed)
    while True:
        sites = draw_sites(draw)
        spec = CAUSES[cause].change(draw, sites, draw_request(draw, sites))
        if spec is not None:
            return normalise(spec, now=NOW)


@pytest.mark.parametrize("cause", range(len(CAUSES)), ids=lambda at: CAUSES[at].name)
def test_a_cause_is_in_its_field_and_can_be_given_up(cause: int) -> None:
    spec, field = request(cause), CAUSES[cause].field
    assert value_at(spec, field), "there is something to give up"
    for without in given_up(spec, field):
        validate(without, now=NOW)
        assert without != spec


def test_causes_have_names_of_their_own() -> None:
    assert len({each.name for each in CAUSES}) == len(CAUSES)


async def judged() -> explain.Case:
    case = await explain._of_one_cause(random.Random(3), 0, SolverThreads())
    assert case is not None
    await explain._judge(case, SolverThreads())
    return case


async def test_a_sound_explanation_passes() -> None:
    case = await judged()
    assert case.named
    assert case.restored
    assert all(case.restored)
    assert case.accepted
    assert all(case.accepted)
    assert not case.unsound


async def test_an_explanation_of_something_else_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names another field, says that this is enough, and offers what was refused."""
    explained = Explaining.__call__

    async def wrong(self: Explaining, brief: Any, refusal: NoCapacity, *, now: Any) -> NoCapacity:
        told = (await explained(self, brief, refusal, now=now)).explanation
        [conflict] = told.conflicts
        requirement = replace(conflict.requirements[0], field="spec.groups[0].allocation.vcpus")
        offer = replace(
            told.counter_offers[0], changes=(Change(field="spec.groups[0].count", value="1"),)
        )
        return NoCapacity(
            refusal.shortfalls,
            Explanation(
                conflicts=(replace(conflict, requirements=(requirement,)),), counter_offers=(offer,)
            ),
        )

    monkeypatch.setattr(Explaining, "__call__", wrong)
    case = await judged()
    assert not case.named
    assert case.restored == [False]
    assert case.any == [False]
    assert case.accepted == [False]


def test_the_object_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(explain._run(SolverThreads(), limit=2, seconds=60, seed=1))
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["bench"] == "explain"
    assert result["one_cause"]["requests"] == 2
    assert result["several_causes"]["requests"] == 1
    assert result["one_cause"]["named"] == result["one_cause"]["accepted"] == 1.0
