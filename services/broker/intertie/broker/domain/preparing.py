"""PREPARE, as a step of a part: what the site vouches for from then on."""

from collections.abc import Iterable
from datetime import datetime

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView
from intertie.broker.domain.networks import Endpoint, NetworkId, leaves_site
from intertie.broker.domain.part import Part, PartState
from intertie.broker.domain.vnis import free_vnis
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.part_spec import PartNetwork
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
    return replace(
        part,
        network_ids=ids,
        endpoints=endpoints_of(networks, ids, part.gateway, view, policy.site),
    )


def endpoints_of(
    networks: Iterable[PartNetwork],
    ids: Iterable[NetworkId],
    at: str,
    view: LedgerView,
    site: str,
) -> tuple[Endpoint, ...]:
    """Where the gateway `at` takes what comes from elsewhere, of each network that leaves the
    site. NoCapacity where that is not known."""
    leaving = tuple(each for each in networks if leaves_site(each, site))
    if not leaving:
        return ()
    gateway = view.fleet.facts.get(at)
    if gateway is None or not gateway.wide_address:
        raise NoCapacity((_no_gateway(at, site, leaving[0].name),))
    vni_of = {each.network: each.vni for each in ids}
    return tuple(
        Endpoint(
            network=network.name,
            address=gateway.wide_address,
            port=gateway.wide_port,
            vni=vni_of[network.name],
        )
        for network in leaving
    )


def _no_gateway(gateway: str, site: str, network: str) -> Shortfall:
    why = (
        f"its gateway {gateway} says no address that other sites reach"
        if gateway
        else "the part has no gateway"
    )
    return Shortfall(
        site=site,
        resource="reachability",
        host=gateway,
        message=f"{site}: {why}, so network {network} cannot leave the site",
    )


def vnis_of(part: Part) -> tuple[tuple[int, str], ...]:
    """What its transaction takes of the site's VXLAN ids, and for whom."""
    return tuple((each.vni, part.uid) for each in part.network_ids)
