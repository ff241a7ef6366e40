"""Forgets decisions that no participant can ask for any more."""

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.metasched.domain.ports import Clusters, Register
from intertie.metasched.domain.register import forgettable

log = structlog.get_logger(__name__)


class Forget:
    def __init__(self, clusters: Clusters, register: Register, clock: Clock) -> None:
        self._clusters = clusters
        self._register = register
        self._clock = clock

    async def sweep(self) -> None:
        """What is settled is read first: of what is not on record then, nothing comes back."""
        settled = await self._register.settled()
        unsettled = {each.cluster_uid for each in await self._register.transactions()}
        clusters = {each.record.uid for each in await self._clusters.listed()}
        now, forgotten = self._clock.now(), 0
        for each in forgettable(settled, clusters=clusters, unsettled=unsettled, now=now):
            try:
                await self._register.forget(each)
                forgotten += 1
            except StaleWrite:
                log.debug("forget.lost_race", tx=each.tx)
        if forgotten:
            log.info("forget.forgotten", decisions=forgotten)
