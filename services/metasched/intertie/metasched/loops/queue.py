"""Starts the leases that wait for room at several sites, as soon as all of these have it, and tells
the others what they wait for."""

from collections.abc import Mapping

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.in_time import is_due, out_of_time
from intertie.metasched.domain.outlook import Outlook
from intertie.metasched.domain.ports import Clusters, Stored
from intertie.metasched.domain.waiting import told, waited_too_long, waits
from intertie.metasched.usecases.apart import apart
from intertie.metasched.usecases.begin_waiting import BeginWaiting
from intertie.metasched.usecases.go_on import GoOn
from intertie.metasched.usecases.line import Line
from intertie.metasched.usecases.pauses import Pauses

log = structlog.get_logger(__name__)

TELL_S = 5.0
"""What they wait for changes with every lease of every site; so often it is told at most."""
AGAIN = "it is tried again in some minutes at most"


class Queue:
    """One pass looks at what all sites offer, so passes are some seconds apart; where nobody waits
    one costs the reading of the clusters."""

    def __init__(
        self,
        clusters: Clusters,
        line: Line,
        begin: BeginWaiting,
        go_on: GoOn,
        pauses: Pauses,
        clock: Clock,
    ) -> None:
        self._clusters = clusters
        self._line = line
        self._begin = begin
        self._go_on = go_on
        self._pauses = pauses
        self._clock = clock
        self._told_s = float("-inf")

    async def sweep(self) -> None:
        if not await self._give_up():
            return
        await self._start()
        if self._clock.monotonic() - self._told_s >= TELL_S:
            self._told_s = self._clock.monotonic()
            await self._tell()

    async def _give_up(self) -> bool:
        """Ends those that have waited for too long, or can be done in time no more; whether others
        wait."""
        others = False
        for each in await self._clusters.listed():
            if not waits(each.record):
                continue
            now = self._clock.now()
            after = out_of_time(each.record, now=now)
            if after is each.record:
                after = waited_too_long(each.record, self._line.policy, now=now)
            if after is each.record:
                others = True
                continue
            with apart(after.name):
                await self._save(after, each)
                log.info("queue.gave_up", cluster=after.name, reason=after.end_reason)
        return others

    async def _start(self) -> None:
        """One after the other, each on what the sites have left with those before it. One that was
        refused a moment ago is not among them, nor is room kept for it; nor are those for which
        what they were promised has come, see `due`."""
        now = self._clock.now()
        known = [each.record for each in await self._clusters.listed()]
        waiting = [each for each in known if waits(each) and not is_due(each, now=now)]
        of = {each.name: each for each in waiting if self._pauses.of(each.uid) is None}
        starts = await self._line.starting([*of.values()], known, now=self._clock.now())
        for start in starts:
            name = start.lease.request.name
            aside = of[name].state is ClusterState.SUSPENDED
            with apart(name):
                await (self._go_on(name) if aside else self._begin(name, start.leaves))

    async def _tell(self) -> None:
        listed = await self._clusters.listed()
        known = [each.record for each in listed]
        found = [each for each in listed if waits(each.record)]
        paused = {each.record.name: self._pauses.of(each.record.uid) for each in found}
        records = [each.record for each in found if paused[each.record.name] is None]
        outlooks: Mapping[str, Outlook] = {}
        if records:
            outlooks = await self._line.outlooks(records, known, now=self._clock.now())
        for each in found:
            pause = paused[each.record.name]
            if pause is not None:
                after = told(each.record, None, (pause.why, AGAIN), pause.short)
            else:
                outlook = outlooks[each.record.name]
                after = told(each.record, outlook.foreseen, outlook.reasons, outlook.shortfalls)
            if after is not each.record:
                with apart(after.name):
                    await self._save(after, each)

    async def _save(self, record: ClusterRecord, stored: Stored) -> None:
        try:
            await self._clusters.save(record, read_at=stored.read_at)
        except StaleWrite:
            log.debug("queue.lost_race", cluster=record.name)
