"""Ways from this site to the others that a part's networks go to."""

from collections.abc import Mapping
from datetime import datetime

from intertie.broker.domain.fleet import HostFacts, HostWay
from intertie.broker.domain.part import Part
from intertie.common.ways import Way


def ways_of(part: Part, facts: Mapping[str, HostFacts], *, now: datetime) -> tuple[Way, ...]:
    """To each other site, by its name, that has told this one where it takes the part's traffic.

    By the word of the part's own gateway and nobody else's, while that reports: what a silent one
    said last is not how things are. Of a part that is over there is no way.
    """
    gateway = facts.get(part.gateway)
    if part.over or gateway is None or not gateway.alive(now=now):
        return ()
    said = {each.address: each for each in gateway.ways}
    to: dict[str, set[str]] = {}
    for remote in part.remotes:
        to.setdefault(remote.site, set()).add(remote.endpoint.address)
    return tuple(
        _way(site, [said[address] for address in sorted(to[site]) if address in said])
        for site in sorted(to)
    )


def _way(site: str, said: list[HostWay]) -> Way:
    """Where networks of a part go to several addresses there, it is as good as the worst."""
    return Way(
        site=site,
        round_trip=max((each.round_trip for each in said if each.round_trip), default=None),
        lost_since=min((each.lost_since for each in said if each.lost_since), default=None),
    )
