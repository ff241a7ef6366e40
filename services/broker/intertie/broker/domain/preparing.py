"""PREPARE, as a step of a part: what the site vouches for from then on."""

from datetime import datetime

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, free_vnis
from intertie.broker.domain.part import Endpoint, NetworkId, Part, PartState, leaves_site
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.values import replace


def prepared(held: Part, view: LedgerView, policy: Policy, *, now: datetime) -> Part:
    """The part once it may not be let go alone, with what only this site can say of it.

    Every network gets a VXLAN id of this site; those that leave it, the place where the
    gateway takes what comes from elsewhere. NoCapacity where that is not known: a receipt without
    it would be of a network that nobody reaches.
    """
    part = held.move(PartState.PREPARED, now=now)
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


def vnis_of(part: Part) -> tuple[tuple[int, str], ...]:
    """What its transaction takes of the site's VXLAN ids, and for whom."""
    return tuple((each.vni, part.uid) for each in part.network_ids)
