"""The clusters of a tenant."""

from intertie.metasched.domain.cluster import ClusterRecord
from intertie.metasched.domain.ports import Clusters


class ListClusters:
    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def __call__(self, tenant: str) -> tuple[ClusterRecord, ...]:
        """By name; of all tenants for `-`. The records alone: no site is asked."""
        stored = await self._clusters.listed("" if tenant == "-" else tenant)
        return tuple(each.record for each in stored)
