"""What the checker takes for broken, and what not."""

from __future__ import annotations

from typing import Any

import pytest

from intertie.api.nodeagent.v1 import records_pb2
from tests.sim.etcd_model import Written
from tests.sim.waiting import Waiting

PART = "sites/north/tenants/demo/parts/c1"
PAUSED, SUSPENDED = 5, 9
"""Of intertie.cluster.v1.Workspace.State."""


def at(revision: int) -> Written:
    return Written(
        store="north", revision=revision, at=float(revision), writer="", puts=(), deleted=()
    )


def moment(second: int) -> str:
    return f"2030-01-01T12:00:{second:02}Z"


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
    waiting.part(at(9), aside, on)
    assert said == ([] if is_saved else [f"{PART} goes on before n1 has saved it"])
