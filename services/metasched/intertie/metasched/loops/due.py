"""Goes on with leases for which what they were promised has come: beside the queue, where one that
starts may take its time, and none for another."""

import asyncio

from intertie.common.clock import Clock
from intertie.metasched.domain.cluster import ClusterRecord
from intertie.metasched.domain.in_time import is_due, is_urgent
from intertie.metasched.domain.ports import Clusters
from intertie.metasched.domain.waiting import waits
from intertie.metasched.usecases.apart import apart
from intertie.metasched.usecases.go_on import GoOn
from intertie.metasched.usecases.pauses import Pauses


class Due:
    def __init__(self, clusters: Clusters, go_on: GoOn, pauses: Pauses, clock: Clock) -> None:
        self._clusters = clusters
        self._go_on = go_on
        self._pauses = pauses
        self._clock = clock

    async def sweep(self) -> None:
        """All of them at once, since their sites have room for all of them on record. One that was
        refused a moment ago is tried only when that has just come, and where it would else be
        late."""
        now = self._clock.now()
        waiting = [each.record for each in await self._clusters.listed() if waits(each.record)]
        due = [each for each in waiting if is_due(each, now=now)]
        await asyncio.gather(
            *(
                self._apart(each)
                for each in due
                if is_urgent(each, now=now) or self._pauses.of(each.uid) is None
            )
        )

    async def _apart(self, record: ClusterRecord) -> None:
        with apart(record.name):
            await self._go_on(record.name)
