"""Which part, at which site, a workspace of a cluster belongs to."""

from intertie.common.errors import NotFound
from intertie.common.names import split_workspace
from intertie.metasched.domain.ports import Clusters


class FindWorkspace:
    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    async def __call__(self, name: str) -> tuple[str, str]:
        """Site, and the workspace's name there: `{part}/workspaces/{label}`."""
        cluster, label = split_workspace(name, "open.workspace")
        stored = await self._clusters.get(cluster)
        if stored is None:
            raise NotFound(cluster)
        site = stored.record.plan.site_of().get(label)
        if site is None or stored.record.over or site not in stored.record.parts:
            raise NotFound(name)
        return site, f"{stored.record.parts[site]}/workspaces/{label}"
