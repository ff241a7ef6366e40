"""A cluster as it is now."""

from intertie.common.clock import Clock
from intertie.common.errors import NotFound
from intertie.metasched.domain.cluster import ClusterRecord, ClusterView, view_of
from intertie.metasched.domain.ports import Clusters
from intertie.metasched.domain.progress import progressed
from intertie.metasched.usecases.part_cache import PartCache


class GetCluster:
    def __init__(self, clusters: Clusters, parts: PartCache, clock: Clock) -> None:
        self._clusters = clusters
        self._parts = parts
        self._clock = clock

    async def __call__(self, name: str) -> ClusterView:
        stored = await self._clusters.get(name)
        if stored is None:
            raise NotFound(name)
        return await self.view(stored.record)

    async def as_if(self, record: ClusterRecord, standing: ClusterRecord) -> ClusterView:
        """The cluster as it would be with other terms, of which no site knows."""
        return view_of(record, await self._parts.parts_of(standing))

    async def view(self, record: ClusterRecord) -> ClusterView:
        """The record folded with what the sites say; what they say is not written here. How
        long a workspace has failed is for the loop that writes it."""
        parts = await self._parts.parts_of(record)
        now = self._clock.now()
        return view_of(progressed(record, parts, now=now, failing_since={}), parts)
