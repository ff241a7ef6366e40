"""Why a request cannot be had, in its own fields, and what could be had instead.

Named and divided as in types.v1, where each is described.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One thing that a request asks for."""

    field: str
    message: str
    enough: bool = False
    """Without one such of each conflict, whichever, the request could be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Requirements that cannot all be met together; without any one of them the others can."""

    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    field: str
    value: str
    """As JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterOffer:
    """A request that would be accepted as things stand."""

    changes: tuple[Change, ...]
    message: str
    start_time: datetime
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    conflicts: tuple[Conflict, ...] = ()
    counter_offers: tuple[CounterOffer, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.conflicts or self.counter_offers)


UNEXPLAINED = Explanation()
