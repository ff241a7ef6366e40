"""A check of a plan's transfers that knows nothing of how they were found: moment by moment, link
by link."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from intertie.common.errors import Shortfall
from intertie.metasched.domain.data import Item, TransferPlan
from intertie.metasched.domain.problem import Problem, Site


def broken_transfers(
    problem: Problem,
    transfers: Sequence[TransferPlan],
    *,
    start: datetime,
    there: Mapping[str, frozenset[str]],
) -> Iterator[Shortfall]:
    """Every rule that they break, for a cluster that begins at `start`. `there` are the groups that
    have workspaces, by site."""
    sites = {site.name: site for site in problem.sites}
    items = {item.name: item for item in problem.items}
    for each in transfers:
        if each.item not in items:
            yield _broken(each.to_site, f"{each.item} is nothing that is needed")
        yield from _leads_there(sites, each)
    if any(each.item not in items for each in transfers):
        return
    yield from _all_is_sent_in_time(items, transfers, start)
    yield from _sources_have_it(items, transfers)
    yield from _comes_once(items, transfers)
    yield from _all_is_there(items, transfers, there)
    yield from _links_are_never_overfull(problem, sites, transfers)


def _broken(site: str, message: str) -> Shortfall:
    return Shortfall(site=site, resource="data", message=message)


def _leads_there(sites: Mapping[str, Site], each: TransferPlan) -> Iterator[Shortfall]:
    if len(set(each.route)) < len(each.route) or each.from_site == each.to_site:
        yield _broken(each.from_site, f"{' '.join(each.route)} goes in a circle")
    for site in each.via:
        if site not in sites or not sites[site].forwards:
            yield _broken(site, f"{site} forwards nothing")


def _all_is_sent_in_time(
    items: Mapping[str, Item], transfers: Sequence[TransferPlan], start: datetime
) -> Iterator[Shortfall]:
    """It has ended when the cluster begins, and took as long as it takes at that rate."""
    for each in transfers:
        if each.end > start:
            yield _broken(each.to_site, f"{each.item} comes after the start")
        mbit = timedelta.total_seconds(each.end - each.begin) * each.mbit_s
        if mbit < items[each.item].size_mib * 8.388608 * (1 - 1e-9):
            yield _broken(each.to_site, f"{each.item} is not all there by the end")


def _sources_have_it(
    items: Mapping[str, Item], transfers: Sequence[TransferPlan]
) -> Iterator[Shortfall]:
    """From the start, or since before it sends it on."""
    for each in transfers:
        came = [
            other
            for other in transfers
            if (other.item, other.to_site) == (each.item, each.from_site)
            and other.end <= each.begin
        ]
        if each.from_site not in items[each.item].at and not came:
            yield _broken(each.from_site, f"{each.from_site} does not have {each.item} by then")


def _comes_once(
    items: Mapping[str, Item], transfers: Sequence[TransferPlan]
) -> Iterator[Shortfall]:
    brought = [(each.item, each.to_site) for each in transfers]
    for item, site in dict.fromkeys(brought):
        if site in _there(items[item]) or brought.count((item, site)) > 1:
            yield _broken(site, f"{item} comes there though it is there")


def _all_is_there(
    items: Mapping[str, Item],
    transfers: Sequence[TransferPlan],
    there: Mapping[str, frozenset[str]],
) -> Iterator[Shortfall]:
    brought = {(each.item, each.to_site) for each in transfers}
    for site, groups in there.items():
        for item in items.values():
            needed = groups & item.groups and site not in _there(item)
            if needed and (item.name, site) not in brought:
                yield _broken(site, f"{item.name} is not brought to {site}")


def _there(item: Item) -> frozenset[str]:
    """With those that do without."""
    return item.at | item.settled


def _links_are_never_overfull(
    problem: Problem, sites: Mapping[str, Site], transfers: Sequence[TransferPlan]
) -> Iterator[Shortfall]:
    """At each moment at which something begins to be sent, or what is free changes, all that is on
    a link then fits both halves of its direction."""
    moments = {each.begin for each in transfers}
    moments |= {moment for span in problem.spans for moment in (span.start, span.end)}
    for moment in sorted(moments):
        sent: dict[tuple[str, str], int] = {}
        for each in transfers:
            if each.begin <= moment < each.end:
                for hop in pairwise(each.route):
                    sent[hop] = sent.get(hop, 0) + each.mbit_s
        slot = next((n for n, span in enumerate(problem.spans) if span.contains(moment)), None)
        for (one, two), mbit_s in sent.items():
            halves = _halves(sites, one, two, slot)
            if halves is None or mbit_s > min(halves):
                yield Shortfall(
                    site=one,
                    resource="link_egress",
                    peer=two,
                    wanted=mbit_s,
                    available=max(min(halves or (0,)), 0),
                    unit="Mbit/s",
                )


def _halves(
    sites: Mapping[str, Site], one: str, two: str, slot: int | None
) -> tuple[int, int] | None:
    """What the sender and the receiver have free; None where they have no link, or did not say."""
    if slot is None or one not in sites or two not in sites:
        return None
    sends, takes = sites[one].before[slot].get(two), sites[two].before[slot].get(one)
    if sends is None or takes is None:
        return None
    return sends.egress_mbit_s, takes.ingress_mbit_s
