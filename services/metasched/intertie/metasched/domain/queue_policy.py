"""What the operator lets leases that wait do over several sites."""

from dataclasses import dataclass
from datetime import timedelta

from intertie.common.leasing.backfilling import Backfilling
from intertie.common.leasing.fairness import Fairness
from intertie.common.leasing.order import Order
from intertie.common.leasing.plugins import BACKFILLINGS, FAIRNESS, ORDERS
from intertie.common.spec import ClusterSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    order: Order = ORDERS["first-come"]
    fairness: Fairness = FAIRNESS["none"]
    backfilling: Backfilling = BACKFILLINGS["aggressive"]
    longest_wait: timedelta = timedelta(days=30)
    """At a time, of a lease that does not say; and more than that none may."""

    queued_leases: int | None = None
    """Of a tenant, that may wait for a first start at one time; None: any number."""

    def longest(self, spec: ClusterSpec) -> timedelta:
        """How long the lease may wait at a time."""
        return min(spec.lease.max_wait or self.longest_wait, self.longest_wait)
