"""PREPARE: from here on the site may not let go alone."""

from dataclasses import replace

import structlog

from intertie.broker.domain.decision import Receipt
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, free_vnis
from intertie.broker.domain.part import Endpoint, NetworkId, Part, PartState, leaves_site
from intertie.broker.domain.ports import Caller, Ledger, Notary
from intertie.broker.domain.records import Change, Write
from intertie.broker.usecases.admission import contend
from intertie.broker.usecases.hold_part import receipt_of
from intertie.common.clock import Clock
from intertie.common.errors import (
    HoldExpired,
    NoCapacity,
    NotFound,
    PartOver,
    RoleDenied,
    Shortfall,
)
from intertie.common.names import PartName
from intertie.common.points import reach

log = structlog.get_logger(__name__)


class PreparePart:
    def __init__(self, ledger: Ledger, notary: Notary, policy: Policy, clock: Clock) -> None:
        self._ledger = ledger
        self._notary = notary
        self._policy = policy
        self._clock = clock

    async def __call__(self, name: PartName, caller: Caller) -> tuple[Part, Receipt]:
        await self._ledger.check_leading()
        part = await contend(lambda: self._prepare(name, caller))
        body = receipt_of(part, now=self._clock.now(), state=PartState.PREPARED)
        return part, self._notary.sign(body)

    async def _prepare(self, name: PartName, caller: Caller) -> Part:
        """Once PREPARED, or further, the answer is the same receipt again."""
        found = await self._ledger.part(name)
        if found is None:
            raise NotFound(str(name))
        part = found.value
        check_coordinator(part, caller, "Prepare")
        now = self._clock.now()
        if part.state is PartState.EXPIRED or part.expired(now=now):
            raise HoldExpired(part.name)
        if part.over:
            raise PartOver(part.name, part.state.name)
        if part.state is not PartState.HELD:
            return part
        view = await self._ledger.view()
        prepared = _with_endpoints(part.move(PartState.PREPARED, now=now), view, self._policy)
        change = Change(
            writes=(Write(record=prepared, read_at=found.revision),),
            vnis=tuple((each.vni, part.uid) for each in prepared.network_ids),
        )
        reach("broker.before_prepare")
        await self._ledger.commit(change)
        log.info("part.prepared", part=part.name, tx=part.tx)
        reach("broker.prepared")
        return prepared


def _with_endpoints(part: Part, view: LedgerView, policy: Policy) -> Part:
    """Every network gets a VXLAN id of this site; those that leave it, the place where the
    gateway takes what comes from elsewhere. NoCapacity where that is not known: a receipt without
    it would be of a network that nobody reaches."""
    networks = part.spec.networks
    vnis = free_vnis(view, len(networks))
    ids = tuple(
        NetworkId(network=network.name, vni=vni)
        for network, vni in zip(networks, vnis, strict=True)
    )
    leaving = tuple(each for each in networks if leaves_site(each, policy.site))
    if not leaving:
        return replace(part, network_ids=ids)
    gateway = view.fleet.facts.get(part.gateway)
    if gateway is None or not gateway.wide_address:
        raise NoCapacity((_no_gateway(part, policy.site, leaving[0].name),))
    vni_of = {each.network: each.vni for each in ids}
    endpoints = tuple(
        Endpoint(
            network=network.name,
            address=gateway.wide_address,
            port=gateway.wide_port,
            vni=vni_of[network.name],
        )
        for network in leaving
    )
    return replace(part, network_ids=ids, endpoints=endpoints)


def _no_gateway(part: Part, site: str, network: str) -> Shortfall:
    why = (
        f"its gateway {part.gateway} says no address that other sites reach"
        if part.gateway
        else "the part has no gateway"
    )
    return Shortfall(
        site=site,
        resource="reachability",
        host=part.gateway,
        message=f"{site}: {why}, so network {network} cannot leave the site",
    )


def check_coordinator(part: Part, caller: Caller, method: str) -> None:
    """Only the meta-scheduler that coordinates a part may act on it."""
    if not part.coordinator or caller.spiffe != part.coordinator:
        raise RoleDenied(caller.spiffe, method, f"{part.name} is not coordinated by it")
