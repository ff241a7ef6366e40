"""How much of a site is taken: what a price can go by."""

from collections.abc import Mapping
from datetime import datetime

from intertie.broker.domain.fleet import Policy
from intertie.broker.domain.ledger import LedgerView, calendar_of, free_hosts
from intertie.common.intervals import Window
from intertie.common.quantities import Vector


def load_of(view: LedgerView, policy: Policy, window: Window, *, now: datetime) -> float:
    """Of the scarcest resource of all hosts that are alive, the share that is taken at some moment
    of the window, each host at its own busiest: 0 to 1."""
    free = free_hosts(calendar_of(view, policy), view, policy, window, now=now)
    return scarcest(view, policy, free)


def scarcest(view: LedgerView, policy: Policy, free: Mapping[str, Vector]) -> float:
    """Likewise, where it is known what hosts have free. What the site has nothing of counts not."""
    has, left = Vector(), Vector()
    for host, vector in free.items():
        has = has + policy.promisable(view.fleet.facts[host])
        left = left + vector.at_least_zero()
    shares = (
        1 - amount / whole
        for (_, amount), (_, whole) in zip(left.items(), has.items(), strict=True)
        if whole > 0
    )
    return min(max(shares, default=0.0), 1.0) if has != Vector() else 0.0
