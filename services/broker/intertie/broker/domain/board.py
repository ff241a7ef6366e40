"""A placement in the making: hosts, what is left of them, and what may still go where."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from intertie.broker.domain.amounts import fixed_amounts
from intertie.broker.domain.fleet import HostFacts
from intertie.common.part_spec import PartWorkspace
from intertie.common.quantities import Vector
from intertie.common.spec import ANY_HYPERVISOR
from intertie.common.values import Struct


class Room(Struct, frozen=True, kw_only=True):
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
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Workspaces that have their host already, by label: what they take, with all that is promised
    towards those that have none, is not free in the rooms."""
    host_of: dict[str, str] = field(default_factory=dict)
    left: dict[str, Vector] = field(default_factory=dict)
    of_group: dict[tuple[str, str], int] = field(default_factory=dict)
    _largest: tuple[int, int, int] | None = None
    _able: dict[tuple[object, ...], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left = {host: room.free for host, room in self.rooms.items()}
        self.host_of.update(self.fixed)
        for label, host in self.fixed.items():
            key = (label.rpartition("-")[0], host)
            self.of_group[key] = self.of_group.get(key, 0) + 1

    @property
    def largest(self) -> tuple[int, int, int]:
        """The most vCPUs, memory and disk that were free on any one host, 1 at least."""
        if self._largest is None:
            free = [room.free for room in self.rooms.values()]
            self._largest = (
                max(1, *(each.vcpus for each in free)),
                max(1, *(each.memory_mib for each in free)),
                max(1, *(each.disk_mib for each in free)),
            )
        return self._largest

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
        return self.rooms[host].refusal(workspace, promised=self._promised(workspace))

    def _promised(self, workspace: PartWorkspace) -> bool:
        return bool(workspace.allocation.nic.guarantee_mbit_s or self.pairs[workspace.label])

    def able(self, workspace: PartWorkspace) -> list[str]:
        """The hosts that could run it whatever is free on them: found once for all workspaces
        that ask for the same, by asking once of all hosts that are alike."""
        environment, promised = workspace.environment, self._promised(workspace)
        asked = environment.hypervisor, environment.architecture, bool(workspace.nics), promised
        found = self._able.get(asked)
        if found is None:
            found, said = self._able.setdefault(asked, []), dict[tuple[object, ...], str]()
            for host, room in self.rooms.items():
                facts = room.facts
                alike = facts.hypervisors, facts.architecture, facts.missing
                why = said.get(alike)
                if why is None:
                    why = said[alike] = room.refusal(workspace, promised=promised)
                if not why:
                    found.append(host)
        return found

    def near(self, workspace: PartWorkspace) -> dict[str, int]:
        """What it is promised towards those that are on each host already."""
        found: dict[str, int] = {}
        for other, mbit_s in self.pairs[workspace.label].items():
            host = self.host_of.get(other)
            if host is not None:
                found[host] = found.get(host, 0) + mbit_s
        return found

    def fitting(self, workspace: PartWorkspace) -> list[str]:
        """All hosts that take it: able to, not full of its group, and left with no less than
        nothing of anything. What is the same for all of them is found once."""
        amounts, near = fixed_amounts(workspace), self.near(workspace)
        vcpus, memory_mib, disk_mib = amounts.vcpus, amounts.memory_mib, amounts.disk_mib
        iops, throughput_mib_s = amounts.iops, amounts.throughput_mib_s
        uplink = amounts.uplink_mbit_s + sum(self.pairs[workspace.label].values())
        lax, bounded, left_of = self.lax_uplink, bool(workspace.max_per_host), self.left
        found: list[str] = []
        for host in self.able(workspace):
            left = left_of[host]
            if (
                left.vcpus >= vcpus
                and left.memory_mib >= memory_mib
                and left.disk_mib >= disk_mib
                and left.iops >= iops
                and left.throughput_mib_s >= throughput_mib_s
                and (lax or left.uplink_mbit_s >= uplink - 2 * near.get(host, 0))
                and not (bounded and self.full(workspace, host))
            ):
                found.append(host)
        return found

    def shares(self, workspace: PartWorkspace, hosts: Iterable[str]) -> Iterator[tuple[float, str]]:
        """What would be left of each host, as shares of the roomiest."""
        amounts, (most_vcpus, most_memory, most_disk) = fixed_amounts(workspace), self.largest
        for host in hosts:
            left = self.left[host]
            yield (
                (left.vcpus - amounts.vcpus) / most_vcpus
                + (left.memory_mib - amounts.memory_mib) / most_memory
                + (left.disk_mib - amounts.disk_mib) / most_disk,
                host,
            )

    def full(self, workspace: PartWorkspace, host: str) -> bool:
        """The host has as many of the group as may be on one."""
        already = self.of_group.get((workspace.group, host), 0)
        return bool(workspace.max_per_host and already >= workspace.max_per_host)

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
        """Nothing is on a host that has not room for it. One that shrank under what it had
        before, and gets nothing, keeps nobody from the others."""
        got = {host for label, host in self.host_of.items() if label not in self.fixed}
        return all(Vector() <= self.left[host] for host in got)


def largest_first(
    workspaces: Sequence[PartWorkspace], rooms: Mapping[str, Room]
) -> list[PartWorkspace]:
    """By the largest share that any dimension takes of the whole site; ties as in the spec."""
    if len(workspaces) == 1:
        return list(workspaces)
    if len({fixed_amounts(each) for each in workspaces}) == 1:
        return list(workspaces)
    totals = dict(sum_free(rooms).items())

    def share(workspace: PartWorkspace) -> float:
        return max(
            amount / max(totals[name], 1) for name, amount in fixed_amounts(workspace).items()
        )

    return sorted(workspaces, key=lambda each: -share(each))


def sum_free(rooms: Mapping[str, Room]) -> Vector:
    free = [room.free for room in rooms.values()]
    return Vector(
        vcpus=sum(max(each.vcpus, 0) for each in free),
        memory_mib=sum(max(each.memory_mib, 0) for each in free),
        disk_mib=sum(max(each.disk_mib, 0) for each in free),
        iops=sum(max(each.iops, 0) for each in free),
        throughput_mib_s=sum(max(each.throughput_mib_s, 0) for each in free),
        uplink_mbit_s=sum(max(each.uplink_mbit_s, 0) for each in free),
    )


def best_fit(board: Board, workspace: PartWorkspace, hosts: Sequence[str]) -> str:
    """The one that is left with least."""
    return min(board.shares(workspace, hosts))[1]
