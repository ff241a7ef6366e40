"""What this host is told of itself, beside what is wanted on it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from intertie.common.intervals import Window


class Hold(Enum):
    NONE = "NONE"
    HELD = "HELD"
    """No guest is started."""
    FENCED = "FENCED"
    """Every guest is stopped, none is started: what was here may be elsewhere by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReservation:
    """What the site's image store sends to another one's, past this gateway."""

    site: str
    mbit_s: int
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    epoch: int = 0
    """Grows each time that the host is begun to be fenced; 0: it never was."""
    hold: Hold = Hold.NONE
    reserved: tuple[LinkReservation, ...] = ()
    """Of the links that this gateway sends over, what others than clusters have."""

    def reserved_mbit_s(self, *, now: datetime, ahead: timedelta) -> Mapping[str, int]:
        """By site, what is reserved now, or begins before `ahead` is over."""
        rates: Counter[str] = Counter()
        for each in self.reserved:
            if each.window.start - ahead <= now < each.window.end:
                rates[each.site] += each.mbit_s
        return rates
