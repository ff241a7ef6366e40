"""What a site asks for a unit of each resource for an hour, and what comes of it.

Nothing here depends on which host a workspace is on, so a planner that knows a site's rates comes
to the same price as the site itself.
"""

from collections.abc import Iterable
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
    give_way_vcpu_hour: float = 0.0
    """Beside the others, of what is there only because leases give way: see RoomMade. So for the
    next."""
    give_way_memory_gib_hour: float = 0.0

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

    @property
    def ask_for_room_made(self) -> bool:
        return bool(self.give_way_vcpu_hour or self.give_way_memory_gib_hour)

    def times(self, factor: float) -> "Rates":
        return Rates(**{name: getattr(self, name) * factor for name in RATES})


RATES: tuple[str, ...] = field_names(Rates)


class RoomMade(Struct, frozen=True, kw_only=True):
    """What a lease has of its site because others give way for it, and what it is asked for that:
    for an hour, or for all of the time of which it is told."""

    vcpus: int
    """At most at a time. So for the next."""
    memory_mib: int
    amount: float

    def times(self, factor: float) -> "RoomMade":
        """At so many times the amount."""
        return RoomMade(vcpus=self.vcpus, memory_mib=self.memory_mib, amount=self.amount * factor)


def room_made(rates: Rates, taken: Vector, free: Vector) -> RoomMade | None:
    """What is taken beyond what all hosts of the site have free together while nobody gives way,
    and what an hour of it costs beside the rest. None where nothing is asked for that.

    It hangs on no host, so that it is known before hosts are: where enough is free in all, and too
    little on any one host, who gives way for that costs nothing.
    """
    return room_of(rates, taken.vcpus - free.vcpus, taken.memory_mib - free.memory_mib)


def room_of(rates: Rates, vcpus: int, memory_mib: int) -> RoomMade | None:
    """Likewise, where it is known what others make room for."""
    vcpus, memory_mib = max(vcpus, 0), max(memory_mib, 0)
    amount = vcpus * rates.give_way_vcpu_hour + memory_mib / 1024 * rates.give_way_memory_gib_hour
    return RoomMade(vcpus=vcpus, memory_mib=memory_mib, amount=amount) if amount else None


def rooms_together(rooms: Iterable[RoomMade | None]) -> RoomMade | None:
    """Of times one after another: as much as there is at most, for what they cost in all."""
    found = [each for each in rooms if each is not None]
    if not found:
        return None
    return RoomMade(
        vcpus=max(each.vcpus for each in found),
        memory_mib=max(each.memory_mib for each in found),
        amount=sum(each.amount for each in found),
    )


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


def taken_by(spec: PartSpec) -> Vector:
    """The vCPUs and the memory of all its workspaces: what others can make room for."""
    terms = [each.allocation for each in spec.workspaces]
    return Vector(
        vcpus=sum(each.vcpus for each in terms), memory_mib=sum(each.memory_mib for each in terms)
    )


def hours_of(window: Window) -> float:
    return window.duration / HOUR
