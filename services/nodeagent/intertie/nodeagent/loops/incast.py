"""Both sides of an incast: says what this host's downlink has room for, and heeds the others."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from intertie.common.clock import Clock
from intertie.common.tasks import first_of
from intertie.nodeagent.domain.failures import HostFailure, RecordsUnreadable
from intertie.nodeagent.domain.incast import (
    Arrivals,
    Crowd,
    Downlink,
    Heard,
    arrived_kbit_s,
    asked_of_senders,
    heard,
    in_force,
    judge,
    material,
    promised_in_kbit,
)
from intertie.nodeagent.domain.ports import Records, Uplink
from intertie.nodeagent.domain.traffic_plan import IncastShare
from intertie.nodeagent.domain.wanted import WantedPart

log = structlog.get_logger(__name__)

PERIOD_S = 1.0
"""Between two looks at what arrives."""
TOLD_S = 3.0
"""A share is written again after so long, though it is the same: that it still counts."""
_LOOK_S = 30.0
"""Without a hint, and while nobody asks for anything."""
_GAP_S = 0.25
"""Between two reads of the shares, however many hints come."""


class Receiver:
    """Watches what arrives at this host, and tells the others how much room is left."""

    def __init__(
        self,
        parts: Callable[[], Iterable[WantedPart]],
        uplink: Uplink,
        records: Records,
        clock: Clock,
        *,
        capacity_mbit_s: int,
    ) -> None:
        self._parts = parts
        self._uplink = uplink
        self._records = records
        self._clock = clock
        self._capacity_kbit = capacity_mbit_s * 1000
        self._last: Arrivals | None = None
        self._crowd = Crowd()
        self._told: IncastShare | None = None
        self._told_at = clock.monotonic()
        self._clean = False
        """What an earlier agent has told is taken back."""

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except (HostFailure, OSError) as error:
                log.warning("incast.failed", problem=str(error))
            await self._clock.sleep(PERIOD_S)

    async def sweep(self) -> None:
        parts = tuple(self._parts())
        before, self._last = self._last, self._uplink.arrivals()
        arrived = arrived_kbit_s(before, self._last) if before else None
        if arrived is not None:
            downlink = Downlink(
                capacity_kbit=self._capacity_kbit, promised_kbit=promised_in_kbit(parts)
            )
            crowd = judge(self._crowd, arrived, downlink)
            if (crowd.share_kbit is None) != (self._crowd.share_kbit is None):
                log.info("incast.over" if crowd.share_kbit is None else "incast.begun")
            self._crowd = crowd
        await self._tell(asked_of_senders(self._crowd, parts))

    async def _tell(self, asked: IncastShare | None) -> None:
        now = self._clock.monotonic()
        if asked is None:
            if self._told is not None or not self._clean:
                await self._records.delete_share()
                self._told, self._clean = None, True
        elif material(self._told, asked) or now - self._told_at >= TOLD_S:
            await self._records.write_share(asked, at=self._clock.now())
            self._told, self._told_at = asked, now


class Sender:
    """Keeps to what the others ask for, as long as they say so."""

    def __init__(
        self,
        yield_to: Callable[[Mapping[str, IncastShare]], Awaitable[None]],
        records: Records,
        clock: Clock,
        host: str,
    ) -> None:
        self._yield_to = yield_to
        self._records = records
        self._clock = clock
        self._host = host
        self._known: dict[str, Heard] = {}
        self._hint = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            while True:
                self._hint.clear()
                try:
                    await self.sweep()
                except (HostFailure, OSError) as error:
                    log.warning("incast.not_heeded", problem=str(error))
                await self._clock.sleep(_GAP_S)
                seconds = PERIOD_S if self._known else _LOOK_S
                await first_of(self._clock.sleep(seconds), self._hint.wait())

    async def sweep(self) -> None:
        """While the shares cannot be read, those that are known stand until they are too old."""
        try:
            read = await self._records.shares()
        except RecordsUnreadable as error:
            log.warning("incast.unreadable", problem=str(error))
        else:
            others = {host: each for host, each in read.items() if host != self._host}
            self._known = heard(self._known, others, now=self._clock.monotonic())
        await self._yield_to(in_force(self._known, now=self._clock.monotonic()))

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(RecordsUnreadable):
                async for _ in self._records.share_hints():
                    self._hint.set()
            await self._clock.sleep(PERIOD_S)
