"""What transfers of images take of a site's halves of links, each in its own window."""

from collections.abc import Iterable, Iterator

from intertie.broker.domain.amounts import link_key
from intertie.broker.domain.overlay import sum_of
from intertie.common.calendar import Demand
from intertie.common.part_spec import Transfer


def peer_of(transfer: Transfer, site: str) -> tuple[str, str]:
    """The site at the other end, and in which direction it goes by this site's word."""
    if transfer.from_site == site:
        return transfer.to_site, "egress"
    return transfer.from_site, "ingress"


def transfer_demands(name: str, transfers: Iterable[Transfer], site: str) -> tuple[Demand, ...]:
    """All of them at each moment. Stores send and take; no host's uplink carries it."""
    return sum_of(name, *((each,) for each in _each(name, transfers, site)))


def _each(name: str, transfers: Iterable[Transfer], site: str) -> Iterator[Demand]:
    for transfer in transfers:
        key = link_key(*peer_of(transfer, site))
        yield Demand(name, transfer.window, {key: transfer.mbit_s})
