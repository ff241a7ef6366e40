"""Whatever fails at whatever point of a commit: whole or nothing, and all is well again soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from intertie.common.points import POINTS
from tests.fault.commit.faults import ALL, Fault
from tests.fault.commit.occasions import standing
from tests.fault.commit.rig import QUIET_S, Rig

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.timeout(300)]

FEW = {
    ("metasched.prepared_one", "metasched-killed"),
    ("metasched.decided", "etcds-restarted"),
    ("metasched.told_one", "broker-killed"),
    ("metasched.end_requested", "metasched-killed"),
    ("broker.held", "member-killed"),
    ("broker.held", "broker-killed"),
    ("broker.before_resolve", "meta/south-cut"),
    ("agent.defined", "libvirtd-killed"),
    ("agent.before_remove", "agent-stopped"),
}
"""Those that every run has; the others are left to `make test-fault`."""


def cases() -> Iterator[object]:
    for point in POINTS:
        for fault in ALL:
            few = (point, str(fault)) in FEW
            marks = () if few else pytest.mark.more_faults
            yield pytest.param(point, fault, id=f"{point} {fault}", marks=marks)


def test_the_few_are_of_the_many() -> None:
    assert {(point, str(fault)) for point in POINTS for fault in ALL} >= FEW


@pytest.mark.parametrize(("point", "fault"), list(cases()))
def test_a_fault_at_a_point(rig: Rig, point: str, fault: Fault, tmp_path: Path) -> None:
    """While a cluster is deleted and two are created, a service stands at the point and something
    fails. Never is anything mixed, promised twice or lost, on no look; within 15 s of the last
    restart all is at rest; then both creates are had, and of all that nothing is left."""
    with standing(rig, point, tmp_path) as (service, asked):
        took = rig.settles(fault.strike(rig, service))
    print(f"{point} {fault}: at rest after {took:.1f} s")  # noqa: T201
    old, *others = asked
    rig.old = ""
    old.insist(QUIET_S)
    rig.settles(time.monotonic(), within_s=QUIET_S)
    for each in others:
        each.insist(QUIET_S)
    rig.settles(time.monotonic(), within_s=QUIET_S)
    for each in others:
        rig.delete(each.name).insist(QUIET_S)
    rig.settles(time.monotonic(), within_s=QUIET_S)
    rig.nothing_is_left()
