"""The policies that have a name."""

from intertie.common.leasing.backfilling import Aggressive, Conservative
from intertie.common.leasing.order import FirstCome, MostHeldUp, ShortestFirst
from intertie.common.leasing.policy import Policy
from intertie.common.leasing.preemption import FarInOrder, LastInOrder, LeastDone

DEFAULT = "held-up"

POLICIES: dict[str, Policy] = {
    "held-up": Policy(
        order=MostHeldUp(),
        backfilling=Aggressive(protected=0),
        preemption=FarInOrder(),
        review_s=300,
    ),
    "aggressive": Policy(order=FirstCome(), backfilling=Aggressive(), preemption=LastInOrder()),
    "conservative": Policy(order=FirstCome(), backfilling=Conservative(), preemption=LastInOrder()),
    "shortest": Policy(order=ShortestFirst(), backfilling=Aggressive(), preemption=LastInOrder()),
    "aggressive-no-suspend": Policy(
        order=FirstCome(), backfilling=Aggressive(), preemption=LeastDone(), suspension=None
    ),
    "conservative-no-suspend": Policy(
        order=FirstCome(), backfilling=Conservative(), preemption=LeastDone(), suspension=None
    ),
}
"""In `held-up` best-effort leases are suspended for each other too, in the next three for
reservations only; in the last two they are cancelled for reservations."""
