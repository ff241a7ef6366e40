"""What is short of the reservations that a part asks for on links to other sites."""

from collections.abc import Iterator

from intertie.broker.domain.amounts import link_key
from intertie.broker.domain.carrying import peer_of, transfer_demands
from intertie.broker.domain.fleet import Policy
from intertie.common.calendar import Calendar
from intertie.common.errors import Shortfall
from intertie.common.part_spec import PartSpec


def link_shortfalls(calendar: Calendar, policy: Policy, spec: PartSpec) -> tuple[Shortfall, ...]:
    """A reservation fits when both of this site's halves of the link have room for it."""
    wanted: dict[tuple[str, str], int] = {}
    for link in spec.links:
        for direction, amount in (
            ("egress", link.egress_mbit_s),
            ("ingress", link.ingress_mbit_s),
        ):
            key = (link.peer, direction)
            wanted[key] = wanted.get(key, 0) + amount
    found = []
    for (peer, direction), amount in sorted(wanted.items()):
        if policy.link(peer) is None:
            found.append(no_link(policy.site, peer))
            continue
        free = calendar.free(link_key(peer, direction), spec.window)
        if amount > free:
            found.append(_short(policy.site, peer, direction, amount, free))
    found.extend(_of_transfers(calendar, policy, spec))
    return tuple(dict.fromkeys(found))


def _of_transfers(calendar: Calendar, policy: Policy, spec: PartSpec) -> Iterator[Shortfall]:
    site = policy.site
    for transfer in spec.transfers:
        peer, _ = peer_of(transfer, site)
        if policy.link(peer) is None:
            yield no_link(site, peer)
    for demand in transfer_demands("", spec, site):
        for key, amount, free in calendar.shortfalls(demand):
            _, peer, direction = key.split("/")
            if policy.link(peer) is not None:
                yield _short(site, peer, direction, amount, free)


def _short(site: str, peer: str, direction: str, amount: int, free: int) -> Shortfall:
    return Shortfall(
        site=site,
        resource=f"link_{direction}",
        wanted=amount,
        available=max(free, 0),
        unit="Mbit/s",
        peer=peer,
    )


def no_link(site: str, peer: str) -> Shortfall:
    return Shortfall(
        site=site,
        resource="reachability",
        peer=peer,
        message=f"{site}: there is no link to {peer}",
    )
