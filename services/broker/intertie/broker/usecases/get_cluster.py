"""One cluster as it is now: this site's, or one that was handed on under a local name."""

from intertie.broker.domain.cluster import ClusterView, view_of
from intertie.broker.domain.ports import Caller, Foreign, Ledger, WholeCluster
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import NotFound
from intertie.common.names import ClusterName

VIEWS_KEPT = 4096


class GetCluster:
    def __init__(self, ledger: Ledger, forwarding: Forwarding, site: str) -> None:
        self._ledger = ledger
        self._forwarding = forwarding
        self._site = site
        self._views: dict[str, tuple[object, ClusterView]] = {}

    async def __call__(self, name: ClusterName, caller: Caller) -> ClusterView | Foreign:
        found = await self.here(name)
        if found is not None:
            return found
        if await self._forwarding.reaches(name):
            return await self._forwarding.get(caller, name)
        raise NotFound(str(name))

    async def here(self, name: ClusterName) -> ClusterView | None:
        """The very same view as before while nothing has changed."""
        if name.authority != f"sites/{self._site}":
            return None
        found = await self._ledger.whole_cluster(name.tenant, name.cluster_id)
        if found is None:
            return None
        revision = found.part.revision if found.part else 0
        there = (
            found.cluster.value.uid,  # of what is in the archive there are no revisions
            found.cluster.revision,
            revision,
            tuple(found.seen.items()),
            tuple(found.measured.items()),
        )
        before = self._views.get(found.cluster.value.name)
        if before is not None and before[0] == there:
            return before[1]
        if len(self._views) >= VIEWS_KEPT:
            self._views.clear()
        view = view_of_whole(found, site=self._site)
        self._views[found.cluster.value.name] = there, view
        return view


def view_of_whole(found: WholeCluster, *, site: str) -> ClusterView:
    part = found.part.value if found.part else None
    return view_of(found.cluster.value, part, found.seen, found.measured, site=site)
