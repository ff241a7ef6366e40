"""Which links between its sites a cluster has lost, and which site it leaves for that."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.common.guarantees import GuaranteeKind
from intertie.common.spec import OnLinkLoss
from intertie.metasched.domain.cluster import ClusterRecord, PartSeen
from intertie.metasched.domain.lost_sites import at_site, awaited, may_be_placed_anew

Pair = frozenset[str]


def cut_off(
    record: ClusterRecord, parts: Mapping[str, PartSeen], *, now: datetime, after: timedelta
) -> tuple[Mapping[str, str], ...]:
    """Sites that may be left, each with why, so that no two of those that stay are on links that
    have been lost, or carried too little, for so long; several ways to do so, the one by which
    fewest begin anew first. Links for which nobody may move are left as they are."""
    if not may_be_placed_anew(record, now=now) or now < record.window.start:
        return ()
    pairs = _broken(record, parts, now=now, after=after)
    ways = [_left(record, pairs, now=now, most=most) for most in (False, True)] if pairs else []
    return tuple(way for number, way in enumerate(ways) if way and way not in ways[:number])


def _broken(
    record: ClusterRecord, parts: Mapping[str, PartSeen], *, now: datetime, after: timedelta
) -> Mapping[Pair, str]:
    """By the word of either end; where one of them is silent itself, it is no matter of a link."""
    heard = {site: part for site, part in parts.items() if part.current and not part.over}
    pairs: dict[Pair, str] = {}
    for site, part in sorted(heard.items()):
        for way in part.ways:
            lost = way.lost_since is not None and now - way.lost_since >= after
            if lost and way.site in heard and _share_a_network(record, site, way.site):
                one, two = sorted((site, way.site))
                pairs[frozenset((one, two))] = f"the link between {one} and {two} is lost"
        for each in part.measured:
            if each.kind is not GuaranteeKind.LINK_BANDWIDTH or each.below_since is None:
                continue
            if now - each.below_since >= after and {each.source, each.target} <= heard.keys():
                why = f"the link from {each.source} to {each.target} carries less than it was to"
                pairs.setdefault(frozenset((each.source, each.target)), why)
    return pairs


def _left(
    record: ClusterRecord, pairs: Mapping[Pair, str], *, now: datetime, most: bool
) -> Mapping[str, str]:
    """The site with most broken links first; of several that with fewest workspaces, or most."""
    rest, left = dict(pairs), dict[str, str]()
    while rest:
        ends = Counter(site for pair in rest for site in pair if _may_move(record, site, now=now))
        if not ends:
            break
        sizes = {site: sum(at_site(record, site).values()) for site in ends}
        best = min(ends, key=lambda s: (-ends[s], -sizes[s] if most else sizes[s], s))
        left[best] = next(why for pair, why in rest.items() if best in pair)
        rest = {pair: why for pair, why in rest.items() if best not in pair}
    return left


def _may_move(record: ClusterRecord, site: str, *, now: datetime) -> bool:
    here = at_site(record, site)
    return (
        bool(here)
        and not awaited(record, site, frozenset({site}), now=now)
        and all(
            record.spec.group(name).allocation.availability.on_link_loss is OnLinkLoss.MOVE
            for name in here
        )
    )


def _share_a_network(record: ClusterRecord, one: str, two: str) -> bool:
    networks = [
        {each for name in at_site(record, site) for each in record.spec.group(name).networks}
        for site in (one, two)
    ]
    return not networks[0].isdisjoint(networks[1])
