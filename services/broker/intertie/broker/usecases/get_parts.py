"""Parts as they are, with what the agents last said of their workspaces, promises and ways."""

from intertie.broker.domain.cluster import PartView, part_view
from intertie.broker.domain.part import Part
from intertie.broker.domain.ports import Ledger
from intertie.broker.domain.ways import ways_of
from intertie.common.clock import Clock
from intertie.common.errors import NotFound
from intertie.common.names import PartName


class GetParts:
    """`coordinator` is the meta-scheduler that asks, to whom other coordinators' parts, and this
    site's own, do not exist; None: an operator, who sees all."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock

    async def one(self, name: PartName, *, coordinator: str | None) -> PartView:
        found = await self._ledger.part(name)
        if found is None or not _shown(found.value, coordinator):
            raise NotFound(str(name))
        return await self.seen(found.value)

    async def seen(self, part: Part) -> PartView:
        seen, measured = await self._ledger.seen(), await self._ledger.measured()
        ways = ways_of(part, await self._ledger.facts(), now=self._clock.now())
        return part_view(part, seen.get(part.uid, {}), measured.get(part.uid, {}), ways)

    async def all(self, tenant: str, *, coordinator: str | None) -> tuple[PartView, ...]:
        """Of one tenant, or of every tenant where that is empty."""
        seen, measured = await self._ledger.seen(), await self._ledger.measured()
        facts, now = await self._ledger.facts(), self._clock.now()
        return tuple(
            part_view(
                each.value,
                seen.get(each.value.uid, {}),
                measured.get(each.value.uid, {}),
                ways_of(each.value, facts, now=now),
            )
            for each in await self._ledger.parts(tenant)
            if _shown(each.value, coordinator)
        )


def _shown(part: Part, coordinator: str | None) -> bool:
    return coordinator is None or part.coordinator == coordinator
