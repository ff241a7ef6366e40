"""Each model of the protocol keeps its promises, and every mutant of it breaks one.

Spin writes a checker in C for a model, one a configuration; it searches every state there is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.model.checker import STUCK, search_in_the_end, search_promises
from tests.model.models import MODELS, Configuration, Model, Mutant


def each_of(listed: str) -> list[Any]:
    """Every model with each of what it lists under that name."""
    return [
        pytest.param(model, each, id=f"{model.name}-{each.name}")
        for model in MODELS
        for each in getattr(model, listed)
    ]


@pytest.mark.parametrize(("model", "each"), each_of("configurations"))
def test_no_state_breaks_a_promise(tmp_path: Path, model: Model, each: Configuration) -> None:
    found = search_promises(tmp_path, model.path, *each.options, large=each.large)
    assert found.broken == frozenset()
    assert found.errors == 0
    assert found.whole
    assert found.states >= each.at_least


@pytest.mark.parametrize(("model", "each"), each_of("live"))
def test_in_the_end_all_is_settled(tmp_path: Path, model: Model, each: Configuration) -> None:
    found = search_in_the_end(
        tmp_path, model.path, *each.options, claims=model.claims, large=each.large
    )
    for claim, of_claim in found.items():
        assert of_claim.broken == frozenset(), claim
        assert of_claim.errors == 0, claim
        assert of_claim.whole, claim
        assert of_claim.states >= each.at_least, claim


@pytest.mark.parametrize(("model", "each"), each_of("configurations"))
def test_what_the_promises_are_about_does_happen(
    tmp_path: Path, model: Model, each: Configuration
) -> None:
    found = search_promises(tmp_path, model.path, *each.options, "WITNESS", large=each.large)
    assert found.broken == each.witnessed
    assert found.whole


@pytest.mark.parametrize(("model", "mutant"), each_of("mutants"))
def test_a_mutant_is_caught(tmp_path: Path, model: Model, mutant: Mutant) -> None:
    found = search_promises(
        tmp_path, model.path, *mutant.options, mutant.name, every_error=not mutant.first
    )
    assert found.broken == mutant.breaks
    assert found.errors == 1 if mutant.first else found.errors > 0
    assert found.whole != mutant.first


@pytest.mark.parametrize(("model", "mutant"), each_of("backed"))
def test_a_rule_has_others_behind_it(tmp_path: Path, model: Model, mutant: Mutant) -> None:
    """What a decision says of why a rule is there is true as long as this is."""
    found = search_promises(tmp_path, model.path, *mutant.options, mutant.name, large=True)
    assert found.broken == frozenset()
    assert found.errors == 0
    assert found.whole
    assert mutant.name in {each.name for each in model.mutants}


@pytest.mark.parametrize("which", ["broken", pytest.param("all", marks=pytest.mark.more_faults)])
@pytest.mark.parametrize(("model", "mutant"), each_of("live_mutants"))
def test_a_mutant_that_gets_stuck_is_caught(
    tmp_path: Path, model: Model, mutant: Mutant, which: str
) -> None:
    """To search all that a claim holds for takes most of the time that the models take."""
    claims = model.claims if which == "all" else tuple(sorted(mutant.breaks))
    found = search_in_the_end(tmp_path, model.path, *mutant.options, mutant.name, claims=claims)
    assert {claim for claim, each in found.items() if each.errors} == mutant.breaks
    for claim, each in found.items():
        assert each.broken == ({STUCK} if claim in mutant.breaks else set())
        assert each.whole == (each.errors == 0)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_mutant_is_tried_and_every_promise_broken_by_one(model: Model) -> None:
    """So that none of either is there for show."""
    tried = {each.name for each in (*model.mutants, *model.live_mutants)}
    conditions = re.findall(r"^#(?:if|ifdef|ifndef|elif)\b(.*)$", model.text, re.MULTILINE)
    named = set(re.findall(r"[A-Z_]{2,}", " ".join(conditions)))
    assert named - model.options == tried
    asserted = set(re.findall(r"\bassert\((\w+)\)", model.text))
    assert asserted - model.witnessed == model.promises
    assert frozenset().union(*(each.breaks for each in model.mutants)) == model.promises
    assert set(re.findall(r"^ltl (\w+)", model.text, re.MULTILINE)) == set(model.claims)
    assert set().union(*(each.breaks for each in model.live_mutants)) == set(model.claims)
