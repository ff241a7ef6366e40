"""In which order leases are served: one of a policy's plug-ins."""

from dataclasses import dataclass
from typing import Protocol

from intertie.common.errors import FieldInvalid
from intertie.common.leasing.lease import Lease


class Order(Protocol):
    def rank(self, lease: Lease, now_s: int) -> float:
        """Who has the lower goes first, and of equal ones who came first. A running lease has a
        rank too: those with the highest give way first. A policy that compares ranks by a factor
        needs an order whose ranks are 0 or more."""


@dataclass(frozen=True, slots=True)
class FirstCome:
    def rank(self, lease: Lease, now_s: int) -> float:
        return lease.submit_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortestFirst:
    """The shortest remaining time by what was asked for; who has waited for `patience_s` goes
    before all who have not, so that nobody starves."""

    patience_s: int = 86_400

    def rank(self, lease: Lease, now_s: int) -> float:
        return 0.0 if lease.waited_s(now_s) >= self.patience_s else lease.left_s(now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MostHeldUp:
    """Who is likely to have the least left goes first, and the more so the longer it waited.

    Most leases end long before the time that they asked for, so that says little. Who has run
    for long is likely to run for long yet; hence a new lease gets nodes soon, and most are over
    before they have to give them back. Waiting lowers a rank without end, so nobody starves.
    """

    least_left_s: int = 60
    """What a lease is thought to have left that has hardly run."""
    left_of_done: float = 4.0
    """What a lease is thought to have left against what it has run, if it asked for so much."""
    patience_s: int = 600
    """Waits up to about this long count for little: the longer, the more does the shortest go
    first, and the longer do the longest wait."""

    def __post_init__(self) -> None:
        if self.patience_s < 1:
            raise FieldInvalid("patience_s", f"is {self.patience_s}; must be 1 or more")

    def rank(self, lease: Lease, now_s: int) -> float:
        likely_s = max(self.least_left_s, self.left_of_done * lease.done_s(now_s))
        left_s = min(lease.left_s(now_s), likely_s)
        return left_s / (self.patience_s + lease.waited_s(now_s))
