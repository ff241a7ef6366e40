"""Placement as it is meant, host by host and without a thought for cost: what the one that is used
must agree with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from intertie.broker.domain.board import Room
from intertie.broker.domain.ledger import fixed_amounts, pair_mbit_s
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.quantities import Vector

SEARCH_STEPS = 1000


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


Preference = Callable[[Board, PartWorkspace, str], tuple[object, ...]]


def place(spec: PartSpec, rooms: Mapping[str, Room]) -> dict[str, str] | None:
    """A host by workspace; None where no pass finds any."""
    passes = _passes(largest_first(spec.workspaces, rooms), rooms, pair_mbit_s(spec))
    return next((each for each in passes if each is not None), None)


def _passes(
    order: Sequence[PartWorkspace],
    rooms: Mapping[str, Room],
    pairs: Mapping[str, Mapping[str, int]],
) -> Iterator[dict[str, str] | None]:
    yield _greedy(order, Board(rooms, pairs), _spread)
    yield _greedy(order, Board(rooms, pairs), best_fit)
    yield _greedy(order, Board(rooms, pairs), _balance)
    yield _greedy(order, Board(rooms, pairs, lax_uplink=True), _bring_together)
    yield _search(order, Board(rooms, pairs, lax_uplink=True))


def _spread(board: Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """The host with the fewest of the group, then the one that is left with least."""
    return (board.of_group.get((workspace.group, host), 0), *best_fit(board, workspace, host))


def _balance(board: Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """Worst fit."""
    return (-share_left(board, board.after(workspace, host)), host)


def _bring_together(board: Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """The host that most of the workspace's promised bandwidth leads to."""
    near = sum(
        mbit_s
        for other, mbit_s in board.pairs[workspace.label].items()
        if board.host_of.get(other) == host
    )
    return (-near, *best_fit(board, workspace, host))


def _greedy(
    order: Sequence[PartWorkspace], board: Board, preference: Preference
) -> dict[str, str] | None:
    for workspace in order:
        fitting = [host for host in board.rooms if board.takes(workspace, host)]
        if not fitting:
            return None
        best = fitting[0]
        if len(fitting) > 1:
            best = min(fitting, key=lambda host: preference(board, workspace, host))
        board.put(workspace, best)
    return board.host_of if board.sound() else None


def _search(order: Sequence[PartWorkspace], board: Board) -> dict[str, str] | None:
    """Depth first, at most SEARCH_STEPS steps: finds what greedy passes miss in small parts."""
    tried: list[Iterator[str]] = [iter(sorted(board.rooms))]
    for _ in range(SEARCH_STEPS):
        depth = len(tried) - 1
        if depth == len(order):
            if board.sound():
                return board.host_of
            tried.pop()
            board.take_back(order[depth - 1])
            continue
        host = next((each for each in tried[-1] if board.takes(order[depth], each)), None)
        if host is not None:
            board.put(order[depth], host)
            tried.append(iter(sorted(board.rooms)))
            continue
        tried.pop()
        if not tried:
            return None
        board.take_back(order[depth - 1])
    return None
