"""Keeps the host's word that its guests are stopped once it cannot report.

It must hold over restarts, so the last sign of life is kept on disk before anybody relies on it:
what is on disk may be older than what was sent, which only stops guests sooner.
"""

from datetime import timedelta

import structlog

from intertie.common.clock import Clock
from intertie.nodeagent.domain.ports import StateStore
from intertie.nodeagent.domain.sign_of_life import SignOfLife

log = structlog.get_logger(__name__)


class SelfFence:
    """`boot`: which start of the machine this is. `fence_after` 0: the host gives no such word."""

    def __init__(
        self, clock: Clock, state: StateStore, *, boot: str, fence_after: timedelta
    ) -> None:
        self._clock = clock
        self._state = state
        self._boot = boot
        self._fence_after = fence_after
        self._last = state.load_sign_of_life()

    @property
    def overdue(self) -> bool:
        last = self._last
        return last is not None and last.overdue(at=self._clock.monotonic(), boot=self._boot)

    def promise(self) -> timedelta:
        """What may be promised with the next sign of life, as it is kept on disk already; 0:
        nothing. To be asked before that is sent."""
        last = self._last if self._last and self._last.boot == self._boot else None
        before = last.fence_after if last else timedelta()
        if not self._fence_after or timedelta() < before <= self._fence_after:
            return self._fence_after
        at = last.at if last and before else self._clock.monotonic()
        first = SignOfLife(at=at, boot=self._boot, fence_after=self._fence_after)
        if not self._save(first):
            return timedelta()
        self._last = first
        return self._fence_after

    def lived(self, began: float, promised: timedelta) -> bool:
        """The records took what was sent since `began`. True where that was too late for what was
        promised before: what is known of the records is then of a time in which others may have
        acted."""
        late = self.overdue
        before, last = self._last, SignOfLife(at=began, boot=self._boot, fence_after=promised)
        self._last = last
        if promised or (before is not None and before.fence_after):
            self._save(last)
        return late

    def _save(self, last: SignOfLife) -> bool:
        try:
            self._state.save_sign_of_life(last)
        except OSError as error:
            log.warning("sign_of_life.unwritten", problem=error.strerror)
            return False
        return True
