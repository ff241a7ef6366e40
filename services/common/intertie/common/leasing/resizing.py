"""Who of those that run gets more nodes where there is room, and who is left with fewer where
others need them: one of a policy's plug-ins. Only leases are asked about that say how many they
want at least and at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from intertie.common.leasing.lease import Lease
from intertie.common.leasing.preemption import Rank


class Resizing(Protocol):
    def for_more(self, running: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        """Those of `running` that get more, in this order; [] where none does. Each gets all that
        it may have and there is room for before the next one is looked at."""

    def for_others(self, running: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        """Those of `running` that are left with fewer for others, in this order. Whoever is not
        among them keeps all that it has until it is put aside."""


@dataclass(frozen=True, slots=True)
class Grow:
    """The first in the order gets more first, and the last in it is the first to be left with
    fewer."""

    def for_more(self, running: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        return sorted(running, key=lambda lease: (rank(lease), lease.submit_s))

    def for_others(self, running: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        return self.for_more(running, rank, now_s)[::-1]


@dataclass(frozen=True, slots=True)
class Steady:
    """What a lease begins with it has for as long as it runs."""

    def for_more(self, running: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        return []

    def for_others(self, running: Sequence[Lease], rank: Rank, now_s: int) -> list[Lease]:
        return []
