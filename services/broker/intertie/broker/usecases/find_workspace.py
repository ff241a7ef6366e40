"""Where a stream to a workspace has to go."""

from intertie.broker.domain.cluster import WorkspaceView
from intertie.broker.domain.fleet import WorkspaceState
from intertie.broker.domain.ports import AtHost, AtMetasched, Ledger
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.broker.usecases.get_parts import GetParts
from intertie.common.errors import NotFound, WorkspaceNotRunning
from intertie.common.names import ClusterName, PartName

RUNS = frozenset({WorkspaceState.RUNNING, WorkspaceState.PAUSED})


class FindWorkspace:
    def __init__(
        self, ledger: Ledger, clusters: GetCluster, parts: GetParts, forwarding: Forwarding
    ) -> None:
        self._ledger = ledger
        self._clusters = clusters
        self._parts = parts
        self._forwarding = forwarding

    async def of_cluster(self, name: ClusterName, workspace: str) -> AtHost | AtMetasched:
        view = await self._clusters.here(name)
        if view is None:
            if not await self._forwarding.reaches(name):
                raise NotFound(f"{name}/workspaces/{workspace}")
            return AtMetasched(cluster_id=name.cluster_id, tenant=name.tenant)
        return await self._at_host(view.workspaces, f"{name}", view.record.part, workspace)

    async def of_part(self, name: PartName, workspace: str, *, coordinator: str | None) -> AtHost:
        """See GetParts for `coordinator`."""
        view = await self._parts.one(name, coordinator=coordinator)
        return await self._at_host(view.workspaces, f"{name}", f"{name}", workspace)

    async def _at_host(
        self, workspaces: tuple[WorkspaceView, ...], owner: str, part: str, label: str
    ) -> AtHost:
        asked = f"{owner}/workspaces/{label}"
        found = next((each for each in workspaces if each.label == label), None)
        if found is None:
            raise NotFound(asked)
        if found.state not in RUNS:
            raise WorkspaceNotRunning(asked, found.state.name)
        facts = (await self._ledger.view()).fleet.facts.get(found.host)
        if facts is None or not facts.agent_address:
            raise WorkspaceNotRunning(asked, "on a host whose agent is not known")
        return AtHost(
            host=found.host,
            agent_address=facts.agent_address,
            workspace=f"{part}/workspaces/{label}",
        )
