"""Which workspace goes on which host.

A handful of deterministic passes, the first that fits wins: one that spreads each group over
hosts, one that fills hosts, one that balances, one that brings promised pairs together, and a
bounded search last. All see what is free over the whole window.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from intertie.broker.domain.amounts import pair_mbit_s
from intertie.broker.domain.board import Board, Room, best_fit, largest_first
from intertie.broker.domain.placed import Placed
from intertie.broker.domain.shortfalls import shortfalls, unpacked
from intertie.common.errors import NoCapacity
from intertie.common.part_spec import PartSpec, PartWorkspace
from intertie.common.values import replace

SEARCH_STEPS = 1000

Preference = Callable[[Board, PartWorkspace, Sequence[str]], str]
"""Which of the hosts that take a workspace; there are some."""


def place(
    spec: PartSpec,
    rooms: Mapping[str, Room],
    *,
    site: str,
    fixed: Mapping[str, str] | None = None,
) -> tuple[Placed, ...]:
    """A host for every workspace, or NoCapacity with what was short. `fixed` are those that have
    theirs, by label, and keep it; see `Board.fixed`."""
    fixed = fixed or {}
    looking = tuple(each for each in spec.workspaces if each.label not in fixed)
    host_of = _found(spec, looking, rooms, fixed, site) if looking else fixed
    return tuple(Placed(workspace=each.label, host=host_of[each.label]) for each in spec.workspaces)


def _found(
    spec: PartSpec,
    looking: Sequence[PartWorkspace],
    rooms: Mapping[str, Room],
    fixed: Mapping[str, str],
    site: str,
) -> Mapping[str, str]:
    passes = _passes(largest_first(looking, rooms), rooms, pair_mbit_s(spec), fixed)
    if (found := next(passes)) is not None:
        return found
    # What cannot be is not searched for; what fits at once is not asked why it might not.
    sought = replace(spec, workspaces=tuple(looking)) if fixed else spec
    if impossible := shortfalls(sought, rooms, site=site):
        raise NoCapacity(impossible)
    found = next((each for each in passes if each is not None), None)
    if found is None:
        raise NoCapacity(tuple(unpacked(sought, rooms, site=site, fixed=fixed)))
    return found


def _passes(
    order: Sequence[PartWorkspace],
    rooms: Mapping[str, Room],
    pairs: Mapping[str, Mapping[str, int]],
    fixed: Mapping[str, str],
) -> Iterator[dict[str, str] | None]:
    def board(*, lax_uplink: bool = False) -> Board:
        return Board(rooms, pairs, lax_uplink=lax_uplink, fixed=fixed)

    yield _greedy(order, board(), _spread)
    yield _greedy(order, board(), best_fit)
    yield _greedy(order, board(), _balance)
    yield _greedy(order, board(lax_uplink=True), _bring_together)
    yield _search(order, board(lax_uplink=True))


def _spread(board: Board, workspace: PartWorkspace, hosts: Sequence[str]) -> str:
    """The host with the fewest of the group, then the one that is left with least."""
    group, of_group = workspace.group, board.of_group
    fewest = min(of_group.get((group, host), 0) for host in hosts)
    with_few = [host for host in hosts if of_group.get((group, host), 0) == fewest]
    return best_fit(board, workspace, with_few)


def _balance(board: Board, workspace: PartWorkspace, hosts: Sequence[str]) -> str:
    """Worst fit."""
    return min((-share, host) for share, host in board.shares(workspace, hosts))[1]


def _bring_together(board: Board, workspace: PartWorkspace, hosts: Sequence[str]) -> str:
    """The host that most of the workspace's promised bandwidth leads to."""
    near = board.near(workspace)
    most = max(near.get(host, 0) for host in hosts)
    return best_fit(board, workspace, [host for host in hosts if near.get(host, 0) == most])


def _greedy(
    order: Sequence[PartWorkspace], board: Board, preference: Preference
) -> dict[str, str] | None:
    for workspace in order:
        fitting = board.fitting(workspace)
        if not fitting:
            return None
        one = len(fitting) == 1
        board.put(workspace, fitting[0] if one else preference(board, workspace, fitting))
    return board.host_of if board.sound() else None


def _search(order: Sequence[PartWorkspace], board: Board) -> dict[str, str] | None:
    """Depth first, at most SEARCH_STEPS steps: finds what greedy passes miss in small parts."""
    tried = [iter(sorted(board.fitting(order[0])))]
    for _ in range(SEARCH_STEPS):
        depth = len(tried) - 1
        if depth == len(order):
            if board.sound():
                return board.host_of
            tried.pop()
            board.take_back(order[depth - 1])
            continue
        host = next(tried[-1], None)
        if host is not None:
            board.put(order[depth], host)
            last = depth + 1 == len(order)
            tried.append(iter(() if last else sorted(board.fitting(order[depth + 1]))))
            continue
        tried.pop()
        if not tried:
            return None
        board.take_back(order[depth - 1])
    return None
