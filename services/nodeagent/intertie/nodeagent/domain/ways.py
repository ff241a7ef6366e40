"""Ways to other sites' gateways: what they take, and which of them are lost.

What is sent into a dead link looks sent, so queues do not tell that it is dead (ADR 11). What
does is that nobody answers who has answered before.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from intertie.common.values import replace
from intertie.nodeagent.domain.report import SeenWay
from intertie.nodeagent.domain.wanted import WantedPart

LOST_AFTER_S = 5.0
"""Without an answer, of a clock that nobody sets."""
_UNANSWERED = 4
"""So many in a row at least: a host that stood still for a while has asked nobody meanwhile."""
_KEPT = 10
"""Round trips, the newest; what is told is the one in their middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To one probe."""

    address: str
    at: datetime
    """When it came."""
    round_trip: timedelta | None
    """None: one of the two moments is not to be trusted, as the clock was set between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """To one address. As it begins, nothing is known of it."""

    round_trips: tuple[timedelta, ...] = ()
    """The newest last."""
    answered_at: datetime | None = None
    """None: never, as where something on the way drops all probes. Of that, no loss is told."""
    heard_s: float = 0.0
    """When this host last learned of an answer, of a clock that nobody sets."""
    unanswered: int = 0
    """Probes since then whose answer should have come."""
    lost_since: datetime | None = None


def addresses_of(parts: Iterable[WantedPart]) -> frozenset[str]:
    """Gateways of other sites that the parts' networks are tunnelled to from this host."""
    return frozenset(
        wide.address for part in parts for network in part.networks for wide in network.wide_tunnels
    )


def judged(
    ways: Mapping[str, Way],
    addresses: Set[str],
    asked: Set[str],
    answers: Iterable[Answer],
    *,
    seconds: float,
    now: datetime,
) -> dict[str, Way]:
    """The ways after one more look, by address; what no part names any more is forgotten.

    `asked`: those that were sent a probe, or could not be reached with one, long enough ago.
    `seconds` is `now` of a clock that nobody sets.

    A way is lost once it has answered, and then has not for 5 s; since the moment of its last
    answer. The next answer ends that, and what its round trips were before does not count any more:
    it may be another way by then.
    """
    heard: dict[str, list[Answer]] = {}
    for each in answers:
        heard.setdefault(each.address, []).append(each)
    found = {}
    for address in addresses:
        way = ways.get(address, Way())
        if own := heard.get(address):
            found[address] = _answered(way, own, seconds=seconds, now=now)
        elif address in asked:
            found[address] = _unanswered(way, seconds=seconds)
        elif seconds - way.heard_s >= LOST_AFTER_S:
            found[address] = replace(way, round_trips=())
        else:
            found[address] = way
    return found


def _answered(way: Way, answers: list[Answer], *, seconds: float, now: datetime) -> Way:
    trips = (each.round_trip for each in answers if each.round_trip is not None)
    return Way(
        round_trips=(*way.round_trips, *trips)[-_KEPT:],
        # Never later than it was heard of, whatever was set meanwhile.
        answered_at=min(max(each.at for each in answers), now),
        heard_s=seconds,
    )


def _unanswered(way: Way, *, seconds: float) -> Way:
    way = replace(way, unanswered=way.unanswered + 1)
    silent = way.unanswered >= _UNANSWERED and seconds - way.heard_s >= LOST_AFTER_S
    # Of one that has never answered that is no moment, so it stays what it is.
    return replace(way, lost_since=way.answered_at, round_trips=()) if silent else way


def told(ways: Mapping[str, Way]) -> tuple[SeenWay, ...]:
    """What the site is told: of those that have answered."""
    return tuple(
        SeenWay(
            address=address,
            round_trip=_middle(way.round_trips),
            lost_since=way.lost_since,
        )
        for address, way in sorted(ways.items())
        if way.answered_at is not None
    )


def _middle(trips: tuple[timedelta, ...]) -> timedelta | None:
    """One that took long, for whatever reason, does not move it."""
    return sorted(trips)[(len(trips) - 1) // 2] if trips else None


def lost(ways: Mapping[str, Way]) -> frozenset[str]:
    """Those that are, by address: another whenever the site is to be told at once."""
    return frozenset(address for address, way in ways.items() if way.lost_since is not None)
