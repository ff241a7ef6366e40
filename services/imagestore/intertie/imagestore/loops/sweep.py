"""Uploads that nobody goes on with are forgotten after a while."""

from __future__ import annotations

from datetime import timedelta

import structlog

from intertie.common.clock import Clock
from intertie.imagestore.domain.ports import ImageFiles
from intertie.imagestore.usecases.shelf import Shelf

log = structlog.get_logger(__name__)

PERIOD_S = 600.0


class Sweep:
    def __init__(
        self, files: ImageFiles, shelf: Shelf, clock: Clock, *, retention: timedelta
    ) -> None:
        self._files = files
        self._shelf = shelf
        self._clock = clock
        self._retention = retention

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except OSError as error:
                log.warning("sweep.failed", problem=str(error))
            await self._clock.sleep(PERIOD_S)

    async def sweep(self) -> None:
        """One pass."""
        oldest = self._clock.now() - self._retention
        for upload in await self._files.uploads():
            said = upload.announcement
            key = (said.tenant, said.digest)
            if upload.touch_time < oldest and key not in self._shelf.busy:
                log.info("sweep.upload_forgotten", tenant=said.tenant, digest=said.digest)
                await self._files.forget_upload(said.tenant, said.digest)
