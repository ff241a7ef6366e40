"""What things cost at this site."""

from datetime import timedelta

from intertie.common.intervals import Window
from intertie.common.quantities import Vector
from intertie.common.values import Struct


class Tariff(Struct, frozen=True, kw_only=True):
    """Price of one unit for one hour."""

    vcpu_hour: float = 0.0
    memory_gib_hour: float = 0.0
    disk_gib_hour: float = 0.0
    link_mbit_s_hour: float = 0.0

    def cost(self, amounts: Vector, window: Window, *, link_mbit_s: int = 0) -> float:
        """What the amounts cost over the window, whether they are used or not."""
        hours = window.duration / timedelta(hours=1)
        return hours * (
            amounts.vcpus * self.vcpu_hour
            + amounts.memory_mib / 1024 * self.memory_gib_hour
            + amounts.disk_mib / 1024 * self.disk_gib_hour
            + link_mbit_s * self.link_mbit_s_hour
        )
