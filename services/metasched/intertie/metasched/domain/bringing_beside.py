"""Images and data sets that are brought for new workspaces of a cluster that stands.

The window is what it was, and so is what is held of hosts: the new workspaces count, and are paid
for, from the moment at which their terms are in force. They begin once what they need is there.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.metasched.domain.data import TransferPlan
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import ImageFound, LinkRoom, Problem, Site

FIRST = timedelta(seconds=30)
"""What is brought in less is looked for no more closely."""
READ_THROUGH = timedelta(seconds=60)
"""After its end what was brought may be verified still: so long its site gives it at the most."""
OF_THE_REST = 2
"""New workspaces have at least one part in so many of the time that is left."""

Hop = tuple[str, str]


def begins_beside(ahead: Window, since: datetime) -> tuple[Window, ...]:
    """When new workspaces may begin in what is left of a window: each later one after twice the
    time, and none so late that it is hardly worth it. All are as long as what is left, for that is
    what is held."""
    first, last = max(since, ahead.start), ahead.start + ahead.duration / OF_THE_REST
    starts = [ahead.start] if since < ahead.start else []
    gap = FIRST
    while first + gap < last:
        starts.append(first + gap)
        gap *= 2
    if first < last:
        starts.append(last)
    return tuple(Window(each, each + ahead.duration) for each in starts)


def over_begins(problem: Problem, begins: Sequence[Window]) -> Problem:
    """The problem of one window, over these: what is free of that is free whenever they begin, and
    what was refused is refused."""
    sites = tuple(replace(site, offers=site.offers[:1] * len(begins)) for site in problem.sites)
    cuts = tuple(replace(each, onwards=True) for each in problem.cuts)
    return replace(problem, windows=tuple(begins), sites=sites, cuts=cuts)


def with_links_kept(problem: Problem, plan: Plan, ahead: Window) -> Problem | None:
    """The problem in which what is brought leaves alone what this plan promises on links beyond
    what stands: that is reserved from when the window begins, or at once. None where it does."""
    promised = _promised(problem, plan)
    if not promised or all(
        _has_room(problem, span, number, plan.transfers, promised if ahead.start < span.end else {})
        for number, span in enumerate(problem.spans)
    ):
        return None
    sites = tuple(
        replace(
            site,
            before=tuple(
                _less(site.name, before, promised) if ahead.start < span.end else before
                for before, span in zip(site.before, problem.spans, strict=True)
            ),
        )
        for site in problem.sites
    )
    return replace(problem, sites=sites)


def in_window(plan: Plan, ahead: Window) -> Plan:
    return replace(plan, window=ahead)


def with_coming(problem: Problem, transfers: Sequence[TransferPlan], *, now: datetime) -> Problem:
    """With what is on its way by the terms in force among what its sites offer."""
    coming = {(each.item, each.to_site) for each in transfers if now < each.end + READ_THROUGH}
    if not coming:
        return problem
    known = {name: found for site in problem.sites for name, found in site.images.items()}

    def more(site: Site) -> Mapping[str, ImageFound]:
        return {name: found for name, found in known.items() if (found.digest, site.name) in coming}

    sites = tuple(
        replace(
            site,
            offers=tuple(
                replace(offer, images={**more(site), **offer.images}) for offer in site.offers
            ),
        )
        for site in problem.sites
    )
    there = {(found.digest, site.name) for site in problem.sites for found in site.images.values()}
    return replace(problem, sites=sites, coming=frozenset(coming - there))


def _promised(problem: Problem, plan: Plan) -> dict[Hop, int]:
    """Mbit/s from one site to the next, beyond what stands."""
    promised: dict[Hop, int] = {}
    for link in plan.links:
        for hop in pairwise(link.route):
            promised[hop] = promised.get(hop, 0) + link.mbit_s
    more = {
        hop: mbit_s - problem.reserved.get(frozenset(hop), 0) for hop, mbit_s in promised.items()
    }
    return {hop: mbit_s for hop, mbit_s in more.items() if mbit_s > 0}


def _has_room(
    problem: Problem,
    span: Window,
    number: int,
    transfers: Sequence[TransferPlan],
    promised: Mapping[Hop, int],
) -> bool:
    """At each moment of the span at which something begins to be sent."""
    before = {site.name: site.before[number] for site in problem.sites}
    moments = {span.start, *(each.begin for each in transfers if span.contains(each.begin))}
    for moment in moments:
        taken = dict(promised)
        for each in transfers:
            if each.begin <= moment < each.end:
                for hop in pairwise(each.route):
                    taken[hop] = taken.get(hop, 0) + each.mbit_s
        for (one, two), mbit_s in taken.items():
            sends, takes = before[one].get(two), before[two].get(one)
            if sends is None or takes is None:
                return False
            if mbit_s > min(sends.egress_mbit_s, takes.ingress_mbit_s):
                return False
    return True


def _less(
    site: str, before: Mapping[str, LinkRoom], promised: Mapping[Hop, int]
) -> Mapping[str, LinkRoom]:
    return {
        peer: replace(
            room,
            egress_mbit_s=max(room.egress_mbit_s - promised.get((site, peer), 0), 0),
            ingress_mbit_s=max(room.ingress_mbit_s - promised.get((peer, site), 0), 0),
        )
        for peer, room in before.items()
    }
