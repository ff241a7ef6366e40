"""The ways between sites, as those at their ends find them while clusters use them."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from intertie.common.values import Struct, replace


class Way(Struct, frozen=True, kw_only=True):
    """From the gateway of the site that says it to the one at `site`, and back."""

    site: str
    round_trip: timedelta | None = None
    """None: nothing has come back yet, which some networks never let. It is no loss."""
    lost_since: datetime | None = None
    """When the last answer came over a way that has answered and does no more; None: not lost, as
    far as one knows."""


def between(ways: Mapping[str, tuple[Way, ...]], site: str, peer: str) -> Way:
    """From `site` to `peer`, where `ways` are what sites say, each of its own. Its own word goes
    for the round trip, and the other's where it has none; lost it is by either's, since the first
    of them said so: what goes one way only is of no use."""
    own, other = _said(ways, site, peer), _said(ways, peer, site)
    since = [each for each in (own.lost_since, other.lost_since) if each is not None]
    return Way(
        site=peer,
        round_trip=other.round_trip if own.round_trip is None else own.round_trip,
        lost_since=min(since, default=None),
    )


def known_ends(ways: Mapping[str, tuple[Way, ...]]) -> tuple[tuple[str, str], ...]:
    """Each two sites, both ways round, of whose way either knows anything."""
    known = {
        (site, each.site)
        for site, said in ways.items()
        for each in said
        if each.round_trip is not None or each.lost_since is not None
    }
    return tuple(sorted({*known, *((peer, site) for site, peer in known)}))


def _said(ways: Mapping[str, tuple[Way, ...]], site: str, of: str) -> Way:
    return next((each for each in ways.get(site, ()) if each.site == of), Way(site=of))


def lost_ways(ways: Iterable[Way]) -> tuple[Way, ...]:
    """Those that are lost, without what changes all the time: the same while the same ways are
    lost, whatever a round trip takes."""
    lost = (replace(each, round_trip=None) for each in ways if each.lost_since is not None)
    return tuple(sorted(lost, key=lambda each: each.site))
