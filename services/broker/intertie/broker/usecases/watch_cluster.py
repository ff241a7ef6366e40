"""A cluster whenever it changes, until its life is over."""

from collections.abc import AsyncIterator

from intertie.broker.domain.cluster import ClusterView
from intertie.broker.domain.ports import Caller, Foreign, Hints
from intertie.broker.usecases.forwarding import Forwarding
from intertie.broker.usecases.get_cluster import GetCluster
from intertie.common.errors import NotFound
from intertie.common.names import ClusterName, PartName

RELIST_S = 2.0


class WatchCluster:
    def __init__(self, get: GetCluster, forwarding: Forwarding, hints: Hints) -> None:
        self._get = get
        self._forwarding = forwarding
        self._hints = hints

    async def __call__(
        self, name: ClusterName, caller: Caller
    ) -> AsyncIterator[ClusterView | Foreign]:
        if await self._get.here(name) is None:
            if not await self._forwarding.reaches(name):
                raise NotFound(str(name))
            metasched = self._forwarding.metasched()
            async for foreign in metasched.watch(caller, name.tenant, name.cluster_id):
                yield foreign
            return
        last, mine = "", {str(name)}
        async for touched in self._hints.passes(period_s=RELIST_S):
            if touched is not None and touched.isdisjoint(mine):
                continue
            view = await self._get.here(name)
            if view is None:
                raise NotFound(str(name))
            mine = {str(name), view.record.part, PartName.parse(view.record.part).uid}
            if view.etag != last:
                last = view.etag
                yield view
            if view.record.over:
                return
