"""What of a site's links is reserved beside the networks of clusters: gateways leave it alone."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from intertie.broker.domain.sending import GRACE
from intertie.common.intervals import Window
from intertie.common.part_spec import Transfer
from intertie.common.values import Struct

LEAD = timedelta(seconds=60)
"""Gateways are told so long before one begins."""


class LinkReservation(Struct, frozen=True, kw_only=True):
    """Of what this site sends over the link to another one."""

    site: str
    """The other one."""
    mbit_s: int
    window: Window


def reservations_of(transfers: Iterable[Transfer], site: str) -> Iterator[LinkReservation]:
    """Of what is sent from the site, for as long as its store may send it."""
    for each in transfers:
        if each.from_site == site:
            window = Window(each.window.start, each.window.end + GRACE)
            yield LinkReservation(site=each.to_site, mbit_s=each.mbit_s, window=window)


def due(reserved: Iterable[LinkReservation], *, now: datetime) -> tuple[LinkReservation, ...]:
    """Those that gateways are to know of, one for each link and window."""
    rates: Counter[tuple[str, Window]] = Counter()
    for each in reserved:
        if each.window.start - LEAD <= now < each.window.end:
            rates[each.site, each.window] += each.mbit_s
    order = sorted(rates, key=lambda key: (key[0], key[1].start, key[1].end))
    return tuple(
        LinkReservation(site=site, mbit_s=rates[site, window], window=window)
        for site, window in order
    )
