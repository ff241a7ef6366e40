"""The plug-ins that a site's queue or a meta-scheduler's may be told to use, by name."""

from intertie.common.leasing.backfilling import Aggressive, Backfilling, Conservative
from intertie.common.leasing.order import FirstCome, MostHeldUp, Order, ShortestFirst
from intertie.common.leasing.preemption import LastInOrder, LeastDone, Preemption

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
