"""Parts as they are, with what the agents last said of their workspaces."""

from intertie.broker.domain.cluster import PartView, workspaces_of
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger
from intertie.common.errors import NotFound
from intertie.common.names import PartName


class GetParts:
    """`coordinator` is the meta-scheduler that asks, to whom other coordinators' parts, and this
    site's own, do not exist; None: an operator, who sees all."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def one(self, name: PartName, *, coordinator: str | None) -> PartView:
        found = await self._ledger.part(name)
        if found is None or not _shown(found.value, coordinator):
            raise NotFound(str(name))
        return await self.seen(found.value)

    async def seen(self, part: Part) -> PartView:
        reports = (await self._ledger.seen()).get(part.uid, {})
        return PartView(part=part, workspaces=workspaces_of(part, reports))

    async def all(self, tenant: str, *, coordinator: str | None) -> tuple[PartView, ...]:
        """Of one tenant, or of every tenant where that is empty."""
        seen = await self._ledger.seen()
        return tuple(
            PartView(
                part=each.value, workspaces=workspaces_of(each.value, seen.get(each.value.uid, {}))
            )
            for each in await self._ledger.parts(tenant)
            if _shown(each.value, coordinator)
        )


def _shown(part: Part, coordinator: str | None) -> bool:
    return coordinator is None or part.coordinator == coordinator
