"""What a plan has at one site, and what that costs."""

from collections.abc import Mapping, Sequence

from intertie.common.intervals import Window
from intertie.common.price import PriceTerm
from intertie.common.tariff import RoomMade, rooms_together
from intertie.common.values import Struct, replace


class SitePlan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    site: str
    counts: Mapping[str, int]
    """By group; only what is above 0."""
    packing: tuple[Mapping[str, int], ...] = ()
    """Counts on each host of the site's offer: shows that it fits, binds nobody."""
    cost: float = 0.0
    room: RoomMade | None = None
    """What others there make room for, and what of the cost is for that; None: nothing."""

    def expected(self, window: Window) -> PriceTerm:
        """What the site will ask, by its offer."""
        return PriceTerm(site=self.site, window=window, amount=self.cost, room=self.room)

    def at_prices(self, agreed: Sequence[PriceTerm]) -> "SitePlan":
        """At what the site has agreed; as it is where that is nothing."""
        if not agreed:
            return self
        return replace(
            self,
            cost=sum(each.amount for each in agreed),
            room=rooms_together(each.room for each in agreed),
        )

    def for_part_of_it(self, share: float) -> "SitePlan":
        """At what it costs for that share of the time."""
        return replace(self, cost=self.cost * share, room=self.room and self.room.times(share))
