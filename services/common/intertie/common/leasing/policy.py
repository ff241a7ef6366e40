"""What a site decides for itself about leases: its plug-ins and a few numbers."""

from dataclasses import dataclass, field

from intertie.common.leasing.backfilling import Backfilling
from intertie.common.leasing.order import Order
from intertie.common.leasing.preemption import Preemption
from intertie.common.leasing.suspension import Suspension


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    order: Order
    backfilling: Backfilling
    preemption: Preemption
    suspension: Suspension | None = field(default_factory=Suspension)
    """None: who gives way is cancelled and starts again from nothing."""
    worth_s: int = 60
    """A lease that can be suspended starts before a reservation only if it runs for so long, or
    ends before."""
    review_s: int | None = None
    """While leases wait, decide again at least this often: ranks change with time."""
