"""What the operator lets leases that wait do: plug-ins, and a few numbers."""

from datetime import timedelta

from intertie.broker.domain.leasing.backfilling import Aggressive, Backfilling, Conservative
from intertie.broker.domain.leasing.order import FirstCome, MostHeldUp, Order, ShortestFirst
from intertie.broker.domain.leasing.preemption import LastInOrder, LeastDone, Preemption
from intertie.common.values import Struct

BACKFILLINGS: dict[str, Backfilling] = {
    "aggressive": Aggressive(),
    "conservative": Conservative(),
}
ORDERS: dict[str, Order] = {
    "first-come": FirstCome(),
    "shortest": ShortestFirst(),
    "held-up": MostHeldUp(),
}


PREEMPTIONS: dict[str, Preemption] = {
    "last-in-order": LastInOrder(),
    "least-done": LeastDone(),
}


class QueuePolicy(Struct, frozen=True, kw_only=True):
    order: Order = ORDERS["first-come"]
    backfilling: Backfilling = BACKFILLINGS["aggressive"]
    preemption: Preemption = PREEMPTIONS["last-in-order"]
    worth: timedelta = timedelta(minutes=1)
    """A stretch that is not to the lease's end is at least so long."""
    pool_mib_s: int = 50
    """At which guests' memory goes to a host's pool and comes back, where nothing was measured; and
    what is counted of the pool for it."""
    longest_wait: timedelta = timedelta(days=30)
    """At a time, of a lease that does not say; and more than that none may."""
