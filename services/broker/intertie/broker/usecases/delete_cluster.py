"""Asks for the end of a cluster; the reconciler takes everything back."""

import structlog

from intertie.broker.domain.cluster import CANCELLED, ClusterState, ClusterView
from intertie.broker.domain.part import PartState
from intertie.broker.domain.ports import Caller, Foreign, Ledger
from intertie.broker.domain.records import Change, Write
from intertie.broker.usecases.admission import contend
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.common.clock import Clock
from intertie.common.errors import EtagStale, NotFound
from intertie.common.names import ClusterName, PartName
from intertie.common.values import replace

log = structlog.get_logger(__name__)


class DeleteCluster:
    def __init__(
        self, ledger: Ledger, get: GetCluster, forwarding: Forwarding, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._get = get
        self._forwarding = forwarding
        self._clock = clock

    async def __call__(self, name: ClusterName, etag: str, caller: Caller) -> ClusterView | Foreign:
        """Idempotent. With an etag only what the caller has seen is ended."""
        if await self._get.here(name) is not None:
            await self._ledger.check_leading()
            return await contend(lambda: self._end(name, etag))
        if await self._forwarding.reaches(name):
            return await self._forwarding.delete(caller, name, etag)
        raise NotFound(str(name))

    async def _end(self, name: ClusterName, etag: str) -> ClusterView:
        record = await self._ledger.cluster(name.tenant, name.cluster_id)
        view = await self._get.here(name)
        if record is None or view is None:
            raise NotFound(str(name))
        if record.value.over or record.value.end_requested_time is not None:
            return view
        if etag and etag != view.etag:
            raise EtagStale(str(name))
        now = self._clock.now()
        asked = replace(record.value, end_requested_time=now)
        if asked.state is ClusterState.QUEUED:  # nothing of it is anywhere
            asked = asked.move(ClusterState.CANCELLED, now=now)
        writes = [Write(record=asked, read_at=record.revision)]
        part = await self._ledger.part(PartName.parse(record.value.part))
        if part is not None and part.value.state is PartState.CONFIRMED:
            ending = part.value.ending(now=now, reason=CANCELLED)
            writes.append(Write(record=ending, read_at=part.revision))
        await self._ledger.commit(Change(writes=tuple(writes)))
        log.info("delete.asked_for", cluster=str(name))
        after = await self._get.here(name)
        return after or view
