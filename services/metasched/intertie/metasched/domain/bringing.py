"""Images and data sets that a site lacks, and how a plan has them brought before a start."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from intertie.common.intervals import Window
from intertie.common.values import replace
from intertie.metasched.domain.candidates import allowed
from intertie.metasched.domain.costs import reserved_price
from intertie.metasched.domain.data import Item, TransferPlan
from intertie.metasched.domain.plan import Plan
from intertie.metasched.domain.problem import (
    Cut,
    GroupNeed,
    ImageFound,
    LinkRoom,
    Offer,
    Problem,
    Site,
    images_of,
    over,
)
from intertie.metasched.domain.site_plan import SitePlan

LEAD = timedelta(seconds=10)
"""From planning to the first transfer: all sites are asked to hold it, and it is decided."""
MIB = 1024 * 1024

Before = Mapping[str, Sequence[Mapping[str, LinkRoom]]]
"""What each site has free of its halves of links, by peer, over each of some spans."""


def spans_before(windows: Sequence[Window], since: datetime) -> tuple[Window, ...]:
    """The time in which something could be brought, cut where a window begins."""
    return spans_until((each.start for each in windows), since)


def spans_until(moments: Iterable[datetime], since: datetime) -> tuple[Window, ...]:
    bounds = [since, *sorted({each for each in moments if each > since})]
    return tuple(Window(a, b) for a, b in pairwise(bounds))


def is_worth_it(problem: Problem, plan: Plan | None) -> bool:
    """A plan for which images are brought could be better than this one, of the same problem."""
    if not lacks_any(problem):
        return False
    return (
        plan is None
        or plan.window != problem.windows[0]
        or any(plan.count(each.name) < each.most for each in problem.groups)
    )


def lacks_any(problem: Problem) -> bool:
    """Some image is not at each site where a group that needs it may be."""
    return any(_lacks(problem, image) for image in images_of(problem))


def with_sources(problem: Problem, offers: Mapping[str, Sequence[Offer]]) -> Problem:
    """With those other sites that have an image which one of its own lacks: nothing of the cluster
    may be there."""
    images = {image for image in images_of(problem) if _lacks(problem, image)}
    more = tuple(
        Site(name=name, offers=tuple(of))
        for name, of in offers.items()
        if not images.isdisjoint(of[0].images)
    )
    sites = sorted((*problem.sites, *more), key=lambda each: each.name)
    return replace(problem, sites=tuple(sites))


def with_images_brought(
    problem: Problem, spans: tuple[Window, ...], before: Before, *, once_more: bool = False
) -> Problem:
    """The problem in which each image that some site lacks may be brought there. Of one that is
    called the same and is another at each site, nothing is brought. Where workspaces are that
    needed it when they began, it is only brought `once_more`, and else nobody new is there."""
    items: dict[str, Item] = {}
    offered: dict[str, ImageFound] = {}
    for image, found in _lacking(problem):
        known = items.get(found.digest)
        items[found.digest] = Item(
            name=found.digest,
            size_mib=_with_time_to_spare(found.size_bytes),
            at=frozenset(
                site.name
                for site in problem.sites
                for each in site.images.values()
                if each.digest == found.digest and (each.digest, site.name) not in problem.coming
            ),
            settled=frozenset(site for digest, site in problem.coming if digest == found.digest)
            | (frozenset() if once_more else _there_without(problem, image))
            | (known.settled if known else frozenset()),
            groups=frozenset(each.name for each in _who_need(problem, image))
            | (known.groups if known else frozenset()),
            data=all(each.image != image for each in problem.groups)
            and (known is None or known.data),
        )
        offered[image] = found
    nothing: tuple[Mapping[str, LinkRoom], ...] = ({},) * len(spans)
    sites = tuple(
        replace(
            site,
            offers=tuple(
                replace(offer, images={**offered, **offer.images}) for offer in site.offers
            ),
            before=tuple(before.get(site.name, nothing)),
        )
        for site in problem.sites
    )
    cuts = (*problem.cuts, *(() if once_more else _nobody_new(problem)))
    return replace(problem, sites=sites, items=tuple(items.values()), spans=spans, cuts=cuts)


def with_items_of(free: Problem, problem: Problem) -> Problem:
    """The first, over some windows of the second, with what may be brought in that and the sites
    that may send it."""
    if not problem.items:
        return free
    asked = over(problem, [problem.windows.index(each) for each in free.windows])
    known = {site.name: site for site in free.sites}

    def less(site: Site) -> Site:
        mine = known.get(site.name)
        if mine is None:
            return site
        offers = zip(mine.offers, site.offers, strict=True)
        both = (replace(each, images=other.images) for each, other in offers)
        return replace(site, offers=tuple(both))

    sites = tuple(map(less, asked.sites))
    return replace(free, sites=sites, items=asked.items, spans=asked.spans)


def as_held(problem: Problem, plan: Plan) -> Plan:
    """The plan with the sites that only send among its own, and the exact size of what is sent.
    What is reserved for that each end asks for as its site's part, at the rates of the rest. One
    that is so already stays as it is."""
    if all(each.size_bytes for each in plan.transfers):
        return plan
    sizes = {
        each.digest: each.size_bytes for site in problem.sites for each in site.images.values()
    }
    data = {each.name: each.data for each in problem.items}
    slot = problem.windows.index(plan.window)
    asked = [
        {
            end: reserved_price(problem.site(end), slot, each)
            for end in (each.from_site, each.to_site)
        }
        for each in plan.transfers
    ]
    transfers = tuple(
        replace(each, size_bytes=sizes[each.item], data=data[each.item], cost=sum(halves.values()))
        for each, halves in zip(plan.transfers, asked, strict=True)
    )
    ends = {end for halves in asked for end in halves}
    more = (SitePlan(site=site, counts={}) for site in ends - set(plan.site_names))
    sites = tuple(
        replace(each, cost=each.cost + sum(halves.get(each.site, 0.0) for halves in asked))
        for each in sorted((*plan.sites, *more), key=lambda each: each.site)
    )
    return replace(
        plan,
        sites=sites,
        transfers=transfers,
        cost=sum(each.cost for each in sites),
        bound=None,
        reasons=(*plan.reasons, *_reasons(problem, plan)),
    )


def brought_as(transfer: TransferPlan, name: str) -> str:
    """Why a plan is as it is, of what is called so."""
    return (
        f"{name} is brought to {transfer.to_site} from {transfer.from_site} by "
        f"{transfer.end.isoformat(timespec='seconds')}, at {transfer.mbit_s} Mbit/s"
    )


def _with_time_to_spare(size_bytes: int) -> int:
    """In MiB: a twentieth more than there is, and the next whole one, for what it takes to begin
    and for the octets around it."""
    return -(-size_bytes * 21 // (20 * MIB)) + 1


def _reasons(problem: Problem, plan: Plan) -> Iterator[str]:
    names = {found.digest: name for site in problem.sites for name, found in site.images.items()}
    for each in plan.transfers:
        yield brought_as(each, names[each.item])


def _lacking(problem: Problem) -> Iterator[tuple[str, ImageFound]]:
    """Images by what groups call them, each the same wherever it is, that some site lacks where
    the group may be."""
    for image in images_of(problem):
        found = {each.digest: each for site in problem.sites if (each := site.images.get(image))}
        if len(found) == 1 and _lacks(problem, image):
            yield image, next(iter(found.values()))


def _lacks(problem: Problem, image: str) -> bool:
    wanted = _who_need(problem, image)
    return any(
        image not in site.images and any(allowed(group, site.name) for group in wanted)
        for site in problem.sites
    )


def _there_without(problem: Problem, image: str) -> frozenset[str]:
    """Sites that lack it by now, and have workspaces that needed it when they began."""
    wanted = {each.name for each in _who_need(problem, image)}
    stand = {site for (group, site), count in problem.standing.items() if count and group in wanted}
    return frozenset(
        site.name for site in problem.sites if site.name in stand and image not in site.images
    )


def some_do_without(problem: Problem) -> bool:
    """What some workspaces needed when they began is not at their site."""
    return any(_there_without(problem, image) for image, _ in _lacking(problem))


def _nobody_new(problem: Problem) -> Iterator[Cut]:
    """No more of a group are where those that are there were left without."""
    for image, _ in _lacking(problem):
        for site in sorted(_there_without(problem, image)):
            for group in _who_need(problem, image):
                more = problem.standing.get((group.name, site), 0) + 1
                start = problem.windows[0].start
                yield Cut(start=start, counts={(group.name, site): more}, onwards=True)


def _who_need(problem: Problem, image: str) -> list[GroupNeed]:
    return [each for each in problem.groups if image in (each.image, *each.data)]
