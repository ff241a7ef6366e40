"""Parts as they are, with what the agents last said of their workspaces."""

from intertie.broker.domain.cluster import PartView, workspaces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger
from intertie.common.errors import NotFound
from intertie.common.names import PartName


class GetParts:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def one(self, name: PartName) -> PartView:
        found = await self._ledger.part(name)
        if found is None:
            raise NotFound(str(name))
        return await self.seen(found.value)

    async def seen(self, part: Part) -> PartView:
        reports = (await self._ledger.seen()).get(part.uid, {})
        return PartView(part=part, workspaces=workspaces_of(part, reports))

    async def all(self, tenant: str) -> tuple[PartView, ...]:
        """Of one tenant, or of every tenant where that is empty."""
        seen = await self._ledger.seen()
        return tuple(
            PartView(
                part=each.value, workspaces=workspaces_of(each.value, seen.get(each.value.uid, {}))
            )
            for each in await self._ledger.parts(tenant)
        )
