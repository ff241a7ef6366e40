"""The plug-ins that a site's queue or a meta-scheduler's may be told to use, by name."""

from datetime import timedelta

from intertie.common.leasing.backfilling import Aggressive, Backfilling, Conservative
from intertie.common.leasing.fairness import AllAlike, DominantResource, Fairness
from intertie.common.leasing.order import FirstCome, MostHeldUp, Order, ShortestFirst
from intertie.common.leasing.preemption import ByMigration, LastInOrder, LeastDone, Preemption
from intertie.common.leasing.resizing import Grow, Resizing, Steady

BACKFILLINGS: dict[str, Backfilling] = {
    "aggressive": Aggressive(),
    "conservative": Conservative(),
}
ORDERS: dict[str, Order] = {
    "first-come": FirstCome(),
    "shortest": ShortestFirst(),
    "held-up": MostHeldUp(),
}
FAIRNESS: dict[str, Fairness] = {
    "none": AllAlike(),
    "dominant-resource": DominantResource(),
}
PREEMPTIONS: dict[str, Preemption] = {
    "last-in-order": LastInOrder(),
    "least-done": LeastDone(),
}
MIGRATIONS: dict[str, ByMigration] = {
    "first": ByMigration(longest_delay=timedelta(minutes=2)),
    "in-advance": ByMigration(longest_delay=timedelta()),
    "never": ByMigration(longest_delay=timedelta(), moves=False),
}
RESIZINGS: dict[str, Resizing] = {
    "grow": Grow(),
    "steady": Steady(),
}
