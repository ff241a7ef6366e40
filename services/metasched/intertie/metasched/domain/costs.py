"""What sites will ask, by their offers: the same as they come to once they hold their parts."""

from collections.abc import Mapping

from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.tariff import RoomMade, hours_of, room_made
from intertie.metasched.domain.data import TransferPlan, mbit_s_hours
from intertie.metasched.domain.problem import GroupNeed, Problem, Site

COST_SCALE = 1_000_000
"""Who compares plans counts in whole millionths of the unit of account."""


def site_hour(
    problem: Problem,
    site: Site,
    slot: int,
    counts: Mapping[str, int],
    totals: Mapping[str, int],
    traffic_mbit_s: int,
) -> float:
    """An hour of so many workspaces of each group at the site, of so many in all. The site asks for
    both of its halves of what is reserved on links: `traffic_mbit_s` each way."""
    amounts, ends = Vector(), 0
    for name, count in counts.items():
        amounts = amounts + site.charges(problem.group(name)) * count
    for promise in problem.promises:
        a, b = counts.get(promise.a, 0), counts.get(promise.b, 0)
        if promise.a == promise.b:
            ends += a * (totals[promise.a] - 1) * promise.mbit_s
        else:
            ends += (a * totals[promise.b] + b * totals[promise.a]) * promise.mbit_s
    rates = site.offers[slot].rates
    hour = rates.hour(amounts, pair_mbit_s=ends, link_mbit_s=2 * traffic_mbit_s)
    room = room_made_at(problem, site, slot, counts)
    return hour + (room.amount if room is not None else 0.0)


def room_made_at(
    problem: Problem, site: Site, slot: int, counts: Mapping[str, int]
) -> RoomMade | None:
    """What others there make room for, and what an hour of it costs; None: nothing is asked."""
    offer = site.offers[slot]
    if offer.free_together is None:
        return None
    taken = Vector()
    for name, count in counts.items():
        taken = taken + site.charges(problem.group(name)) * count
    return room_made(offer.rates, taken, offer.free_together)


def workspace_hour(problem: Problem, site: Site, slot: int, group: GroupNeed) -> float:
    """An hour of one workspace of the group at the site, were there as many of each group as there
    may be: its ends of pairs depend on how many others there are."""
    ends = 0
    for promise in problem.promises:
        if promise.a == promise.b == group.name:
            ends += (group.most - 1) * promise.mbit_s
        elif group.name == promise.a:
            ends += problem.group(promise.b).most * promise.mbit_s
        elif group.name == promise.b:
            ends += problem.group(promise.a).most * promise.mbit_s
    return site.offers[slot].rates.hour(site.charges(group), pair_mbit_s=ends)


def link_hour(one: Site, two: Site, slot: int) -> float:
    """An hour of 1 Mbit/s each way on their link: each end asks for both of its halves."""
    return 2 * sum(site.offers[slot].rates.link_mbit_s_hour for site in (one, two))


def sent_price(one: Site, two: Site, *, size_mib: int) -> float:
    """So much over their link once, one way, however fast: each end asks for its half."""
    rates = (site.offers[0].rates.link_mbit_s_hour for site in (one, two))
    return mbit_s_hours(size_mib) * sum(rates)


def reserved_price(site: Site, slot: int, sent: TransferPlan) -> float:
    """What one end of it asks for its half of the link, as long as it is reserved."""
    hour = site.offers[slot].rates.hour(Vector(), link_mbit_s=sent.mbit_s)
    return hour * hours_of(Window(sent.begin, sent.end))
