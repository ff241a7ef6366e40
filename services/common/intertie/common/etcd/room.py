"""Looks at how full the store is, and refuses in time what would fill it."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import EtcdUnavailable, LedgerFull
from intertie.common.etcd.client import Etcd, EtcdRefused, Status
from intertie.common.room import Fill, Level
from intertie.common.settings import RoomSettings

log = structlog.get_logger(__name__)

LOOK_S = 5.0
HISTORY_S = 3600.0
"""Of what is compacted here, so much stays: who follows changes goes on after less than that."""
COMPACT_S = 300.0
"""At most this often."""
KNOWN_S = 60.0
"""What a member said last is gone by for so long."""
_MIB = 1 << 20


class Leading(Protocol):
    @property
    def is_leader(self) -> bool: ...


class Health(Protocol):
    async def taking(self, *, new: bool) -> None:
        """Tells whoever asks whether this service takes anything new."""
        ...


class Room:
    """Every replica looks for itself. Before the first answer, and without one, what was known
    last holds: what etcd does not take, it refuses itself."""

    def __init__(
        self,
        etcd: Etcd,
        members: int,
        settings: RoomSettings,
        leading: Leading,
        health: Health,
        clock: Clock,
    ) -> None:
        """`members`: of the store, as far as they are known."""
        self._etcd = etcd
        self._asked = members
        self._settings = settings
        self._leading = leading
        self._health = health
        self._clock = clock
        self._members: dict[int, tuple[float, Fill]] = {}
        """When it was seen last, and how."""
        self._fill: Fill | None = None
        self._level: Level | None = None
        self._revisions: deque[tuple[float, int]] = deque()
        """When the store had come to which, the oldest of the last hour first."""
        self._compacted_s = -COMPACT_S

    def check(self) -> None:
        """LedgerFull where nothing may be taken that makes the store grow."""
        if self._fill is not None and self._level in (Level.TIGHT, Level.FULL):
            raise LedgerFull(self._fill.remedy(self._settings.refuse_above))

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.look()
            except (EtcdUnavailable, EtcdRefused) as error:
                log.warning("room.not_seen", problem=str(error))
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """All members that answer, each once; and makes room where that is this replica's."""
        now, revision = self._clock.monotonic(), 0
        for _ in range(self._asked):
            said = await self._etcd.status()
            self._members[said.member] = now, self._fill_of(said)
            revision = max(revision, said.revision)
        # By name, or past one that is away, some have their turn in a later look.
        self._members = {
            member: seen for member, seen in self._members.items() if now - seen[0] < KNOWN_S
        }
        self._fill = Fill.fullest(fill for _, fill in self._members.values())
        await self._say(self._fill.level(self._settings.refuse_above))
        await self._compact(revision)

    def _fill_of(self, said: Status) -> Fill:
        return Fill(
            size=said.size,
            in_use=said.in_use,
            quota=said.quota or self._settings.quota_mib * _MIB,
            full=said.full,
        )

    async def _say(self, level: Level) -> None:
        before, self._level = self._level, level
        if level is before:
            return
        assert self._fill is not None
        await self._health.taking(new=level is Level.ROOMY)
        if level is Level.ROOMY and before is None:
            return
        figures = {"size": self._fill.size, "in_use": self._fill.in_use, "quota": self._fill.quota}
        if level is Level.ROOMY:
            log.info("room.again", **figures)
        else:
            log.error("room.short", at=level.name, **figures)

    async def _compact(self, revision: int) -> None:
        now = self._clock.monotonic()
        self._revisions.append((now, revision))
        due = 0
        while self._revisions and now - self._revisions[0][0] >= HISTORY_S:
            due = self._revisions.popleft()[1]
        if due:
            self._revisions.appendleft((now - HISTORY_S, due))
        wanted = self._settings.compact and self._level is not Level.ROOMY
        if not (due and wanted and self._leading.is_leader):
            return
        if now - self._compacted_s >= COMPACT_S:
            self._compacted_s = now
            await self._etcd.compact(due)
            log.info("room.compacted", revision=due)
