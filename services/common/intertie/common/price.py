"""What was agreed that a lease costs, in the unit of account of its sites."""

from intertie.common.intervals import Window
from intertie.common.values import Struct


class PriceTerm(Struct, frozen=True, kw_only=True):
    """Of one site, over a time in which it had one price."""

    site: str
    window: Window
    kind: str = ""
    """Of lease; empty: planned, and not agreed yet."""
    amount: float
