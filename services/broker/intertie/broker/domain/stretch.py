"""A stretch of a part's time that was agreed on at one price."""

from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.tariff import Rates, RoomMade
from intertie.common.values import Struct, replace


class Stretch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    window: Window
    kind: str
    """Of lease, by which it was priced."""
    rates: Rates
    hour: float
    """What an hour of all of the part costs, in the site's unit of account."""
    room: RoomMade | None = None
    """What others make room for, and what of the hour's price is for that; None: nothing."""

    def not_before(self, moment: datetime) -> "Stretch":
        """As long, at the same price, from then on at the earliest."""
        late = moment - self.window.start
        if late <= timedelta():
            return self
        return replace(self, window=Window(moment, self.window.end + late))

    def cut(self, within: Window | None) -> Window | None:
        """What of it lies in there; None: nothing."""
        return self.window if within is None else self.window.intersect(within)
