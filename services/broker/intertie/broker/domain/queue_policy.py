"""What the operator lets leases that wait do: plug-ins, and a few numbers."""

from datetime import timedelta

from intertie.common.leasing.backfilling import Backfilling
from intertie.common.leasing.fairness import Fairness
from intertie.common.leasing.order import Order
from intertie.common.leasing.plugins import (
    BACKFILLINGS,
    FAIRNESS,
    MIGRATIONS,
    ORDERS,
    PREEMPTIONS,
    RESIZINGS,
)
from intertie.common.leasing.preemption import ByMigration, Preemption
from intertie.common.leasing.resizing import Resizing
from intertie.common.values import Struct


class QueuePolicy(Struct, frozen=True, kw_only=True):
    order: Order = ORDERS["first-come"]
    fairness: Fairness = FAIRNESS["none"]
    backfilling: Backfilling = BACKFILLINGS["aggressive"]
    preemption: Preemption = PREEMPTIONS["last-in-order"]
    migration: ByMigration = MIGRATIONS["first"]
    resizing: Resizing = RESIZINGS["grow"]
    resize_pause: timedelta = timedelta(minutes=1)
    """After it got more or was left with fewer, a lease gets no more for so long."""
    worth: timedelta = timedelta(minutes=1)
    """A stretch that is not to the lease's end is at least so long."""
    pool_mib_s: int = 50
    """At which guests' memory goes to a host's pool and comes back, where nothing was measured; and
    what is counted of the pool for it."""
    longest_wait: timedelta = timedelta(days=30)
    """At a time, of a lease that does not say; and more than that none may."""
