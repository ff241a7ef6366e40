"""Groups together and apart: what can never be is refused before anything is looked for, with the
affinity that it is about and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.common.affinity_rules import MAX_AFFINITIES
from intertie.common.errors import FieldInvalid
from intertie.common.spec import Affinity, AffinityKind, ClusterSpec, GroupPlacement, Placement
from intertie.common.spec import validate as validate_spec
from intertie.common.values import replace
from tests.unit.common.builders import NOW, group

FIELD = "spec.placement.affinities"


def together(*groups: str) -> Affinity:
    return Affinity(groups=groups, kind=AffinityKind.TOGETHER)


def apart(*groups: str) -> Affinity:
    return Affinity(groups=groups, kind=AffinityKind.APART)


def asked(*affinities: Affinity, max_sites: int = 0, **placed: dict[str, Any]) -> ClusterSpec:
    """Of groups a to d of three workspaces each; `placed`: how, by group."""
    groups = tuple(
        replace(group(name), count=3, placement=GroupPlacement(**placed.get(name, {})))
        for name in "abcd"
    )
    placement = Placement(max_sites=max_sites, affinities=affinities)
    return ClusterSpec(groups=groups, placement=placement)


WRONG: dict[str, tuple[ClusterSpec, str, str]] = {
    "no groups": (asked(together()), f"{FIELD}[0].groups", "1 or more"),
    "one apart": (asked(apart("a")), f"{FIELD}[0].groups", "2 or more"),
    "unknown": (asked(apart("a", "z")), f"{FIELD}[0].groups[1]", "known: a, b"),
    "twice": (asked(together("a", "b", "a")), f"{FIELD}[0].groups[2]", "there already"),
    "too many": (asked(*[together("a")] * (MAX_AFFINITIES + 1)), FIELD, "at most 100"),
    "both": (asked(together("a", "b"), apart("a", "b")), f"{FIELD}[1]", "take one of them out"),
    "both, the other first": (
        asked(apart("a", "b"), together("a", "b", "c")),
        f"{FIELD}[0]",
        f"{FIELD}[1]",
    ),
    "in a circle": (
        asked(together("a", "b"), together("c", "d"), apart("a", "d"), together("b", "c")),
        f"{FIELD}[2]",
        f"{FIELD}[0], {FIELD}[1], {FIELD}[3]",
    ),
    "no site that both may be at": (
        asked(together("a", "b"), a={"allow_sites": ("n", "m")}, b={"allow_sites": ("s",)}),
        f"{FIELD}[0]",
        "none may have all",
    ),
    "by a third": (
        asked(
            together("a", "b"),
            together("b", "c"),
            a={"allow_sites": ("n",)},
            c={"allow_sites": ("s",)},
        ),
        f"{FIELD}[1]",
        "none may have all",
    ),
    "denied to the other": (
        asked(together("a", "b"), a={"allow_sites": ("n",)}, b={"deny_sites": ("n",)}),
        f"{FIELD}[0]",
        "none may have all",
    ),
    "spread": (asked(together("a", "b"), b={"min_sites": 2}), f"{FIELD}[0]", "lower its min_sites"),
    "spread, alone": (asked(together("b"), b={"min_sites": 2}), f"{FIELD}[0]", "min_sites"),
    "too few to a site": (
        asked(together("a", "b"), b={"max_per_site": 2}),
        f"{FIELD}[0]",
        "raise its max_per_site",
    ),
    "more than sites": (asked(apart("a", "b", "c"), max_sites=2), f"{FIELD}[0]", "takes 3 sites"),
    "more than sites, spread": (
        asked(apart("a", "b"), max_sites=3, a={"min_sites": 3}),
        f"{FIELD}[0]",
        "takes 4 sites",
    ),
    "pinned to one": (
        asked(apart("a", "b", "c"), a={"allow_sites": ("n",)}, c={"allow_sites": ("n",)}),
        f"{FIELD}[0]",
        "'n' alone",
    ),
    "three at two": (
        asked(
            apart("a", "b", "c", "d"),
            a={"allow_sites": ("n", "m")},
            b={"allow_sites": ("n", "m")},
            c={"allow_sites": ("n", "m")},
        ),
        f"{FIELD}[0]",
        "takes 3 sites for a, b, c",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_can_never_be_is_refused(name: str) -> None:
    spec, field, remedy = WRONG[name]
    with pytest.raises(FieldInvalid) as refused:
        validate_spec(spec, now=NOW)
    assert refused.value.field == field
    assert remedy in refused.value.problem


RIGHT: dict[str, ClusterSpec] = {
    "together": asked(together("a", "b")),
    "one": asked(together("a")),
    "apart": asked(apart("a", "b", "c", "d"), max_sites=4),
    "two blocks apart": asked(
        together("a", "b"), together("c", "d"), apart("a", "c"), apart("b", "d"), max_sites=2
    ),
    "at sites that meet": asked(
        together("a", "b"), a={"allow_sites": ("n", "m")}, b={"allow_sites": ("m", "s")}
    ),
    "apart at as many sites": asked(
        apart("a", "b"), a={"allow_sites": ("n", "m")}, b={"allow_sites": ("n",)}
    ),
    "all that is just allowed": asked(*[together("a")] * MAX_AFFINITIES),
    "as many to a site": asked(together("a"), a={"max_per_site": 3, "min_sites": 1}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_be_is_taken(name: str) -> None:
    validate_spec(RIGHT[name], now=NOW)
