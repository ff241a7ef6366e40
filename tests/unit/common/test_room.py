"""A store that is short of room: what is still taken, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest

from intertie.common.errors import LedgerFull
from intertie.common.etcd.client import Status
from intertie.common.etcd.room import COMPACT_S, HISTORY_S, KNOWN_S, LOOK_S, Room
from intertie.common.room import Fill, Level
from intertie.common.settings import RoomSettings
from tests.fakes.clock import FakeClock
from tests.fakes.etcd import MemoryEtcd

MIB = 1 << 20
QUOTA = 100 * MIB


def fill(size: int, in_use: int, *, quota: int = 100, full: bool = False) -> Fill:
    return Fill(size=size * MIB, in_use=in_use * MIB, quota=quota * MIB, full=full)


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (fill(10, 5), Level.ROOMY),
        (fill(90, 79), Level.ROOMY),  # what is free in the file is written over first
        (fill(81, 80), Level.TIGHT),
        (fill(97, 10), Level.TIGHT),  # one large value more, and the alarm is raised
        (fill(10, 5, full=True), Level.FULL),  # until it is disarmed, however much room there is
    ],
)
def test_a_store_is_short_of_room_before_its_quota_is_reached(found: Fill, level: Level) -> None:
    assert found.level(0.8) is level


def test_the_fullest_member_counts_and_the_smallest_quota() -> None:
    found = Fill.fullest([fill(10, 9), fill(30, 2, quota=50), fill(20, 5, full=True)])
    assert found == fill(30, 9, quota=50, full=True)


def test_what_is_said_names_the_figures_and_the_remedy() -> None:
    tight, full = fill(85, 82).remedy(0.8), fill(100, 99, full=True).remedy(0.8)
    assert "82 MiB of etcd's quota of 100 are in use" in tight
    assert "compaction" in tight
    assert "defrag" in tight
    assert "alarm disarm" not in tight
    assert "alarm disarm" in full


class Members(MemoryEtcd):
    """A store that says how full its members are, one after another."""

    def __init__(self, *members: Fill) -> None:
        super().__init__()
        self.members = dict(enumerate(members, start=1))
        self.revision = 1
        self.compacted: list[int] = []
        self._turn = 0

    async def status(self) -> Status:
        self._check()
        turns = sorted(self.members)
        member = turns[self._turn % len(turns)]
        self._turn += 1
        said = self.members[member]
        return Status(
            member=member,
            revision=self.revision,
            size=said.size,
            in_use=said.in_use,
            quota=0,
            full=said.full,
        )

    async def compact(self, revision: int) -> None:
        self.compacted.append(revision)


class Told:
    """What leads, and what health was told."""

    is_leader = True

    def __init__(self) -> None:
        self.said: list[bool] = []

    async def taking(self, *, new: bool) -> None:
        self.said.append(new)


def room_of(etcd: Members, told: Told, clock: FakeClock, *, compact: bool = False) -> Room:
    settings = RoomSettings(quota_mib=100, compact=compact)
    return Room(etcd, len(etcd.members), settings, told, told, clock)


async def test_nothing_new_is_taken_while_any_member_is_short_of_room() -> None:
    etcd, told, clock = Members(fill(10, 5), fill(10, 5), fill(90, 85)), Told(), FakeClock()
    room = room_of(etcd, told, clock)
    room.check()  # before anything is known
    await room.look()
    with pytest.raises(LedgerFull, match="85 MiB"):
        room.check()
    etcd.members[3] = fill(90, 20)
    await room.look()
    room.check()
    assert told.said == [False, True]


async def test_what_was_known_last_holds_while_etcd_does_not_answer() -> None:
    etcd, told, clock = Members(fill(90, 85)), Told(), FakeClock()
    room = room_of(etcd, told, clock)
    await room.look()
    etcd.broken = True
    running = asyncio.create_task(room.run())
    await clock.advance(3 * LOOK_S)
    with pytest.raises(LedgerFull):
        room.check()
    etcd.broken = False
    etcd.members[1] = fill(90, 20)
    await clock.advance(LOOK_S)
    room.check()
    running.cancel()


async def test_a_member_that_is_gone_is_gone_by_no_more() -> None:
    etcd, told, clock = Members(fill(90, 85), fill(10, 5)), Told(), FakeClock()
    room = room_of(etcd, told, clock)
    await room.look()
    del etcd.members[1]
    await clock.advance(KNOWN_S)
    await room.look()
    room.check()


async def _hours_of_looks(room: Room, etcd: Members, clock: FakeClock, hours: float) -> None:
    """A revision a second."""
    for _ in range(int(hours * 3600 / 60)):
        await room.look()
        await clock.advance(60)
        etcd.revision += 60


async def test_a_leader_forgets_history_of_more_than_an_hour_where_room_is_short() -> None:
    etcd, told, clock = Members(fill(90, 85)), Told(), FakeClock()
    room = room_of(etcd, told, clock, compact=True)
    await _hours_of_looks(room, etcd, clock, 0.9)
    assert etcd.compacted == []
    await _hours_of_looks(room, etcd, clock, 1.1)
    assert etcd.compacted
    assert etcd.revision - etcd.compacted[-1] >= HISTORY_S
    assert etcd.revision - etcd.compacted[-1] <= HISTORY_S + COMPACT_S + 120
    assert len(etcd.compacted) <= 3600 / COMPACT_S + 1


@pytest.mark.parametrize("why_not", ["roomy", "follows", "unasked"])
async def test_nobody_else_compacts(why_not: str) -> None:
    etcd = Members(fill(90, 20 if why_not == "roomy" else 85))
    told, clock = Told(), FakeClock()
    told.is_leader = why_not != "follows"
    room = room_of(etcd, told, clock, compact=why_not != "unasked")
    await _hours_of_looks(room, etcd, clock, 2)
    assert etcd.compacted == []
