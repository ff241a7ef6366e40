"""One cluster as it is now: this site's, or one that was handed on under a local name."""

from intertie.broker.domain.cluster import ClusterView, view_of
from intertie.broker.domain.ports import Caller, Foreign, Ledger
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import NotFound
from intertie.common.names import ClusterName, PartName


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
        record = await self._ledger.cluster(name.tenant, name.cluster_id)
        if record is None:
            return None
        part = await self._ledger.part(PartName.parse(record.value.part))
        seen = (await self._ledger.seen()).get(part.value.uid, {}) if part else {}
        return view_of(record.value, part.value if part else None, seen, site=self._site)
