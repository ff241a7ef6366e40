"""The site and its hosts: what there is, and what of it is free at this moment."""

from collections.abc import AsyncIterator

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.offers import HostView, SiteView, host_named, hosts_of, site_of
from intertie.broker.domain.ports import Hints, Ledger
from intertie.common.clock import Clock
from intertie.common.names import HostName
from intertie.common.values import replace

RELIST_S = 5.0


class Inventory:
    def __init__(self, ledger: Ledger, hints: Hints, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._hints = hints
        self._policy = policy
        self._clock = clock

    async def site(self) -> SiteView:
        view = await self._ledger.view()
        leader = await self._ledger.leader()
        return site_of(view, self._policy, leader=leader, now=self._clock.now())

    async def hosts(self) -> tuple[HostView, ...]:
        view = await self._ledger.view()
        return hosts_of(view, self._policy, now=self._clock.now())

    async def host(self, name: HostName) -> HostView:
        return host_named(await self.hosts(), name.host, str(name))

    async def watch(self) -> AsyncIterator[HostView]:
        """Every host as it is now, then each again whenever it changes; another sign of life
        is no change."""
        sent: dict[str, HostView] = {}
        async for _ in self._hints.passes(period_s=RELIST_S):
            for each in await self.hosts():
                if _but_for_the_time(each) != sent.get(each.facts.host):
                    sent[each.facts.host] = _but_for_the_time(each)
                    yield each


def _but_for_the_time(view: HostView) -> HostView:
    return replace(view, facts=view.facts.standing())
