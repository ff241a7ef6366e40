"""What the interface towards the other hosts of the site has received."""

from pathlib import Path

from intertie.common.clock import Clock
from intertie.nodeagent.domain.incast import Arrivals


class SysfsUplink:
    """Counters of the kernel, read as files: two a reading, and no program."""

    def __init__(self, interface: str, clock: Clock) -> None:
        self._counters = Path("/sys/class/net") / interface / "statistics"
        self._clock = clock

    def arrivals(self) -> Arrivals:
        return Arrivals(
            seconds=self._clock.monotonic(),
            bytes=int((self._counters / "rx_bytes").read_text()),
            packets=int((self._counters / "rx_packets").read_text()),
        )
