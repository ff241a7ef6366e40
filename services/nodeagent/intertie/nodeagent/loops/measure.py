"""Reads the host's counters and tells the site what becomes of its promises."""

from collections.abc import Callable, Iterable, Mapping

import structlog

from intertie.common.clock import Clock
from intertie.nodeagent.domain.failures import HostFailure, HypervisorSilent
from intertie.nodeagent.domain.measured import (
    DiskCounters,
    Measured,
    Reading,
    material,
    measure,
)
from intertie.nodeagent.domain.meters import Meters, Promise, meters_of, of_device
from intertie.nodeagent.domain.network_plan import Place
from intertie.nodeagent.domain.ports import Hypervisor, Records, Traffic
from intertie.nodeagent.domain.wanted import WantedPart

log = structlog.get_logger(__name__)

PERIOD_S = 4.0
"""Between two readings: rates are means over so long."""
TOLD_S = 30.0
"""What is told is not older, also where little changes."""


class Measurer:
    """`sweep` is one reading. Nothing is kept over a restart: what was not watched is not told."""

    def __init__(
        self,
        parts: Callable[[], Iterable[WantedPart]],
        hypervisor: Hypervisor,
        traffic: Traffic,
        records: Records,
        clock: Clock,
        place: Place,
    ) -> None:
        self._parts = parts
        self._hypervisor = hypervisor
        self._traffic = traffic
        self._records = records
        self._clock = clock
        self._place = place
        self._last: Reading | None = None
        self._found: dict[Promise, Measured] = {}
        self._told: Mapping[Promise, Measured] | None = None
        self._told_at = clock.monotonic()

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except (HostFailure, OSError) as error:
                log.warning("measure.failed", problem=str(error))
            await self._clock.sleep(PERIOD_S)

    async def sweep(self) -> None:
        """Reads, compares with the reading before, and writes what has changed materially."""
        meters = meters_of(self._parts(), self._place)
        reading = await self._read(meters)
        self._found = measure(meters, self._last, reading, self._found)
        self._last = reading
        if self._due():
            await self._records.write_measured(self._found, at=reading.at)
            self._told, self._told_at = self._found, self._clock.monotonic()

    def _due(self) -> bool:
        if self._told is None or material(self._told, self._found):
            return True
        return bool(self._found) and self._clock.monotonic() - self._told_at >= TOLD_S

    async def _read(self, meters: Meters) -> Reading:
        """Nothing is asked for that nobody was promised."""
        at, seconds = self._clock.now(), self._clock.monotonic()
        queues = await self._traffic.queues() if meters.flows else {}
        return Reading(
            at=at,
            seconds=seconds,
            queues=queues,
            disks=await self._disks() if meters.disks else {},
        )

    async def _disks(self) -> Mapping[str, DiskCounters]:
        """None while libvirt is silent: what is sent is measured all the same."""
        try:
            counters = await self._hypervisor.counters()
        except HypervisorSilent:
            return {}
        found = {}
        for name, each in counters.items():
            found[name] = DiskCounters(
                operations=each.read_operations + each.write_operations,
                bytes=each.read_bytes + each.write_bytes,
                busy_ns=each.read_time_ns + each.write_time_ns,
            )
            found |= {of_device(name, device): one for device, one in each.others.items()}
        return found
