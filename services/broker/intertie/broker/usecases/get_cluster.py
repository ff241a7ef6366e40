"""One cluster as it is now: this site's, or one that was handed on under a local name."""

from intertie.broker.domain.cluster import ClusterView, view_of
from intertie.broker.domain.ports import Caller, Foreign, Ledger, WholeCluster
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import NotFound
from intertie.common.names import ClusterName


class GetCluster:
    def __init__(self, ledger: Ledger, forwarding: Forwarding, site: str) -> None:
        self._ledger = ledger
        self._forwarding = forwarding
        self._site = site

    async def __call__(self, name: ClusterName, caller: Caller) -> ClusterView | Foreign:
        found = await self.here(name)
        if found is not None:
            return found
        if await self._forwarding.reaches(name):
            return await self._forwarding.get(caller, name)
        raise NotFound(str(name))

    async def here(self, name: ClusterName) -> ClusterView | None:
        if name.authority != f"sites/{self._site}":
            return None
        found = await self._ledger.whole_cluster(name.tenant, name.cluster_id)
        return view_of_whole(found, site=self._site) if found is not None else None


def view_of_whole(found: WholeCluster, *, site: str) -> ClusterView:
    part = found.part.value if found.part else None
    return view_of(found.cluster.value, part, found.seen, site=site)
