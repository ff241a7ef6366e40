"""What things cost at this site, by the kind of lease."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from intertie.common.intervals import Window
from intertie.common.tariff import Rates
from intertie.common.values import Struct, field

IMMEDIATE = "immediate"
ADVANCE = "advance"
BEST_EFFORT = "best_effort"
DEADLINE = "deadline"

AT_ONCE = timedelta(minutes=1)
"""From when it is agreed on to its start, up to which a lease is an immediate one: planning takes
its time, and clocks differ."""


class Tariff(Struct, frozen=True, kw_only=True):
    rates: Rates = field(default_factory=Rates)
    """Of every kind that has none of its own."""
    kinds: Mapping[str, Rates] = field(default_factory=dict)

    def of(self, kind: str) -> Rates:
        return self.kinds.get(kind, self.rates)


def kind_of(window: Window, *, now: datetime) -> str:
    """Of a lease that is agreed on now and says nothing else: one that begins later is an advance
    reservation, any other an immediate one."""
    return ADVANCE if window.start - now > AT_ONCE else IMMEDIATE
