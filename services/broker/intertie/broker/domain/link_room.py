"""What is short of the reservations that a part asks for on links to other sites."""

from collections.abc import Iterator

from intertie.broker.domain.amounts import link_key, shortfall_of
from intertie.broker.domain.carrying import peer_of, transfer_demands
from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.overlay import sum_of
from intertie.common.calendar import Calendar, Demand
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
            half = (link.peer, direction)
            wanted[half] = wanted.get(half, 0) + amount
    found = []
    for (peer, direction), amount in sorted(wanted.items()):
        if policy.link(peer) is None:
            found.append(no_link(policy.site, peer))
            continue
        key = link_key(peer, direction)
        free = calendar.free(key, spec.window)
        if amount > free:
            found.append(shortfall_of(policy.site, key, amount, max(free, 0)))
    keys = {link_key(*half): amount for half, amount in wanted.items()}
    found.extend(_of_transfers(calendar, policy, spec, Demand("", spec.window, keys)))
    return tuple(dict.fromkeys(found))


def _of_transfers(
    calendar: Calendar, policy: Policy, spec: PartSpec, during: Demand
) -> Iterator[Shortfall]:
    """Beside what the part takes of its links during its window, where they last into it."""
    site = policy.site
    peers = {peer_of(each, site)[0] for each in spec.transfers}
    nowhere = sorted(peer for peer in peers if policy.link(peer) is None)
    if nowhere:
        yield from (no_link(site, peer) for peer in nowhere)
        return
    sent = transfer_demands("", spec.transfers, site)
    for demand in sum_of("", sent, (during,)):
        if any(each.window.intersect(demand.window) for each in sent):
            for key, amount, free in calendar.shortfalls(demand):
                yield shortfall_of(site, key, amount, free)


def no_link(site: str, peer: str) -> Shortfall:
    return Shortfall(
        site=site,
        resource="reachability",
        peer=peer,
        message=f"{site}: there is no link to {peer}",
    )
