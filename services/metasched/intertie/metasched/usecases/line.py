"""Which leases that wait for room at several sites start now, and what the others wait for."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from intertie.common.errors import NoCapacity
from intertie.common.intervals import Window
from intertie.common.leasing.fairness import InUse
from intertie.common.leasing.lease import Lease
from intertie.common.spec import ClusterSpec
from intertie.metasched.domain.aside import is_saved, where_it_was, window_of
from intertie.metasched.domain.cluster import ClusterRecord, ClusterState
from intertie.metasched.domain.in_time import beside_promise
from intertie.metasched.domain.in_use import in_use
from intertie.metasched.domain.outlook import LOOKED_AT, Looked, Outlook, outlooks, starting
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import Problem
from intertie.metasched.domain.queue_policy import QueuePolicy
from intertie.metasched.domain.rooms import starts_ahead
from intertie.metasched.domain.rounds import Start
from intertie.metasched.domain.waiting import in_order, left_of
from intertie.metasched.usecases.brief import Brief
from intertie.metasched.usecases.capacity import NOTHING_YET, Capacity
from intertie.metasched.usecases.explaining import Explaining
from intertie.metasched.usecases.part_cache import PartCache
from intertie.metasched.usecases.planning import Planning


class Line:
    def __init__(
        self,
        planning: Planning,
        explaining: Explaining,
        parts: PartCache,
        capacity: Capacity,
        policy: QueuePolicy,
    ) -> None:
        self._planning = planning
        self._explaining = explaining
        self._parts = parts
        self._capacity = capacity
        self.policy = policy

    async def check_possible(self, tenant: str, spec: ClusterSpec, *, now: datetime) -> Plan:
        """By what plan it would run if its sites had nothing else. As Planning refuses, where they
        could not have all of it at one time even so; also where a site that it might need does not
        answer."""
        start = now + NOTHING_YET
        window = Window(start, start + spec.lease.window(now=now).duration)
        brief = _brief(tenant, spec, (window,))
        try:
            return await self._planning(brief)
        except NoCapacity as refusal:
            raise await self._explaining(brief, refusal, now=now) from None

    async def starting(
        self,
        records: Sequence[ClusterRecord],
        known: Sequence[ClusterRecord],
        *,
        now: datetime,
    ) -> list[Start]:
        """Those that have room at their sites and put off nobody before them, by what sites offer
        now. `known`: all clusters that there are, for who has how much."""
        may = await asyncio.gather(*map(self._may_begin, records))
        saved = [each for each, begins in zip(records, may, strict=True) if begins]
        line = (await self._in_order(saved, known, now))[:LOOKED_AT]
        looked = await self._look(line, records, now)
        return await self._planning.foreseen(
            starting, line, looked, self.policy.backfilling, effort=self._planning.effort.solver
        )

    async def outlooks(
        self,
        records: Sequence[ClusterRecord],
        known: Sequence[ClusterRecord],
        *,
        now: datetime,
    ) -> dict[str, Outlook]:
        """What becomes of each, if nothing else comes: it gets the first start that puts off none
        before it."""
        line = await self._in_order(records, known, now)
        looked = await self._look(line[:LOOKED_AT], records, now)
        promised = {each.name: room for each in records if (room := each.plan.promised)}
        return await self._planning.foreseen(
            outlooks, line, promised, looked, now=now, effort=self._planning.effort.solver
        )

    async def _in_order(
        self, records: Sequence[ClusterRecord], known: Sequence[ClusterRecord], now: datetime
    ) -> list[Lease]:
        has = InUse()
        if self.policy.fairness.looks and records:
            capacity = await self._capacity(records[0].path.tenant, now=now)
            has = in_use(known, capacity, now=now)
        return in_order(records, self.policy, has, now=now)

    async def _may_begin(self, record: ClusterRecord) -> bool:
        """It is QUEUED, or all that it had is saved."""
        if record.state is not ClusterState.SUSPENDED:
            return True
        return is_saved(record, await self._parts.parts_of(record))

    async def _look(
        self, line: Sequence[Lease], records: Sequence[ClusterRecord], now: datetime
    ) -> Looked:
        effort = self._planning.effort
        starts = starts_ahead(now, slot=effort.slot, horizon=effort.horizon)
        of = {each.name: each for each in records}

        async def brief(record: ClusterRecord) -> Brief:
            parts = await self._parts.parts_of(record)
            restore = max((each.restore for each in parts.values()), default=timedelta())
            windows = tuple(
                beside_promise(record, window_of(record, restore, now=each)) for each in starts
            )
            return _brief(record.path.tenant, record.spec, windows)

        waiting = [of[each.request.name] for each in line]
        briefs = await asyncio.gather(*map(brief, waiting))
        # What leases that are alike would be offered is asked for once.
        alike = [each for at, each in enumerate(briefs) if each not in briefs[:at]]
        offered = await asyncio.gather(*map(self._planning.problem, alike))
        problems: dict[str, Problem] = {}
        for record, asked in zip(waiting, briefs, strict=True):
            found, _ = offered[alike.index(asked)]
            aside = record.state is ClusterState.SUSPENDED
            problems[record.name] = where_it_was(found, record.plan) if aside else found
        return Looked(starts=starts, problems=problems)


def _brief(tenant: str, spec: ClusterSpec, windows: tuple[Window, ...]) -> Brief:
    return Brief(tenant=tenant, spec=spec, windows=windows, without={}, image_gone={})


def brief_from_now(record: ClusterRecord, *, now: datetime) -> Brief:
    """For all that it has left to run."""
    window = Window(now, now + left_of(record))
    return _brief(record.path.tenant, record.spec, (window,))
