"""What was agreed that a lease costs, in the unit of account of its sites."""

from datetime import datetime

from intertie.common.intervals import Window
from intertie.common.values import Struct, replace


class PriceTerm(Struct, frozen=True, kw_only=True):
    """Of one site, over a time in which it had one price."""

    site: str
    window: Window
    kind: str = ""
    """Of lease; empty: planned, and not agreed yet."""
    amount: float

    def until(self, moment: datetime) -> "PriceTerm | None":
        """What of it is before that."""
        if moment >= self.window.end:
            return self
        if moment <= self.window.start:
            return None
        share = (moment - self.window.start) / self.window.duration
        window = Window(self.window.start, moment)
        return replace(self, window=window, amount=self.amount * share)
