"""Watches a gateway's ways to other sites, by a small probe a second to each."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from intertie.common.clock import Clock
from intertie.nodeagent.domain.report import SeenWay
from intertie.nodeagent.domain.wanted import WantedPart
from intertie.nodeagent.domain.way_ports import Echoes
from intertie.nodeagent.domain.ways import Way, addresses_of, judged, lost, told

log = structlog.get_logger(__name__)

PERIOD_S = 1.0
"""Between two probes of a way. An answer is taken with the next one."""


class WayWatcher:
    """`sweep` is one probe of each way. Nothing is kept over a restart: what was not watched is
    not told."""

    def __init__(
        self,
        parts: Callable[[], Iterable[WantedPart]],
        echoes: Echoes,
        clock: Clock,
    ) -> None:
        self._parts = parts
        self._echoes = echoes
        self._clock = clock
        self.changed = asyncio.Event()
        """Set when a way is lost or found again; whoever tells of it clears it."""
        self._ways: Mapping[str, Way] = {}
        self._asked: frozenset[str] = frozenset()

    async def run(self) -> None:
        while True:
            try:
                self.sweep()
            except Exception as error:
                # A way that is not watched must not end what keeps guests.
                log.error("ways.failed", problem=repr(error), exc_info=True)
            await self._clock.sleep(PERIOD_S)

    def sweep(self) -> None:
        """Takes the answers to the probes before, and sends the next ones."""
        addresses = addresses_of(self._parts())
        before = self._ways
        self._ways = judged(
            before,
            addresses,
            self._asked,
            self._echoes.answers(),
            seconds=self._clock.monotonic(),
            now=self._clock.now(),
        )
        self._asked = self._echoes.ask(addresses)
        if self._note(before):
            self.changed.set()

    def told(self) -> tuple[SeenWay, ...]:
        return told(self._ways)

    def _note(self, before: Mapping[str, Way]) -> bool:
        """Whether any was lost or found again."""
        were, are = lost(before), lost(self._ways)
        for address in are - were:
            since = self._ways[address].lost_since
            log.warning("way.lost", address=address, since=since.isoformat() if since else "")
        for address in (were - are) & self._ways.keys():
            log.info("way.found", address=address)
        return were != are
