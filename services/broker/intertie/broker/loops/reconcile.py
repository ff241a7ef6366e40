"""Tells agents what is wanted, and takes note of what they say."""

from collections.abc import Awaitable, Mapping
from datetime import datetime, timedelta

import structlog

from intertie.broker.domain.cluster import (
    WORKSPACE_FAILED,
    ClusterRecord,
    failed,
    lost,
    settled,
    workspaces_of,
)
from intertie.broker.domain.fleet import Fleet, Policy, SeenPart
from intertie.broker.domain.ledger import Versioned
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.reconcile import End, Tell, step_of
from intertie.broker.domain.records import Change, Unchanged, Write
from intertie.common.clock import Clock
from intertie.common.errors import StaleWrite
from intertie.common.names import PartName

log = structlog.get_logger(__name__)

Reports = Mapping[str, Mapping[str, SeenPart]]

PATIENCE = timedelta(seconds=20)
"""A workspace that is FAILED for so long without a break is lost: agents try again by
themselves what may come right, a restart of libvirtd for one."""

ENDED_AT_ONCE = 60
"""Hosts whose records go in one transaction, which has room for a part's networks too."""


class Reconcile:
    def __init__(self, ledger: Ledger, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._failing_since: dict[str, datetime] = {}

    async def sweep(self) -> None:
        now = await self._ledger.snapshot()
        fleet, seen = now.view.fleet, now.seen
        for found in now.view.parts:
            uid = found.value.uid
            await self._guarded(self._part(found, now.told.get(uid, {}), seen.get(uid, {}), fleet))
        parts = {each.value.name: each for each in now.view.parts}
        for cluster in now.clusters:
            if not cluster.value.over:
                await self._guarded(self._cluster(cluster, parts.get(cluster.value.part), seen))

    async def _guarded(self, step: Awaitable[None]) -> None:
        """One part that another has just written does not keep the others waiting."""
        try:
            await step
        except StaleWrite as error:
            log.debug("reconcile.lost_race", key=error.key)

    async def _part(
        self,
        found: Versioned[Part],
        told: Mapping[str, int],
        seen: Mapping[str, SeenPart],
        fleet: Fleet,
    ) -> None:
        now = self._clock.now()
        match step_of(found.value, told, seen, fleet, self._policy, now=now):
            case Tell(part=part, wanted=wanted):
                write = Write(record=part, read_at=found.revision)
                await self._ledger.commit(Change(writes=(write,), wanted=wanted))
                log.info(
                    "reconcile.told",
                    part=part.name,
                    generation=part.generation,
                    hosts=sorted(wanted),
                    gone=part.end_requested_time is not None,
                )
            case End(part=part, hosts=hosts):
                await self._end(found, part, hosts)
                log.info("reconcile.ended", part=part.name, reason=part.end_reason)

    async def _end(self, found: Versioned[Part], ended: Part, hosts: tuple[str, ...]) -> None:
        """Takes the records away, and with the last of them ends the part: whoever finds it
        broken off goes on."""
        unwanted = [(host, ended.uid) for host in hosts]
        revision = found.revision
        while len(unwanted) > ENDED_AT_ONCE:
            batch, unwanted = unwanted[:ENDED_AT_ONCE], unwanted[ENDED_AT_ONCE:]
            same = Write(record=found.value, read_at=revision)
            revision = await self._ledger.commit(Change(writes=(same,), unwanted=tuple(batch)))
        write = Write(record=ended, read_at=revision)
        await self._ledger.commit(Change(writes=(write,), unwanted=tuple(unwanted)))

    async def _cluster(
        self, cluster: Versioned[ClusterRecord], part: Versioned[Part] | None, seen: Reports
    ) -> None:
        now = self._clock.now()
        record = cluster.value
        workspaces = workspaces_of(part.value, seen.get(part.value.uid, {})) if part else ()
        after = settled(record, part.value if part else None, workspaces, now=now)
        writes = [Write(record=after, read_at=cluster.revision)]
        rests_on = [_as_read(record.part, part)]
        if part is not None and self._lost(record.uid, bool(failed(workspaces)), now):
            if part.value.state is not PartState.CONFIRMED or part.value.end_requested_time:
                return
            after = lost(record, workspaces, now=now)
            ending = part.value.ending(now=now, reason=WORKSPACE_FAILED)
            writes = [
                Write(record=after, read_at=cluster.revision),
                Write(record=ending, read_at=part.revision),
            ]
            rests_on = []
        if after != record:
            await self._ledger.commit(Change(writes=tuple(writes), unchanged=tuple(rests_on)))
            log.info("reconcile.cluster", cluster=record.name, state=after.state.name)

    def _lost(self, uid: str, fails: bool, now: datetime) -> bool:
        if not fails:
            self._failing_since.pop(uid, None)
            return False
        return now - self._failing_since.setdefault(uid, now) >= PATIENCE


def _as_read(name: str, part: Versioned[Part] | None) -> Unchanged:
    path = PartName.parse(name)
    return Unchanged(
        kind=Part, tenant=path.tenant, id=path.part_id, read_at=part.revision if part else 0
    )
