"""What a site asks for a unit of each resource for an hour, and what comes of it.

Nothing here depends on which host a workspace is on, so a planner that knows a site's rates comes
to the same price as the site itself.
"""

from datetime import timedelta

from intertie.common.intervals import Window
from intertie.common.part_spec import PartSpec
from intertie.common.quantities import Vector
from intertie.common.spec import demand_of_disk
from intertie.common.values import Struct, field_names

HOUR = timedelta(hours=1)


class Rates(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Price of one unit for one hour, used or not."""

    vcpu_hour: float = 0.0
    memory_gib_hour: float = 0.0
    disk_gib_hour: float = 0.0
    link_mbit_s_hour: float = 0.0
    """Reserved on a link to another site, a direction."""
    iops_hour: float = 0.0
    """As disks are admitted: by their caps. So for the next."""
    throughput_mib_s_hour: float = 0.0
    nic_mbit_s_hour: float = 0.0
    """Guaranteed to a NIC."""
    pair_mbit_s_hour: float = 0.0
    """Guaranteed between two workspaces: each end is charged by its own site."""

    def hour(self, amounts: Vector, *, pair_mbit_s: int = 0, link_mbit_s: int = 0) -> float:
        """What an hour of these costs. Of `amounts`, the uplink is what NICs are guaranteed;
        `pair_mbit_s` is summed over ends of pairs, `link_mbit_s` over directions."""
        return (
            amounts.vcpus * self.vcpu_hour
            + amounts.memory_mib / 1024 * self.memory_gib_hour
            + amounts.disk_mib / 1024 * self.disk_gib_hour
            + amounts.iops * self.iops_hour
            + amounts.throughput_mib_s * self.throughput_mib_s_hour
            + amounts.uplink_mbit_s * self.nic_mbit_s_hour
            + pair_mbit_s * self.pair_mbit_s_hour
            + link_mbit_s * self.link_mbit_s_hour
        )

    def times(self, factor: float) -> "Rates":
        return Rates(**{name: getattr(self, name) * factor for name in RATES})


RATES: tuple[str, ...] = field_names(Rates)


def part_hour(rates: Rates, spec: PartSpec) -> float:
    """What an hour of a part costs; its disks have their caps, as the site admits them."""
    total, pairs = Vector(), 0
    for each in spec.workspaces:
        term = each.allocation
        total = total + Vector(
            vcpus=term.vcpus,
            memory_mib=term.memory_mib,
            disk_mib=term.disk_mib,
            iops=term.disk.cap_iops,
            throughput_mib_s=term.disk.cap_mib_s,
            uplink_mbit_s=term.nic.guarantee_mbit_s * len(each.nics),
        )
        total = sum(map(demand_of_disk, each.disks), start=total)
    ours = {each.label for each in spec.workspaces}
    for network in spec.networks:
        for pair in network.pairs:
            pairs += pair.bandwidth.guarantee_mbit_s * ((pair.a in ours) + (pair.b in ours))
    links = sum(each.egress_mbit_s + each.ingress_mbit_s for each in spec.links)
    return rates.hour(total, pair_mbit_s=pairs, link_mbit_s=links)


def hours_of(window: Window) -> float:
    return window.duration / HOUR
