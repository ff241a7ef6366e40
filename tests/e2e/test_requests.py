"""What a user may ask twice, or wrongly, and what the answer is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.driver import User, group, spec

pytestmark = [pytest.mark.root, pytest.mark.e2e]

JSON = ("-o", "json")


def test_the_same_request_id_gives_the_same_cluster_and_another_body_is_refused(
    user: User,
) -> None:
    small = spec(group("a", sites=["north"]))
    first = user.create("twice", small, "--request-id", "r-1", wait=False)
    uid = user.show("twice")["uid"]
    assert user.create("twice", small, "--request-id", "r-1", wait=False) == first
    assert user.show("twice")["uid"] == uid
    other = spec(group("a", 2, sites=["north"]))
    said = user.say(*user.create_args("twice", other, "--request-id", "r-1"))
    assert said.code == 1
    assert "REQUEST_ID_REUSE" in said.err


def test_a_broker_hands_on_what_it_cannot_serve_alone_and_a_retry_finds_it(user: User) -> None:
    both = spec(group("a", sites=["north"]), group("b", sites=["south"]))
    north = user.at("north")
    name = north.create("handed-on", both, "--request-id", "r-2", wait=False)
    assert name.startswith("metascheds/meta/tenants/demo/clusters/")
    assert north.create("handed-on", both, "--request-id", "r-2", wait=False) == name
    assert {w["site"] for w in north.show("handed-on")["workspaces"]} == {"north", "south"}
    north.delete("handed-on")


def test_validate_only_prints_a_plan_and_takes_nothing(user: User) -> None:
    def free() -> list[Any]:
        return [(host["name"], host["free"]) for host in json.loads(user.do("host", "list", *JSON))]

    before = free()
    both = spec(group("a", sites=["north"]), group("b", sites=["south"]))
    planned = user.do(*user.create_args("only-planned", both, "--validate-only"))
    rows = [line.split()[:3] for line in planned.splitlines()]
    assert ["north", "1", "a"] in rows
    assert ["south", "1", "b"] in rows
    assert "  - north takes 1 a: " in planned
    assert user.say("cluster", "show", "only-planned").code == 1
    assert "only-planned" not in user.do("cluster", "list", "--all")
    assert free() == before


def test_a_site_and_an_image_are_shown_alone(user: User) -> None:
    site = json.loads(user.do("site", "show", "south", *JSON))
    assert (site["reachable"], site["site"]["name"]) == (True, "sites/south")
    assert site["site"]["hosts_alive"] == 2
    rows = [line.split() for line in user.do("image", "show", "intertie-guest").splitlines()]
    assert [row[:3] for row in rows[1:]] == [
        ["north", "intertie-guest", "READY"],
        ["south", "intertie-guest", "READY"],
    ]


def _with(key: str, value: Any) -> dict[str, Any]:
    asked = spec(group("a"), group("b"))
    at: Any = asked
    *path, last = key.split(".")
    for step in path:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return asked


@pytest.mark.parametrize(
    ("asked", "reason", "said_of_it"),
    [
        (_with("groups.0.allocation.memroy_mib", 5), "", "groups[0].allocation.memroy_mib"),
        (_with("groups.1.environment.image", "nosuch"), "IMAGE_NOT_READY", "nosuch"),
        (_with("groups.0.allocation.vcpus", 0), "FIELD_INVALID", "groups[0].allocation.vcpus"),
        (
            _with("groups.0.allocation.vcpus", 200),
            "NO_CAPACITY",
            "vcpus",
        ),
        (
            _with("groups.0.allocation.disk_mib", 1),
            "FIELD_INVALID",
            "groups[0].allocation.disk_mib",
        ),
    ],
    ids=["unknown field", "unknown image", "impossible size", "does not fit", "disk below image"],
)
def test_a_wrong_specification_is_refused_by_field_and_reason(
    user: User, asked: dict[str, Any], reason: str, said_of_it: str
) -> None:
    said = user.say(*user.create_args("wrong", asked))
    assert said.code in (1, 2)
    assert reason in said.err
    assert said_of_it in said.err
    assert "Traceback" not in said.err


def test_a_bandwidth_that_no_link_has_is_refused_with_the_link_and_what_it_has(
    user: User,
) -> None:
    pair = {"group": "b", "bandwidth": {"guarantee_mbit_s": 300}}
    a = group("a", sites=["north"], pairs=[pair])
    said = user.say(*user.create_args("wide", spec(a, group("b", sites=["south"]))))
    assert said.code == 1
    assert "NO_CAPACITY" in said.err
    assert "link" in said.err
    assert "300" in said.err
    assert "176" in said.err
    assert "asked for in groups[0].allocation.pairs[0].bandwidth.guarantee_mbit_s" in said.err
