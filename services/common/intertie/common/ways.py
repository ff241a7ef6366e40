"""The ways between sites, as those at their ends find them while clusters use them."""

from collections.abc import Iterable
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


def lost_ways(ways: Iterable[Way]) -> tuple[Way, ...]:
    """Those that are lost, without what changes all the time: the same while the same ways are
    lost, whatever a round trip takes."""
    lost = (replace(each, round_trip=None) for each in ways if each.lost_since is not None)
    return tuple(sorted(lost, key=lambda each: each.site))
