"""The clusters of a tenant, those that were handed on included."""

import asyncio

import structlog

from intertie.broker.domain.cluster import ClusterView, view_of
from intertie.broker.domain.ports import Caller, Foreign, Ledger
from intertie.broker.domain.records import ForwardRecord
from intertie.broker.usecases.forwarding import Forwarding
from intertie.common.errors import NotFound
from intertie.common.names import ClusterName, PartName

log = structlog.get_logger(__name__)


class ListClusters:
    def __init__(self, ledger: Ledger, forwarding: Forwarding, site: str) -> None:
        self._ledger = ledger
        self._forwarding = forwarding
        self._site = site

    async def __call__(
        self, tenant: str, caller: Caller
    ) -> tuple[tuple[str, ClusterView | Foreign], ...]:
        """(local name, cluster) in the order of names. `tenant` is empty for every tenant.

        What was handed on is listed for its own tenant only: this site's operators have no say at
        the meta-scheduler. SiteUnreachable when a cluster was handed on and its meta-scheduler
        does not answer: a list that leaves something out would say that it is not there.
        """
        records = await self._ledger.clusters(tenant)
        parts = {each.value.name: each.value for each in await self._ledger.parts(tenant)}
        seen, measured = await self._ledger.seen(), await self._ledger.measured()
        found: dict[str, ClusterView | Foreign] = {}
        for each in records:
            part = parts.get(each.value.part)
            uid = PartName.parse(each.value.part).uid
            found[each.value.name] = view_of(
                each.value, part, seen.get(uid, {}), measured.get(uid, {}), site=self._site
            )
        elsewhere = [
            each.value
            for each in await self._ledger.forwards(tenant)
            if caller.tenant and each.value.name not in found
        ]
        answers = await asyncio.gather(*(self._ask(each, caller) for each in elsewhere))
        found.update({name: answer for name, answer in answers if answer is not None})
        return tuple(sorted(found.items()))

    async def _ask(self, record: ForwardRecord, caller: Caller) -> tuple[str, Foreign | None]:
        """None: it was refused there, or is forgotten."""
        try:
            return record.name, await self._forwarding.get(caller, ClusterName.parse(record.name))
        except NotFound:
            return record.name, None
