"""How a site comes from its tariff to what it asks: the interface, and two of its kind.

A pricing is asked when a lease is agreed on, and again when it gets other terms; what it said then
stays on record with the part.
"""

from collections.abc import Callable
from typing import Protocol

from intertie.broker.domain.tariff import Tariff
from intertie.common.intervals import Window
from intertie.common.tariff import Rates
from intertie.common.values import Struct, field

Load = Callable[[], float]
"""How much of the scarcest resource is taken over the window, 0 to 1. To ask takes a look at every
host."""


class Pricing(Protocol):
    @property
    def name(self) -> str:
        """As offers say it."""
        ...

    @property
    def tariff(self) -> Tariff: ...

    def rates(self, kind: str, window: Window, load: Load) -> Rates:
        """What a lease of this kind is asked for. The same for the same window and load, so that a
        planner that was offered it is asked for no more while nobody takes anything."""
        ...


class Flat(Struct, frozen=True, kw_only=True):
    """The tariff as it is."""

    tariff: Tariff = field(default_factory=Tariff)

    @property
    def name(self) -> str:
        return "flat"

    def rates(self, kind: str, window: Window, load: Load) -> Rates:
        del window, load
        return self.tariff.of(kind)


class ByLoad(Struct, frozen=True, kw_only=True):
    """Dearer the more of the scarcest resource is taken: by nothing at an empty site, by
    `surcharge` times as much again at a full one."""

    tariff: Tariff = field(default_factory=Tariff)
    surcharge: float = 1.0

    @property
    def name(self) -> str:
        return "by_load"

    def rates(self, kind: str, window: Window, load: Load) -> Rates:
        del window
        return self.tariff.of(kind).times(1 + self.surcharge * load())
