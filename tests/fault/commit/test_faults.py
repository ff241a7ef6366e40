"""Whatever fails while clusters come and go: whole or nothing, and all is well again soon.

One module, so that the testbed is there for as long as it is needed and no longer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intertie.common.points import POINTS
from testbed.component import Component, start_all
from tests.e2e.driver import eventually
from tests.fault.commit.faults import ALL, ETCDS, Fault
from tests.fault.commit.occasions import standing
from tests.fault.commit.rig import CONVERGED_S, QUIET_S, Rig

pytestmark = [pytest.mark.root, pytest.mark.e2e, pytest.mark.timeout(300)]

LASTS_S = 25
ON_TIME_S = 5.0
"""After the end of a lease, with nobody to ask."""
RELISTED_S = 35.0
"""After a watch has lost something."""

FEW = {
    ("metasched.prepared_one", "metasched-killed"),
    ("metasched.decided", "etcds-restarted"),
    ("broker.held", "broker-killed"),
    ("broker.before_resolve", "meta/south-cut"),
    ("agent.defined", "libvirtd-killed"),
    ("agent.before_remove", "agent-stopped"),
}
"""Those that every run has; the others are left to `make test-fault`."""


REACHED = tuple(each for each in POINTS if "amend" not in each)
"""Its traffic changes no lease yet: those points are for `tests/sim`."""

STRIDE = 7
"""From one point to the next within a round: neighbours meet faults of different kinds."""


def cases() -> Iterator[object]:
    """In as many rounds as there are faults. In each every point is reached once and every fault
    befalls some point, so one round (`make test-fault ONLY='round-07'`) goes over all a little."""
    for place, point in enumerate(REACHED):
        for number, fault in enumerate(ALL):
            few = (point, str(fault)) in FEW
            marks = () if few else pytest.mark.more_faults
            turn = (number - place * STRIDE) % len(ALL) + 1
            yield pytest.param(point, fault, id=f"{point} {fault} round-{turn:02}", marks=marks)


def test_a_round_has_every_point_once_and_every_fault() -> None:
    rounds: dict[str, list[tuple[str, str]]] = {}
    for case in cases():
        point, fault, turn = str(getattr(case, "id")).split()  # noqa: B009
        rounds.setdefault(turn, []).append((point, fault))
    assert len(rounds) == len(ALL)
    for each in rounds.values():
        assert sorted(point for point, _ in each) == sorted(REACHED)
        assert {fault for _, fault in each} == {str(fault) for fault in ALL}


def test_the_few_are_of_the_many() -> None:
    assert {(point, str(fault)) for point in REACHED for fault in ALL} >= FEW


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


def etcd_members(rig: Rig) -> list[Component]:
    numbers = range(rig.testbed.topology.etcd_members)
    return [rig.testbed.component(f"{at}/etcd-{number}") for at in ETCDS for number in numbers]


def test_a_lease_ends_on_time_while_all_etcds_and_brokers_are_away(rig: Rig) -> None:
    """One agent lives through it, the other is killed and comes back while nobody answers it."""
    asked = rig.create(lasts=f"{LASTS_S}s", label="short")
    end = asked.call(QUIET_S).window.end_time.ToDatetime(tzinfo=UTC)
    rig.settles(time.monotonic())
    guests = {uid for at in rig.look().guests.values() for uid in at}
    short = rig.guests_of(asked.name)
    assert len(short) == 2
    assert short <= guests
    away = [*etcd_members(rig), *map(rig.testbed.component, ("north/broker", "south/broker"))]
    for each in away:
        each.kill9()
    agent = rig.testbed.component("south/s1/nodeagent")
    agent.kill9()
    agent.start()
    assert datetime.now(UTC) < end, "the machine is too slow for a lease as short as this"
    gone: dict[str, float] = {}
    while len(gone) < len(short):
        there = {uid for at in rig.eye.guests().values() for uid in at}
        late_s = (datetime.now(UTC) - end).total_seconds()
        gone |= dict.fromkeys(short - there - gone.keys(), late_s)
        assert late_s <= ON_TIME_S, f"{short & there} run {late_s:.1f} s after the end"
        time.sleep(0.05)
    print(f"guests ended {sorted(round(each, 1) for each in gone.values())} s after the end")  # noqa: T201
    assert all(late_s >= 0 for late_s in gone.values()), gone
    start_all(away)
    took = rig.settles(time.monotonic())
    print(f"at rest after {took:.1f} s")  # noqa: T201
    eventually(
        lambda: rig.look().clusters[asked.name] == "ENDED",
        within_s=CONVERGED_S,
        what="the meta-scheduler has heard of it",
    )
    rig.delete(rig.old).insist(QUIET_S)
    rig.old = ""
    rig.settles(time.monotonic(), within_s=QUIET_S)
    rig.nothing_is_left()


@pytest.mark.parametrize(
    ("deaf", "restarted"),
    [
        ("broker", True),
        ("agent", False),
        pytest.param("broker", False, marks=pytest.mark.more_faults),
        pytest.param("agent", True, marks=pytest.mark.more_faults),
    ],
)
def test_what_a_watch_has_lost_is_found_by_reading_all_again(
    rig: Rig, deaf: str, restarted: bool
) -> None:
    """A service stops while a cluster is being deleted; what is news to it happens, and etcd
    forgets that it ever did. In the end it learns of it, and the cluster is gone."""
    if deaf == "agent":
        component = rig.testbed.component("south/s1/nodeagent")
        component.stop()
        rig.delete(rig.old).insist(QUIET_S)
    else:
        component = rig.testbed.component("south/broker")
        rig.testbed.arm("south/broker", "broker.told")
        rig.delete(rig.old).insist(QUIET_S)
        eventually(
            lambda: rig.testbed.stands("south/broker", "broker.told"),
            within_s=QUIET_S,
            what="the broker stands where it has told its agents",
        )
    rig.old = ""

    def happened() -> bool:
        world = rig.look()
        told = [at for at, each in world.told.items() if at[0] == "south/s1" and each.gone]
        return bool(told) and (deaf == "agent" or all(world.seen[at].gone for at in told))

    eventually(happened, within_s=QUIET_S, what="what it is to miss")
    compact(rig, "south")
    if restarted:
        members = [each for each in etcd_members(rig) if each.name.startswith("south/")]
        for each in members:
            each.kill9()
        start_all(members)
    component.cont()
    took = rig.settles(time.monotonic(), within_s=RELISTED_S)
    print(f"{deaf}, etcd restarted {restarted}: at rest after {took:.1f} s")  # noqa: T201
    rig.nothing_is_left()


def compact(rig: Rig, site: str) -> None:
    """Nothing of the past is kept but what stands now."""
    for number in range(20):
        rig.eye.etcdctl(site, "put", "/elsewhere", str(number))
    said = json.loads(rig.eye.etcdctl(site, "get", "/elsewhere", "-w", "json"))
    rig.eye.etcdctl(site, "compaction", str(said["header"]["revision"]))
    rig.eye.etcdctl(site, "del", "/elsewhere")
