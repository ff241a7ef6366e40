"""Which workspace goes on which host.

A handful of deterministic passes, the first that fits wins: one that spreads each group over
hosts, one that fills hosts, one that balances, one that brings promised pairs together, and a
bounded search last. All see what is free over the whole window.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from intertie.broker.domain.fleet import HostFacts
from intertie.broker.domain.ledger import fixed_amounts, pair_mbit_s
from intertie.broker.domain.part import Placed
from intertie.common.errors import NoCapacity, Shortfall
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.quantities import DIMENSIONS, RESOURCE_OF, UNIT_OF, Vector
from intertie.common.spec import ANY_HYPERVISOR

SEARCH_STEPS = 4000


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
class _Board:
    """A placement in the making."""

    rooms: Mapping[str, Room]
    pairs: Mapping[str, Mapping[str, int]]
    lax_uplink: bool = False
    host_of: dict[str, str] = field(default_factory=dict)
    left: dict[str, Vector] = field(default_factory=dict)
    of_group: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left = {host: room.free for host, room in self.rooms.items()}

    def after(self, workspace: PartWorkspace, host: str) -> Vector:
        """What would be left of the host. Pairs whose other end is not there, or not placed
        yet, count against its uplink; those that come together no longer do."""
        amounts = fixed_amounts(workspace)
        uplink = amounts.uplink_mbit_s
        for other, mbit_s in self.pairs[workspace.label].items():
            uplink += -mbit_s if self.host_of.get(other) == host else mbit_s
        return self.left[host] - replace(amounts, uplink_mbit_s=uplink)

    def refused(self, workspace: PartWorkspace, host: str) -> str:
        promised = workspace.allocation.nic.guarantee_mbit_s or self.pairs[workspace.label]
        return self.rooms[host].refusal(workspace, promised=bool(promised))

    def takes(self, workspace: PartWorkspace, host: str) -> bool:
        if self.refused(workspace, host):
            return False
        already = self.of_group.get((workspace.group, host), 0)
        if workspace.max_per_host and already >= workspace.max_per_host:
            return False
        left = self.after(workspace, host)
        if self.lax_uplink:
            left = replace(left, uplink_mbit_s=0)
        return Vector() <= left

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


Preference = Callable[[_Board, PartWorkspace, str], tuple[object, ...]]


def place(spec: PartSpec, rooms: Mapping[str, Room], *, site: str) -> tuple[Placed, ...]:
    """A host for every workspace, or NoCapacity with what was short."""
    if not spec.workspaces:
        return ()
    pairs = pair_mbit_s(spec)
    order = _largest_first(spec.workspaces, rooms)
    for found in _passes(order, rooms, pairs):
        if found is not None:
            return tuple(
                Placed(workspace=each.label, host=found[each.label]) for each in spec.workspaces
            )
    raise NoCapacity(shortfalls(spec, rooms, site=site))


def _passes(
    order: Sequence[PartWorkspace],
    rooms: Mapping[str, Room],
    pairs: Mapping[str, Mapping[str, int]],
) -> Iterator[dict[str, str] | None]:
    yield _greedy(order, _Board(rooms, pairs), _spread)
    yield _greedy(order, _Board(rooms, pairs), _fill)
    yield _greedy(order, _Board(rooms, pairs), _balance)
    yield _greedy(order, _Board(rooms, pairs, lax_uplink=True), _bring_together)
    yield _search(order, _Board(rooms, pairs, lax_uplink=True))


def _spread(board: _Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """The host with the fewest of the group, then the one that is left with least."""
    return (board.of_group.get((workspace.group, host), 0), *_fill(board, workspace, host))


def _fill(board: _Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """Best fit."""
    return (_share_left(board, board.after(workspace, host)), host)


def _balance(board: _Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """Worst fit."""
    return (-_share_left(board, board.after(workspace, host)), host)


def _bring_together(board: _Board, workspace: PartWorkspace, host: str) -> tuple[object, ...]:
    """The host that most of the workspace's promised bandwidth leads to."""
    near = sum(
        mbit_s
        for other, mbit_s in board.pairs[workspace.label].items()
        if board.host_of.get(other) == host
    )
    return (-near, *_fill(board, workspace, host))


def _greedy(
    order: Sequence[PartWorkspace], board: _Board, preference: Preference
) -> dict[str, str] | None:
    for workspace in order:
        fitting = [host for host in board.rooms if board.takes(workspace, host)]
        if not fitting:
            return None
        board.put(workspace, min(fitting, key=lambda host: preference(board, workspace, host)))
    return board.host_of if board.sound() else None


def _search(order: Sequence[PartWorkspace], board: _Board) -> dict[str, str] | None:
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


def _largest_first(
    workspaces: Sequence[PartWorkspace], rooms: Mapping[str, Room]
) -> list[PartWorkspace]:
    """By the largest share that any dimension takes of the whole site; ties as in the spec."""
    total = _sum_free(rooms)
    totals = dict(total.items())

    def share(workspace: PartWorkspace) -> float:
        return max(
            amount / max(totals[name], 1) for name, amount in fixed_amounts(workspace).items()
        )

    return sorted(workspaces, key=lambda each: -share(each))


def _share_left(board: _Board, left: Vector) -> float:
    largest = {
        name: max((dict(room.free.items())[name] for room in board.rooms.values()), default=0)
        for name in ("vcpus", "memory_mib", "disk_mib")
    }
    return sum(amount / max(largest[name], 1) for name, amount in left.items() if name in largest)


def _sum_free(rooms: Mapping[str, Room]) -> Vector:
    total = Vector()
    for room in rooms.values():
        total = total + room.free.at_least_zero()
    return total


def shortfalls(spec: PartSpec, rooms: Mapping[str, Room], *, site: str) -> tuple[Shortfall, ...]:
    """Why the workspaces do not fit: the first of these that says anything.

    Nothing to place on; a group that no host can run, or that its bound on workspaces a host
    keeps out; one workspace that is larger than any host's room; the sum of all; and, where
    each fits alone and the sum does too, that they do not pack.
    """
    for rule in (_no_rooms, _not_admitted, _too_many_a_host, _too_large_for_one, _too_much):
        found = tuple(rule(spec, rooms, site))
        if found:
            return found
    return tuple(_does_not_pack(spec, rooms, site))


def _no_rooms(spec: PartSpec, rooms: Mapping[str, Room], site: str) -> Iterator[Shortfall]:
    if not rooms:
        yield Shortfall(
            site=site,
            resource="hosts",
            wanted=1,
            available=0,
            message=f"{site}: no host is alive",
        )


def _one_of_each_group(spec: PartSpec) -> list[PartWorkspace]:
    return list({each.group: each for each in reversed(spec.workspaces)}.values())[::-1]


def _not_admitted(spec: PartSpec, rooms: Mapping[str, Room], site: str) -> Iterator[Shortfall]:
    board = _Board(rooms, pair_mbit_s(spec))
    for each in _one_of_each_group(spec):
        refusals = {host: board.refused(each, host) for host in sorted(rooms)}
        if all(refusals.values()):
            said = "; ".join(f"{host}: {why}" for host, why in refusals.items())
            yield Shortfall(
                site=site,
                resource="policy",
                group=each.group,
                message=f"{site}: no host can run {each.group} ({said})",
            )


def _able(spec: PartSpec, workspace: PartWorkspace, rooms: Mapping[str, Room]) -> dict[str, Room]:
    board = _Board(rooms, pair_mbit_s(spec))
    return {host: room for host, room in rooms.items() if not board.refused(workspace, host)}


def _too_many_a_host(spec: PartSpec, rooms: Mapping[str, Room], site: str) -> Iterator[Shortfall]:
    for each in _one_of_each_group(spec):
        count = sum(other.group == each.group for other in spec.workspaces)
        able = _able(spec, each, rooms)
        fitting = sum(fixed_amounts(each) <= room.free for room in able.values())
        if each.max_per_host and fitting and count > each.max_per_host * fitting:
            wanted = -(-count // each.max_per_host)
            yield Shortfall(
                site=site,
                resource="hosts",
                wanted=wanted,
                available=fitting,
                group=each.group,
                message=(
                    f"{site}: {count} of {each.group} at {each.max_per_host} a host want "
                    f"{wanted} hosts, {fitting} have room"
                ),
            )


def _too_large_for_one(spec: PartSpec, rooms: Mapping[str, Room], site: str) -> Iterator[Shortfall]:
    for each in _one_of_each_group(spec):
        able = _able(spec, each, rooms)
        amounts = fixed_amounts(each)
        if any(amounts <= room.free for room in able.values()):
            continue
        best = {
            name: max(dict(room.free.items())[name] for room in able.values())
            for name in DIMENSIONS
        }
        short = [name for name, wanted in amounts.items() if wanted > best[name]]
        if short:
            for name in short:
                yield _largest(site, each.group, name, dict(amounts.items())[name], best[name])
        else:  # each dimension fits somewhere, all together nowhere: the fullest host's lack
            host = min(able, key=lambda name: (_lacks(amounts, able[name].free), name))
            yield from amounts.shortfall_from(
                able[host].free, site=site, host=host, group=each.group
            )


def _lacks(amounts: Vector, free: Vector) -> int:
    return sum(
        wanted > have
        for wanted, have in zip(
            dict(amounts.items()).values(), dict(free.items()).values(), strict=True
        )
    )


def _largest(site: str, group: str, name: str, wanted: int, available: int) -> Shortfall:
    available = max(available, 0)
    unit = UNIT_OF[name]
    return Shortfall(
        site=site,
        resource=RESOURCE_OF[name],
        wanted=wanted,
        available=available,
        unit=unit,
        group=group,
        message=(
            f"{site}: {RESOURCE_OF[name]} {wanted} {unit} wanted by one workspace of {group}, "
            f"the largest free on one host is {available} {unit}"
        ),
    )


def _too_much(spec: PartSpec, rooms: Mapping[str, Room], site: str) -> Iterator[Shortfall]:
    total = Vector()
    for each in spec.workspaces:
        total = total + fixed_amounts(each)
    yield from total.shortfall_from(_sum_free(rooms), site=site)


def _does_not_pack(spec: PartSpec, rooms: Mapping[str, Room], site: str) -> Iterator[Shortfall]:
    """What the first workspace that found no host would have needed on the best one."""
    pairs = pair_mbit_s(spec)
    board = _Board(rooms, pairs)
    for workspace in _largest_first(spec.workspaces, rooms):
        fitting = [host for host in rooms if board.takes(workspace, host)]
        if fitting:
            board.put(workspace, min(fitting, key=lambda each: _fill(board, workspace, each)))
            continue
        hosts = list(_able(spec, workspace, rooms))
        found = False
        for name in DIMENSIONS:
            lefts = {host: dict(board.left[host].items())[name] for host in hosts}
            wants = {
                host: lefts[host] - dict(board.after(workspace, host).items())[name]
                for host in hosts
            }
            if all(wants[host] > lefts[host] for host in hosts):
                found = True
                best = max(hosts, key=lambda host: (lefts[host], host))
                yield _largest(site, workspace.group, name, wants[best], lefts[best])
        if not found:
            best = min(
                hosts,
                key=lambda host: (
                    sum(left < 0 for _, left in board.after(workspace, host).items()),
                    host,
                ),
            )
            wanted = board.left[best] - board.after(workspace, best)
            yield from wanted.shortfall_from(
                board.left[best], site=site, host=best, group=workspace.group
            )
        return
