"""Images and data sets that have to be at a site before a cluster starts there, and how they get
there."""

from dataclasses import dataclass
from datetime import datetime, timedelta

BITS_IN_MIB = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image or a data set."""

    name: str
    size_mib: int
    at: frozenset[str]
    """Sites that have it, whole, and keep it until the cluster has started."""
    groups: frozenset[str]
    """Who needs it, at every site where the group has a workspace."""
    settled: frozenset[str] = frozenset()
    """Sites that do without, and send none: earlier terms bring it there, or all who need it there
    have run for long."""
    data: bool = False
    """Nobody boots from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPlan:
    """An item on its way to one site, all of it at one rate without a break."""

    item: str
    from_site: str
    to_site: str
    via: tuple[str, ...] = ()
    """The sites that forward it, from the first."""
    mbit_s: int
    begin: datetime
    end: datetime
    """It is whole at its target by then, and may be sent on from there."""
    cost: float = 0.0
    """Of both ends. Of a plan that is held it is in what these cost."""
    size_bytes: int = 0
    """Exactly, of a plan that is held; 0: not said."""
    data: bool = False
    """Likewise: see Item."""

    @property
    def route(self) -> tuple[str, ...]:
        return (self.from_site, *self.via, self.to_site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How far an item is that is brought to a site."""

    item: str
    done_bytes: int
    done: bool
    """All of it is there, and was verified."""
    message: str = ""


def lasts_us(size_mib: int, mbit_s: int) -> int:
    """How long it takes at that rate, in whole microseconds: a Mbit/s is a bit in each."""
    return -(-size_mib * BITS_IN_MIB // mbit_s)


def mbit_s_hours(size_mib: int) -> float:
    """What is reserved for it in all, however fast it is sent."""
    return size_mib * BITS_IN_MIB / 1_000_000 / (timedelta(hours=1) / timedelta(seconds=1))
