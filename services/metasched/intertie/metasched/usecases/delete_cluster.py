"""Ends a lease."""

import structlog

from intertie.common.clock import Clock
from intertie.common.errors import EtagStale, NotFound, StaleWrite
from intertie.common.points import reach
from intertie.metasched.domain.cluster import CANCELLED, ClusterState, ClusterView
from intertie.metasched.domain.ports import Clusters
from intertie.metasched.usecases.get_cluster import GetCluster

log = structlog.get_logger(__name__)

_ATTEMPTS = 5


class DeleteCluster:
    """Writes that the end is asked for; the settling loop has the sites take everything back."""

    def __init__(self, clusters: Clusters, get_cluster: GetCluster, clock: Clock) -> None:
        self._clusters = clusters
        self._get_cluster = get_cluster
        self._clock = clock

    async def __call__(self, name: str, etag: str = "") -> ClusterView:
        for attempt in range(1, _ATTEMPTS + 1):
            stored = await self._clusters.get(name)
            if stored is None:
                raise NotFound(name)
            view = await self._get_cluster.view(stored.record)
            if stored.record.over or stored.record.end_requested_time is not None:
                return view  # whatever the etag: a repeated call has that of before its first
            if etag and etag != view.etag:
                raise EtagStale(name)
            await self._clusters.check_leading()
            now = self._clock.now()
            ending = stored.record.ending(now=now, reason=CANCELLED)
            if ending.state is ClusterState.QUEUED:  # nothing of it is anywhere
                ending = ending.move(ClusterState.CANCELLED, now=now)
            reach("metasched.before_end")
            try:
                await self._clusters.save(ending, read_at=stored.read_at)
            except StaleWrite:
                if attempt == _ATTEMPTS:
                    raise
                continue
            log.info("delete.requested", cluster=name)
            reach("metasched.end_requested")
            return await self._get_cluster.view(ending)
        raise AssertionError("unreachable")
