"""Why workspaces do not fit on the site's hosts."""

from collections.abc import Iterator, Mapping

from intertie.broker.domain.amounts import fixed_amounts, pair_mbit_s
from intertie.broker.domain.board import Board, Room, best_fit, largest_first, sum_free
from intertie.common.errors import Shortfall
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.quantities import DIMENSIONS, RESOURCE_OF, UNIT_OF, Vector


def shortfalls(spec: PartSpec, rooms: Mapping[str, Room], *, site: str) -> tuple[Shortfall, ...]:
    """What makes it impossible, however cleverly one places: the first of these that says
    anything.

    Nothing to place on; a group that no host can run, or that its bound on workspaces a host
    keeps out; one workspace that is larger than any host's room; the sum of all. Empty where
    each fits alone and the sum does too: then they may or may not pack.
    """
    for rule in (_no_rooms, _not_admitted, _too_many_a_host, _too_large_for_one, _too_much):
        found = tuple(rule(spec, rooms, site))
        if found:
            return found
    return ()


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
    board = Board(rooms, pair_mbit_s(spec))
    for each in _one_of_each_group(spec):
        if not board.able(each):
            refusals = {host: board.refused(each, host) for host in sorted(rooms)}
            said = "; ".join(f"{host}: {why}" for host, why in refusals.items())
            yield Shortfall(
                site=site,
                resource="policy",
                group=each.group,
                message=f"{site}: no host can run {each.group} ({said})",
            )


def _able(spec: PartSpec, workspace: PartWorkspace, rooms: Mapping[str, Room]) -> dict[str, Room]:
    board = Board(rooms, pair_mbit_s(spec))
    return {host: rooms[host] for host in board.able(workspace)}


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
    yield from total.shortfall_from(sum_free(rooms), site=site)


def _full(site: str, workspace: PartWorkspace) -> Shortfall:
    return Shortfall(
        site=site,
        resource="hosts",
        wanted=1,
        available=0,
        group=workspace.group,
        message=(
            f"{site}: every host that could run {workspace.label} has {workspace.max_per_host} of "
            f"{workspace.group} already, and no more may be on one"
        ),
    )


def unpacked(
    spec: PartSpec, rooms: Mapping[str, Room], *, site: str, fixed: Mapping[str, str]
) -> Iterator[Shortfall]:
    """What the first workspace that found no host would have needed on the best one."""
    board = Board(rooms, pair_mbit_s(spec), fixed=fixed)
    for workspace in largest_first(spec.workspaces, rooms):
        if fitting := board.fitting(workspace):
            board.put(workspace, best_fit(board, workspace, fitting))
            continue
        hosts = [host for host in _able(spec, workspace, rooms) if not board.full(workspace, host)]
        if not hosts:
            yield _full(site, workspace)
            return
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
