"""A placement in the making: hosts, what is left of them, and what may still go where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ledger import fixed_amounts
from intertie.common.part_spec import PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import ANY_HYPERVISOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One host that may take workspaces, and what of it is free."""

    facts: HostFacts
    free: Vector

    def refusal(self, workspace: PartWorkspace, *, promised: bool) -> str:
        """Why this host cannot run the workspace whatever is free on it; empty when it can.

        `promised`: bandwidth is, which is not to be had where it cannot be enforced.
        """
        environment = workspace.environment
        if environment.hypervisor not in ("", ANY_HYPERVISOR, *self.facts.hypervisors):
            return f"does not run {environment.hypervisor}"
        if self.facts.architecture and environment.architecture not in (
            "",
            self.facts.architecture,
        ):
            return f"is no {environment.architecture}"
        needed: tuple[str, ...] = NEEDED_FOR_NICS if workspace.nics else ()
        if promised:
            needed += NEEDED_FOR_PROMISES
        return next((each for each in self.facts.missing if each.startswith(needed)), "")


NEEDED_FOR_NICS = ("bridges", "VXLAN", "taps")
NEEDED_FOR_PROMISES = ("HTB", "ifb")
"""First words of the sentences in which agents say what their hosts cannot do."""


@dataclass(slots=True)
class Board:
    """A placement in the making."""

    rooms: Mapping[str, Room]
    pairs: Mapping[str, Mapping[str, int]]
    lax_uplink: bool = False
    host_of: dict[str, str] = field(default_factory=dict)
    left: dict[str, Vector] = field(default_factory=dict)
    of_group: dict[tuple[str, str], int] = field(default_factory=dict)
    largest: Vector = field(default_factory=Vector)
    """The most that is free on any one host, in each dimension."""

    def __post_init__(self) -> None:
        self.left = {host: room.free for host, room in self.rooms.items()}
        for free in self.left.values():
            self.largest = self.largest.at_least(free)

    def after(self, workspace: PartWorkspace, host: str) -> Vector:
        """What would be left of the host. Pairs whose other end is not there, or not placed
        yet, count against its uplink; those that come together no longer do."""
        amounts, left = fixed_amounts(workspace), self.left[host]
        uplink = amounts.uplink_mbit_s
        for other, mbit_s in self.pairs[workspace.label].items():
            uplink += -mbit_s if self.host_of.get(other) == host else mbit_s
        return Vector(  # spelt out: this is what a placement spends its time on
            vcpus=left.vcpus - amounts.vcpus,
            memory_mib=left.memory_mib - amounts.memory_mib,
            disk_mib=left.disk_mib - amounts.disk_mib,
            iops=left.iops - amounts.iops,
            throughput_mib_s=left.throughput_mib_s - amounts.throughput_mib_s,
            uplink_mbit_s=left.uplink_mbit_s - uplink,
        )

    def refused(self, workspace: PartWorkspace, host: str) -> str:
        promised = workspace.allocation.nic.guarantee_mbit_s or self.pairs[workspace.label]
        return self.rooms[host].refusal(workspace, promised=bool(promised))

    def full(self, workspace: PartWorkspace, host: str) -> bool:
        """The host has as many of the group as may be on one."""
        already = self.of_group.get((workspace.group, host), 0)
        return bool(workspace.max_per_host and already >= workspace.max_per_host)

    def takes(self, workspace: PartWorkspace, host: str) -> bool:
        if self.refused(workspace, host):
            return False
        if self.full(workspace, host):
            return False
        left = self.after(workspace, host)
        return min(
            left.vcpus, left.memory_mib, left.disk_mib, left.iops, left.throughput_mib_s
        ) >= 0 and (self.lax_uplink or left.uplink_mbit_s >= 0)

    def put(self, workspace: PartWorkspace, host: str) -> None:
        self.left[host] = self.after(workspace, host)
        self.host_of[workspace.label] = host
        key = (workspace.group, host)
        self.of_group[key] = self.of_group.get(key, 0) + 1

    def take_back(self, workspace: PartWorkspace) -> None:
        host = self.host_of.pop(workspace.label)
        self.of_group[workspace.group, host] -= 1
        self.left[host] = self.left[host] + (self.left[host] - self.after(workspace, host))

    def sound(self) -> bool:
        return all(Vector() <= left for left in self.left.values())


def largest_first(
    workspaces: Sequence[PartWorkspace], rooms: Mapping[str, Room]
) -> list[PartWorkspace]:
    """By the largest share that any dimension takes of the whole site; ties as in the spec."""
    if len(workspaces) == 1:
        return list(workspaces)
    totals = dict(sum_free(rooms).items())

    def share(workspace: PartWorkspace) -> float:
        return max(
            amount / max(totals[name], 1) for name, amount in fixed_amounts(workspace).items()
        )

    return sorted(workspaces, key=lambda each: -share(each))


def share_left(board: Board, left: Vector) -> float:
    """What is left of a host, as shares of the roomiest."""
    most = board.largest
    return (
        left.vcpus / max(most.vcpus, 1)
        + left.memory_mib / max(most.memory_mib, 1)
        + left.disk_mib / max(most.disk_mib, 1)
    )


def sum_free(rooms: Mapping[str, Room]) -> Vector:
    total = Vector()
    for room in rooms.values():
        total = total + room.free.at_least_zero()
    return total


def best_fit(board: Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """A preference for the host that is left with least."""
    return (share_left(board, board.after(workspace, host)), host)
